"""What the README shows is true: its task runs as written, and what it names is there."""

import importlib
import itertools
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from test_imports import MODULES, imports_of
from test_quickstart import options

from score_jax.__main__ import main
from score_jax.task import load_task

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PATHS = r"(?:launch|configs|tests|score_jax|notebooks)/[\w/]+\.(?:sh|py|ipynb|json)"


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


def test_it_is_short():
    assert len(README.splitlines()) <= 250


PAGES = sorted(
    path for path in ROOT.rglob("*.md") if not {".venv", ".uv", "runs"} & {*path.relative_to(ROOT).parts}
)
NAMED = {
    (path, link)
    for path in PAGES
    for link in re.findall(r"\]\((?!http|#)([^)#]+)|src=\"([^\"]+)", path.read_text())
}


@pytest.mark.parametrize(
    ("page", "link"), [(page, link or image) for page, (link, image) in sorted(NAMED)], ids=str
)
def test_what_its_pages_link_to_is_there(page, link):
    assert (page.parent / link).exists()


@pytest.mark.parametrize(
    "name", sorted({name for page in PAGES for name in re.findall(PATHS, page.read_text())})
)
def test_the_files_that_are_named_exist(name):
    assert (ROOT / name).exists()


def test_the_picture_shows_the_imports_that_there_are():
    (picture,) = re.findall(r"```mermaid\n(.*?)```", README, flags=re.DOTALL)
    arrows = set()
    for line in picture.splitlines()[1:]:
        groups = [group.split("&") for group in line.split("-->")]
        for left, right in itertools.pairwise(groups):
            arrows |= {(a.strip(), b.strip()) for a in left for b in right}
    assert len(arrows) > 20
    for importer, imported in sorted(arrows):
        path = MODULES[f"score_jax.{importer}"]
        assert f"score_jax.{imported}" in imports_of(path), f"{importer} does not import {imported}"


def test_the_study_is_the_one_that_is_kept(tmp_path):
    """The tables, and the drawings beside them, are what `report` makes of notebooks/study.json."""
    shutil.copy(ROOT / "notebooks" / "study.json", tmp_path)
    assert main(["report", f"--workdir={tmp_path}"]) == 0
    table, page = (tmp_path / "table.md").read_text().strip(), (ROOT / "notebooks" / "README.md").read_text()
    assert table in page
    results = README.split("## Results")[1].split("## ")[0]
    rows = [line for line in results.splitlines() if line.startswith("|")]
    assert len(rows) > 8 and rows[:2] == table.splitlines()[:2]
    assert [row for row in table.splitlines() if row in rows] == rows
    names = {*re.findall(r"\.github/study/([\w-]+\.svg)", README + page)}
    assert len(names) == 4
    for name in names:
        drawn = (tmp_path / "figures" / name).read_text()
        assert drawn == (ROOT / ".github" / "study" / name).read_text()
