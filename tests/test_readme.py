"""What the README shows is true: its task runs as written, and what it names is there."""

import importlib
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from test_quickstart import options

from score_jax.__main__ import main
from score_jax.task import load_task

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def my_task(tmp_path, monkeypatch):
    """The README's task, as a module that can be imported."""
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "my_task.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield load_task("my_task:Sorting")
    sys.modules.pop("my_task", None)


def test_the_task_is_about_60_lines(my_task):
    assert len(Path(sys.modules["my_task"].__file__).read_text().splitlines()) < 65


def test_the_tasks_splits_share_nothing_and_its_answers_are_right(my_task):
    splits = {split: my_task.problems(split) for split in ("train", "validation", "test")}
    ids = [problem.id for problems in splits.values() for problem in problems]
    assert len(ids) == len(set(ids)) == 10_000
    rng = np.random.default_rng(0)
    for problem in splits["train"][:200]:
        first, second = my_task.demonstration(problem, rng).attempts
        assert my_task.answer(first) and my_task.answer(second)
        assert (
            my_task.reward(problem, f"Final Answer: The final answer is ${''.join(sorted(problem.id))}$.")
            == 1
        )


def test_the_task_trains_as_written(my_task, tmp_path):
    args = options(tmp_path, task="my_task:Sorting")
    for command in ("train", "evaluate"):
        assert main([command, f"--workdir={tmp_path / 'run'}", *args]) == 0
    assert (tmp_path / "run" / "results.json").exists()


def test_the_index_names_what_exists():
    table = README.split("## From the paper to the code")[1].split("##")[0]
    rows = "".join(line for line in table.splitlines() if line.startswith("|"))
    names = re.findall(r"`([a-z_]+)\.([A-Za-z_.]+)`", rows)
    assert len(names) > 10
    for module, path in names:
        found = importlib.import_module(f"score_jax.{module}")
        for part in path.split("."):
            found = getattr(found, part)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\./(launch/\w+\.sh)|(configs/\w+\.py)", README))))
def test_the_files_it_names_exist(path):
    assert (ROOT / (path[0] or path[1])).exists()


def test_its_study_is_the_one_that_is_kept(tmp_path):
    """The table, and the drawings beside it, are what `report` makes of notebooks/study.json."""
    shutil.copy(ROOT / "notebooks" / "study.json", tmp_path)
    assert main(["report", f"--workdir={tmp_path}"]) == 0
    assert (tmp_path / "table.md").read_text().strip() in README
    names = re.findall(r"\.github/study/([\w-]+\.svg)", README)
    assert len(names) == 4
    for name in names:
        drawn = (tmp_path / "figures" / name).read_text()
        assert drawn == (ROOT / ".github" / "study" / name).read_text()
