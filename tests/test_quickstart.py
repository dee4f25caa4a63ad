"""The shipped configs, shrunk: the commands run end to end, resume exactly, and refuse what cannot work."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import tiny
from etils import epath
from small_runs import options
from test_supply_chain import secrets_in

from score_jax import rollout, solve
from score_jax.__main__ import main
from score_jax.base import load_base
from score_jax.checkpoint import Checkpoints
from score_jax.config import load_config
from score_jax.datasets.number_riddles import NumberRiddles
from score_jax.evaluate import load_policy
from score_jax.learner import Optimizer
from score_jax.records import Draft
from score_jax.task import load_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


SECRETS = {
    "SECRET_TOKEN": "c4n4ry-70k3n",
    "HF_TOKEN": "hf_" + "c4n4ry" * 6,
    "AWS_SECRET_ACCESS_KEY": "c4n4ry/aws+key",
    "GOOGLE_APPLICATION_CREDENTIALS": "/home/c4n4ry/key.json",
}


@pytest.fixture(scope="module")
def run(folder):
    """A finished run, made with secrets in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            workdir = finished(folder)
    assert f"Base model: {folder / 'base'} holds none yet; one is pre-trained there" in said.getvalue()
    assert "Report:" in said.getvalue()
    (folder / "said.txt").write_text(said.getvalue())
    return workdir


def finished(folder):
    workdir = folder / "run"
    for command in ("train", "evaluate"):
        assert main([command, f"--workdir={workdir}", *options(folder)]) == 0
    assert main(["report", f"--workdir={workdir}"]) == 0
    return workdir


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def state_at(workdir, folder, step):
    """Parameters and the optimiser's moments."""
    args = options(folder)
    config = load_config(args[0].removeprefix("--config="), args[1:])
    like = Optimizer(**config.optimizer.to_dict()).init(params_at(workdir, folder, 0))
    with Checkpoints(epath.Path(workdir) / "checkpoints") as checkpoints:
        return checkpoints.restore(step, like)


def params_at(workdir, folder, step, **changes):
    args = options(folder, **changes)
    config = load_config(args[0].removeprefix("--config="), args[1:])
    actor, base = load_base(config, epath.Path(workdir), load_task(config.task, config.data_dir))
    with Checkpoints(epath.Path(workdir) / "checkpoints") as checkpoints:
        return jax.tree.map(np.asarray, load_policy(config, checkpoints, step, actor, base))


def test_a_run_leaves_what_the_readme_promises(run):
    metrics = rows_of(run / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    assert [row["stage"] for row in metrics] == ["stage_one"] * 2 + ["stage_two"] * 2
    assert all(row["sampler_gap"] < 1e-4 for row in metrics)
    for name in ("kl", "entropy", "length", "unfinished", "unparsed"):  # what alarms are raised by
        assert all(row.keys() >= {f"{name}_t1", f"{name}_t2", "changed", "skipped"} for row in metrics), name
    results = json.loads((run / "results.json").read_text())
    assert list(results) == ["base", "stage_one", "stage_two"]
    for result in results.values():
        assert result["n"] == 20
        assert np.isclose(result["delta"], result["i_to_c"] - result["c_to_i"])
    attempts = rows_of(run / "attempts.jsonl")
    assert len(attempts) == 60
    assert {len(row["attempts"]) for row in attempts} == {2}
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert list((run / "tensorboard").iterdir())


def test_the_same_command_again_changes_nothing(run, folder):
    before = params_at(run, folder, 4)
    metrics = (run / "metrics.jsonl").read_text()
    assert main(["train", f"--workdir={run}", *options(folder)]) == 0
    assert (run / "metrics.jsonl").read_text() == metrics
    jax.tree.map(np.testing.assert_array_equal, before, params_at(run, folder, 4))


@pytest.fixture(scope="module")
def straight(run, folder):
    """A run that keeps each of its four steps; stage two begins after the second."""
    assert main(["train", f"--workdir={folder / 'straight'}", *options(folder, checkpoint_every=1)]) == 0
    return folder / "straight"


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_resumed_equals_straight_bit_for_bit(keep, straight, folder, tmp_path):
    resumed = tmp_path / "resumed"
    shutil.copytree(straight, resumed)
    for step in range(keep + 1, 5):
        epath.Path(resumed / "checkpoints" / str(step)).rmtree()
    assert main(["train", f"--workdir={resumed}", *options(folder, checkpoint_every=1)]) == 0
    for step in range(1, 5):
        states = [jax.tree.leaves(state_at(workdir, folder, step)) for workdir in (straight, resumed)]
        for one, other in zip(*states, strict=True):
            np.testing.assert_array_equal(one, other)
    timeless = lambda path: [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(path)]
    assert timeless(straight / "metrics.jsonl") == timeless(resumed / "metrics.jsonl")


def test_nothing_of_the_environment_is_in_what_a_run_writes(run, folder):
    """Nor anything else that looks like a credential."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".jsonl", ".json", ".html", ".txt"} <= kinds and any("tfevents" in path.name for path in files)
    for path in files:
        content = path.read_bytes()
        assert b"c4n4ry" not in content and "c4n4ry" not in path.name, path
        assert secrets_in(content) == [], path


def test_the_base_is_reused_and_says_so(run, folder, capsys):
    assert main(["evaluate", f"--workdir={run}", "--checkpoint=base", *options(folder)]) == 0
    assert "reused" in capsys.readouterr().out


def test_solve_shows_both_attempts(run, capsys):
    problem = "I think of a number, multiply it by $7$ and add $3$. I get $94$. What is my number?"
    assert main(["solve", f"--workdir={run}", problem]) == 0
    said = capsys.readouterr().out
    assert "Attempt 1" in said and "Attempt 2" in said


def test_solve_shows_each_problem_of_a_file_and_says_what_is_unknown(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("I get $94$.\n\n數 is 7\n"))
    assert main(["solve", f"--workdir={run}"]) == 0
    said = capsys.readouterr().out
    first, second = said.split("\n\n數 is 7\n")
    assert first.startswith("[...]: words that the attempt before has not\n\nI get $94$.\nAttempt 1  ")
    assert second.startswith("WARNING: 1 of ") and "unknown to the tokenizer" in second
    assert "unknown" not in first


def test_solve_refuses_an_empty_problem(tmp_path, capsys):
    assert main(["solve", f"--workdir={tmp_path}", " "]) == 2
    assert "the problem is empty; give its text" in capsys.readouterr().err


def test_ctrl_c_ends_the_questions(monkeypatch):
    def interrupted(question):
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(solve.console, "input", interrupted)
    assert list(solve.asked()) == []


@pytest.mark.parametrize("name", ["multi_turn", "single_turn"])
def test_the_baselines_run(name, folder, tmp_path):
    args = options(folder, f"configs/quickstart_{name}.py")
    for command in ("train", "evaluate"):
        assert main([command, f"--workdir={tmp_path}", *args]) == 0
    assert list(json.loads((tmp_path / "results.json").read_text())) == ["base", name]


def test_a_work_directory_of_another_config_is_refused(run, folder, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["train", f"--workdir={run}", *options(folder, seed=1)]) == 2
    assert "seed is 0 there and 1 here" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_base_of_other_settings_is_refused(folder, run, tmp_path, capsys):
    assert main(["train", f"--workdir={tmp_path}", *options(folder, pretrain__batch=16)]) == 2
    assert "made with other settings (pretrain)" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["params", "tokenizer.model"])
def test_a_damaged_base_is_refused(part, folder, run, tmp_path, capsys):
    shutil.copytree(folder / "base", tmp_path / "base")
    path = tmp_path / "base" / part
    if path.is_dir():
        path = max((each for each in path.rglob("*") if each.is_file()), key=lambda each: each.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    args = options(folder, base_dir=tmp_path / "base")
    assert main(["train", f"--workdir={tmp_path / 'run'}", *args]) == 2
    assert "the base model is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "solve"])
def test_a_base_that_was_removed_is_not_made_anew(command, run, folder, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    config = json.loads((workdir / "config.json").read_text()) | {"base_dir": str(tmp_path / "gone")}
    (workdir / "config.json").write_text(json.dumps(config))  # which `solve` goes by
    args = ["problem"] if command == "solve" else options(folder, base_dir=tmp_path / "gone")
    assert main([command, f"--workdir={workdir}", *args]) == 2
    assert "holds no base model; put it back there" in capsys.readouterr().err
    assert not (tmp_path / "gone").exists()


def test_a_base_of_other_demonstrations_is_refused(folder, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(NumberRiddles, "copy_rate", 0.1)
    assert main(["train", f"--workdir={tmp_path}", *options(folder)]) == 2
    assert "made with other settings (demonstrations)" in capsys.readouterr().err


def test_a_torn_last_line_does_not_stop_a_resumed_run(folder, run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    epath.Path(workdir / "checkpoints" / "4").rmtree()
    assert main(["train", f"--workdir={workdir}", *options(folder)]) == 0
    assert [row["step"] for row in rows_of(workdir / "metrics.jsonl")] == [1, 2, 3, 4]


def test_solve_takes_one_checkpoint(run, capsys):
    assert main(["solve", f"--workdir={run}", "--checkpoint=stages", "problem"]) == 2
    assert "name one of base, latest, best or a step" in capsys.readouterr().err


def test_another_task_can_be_evaluated(run, folder, tmp_path):
    """tests/tiny.py has the same riddles in another order."""
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    args = options(folder, evaluate__task="tiny:Riddles")
    assert main(["evaluate", f"--workdir={workdir}", "--checkpoint=base", *args]) == 0
    ids = [row["id"] for row in rows_of(workdir / "attempts.jsonl") if row["checkpoint"] == "base"]
    assert ids == [problem.id for problem in tiny.Riddles().problems("test")[:20]]
    assert ids != [row["id"] for row in rows_of(run / "attempts.jsonl") if row["checkpoint"] == "base"]


def test_a_stopped_evaluation_goes_on_where_it_was(run, folder, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for name in ("attempts.jsonl", "results.json"):
        (copy / name).unlink()
    roll_out, calls = rollout.roll_out, []

    def stopped(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:  # of six batches: two of each checkpoint
            raise OSError("stopped")
        return roll_out(*args, **kwargs)

    monkeypatch.setattr(rollout, "roll_out", stopped)
    args = ["evaluate", f"--workdir={copy}", *options(folder)]
    assert main(args) == 2
    assert not (copy / "attempts.jsonl").exists()
    with (copy / "drafts" / "stage_one.jsonl").open("a") as file:
        file.write('{"checkpoint": "stage_o')  # torn by the stop
    assert main(args) == 0
    assert len(calls) == 4 + 1 + 2  # the base is complete, though its second batch was not full
    for name in ("attempts.jsonl", "results.json"):
        assert (copy / name).read_text() == (run / name).read_text()
    assert not list((copy / "drafts").iterdir())


def test_checkpoints_stand_in_the_order_of_training(run, folder, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    for checkpoint in ("best", "2"):
        args = [f"--checkpoint={checkpoint}", *options(folder)]
        assert main(["evaluate", f"--workdir={workdir}", *args]) == 0
    names = ["base", "step_2", "stage_one", "best", "stage_two"]
    assert list(json.loads((workdir / "results.json").read_text())) == names
    assert list(dict.fromkeys(row["checkpoint"] for row in rows_of(workdir / "attempts.jsonl"))) == names


def test_a_draft_of_other_work_is_dropped(tmp_path):
    path = tmp_path / "drafts" / "x.jsonl"
    draft = Draft(path, {"seed": 1}, total=4, multiple=2)
    draft.extend([{"n": 1}, {"n": 2}])
    draft.extend([{"n": 3}])
    assert Draft(path, {"seed": 1}, total=4, multiple=2).rows == [{"n": 1}, {"n": 2}]
    assert Draft(path, {"seed": 1}, total=4).rows == [{"n": 1}, {"n": 2}]
    assert Draft(path, {"seed": 2}, total=4).rows == []
    assert Draft(path, {"seed": 1}, total=4).rows == []


def test_a_draft_with_all_rows_is_complete_whatever_its_last_batch_was(tmp_path):
    path = tmp_path / "x.jsonl"
    draft = Draft(path, {}, total=3, multiple=2)
    draft.extend([{"n": 1}, {"n": 2}])
    assert not draft.complete
    draft.extend([{"n": 3}])
    again = Draft(path, {}, total=3, multiple=2)
    assert draft.complete and again.complete and again.rows == draft.rows


@pytest.mark.parametrize("command", ["evaluate", "solve"])
def test_a_missing_checkpoint_names_those_there_are(command, run, folder, capsys):
    args = ["problem"] if command == "solve" else options(folder)
    assert main([command, f"--workdir={run}", "--checkpoint=77", *args]) == 2
    assert "latest, best and the steps [2, 4]" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "solve", "report"])
def test_an_empty_work_directory_names_the_command_to_run(command, folder, tmp_path, capsys):
    args = {"solve": ["problem"], "evaluate": options(folder), "report": []}[command]
    assert main([command, f"--workdir={tmp_path}", *args]) == 2
    assert "python -m score_jax" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "solve"])
def test_a_run_whose_base_is_not_done_says_so(command, folder, tmp_path, capsys):
    (tmp_path / "train.lock").write_text("")
    args = ["problem"] if command == "solve" else options(folder)
    assert main([command, f"--workdir={tmp_path}", *args]) == 2
    assert "holds no run yet: a training was begun there, and its base model" in capsys.readouterr().err


def test_help_is_quick_and_complete():
    for command in ("", "train", "evaluate", "solve", "report", "compare"):
        words = [word for word in (command, "--help") if word]
        shown = subprocess.run([sys.executable, "-m", "score_jax", *words], capture_output=True, text=True)
        assert shown.returncode == 0
        assert "workdir" in shown.stdout
        assert not shown.stderr
