"""What `summary` says of a run, and how attempts are shown."""

import io
import json
import sys

import pytest
import rich.console

from score_jax import transcript
from score_jax.__main__ import main
from score_jax.metrics import result_of
from score_jax.options import EXAMPLES, parse
from score_jax.transcript import explain_marks, marked, print_attempts


def row(checkpoint, name, rewards, texts=("it is 9", "it is 10")):
    return {
        "checkpoint": checkpoint,
        "step": 0 if checkpoint == "base" else 4,
        "split": "test",
        "id": name,
        "prompt": f"Riddle {name}?\n",
        "gold": "10",
        "level": 1,
        "attempts": list(texts),
        "answers": [text.split()[-1] for text in texts],
        "rewards": rewards,
        "finished": [True, True],
    }


def write(workdir, *groups):
    """The files that `evaluate` leaves."""
    rows = [row for group in groups for row in group]
    (workdir / "attempts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = {group[0]["checkpoint"]: result_of(group) for group in groups}
    (workdir / "results.json").write_text(json.dumps(results))


def test_a_terminal_that_lacks_a_letter_gets_another(tmp_path, monkeypatch):
    write(tmp_path, [row("base", "a", [1.0, 1.0])])
    seen = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(seen, encoding="latin-1"))
    assert main(["compare", f"--workdir={tmp_path}"]) == 2  # no seeds there
    print("\N{GREEK CAPITAL LETTER DELTA}", flush=True)
    assert seen.getvalue() == b"?\n"


def test_three_numbers_before_and_after_and_two_transcripts(tmp_path, capsys):
    base = [row("base", name, [float(name == "a"), float(name == "a")]) for name in "abcd"]
    trained = [
        row("stage_two", name, rewards)
        for name, rewards in zip("abcd", ([1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]), strict=True)
    ]
    write(tmp_path, base, trained)
    assert main(["summary", f"--workdir={tmp_path}", "--config=configs/quickstart.py"]) == 0
    said = capsys.readouterr().out
    lines = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert "4 problems of the test split" in said
    numbers = {name: lines[name] for name in ("Acc@t1", "Acc@t2", "Δ")}
    pairs = {"Acc@t1": ("25.0", "25.0"), "Acc@t2": ("25.0", "75.0"), "Δ": ("0.0", "50.0")}
    for name, (before, after) in pairs.items():
        first, _, second = numbers[name].partition("]")
        assert f" {before} [" in first and f" {after} [" in second, numbers[name]
    corrected, left = said.split("Corrected:")[1].split("Still wrong:")
    assert "Riddle c?" in corrected and "Riddle b?" in left
    assert "Attempt 1  it is 9\n" in corrected and "Attempt 2  it is [10]\n" in corrected
    assert "[...]: words that the attempt before has not\n\nWhat to try next" in left


def test_a_run_that_corrects_nothing_shows_one_that_was_right(tmp_path, capsys):
    write(tmp_path, [row("base", "a", [1.0, 1.0])])
    assert main(["summary", f"--workdir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "Right from the start:\nRiddle a?" in said and "Corrected:" not in said and "Still" not in said


def test_the_two_differ_in_their_outcome(tmp_path, capsys):
    rewards = ([1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0])
    write(tmp_path, [row("base", name, pair) for name, pair in zip("abcd", rewards, strict=True)])
    assert main(["summary", f"--workdir={tmp_path}"]) == 0
    left, right = capsys.readouterr().out.split("Still wrong:")[1].split("Right from the start:")
    assert "Riddle b?" in left and "Riddle c?" in right and "Spoiled" not in right


def test_a_single_attempt_has_no_second_number(tmp_path, capsys):
    one = row("base", "a", [1.0], ("it is 10",)) | {"finished": [True]}
    write(tmp_path, [one])
    assert main(["summary", f"--workdir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[1] for line in said.splitlines() if line.strip().startswith("Acc@t2")] == ["–"]


def test_of_three_attempts_the_last_one_counts(tmp_path, capsys):
    three = row("best", "a", [0.0, 0.0, 1.0], ("it is 8", "it is 9", "it is 10")) | {"finished": [True] * 3}
    write(tmp_path, [row("base", "a", [1.0, 1.0])], [three])
    assert main(["summary", f"--workdir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert lines["Acc@t3"][1] == lines["Δ"][1] == "100.0" and "Acc@t2" not in lines
    assert "right at the last" in said and "The base was evaluated in another way" in said


@pytest.mark.parametrize("change", [{"temperature": 0.7}, {"split": "validation"}])
def test_a_base_that_was_evaluated_in_another_way_is_not_set_beside(change, tmp_path, capsys):
    base, best = (row(name, "a", [0.0, 1.0]) | {"finished": [True] * 2} for name in ("base", "best"))
    for before, beside in ((base, True), (base | change, False)):
        (tmp_path / "results.json").unlink(missing_ok=True)
        write(tmp_path, [before], [best])
        assert main(["summary", f"--workdir={tmp_path}"]) == 0
        said = capsys.readouterr().out
        assert ("The base was evaluated in another way" in said) is not beside
    write(tmp_path, [base, base | {"id": "b"}], [best])  # on more problems
    assert main(["summary", f"--workdir={tmp_path}"]) == 0
    assert "The base was evaluated in another way" in capsys.readouterr().out


def test_nothing_evaluated_ends_in_one_line(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "stage": "stage_one"}\n')
    assert main(["summary", f"--workdir={tmp_path}"]) == 2
    assert "nothing was evaluated there yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "text", "shown"),
    [
        ("it is $9$, too small.", "it is $10$, too small.", "it is [$10$,] too small."),
        ("same", "same", "same"),
        ("", "all new", "[all new]"),
        ("one two", "two", "two"),
        ("markup", "[red]markup[/red]", "[[red]markup[/red]]"),
    ],
)
def test_the_words_that_are_new_are_marked(before, text, shown):
    assert marked(before, text).plain == shown


def test_attempts_are_shown_as_they_are(capsys):
    print_attempts(["a [b]c[/b]", "a [b]c[/b] d", "d"])
    assert capsys.readouterr().out == "Attempt 1  a [b]c[/b]\nAttempt 2  a [b]c[/b][ d]\nAttempt 3  d\n"


def test_where_styles_show_there_are_no_brackets(monkeypatch):
    screen = rich.console.Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    monkeypatch.setattr(transcript, "console", screen)
    print_attempts(["it is 9", "it is 10"])
    explain_marks()
    said = screen.file.getvalue()
    assert "\x1b[1;7m10\x1b[0m" in said and "[10]" not in said and "[...]" not in said


def test_the_home_is_found_where_the_shell_leaves_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    fields = ["--config.base_dir=~/b", "--config.x=a~/b", "--config.y=~b"]
    args, rest = parse(["train", "--config=c.py", "--workdir=~/runs/a", *fields])
    assert args.workdir == "/home/me/runs/a"
    assert rest == ["--config.base_dir=/home/me/b", "--config.x=a~/b", "--config.y=~b"]
    assert parse(["dataset", "--workdir=gs://b/~/c", "--output", "~/d"])[0].output == "/home/me/d"


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_every_command_has_help_with_examples(command, capsys):
    with pytest.raises(SystemExit) as ended:
        parse([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    examples = [line for line in said.split("examples:")[1].splitlines() if "python -m score_jax" in line]
    assert examples and all(f"score_jax {command}" in line for line in examples)


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_the_options_of_the_examples_exist(command):
    lines = EXAMPLES[command].replace("\\\n", " ").strip().splitlines()
    for line in (line for line in lines if not line.strip().startswith("#")):
        words = line.split("#")[0].split("<")[0].split("python -m score_jax ")[1].split("'")[0].split()
        args, rest = parse([word for word in words if word != "..."])
        assert args.command == command
        assert all(option.startswith("--config.") for option in rest), rest
