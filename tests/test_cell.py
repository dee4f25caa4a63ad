"""Cells that several processes make: who makes which, and what becomes of those in other hands."""

import dataclasses

import ml_collections
import pytest
from etils import epath

from score_jax import lock
from score_jax.cell import Cell, in_turn, kept_current
from score_jax.records import write_json


@pytest.fixture
def cells(tmp_path):
    config = ml_collections.ConfigDict({"seed": 0})
    return [Cell(name, 0, config, {}, epath.Path(tmp_path) / name) for name in "abcd"]


@dataclasses.dataclass
class Others:
    """Makes cells, but for those that others are at: they make them after so many more calls of ours."""

    busy: dict[str, int]
    calls: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, cell):
        self.calls.append(cell.row)
        if cell.row in self.busy:
            raise lock.Held(f"{cell.row} is another's")
        finish(cell)


def finish(cell):
    cell.workdir.mkdir(exist_ok=True)
    write_json(cell.workdir / "done.json", {"stamp": cell.stamp})


def test_cells_are_made_in_their_order(cells):
    make = Others({})
    assert [cell.row for cell in in_turn(cells, make, "study")] == make.calls == ["a", "b", "c", "d"]


def test_what_another_is_at_comes_after_the_others(cells, capsys):
    make, made = Others({"a": 0}), []
    for cell in in_turn(cells, make, "study"):
        made.append(cell.row)
        make.busy.clear()  # the other one stopped in the middle
    assert made == ["b", "c", "d", "a"]
    assert capsys.readouterr().out == "Passed over, a is another's.\n"


def test_what_another_has_made_is_not_made_again(cells):
    make, made = Others({"a": 0}), []
    for cell in in_turn(cells, make, "study"):
        made.append(cell.row)
        for other in (cells[0], cells[2]):
            finish(other)
    assert made == ["b", "d"]
    assert make.calls == ["a", "b", "d"]


def test_where_others_are_at_all_that_is_left_it_ends(cells):
    make = Others({"a": 0, "c": 0})
    with pytest.raises(lock.Held, match="c is another's"):
        for _ in in_turn(cells, make, "study"):
            pass
    assert make.calls == ["a", "b", "c", "d", "a", "c"]


def test_a_file_of_all_that_is_done_is_written_again_if_more_was_done_meanwhile(cells):
    """Another process ends its cell, and writes of it, between our look at the cells and our writing."""
    told = []

    def write():
        seen = [cell.row for cell in cells if cell.done]
        if not told:
            finish(cells[3])
        told.append(seen)
        return seen

    finish(cells[0])
    assert kept_current(cells, write) == ["a", "d"]
    assert told == [["a"], ["a", "d"]]
