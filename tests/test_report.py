"""The page, from synthetic files: what it says and survives, and that no text acts in it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from colours import contrast, schemes_of

from score_jax import charts, metrics, report
from score_jax.__main__ import main
from score_jax.exit_codes import STOPPED
from score_jax.percent import DASH, percent
from score_jax.run import OUTCOMES, NothingYet, of_outcome, read_run

HOSTILE = "</script></script ><!--<script><img src=x onerror=alert(1)> {{ 7 * 7 }} \u2028 \ud800 数"


def attempt_rows(checkpoint="base", attempts=2, n=12, **changes):
    rng = np.random.default_rng(n)
    return [
        {
            "checkpoint": checkpoint,
            "step": 5,
            "split": "test",
            "id": f"p{i}",
            "prompt": f"What is {i} + 1?",
            "gold": str(i + 1),
            "level": 1 + i % 3,
            "attempts": [f"It is {i + t} I hope." for t in range(attempts)],
            "answers": [str(i + t) for t in range(attempts)],
            "rewards": [float(rng.integers(2)) for _ in range(attempts)],
            "finished": [True] * attempts,
        }
        | changes
        for i in range(n)
    ]


def step_rows(attempts=2, n=90):
    for step in range(1, n + 1):
        row = {"step": step, "stage": "stage_one" if step < 40 else "stage_two", "seconds": 60.0}
        row |= {"delta": 0.01 * step, "changed": 0.5, "i_to_c": 0.1, "grad_norm": float("nan")}
        for t in range(1, attempts + 1):
            row |= {f"reward_t{t}": 0.1 * t, f"kl_t{t}": 0.02 * t, f"entropy_t{t}": 1.0}
        yield row


def write(workdir: Path, *, attempts=(), steps=(), pretraining=(), config=None, results=None):
    (workdir / "base").mkdir(parents=True, exist_ok=True)
    for name, rows in (
        ("attempts.jsonl", attempts),
        ("metrics.jsonl", steps),
        ("base/metrics.jsonl", pretraining),
    ):
        if rows:
            (workdir / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, value in (("config.json", config), ("results.json", results)):
        if value is not None:
            (workdir / name).write_text(json.dumps(value))
    return workdir


def full_run(workdir: Path, attempts: int = 2) -> Path:
    rows = {name: attempt_rows(name, attempts) for name in ("base", "stage_one", "stage_two")}
    return write(
        workdir,
        attempts=[row for group in rows.values() for row in group],
        steps=list(step_rows(attempts)),
        pretraining=[{"step": k, "loss": 1 / k} for k in range(1, 9)],
        config={
            "task": "sums:Sums",
            "stage2": {"name": "stage_two", "objective": "stage_two", "learning_rate": 5e-6},
            "stages": ["stage1", "stage2"],
        },
        results={name: metrics.result_of(group) for name, group in rows.items()},
    )


class Page(HTMLParser):
    """The tags, attributes, texts and script bodies of a page, as a browser would split them."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.texts, self.inside = [], [], [], [], ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.texts.append(data)

    @property
    def transcripts(self):
        return json.loads(self.scripts[0])


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_a_whole_run(tmp_path, attempts):
    path = report.write_report(full_run(tmp_path / "my_run", attempts))
    assert path == tmp_path / "my_run" / "report.html"
    page = Page(path)
    assert page.source.startswith("<!doctype html>")
    headings = ("Result", "Training", "By level of difficulty", "Pre-training", "Transcripts")
    assert all(heading in page.text for heading in headings)
    assert ("How much an attempt rewrites" in page.text) == (attempts > 1)
    assert ("spoiled, c→i" in page.text) == (attempts > 1)
    assert ("Δ (t2, t3)" in page.text) == (attempts == 3)
    assert "36 of 36 transcripts" in page.text
    assert "90 updates · 1 h 30 min" in page.text
    assert "stage two learning rate 5e-06" in page.text and "sums: Sums" in page.text
    assert "stage2.learning_rate" in page.text and "stage1, stage2" in page.text
    assert page.transcripts["checkpoints"] == ["base", "stage_one", "stage_two"]
    assert [len(p["runs"]) for p in page.transcripts["problems"]] == [3] * 12
    assert not list(path.parent.glob("*.part"))


def test_the_page_needs_nothing_but_itself(tmp_path):
    page = Page(report.write_report(full_run(tmp_path)))
    assert not {"link", "img", "iframe", "object", "embed"} & set(page.tags)
    reaching = [(k, v) for k, v in page.attributes if k in ("src", "href", "action", "srcset")]
    assert all(value.startswith("#") for _, value in reaching)
    assert not re.search(r"@import|url\((?!#)", page.source)
    ids = [value for key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids)), "every id once: the drawings must not clash"
    assert "#0101" not in page.source, "a stand-in colour was left in a drawing"


def test_hostile_text_stays_text(tmp_path):
    row = attempt_rows(n=1)[0] | dict.fromkeys(("checkpoint", "id", "prompt", "gold"), HOSTILE)
    row |= {"attempts": [HOSTILE, HOSTILE + "2"], "answers": [HOSTILE, None]}
    rows = [row | {"rewards": [0.0, 1.0], "finished": [True, False]}]
    steps = [row | {"stage": HOSTILE.replace("\ud800", "")} for row in step_rows()]
    workdir = write(tmp_path, attempts=rows, steps=steps, config={"task": HOSTILE, HOSTILE: 1})
    page = Page(report.write_report(workdir))
    plain = Page(report.write_report(full_run(tmp_path / "plain")))
    assert "img" not in page.tags
    assert "<" not in page.scripts[0]
    assert page.tags.count("script") == plain.tags.count("script") == 3
    assert not [key for key, _ in page.attributes if key.startswith("on")]
    assert "{{ 7 * 7 }}" in page.text
    problem = page.transcripts["problems"][0]
    assert problem["prompt"] == problem["id"] == HOSTILE
    assert problem["runs"][0][1:] == [
        [HOSTILE, HOSTILE + "2"], [HOSTILE, None], [False, True], [True, False]
    ]  # fmt: skip
    assert "innerHTML" not in page.source


def test_critiques_and_a_given_first_attempt_are_shown(tmp_path):
    one, two, three = attempt_rows(n=3)
    rows = [
        one,
        two | {"critiques": [HOSTILE]},  # before the second attempt
        three | {"critiques": ["Wrong.", "Again wrong."], "first": HOSTILE},  # before both
    ]
    page = Page(report.write_report(write(tmp_path, attempts=rows)))
    shown = page.transcripts["problems"]
    assert [problem["first"] for problem in shown] == ["", "", HOSTILE]
    assert [run[5:] for problem in shown for run in problem["runs"]] == [
        [], [["", HOSTILE]], [["Wrong.", "Again wrong."]]
    ]  # fmt: skip
    assert "img" not in page.tags and "<" not in page.scripts[0]


def test_names_are_not_read_as_formulas_in_charts(tmp_path):
    steps = [row | {"stage": r"$\frac$ & <b>"} for row in step_rows()]
    page = Page(report.write_report(write(tmp_path, steps=steps)))
    assert r"$\frac$ & <b>" in page.text


def test_training_curves_alone(tmp_path):
    page = Page(report.write_report(write(tmp_path, steps=list(step_rows()))))
    assert "Reward of each attempt" in page.text
    assert "Result" not in page.text and "Transcripts" not in page.text
    assert "script" not in page.tags


def test_alarms_and_skipped_updates_are_told(tmp_path):
    steps = [row | {"alarms": [], "skipped": 0} for row in step_rows()]
    for row in steps[9:20]:
        row["alarms"] = ["kl_high_t1"]
    steps[11] |= {"alarms": ["kl_high_t1", "skipped"], "skipped": 1, "loss": None, "kl_t1": None}
    steps[-1]["alarms"] = ["unchanged"]
    page = Page(report.write_report(write(tmp_path, steps=steps)))
    assert "90 updates · 1 skipped, their loss or gradient not finite" in page.text
    assert "3 alarms were raised in training." in page.text
    for line in (
        "unchanged, stage two: update 90, not over kl_high_t1",
        "kl_high_t1, stage one: updates 10 to 20 ",
        "skipped, stage one: update 12 ",
    ):
        assert line in page.text
    quiet = Page(report.write_report(write(tmp_path / "quiet", steps=list(step_rows()))))
    assert "alarm" not in quiet.text and "skipped" not in quiet.text


def test_results_alone(tmp_path):
    results = {"base": metrics.result_of(attempt_rows())}
    page = Page(report.write_report(write(tmp_path, results=results)))
    assert "Accuracy@t1" in page.text and "Training" not in page.text.replace("Training Lang", "")


def test_attempts_alone_are_enough_for_results(tmp_path):
    rows = [*attempt_rows("base"), *attempt_rows("stage_one", n=9)]
    page = Page(report.write_report(write(tmp_path, attempts=rows)))
    assert "stage_one: not in results.json, worked out from attempts.jsonl." in page.text
    run = read_run(tmp_path)
    assert run.results["stage_one"] == metrics.result_of(rows[12:])


def test_nothing_at_all_names_the_command(tmp_path):
    with pytest.raises(NothingYet) as caught:
        report.write_report(tmp_path)
    assert f"python -m score_jax evaluate --config=... --workdir={tmp_path}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "run: there is no such folder; name a run's, as it is spelled"),
        (["train.lock"], "run: no results here yet: a training was begun, and has no row of metrics"),
        (["config.json", "train.lock"], "run: no results here yet: a training was begun"),
        (
            ["sweep.json", "alpha=5/config.json"],
            "run holds a sweep; `report` shows it, or name a run's folder",
        ),
        (
            ["score/0/config.json"],
            "run is no run; `compare` shows those .* METHOD/SEED, or name one: --workdir=.*/run/score/0$",
        ),
        (["alpha=5/config.json"], "run is no run, but holds some; name one: --workdir=.*/run/alpha=5$"),
    ],
)
def test_why_there_is_nothing(files, said, tmp_path):
    for name in files:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("{}")
    with pytest.raises(FileNotFoundError, match=said):
        read_run(tmp_path / "run")


def test_a_torn_last_line_is_left_out_and_said(tmp_path):
    workdir = full_run(tmp_path)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 91, "sta')
    run = read_run(workdir)
    assert len(run.steps) == 90
    assert "metrics.jsonl: its last line is unfinished" in Page(report.write_report(workdir)).text


def test_a_torn_line_before_the_last_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl:2: not a row"):
        report.write_report(tmp_path)


def test_rows_written_twice_count_once_and_are_said(tmp_path):
    rows = attempt_rows(n=4)
    again = rows[1] | {"rewards": [1.0, 1.0]}
    run = read_run(write(tmp_path, attempts=[*rows, again]))
    assert run.results["base"]["n"] == 4
    assert run.attempts["base"][1]["rewards"] == [1.0, 1.0]
    assert any("1 rows were written again" in note for note in run.notes)


def test_one_name_evaluated_at_two_steps_is_two_evaluations(tmp_path):
    rows = [*attempt_rows(n=3), *attempt_rows(n=3, step=9)]
    run = read_run(write(tmp_path, attempts=rows))
    assert list(run.attempts) == ["base (step 5, test)", "base (step 9, test)"]


def test_transcripts_beyond_the_limit_are_counted(tmp_path):
    workdir = full_run(tmp_path)
    page = Page(report.write_report(workdir, transcript_bytes=1000))
    shown = sum(len(problem["runs"]) for problem in page.transcripts["problems"])
    assert 0 < shown < 36
    assert f"{shown} of 36 transcripts: those of the first problems" in page.text


def test_delta_is_coloured_where_its_interval_leaves_out_zero():
    def sign(delta, interval):
        result = {"n": 9, "acc_t1": 0.5, "acc_t2": 0.5 + delta, "delta": delta}
        rows = report.result_table({"base": result | {"ci95": {"delta": interval}}})
        return next(row for row in rows if row["kind"] == "delta")["cells"][0]["sign"]

    assert [sign(0.1, [0.02, 0.2]), sign(0.1, [-0.02, 0.2]), sign(-0.1, [-0.2, -0.01])] == [
        "up",
        "",
        "down",
    ]


def test_table_of_checkpoints_with_different_numbers_of_attempts():
    results = {f"n{k}": metrics.result_of(attempt_rows(attempts=k)) for k in (1, 3)}
    table = {row["label"]: row["cells"] for row in report.result_table(results)}
    assert table["Accuracy@t3"][0]["text"] == DASH
    assert table["Accuracy@t3"][1]["text"] == percent(results["n3"]["acc_t3"])
    low, high = results["n3"]["ci95"]["acc_t3"]
    assert table["Accuracy@t3"][1]["interval"] == f"{percent(low)}{DASH}{percent(high)}"


def test_a_pair_of_attempts_has_only_the_numbers_of_that_pair():
    results = {f"n{k}": metrics.result_of(attempt_rows(attempts=k)) for k in (2, 3)}
    two, three = results.values()
    table = {
        row["label"].replace("\N{NO-BREAK SPACE}", " "): row["cells"] for row in report.result_table(results)
    }
    for name, key in (("Δ", "delta"), ("corrected, i→c", "i_to_c"), ("spoiled, c→i", "c_to_i")):
        shown = {
            pair: [cell["text"] for cell in table[f"{name} {pair}"]] for pair in ("(t1, t2)", "(t1, t3)")
        }
        signed = key == "delta"
        assert shown["(t1, t3)"] == [DASH, percent(three[key], signed)]
        assert shown["(t1, t2)"] == [percent(r, signed) for r in (two[key], three[f"{key}_t1_t2"])]
        assert table[f"{name} (t1, t2)"][0]["interval"]
    assert table["answer changed (t1, t3)"][0]["text"] == DASH
    assert not report._tiles(results)[0]["before"], "the first has another number of attempts"


def test_columns_of_different_splits_say_so(tmp_path):
    rows = [*attempt_rows("base"), *attempt_rows("best", split="validation")]
    workdir = write(tmp_path / "score" / "0", attempts=rows)
    results = read_run(workdir).results
    assert report.as_markdown(results).startswith("|  | base, test split | best, validation split |")
    page = Page(report.write_report(workdir))
    assert "base, test split best, validation split" in page.text
    assert not report._tiles(results)[0]["before"], "the first is of another split"
    assert "<h1>score/0</h1>" in page.source


def test_running_mean_equals_a_loop():
    values = np.array([1.0, np.nan, 3.0, 5.0, np.nan, np.nan, np.nan, 2.0])
    found = charts.running_mean(values, 3)
    for i in range(len(values)):
        known = [v for v in values[max(0, i - 2) : i + 1] if not np.isnan(v)]
        expected = sum(known) / len(known) if known else np.nan
        np.testing.assert_allclose(found[i], expected)


def test_drawings_are_the_same_each_time_and_speak(tmp_path):
    rows = list(step_rows())
    drawn = [charts.curve("c", "Reward", rows, charts.attempt_lines(rows, "reward")) for _ in "ab"]
    assert drawn[0].svg == drawn[1].svg
    assert "Reward, steps 1 to 90: attempt 1 ends at 0.1; attempt 2 ends at 0.2" in drawn[0].svg
    assert 'role="img"' in drawn[0].svg


def test_a_curve_flat_but_for_rounding_is_drawn_flat():
    rows = [{"step": k, "seconds": 3.1 + 1e-13 * (k % 2)} for k in range(200)]
    svg = charts.curve("c", "Seconds", rows, [charts.Line("seconds", "", charts.INK)]).svg
    assert max(len(text) for text in re.findall(r">([^<>\s]+)</text>", svg)) <= 6


def test_a_watched_page_follows_and_at_last_stays(tmp_path, monkeypatch, capsys):
    workdir = full_run(tmp_path / "run", 2)
    path, seen = workdir / "report.html", []

    def sleep(seconds):
        seen.append((seconds, path.read_text(encoding="utf-8")))
        if len(seen) == 2:
            raise KeyboardInterrupt
        (workdir / "attempts.jsonl").unlink()

    monkeypatch.setattr("score_jax.__main__.time.sleep", sleep)
    assert main(["report", f"--workdir={workdir}", "--watch=7"]) == 0
    assert [seconds for seconds, _ in seen] == [7, 7]
    refresh = '<meta http-equiv="refresh" content="7">'
    assert all(refresh in source for _, source in seen)
    assert ["Transcripts</h2>" in source for _, source in seen] == [True, False]
    assert refresh not in path.read_text(encoding="utf-8")
    assert capsys.readouterr().out.count("Report:") == 1


def test_watched_before_the_first_results_it_waits(tmp_path, monkeypatch, capsys):
    seconds = []

    def sleep(wait):
        seconds.append(wait)
        if len(seconds) == 3:
            raise KeyboardInterrupt
        if len(seconds) == 2:
            full_run(tmp_path / "run", 2)

    monkeypatch.setattr("score_jax.__main__.time.sleep", sleep)
    assert main(["report", f"--workdir={tmp_path / 'run'}", "--watch=7"]) == 0
    told, written = capsys.readouterr().out.splitlines()
    assert "there is no such folder" in told and "waits" in told and written.startswith("Report:")


def test_stopped_while_it_waits_it_ends_with_130(tmp_path, monkeypatch, capsys):
    def sleep(wait):
        raise KeyboardInterrupt

    monkeypatch.setattr("score_jax.__main__.time.sleep", sleep)
    assert main(["report", f"--workdir={tmp_path}", "--watch"]) == STOPPED
    assert capsys.readouterr().err == "\n"


def test_a_negative_watch_is_refused(tmp_path, capsys):
    assert main(["report", f"--workdir={full_run(tmp_path / 'run', 2)}", "--watch=-1"]) == 2
    assert "--watch=-1: seconds are not negative" in capsys.readouterr().err


def test_the_table_in_markdown_has_the_numbers_of_the_page(tmp_path):
    write(tmp_path, attempts=[*attempt_rows("base"), *attempt_rows("a|b", n=12, step=9)])
    results = read_run(tmp_path).results
    lines = report.as_markdown(results).splitlines()
    assert lines[0] == r"|  | base | a\|b |" and lines[1] == "|---|---|---|"
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        f"| {row['label']}" for row in report.result_table(results)
    ]
    low, high = results["base"]["ci95"]["acc_t1"]
    (shown,) = [line for line in lines if line.startswith("| Accuracy@t1")]
    assert f" {100 * results['base']['acc_t1']:.1f} [{100 * low:.1f}{DASH}{100 * high:.1f}] " in shown
    assert report.as_markdown({}) == ""


def test_rows_by_what_the_last_attempt_did():
    rewards = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.5, 1.0]]
    answers = ["12", "12", "33", "12", "12"]
    rows = [{"rewards": r, "answers": [*a]} for r, a in zip(rewards, answers, strict=True)]
    found = {outcome: [rows.index(row) for row in of_outcome(rows, outcome)] for outcome in OUTCOMES}
    assert found == {"corrected": [0, 4], "spoiled": [1], "unchanged": [2]}
    with pytest.raises(ValueError, match="outcome = 'better': choose one of corrected, spoiled, unchanged"):
        of_outcome(rows, "better")


TEXT = ("--ink", "--muted", "--up", "--down", "--t1", "--t2", "--t3", "--t4")


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_colour_can_be_read_on_what_it_stands_on(scheme):
    """WCAG 2.1 AA: 4.5 for text, as each colour is somewhere, 3 for what shows where the keyboard is."""
    page = Path(report.__file__).with_name("page.html.j2")
    colour = schemes_of(page.read_text())[scheme]
    for ground in ("--paper", "--panel"):
        for name in TEXT:
            assert contrast(colour[name], colour[ground]) >= 4.5, (name, ground)
        assert contrast(colour["--focus"], colour[ground]) >= 3, ground
    for wash in ("--up-wash", "--down-wash"):  # changed words
        assert contrast(colour["--ink"], colour[wash]) >= 4.5, wash
