"""The writer for Weights & Biases, against a stand-in for its package."""

import sys
import types

import ml_collections
import pytest
from etils import epath
from test_alarms import CONFIG, rows
from test_quickstart import options

from score_jax.__main__ import main
from score_jax.log import Metrics
from score_jax.tracker import Tracker


class Run:
    def __init__(self, **given):
        self.given, self.logged, self.finished = given, [], False

    def log(self, numbers, step):
        self.logged.append((step, numbers))

    def finish(self):
        self.finished = True


@pytest.fixture
def runs(monkeypatch):
    """The runs that were opened, by a package `wandb` that stands in for the real one."""
    found = []

    def init(**given):
        found.append(Run(**given))
        return found[-1]

    package = types.ModuleType("wandb")
    package.init = init
    package.__spec__ = types.SimpleNamespace(name="wandb")
    monkeypatch.setitem(sys.modules, "wandb", package)
    return found


def test_every_row_is_logged_once_and_the_run_is_the_work_directorys(runs, tmp_path):
    config = ml_collections.ConfigDict(CONFIG.to_dict() | {"log": {"wandb": "mine"}})
    for folder, done, count in (("a", 0, 3), ("a", 3, 1), ("b", 0, 1)):
        (tmp_path / folder).mkdir(exist_ok=True)
        with Metrics(epath.Path(tmp_path / folder), done, config) as metrics:
            for row in rows(*[{"kl_t1": 9.0}] * (done + count))[done:]:
                metrics.write(row)
    first, again, other = runs
    assert [step for step, _ in first.logged] == [1, 2, 3] and [step for step, _ in again.logged] == [4]
    assert first.logged[0][1]["kl_t1"] == 9.0 and "stage" not in first.logged[0][1]
    assert first.given["project"] == "mine" and first.given["config"]["alarms"]["window"] == 2
    assert first.given["id"] == again.given["id"] != other.given["id"]
    assert first.given["resume"] == "allow"
    assert all(run.finished for run in runs)


def test_nothing_is_opened_unless_asked_for(runs, tmp_path):
    with Metrics(epath.Path(tmp_path), 0, CONFIG) as metrics:
        metrics.write(rows({})[0])
    assert runs == []


def test_a_second_host_logs_nothing(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("score_jax.tracker.writes", lambda: False)
    tracker = Tracker("mine", epath.Path(tmp_path), {})
    tracker.write({"step": 1, "loss": 1.0})
    tracker.close()
    assert runs == []


def test_a_missing_package_is_named_before_any_compute(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["train", f"--workdir={tmp_path / 'run'}", *options(tmp_path, log__wandb="mine")]) == 2
    said = capsys.readouterr().err.strip()
    assert "config.log.wandb = 'mine': the wandb package is not installed" in said and "\n" not in said
