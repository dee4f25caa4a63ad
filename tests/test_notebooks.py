"""The notebooks run from top to bottom, and are kept with the outputs that a run gives."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXACT = ("study", "why_two_stages")  # their outputs are the same on every machine
TRAINED = [path for path in NOTEBOOKS if path.stem not in EXACT]  # those of a model that was trained are not


def run(path: Path) -> nbformat.NotebookNode:
    """A fresh run of a notebook."""
    fresh = nbformat.read(path, as_version=4)
    NotebookClient(fresh, timeout=1800, resources={"metadata": {"path": str(path.parent)}}).execute()
    return fresh


def outputs_of(notebook: nbformat.NotebookNode) -> list[list]:
    """The outputs of each cell of code."""
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: nbformat.NotebookNode) -> list[list]:
    """What each cell of code shows, as text or drawings."""
    return [[output.get("data", output.get("text")) for output in cell] for cell in outputs_of(notebook)]


def shows(notebook: nbformat.NotebookNode) -> list[bool]:
    """Whether each cell of code shows anything; what a library warns of does not count."""
    return [any(output.get("name") != "stderr" for output in cell) for cell in outputs_of(notebook)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where notebooks train, for those that share a base model: never one of an earlier run."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.parametrize("name", EXACT)
def test_a_notebook_shows_what_it_is_kept_with(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    kept = nbformat.read(path, as_version=4)
    fresh = run(path)
    assert shown(fresh) == shown(kept)
    assert any(shown(kept))


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_a_notebook_that_trains_runs_and_shows_something_where_it_did(path, folder, monkeypatch):
    monkeypatch.setenv("SCORE_JAX_NOTEBOOKS_DIR", str(folder))
    monkeypatch.setenv("XLA_FLAGS", "")  # one device, as users have it
    fresh, kept = run(path), nbformat.read(path, as_version=4)
    assert shows(fresh) == shows(kept)
    assert any(shows(kept))
    assert list(folder.iterdir())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_small_and_whole(path):
    kept = nbformat.read(path, as_version=4)
    nbformat.validate(kept)
    assert path.stat().st_size < (1_500_000 if path.stem in EXACT else 300_000)
    assert kept.cells[0].cell_type == "markdown" and kept.cells[0].source.startswith("# ")
    assert not any(cell.metadata for cell in kept.cells)  # such as the times of a run
    assert not any(output.get("name") == "stderr" for cell in outputs_of(kept) for output in cell)
    assert not re.search(r"/(home|root|tmp|work)/", json.dumps(shown(kept)))


def test_the_list_of_notebooks_is_whole():
    listed = (ROOT / "notebooks" / "README.md").read_text().split("```")[0]
    assert NOTEBOOKS and all(f"[`{path.name}`]({path.name})" in listed for path in NOTEBOOKS)


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_without_the_project_a_notebook_says_what_to_do(path, tmp_path):
    kept = nbformat.read(path, as_version=4)
    first = next(cell for cell in kept.cells if cell.cell_type == "code")
    kept.cells = [first]
    with pytest.raises(Exception, match="clone and install it with the two commands above"):
        NotebookClient(kept, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
