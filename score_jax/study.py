"""A study: many methods over several seeds on one task, resumable cell by cell, into DIR/study.json.

DIR/bases/SEED      the base models, one for each seed, which all rows share
DIR/ROW/SEED        a cell: an ordinary work directory, with a method trained from that base
DIR/study.json      what has been measured so far
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import rich.table
from etils import epath

from score_jax.cell import Cell, in_turn, kept_current
from score_jax.checkpoint import Checkpoints
from score_jax.clock import Clock
from score_jax.config import check_workdir, judged_by
from score_jax.duration import hours_and_minutes
from score_jax.evaluate import choose, evaluate
from score_jax.findings import findings_of
from score_jax.log import console, say
from score_jax.measure import measure
from score_jax.percent import DELTA
from score_jax.records import read_json, read_jsonl, write_json
from score_jax.study_cells import digests_of
from score_jax.study_plan import measured_with, plan
from score_jax.train import train


def study(
    config: ml_collections.ConfigDict, workdir: epath.Path, *, fast: bool = False, sandbox: str = "strict"
) -> None:
    """Makes what is missing of a study; the same call again goes on, and beside another one they share it.

    Args:
      config: a run's config with the sections `methods` and `study`, see configs/study_quickstart.py.
      workdir: where all of it lies.
      fast: the rows and seeds of config.study.fast alone.
      sandbox: see `Task.prepare`.

    Raises:
      ValueError: a row cannot work, or lies in `workdir` with another config; known before any compute.
      Held: others are at work on all that is left.
    """
    every = plan(config, workdir)
    cells = plan(config, workdir, fast=True) if fast else every
    for cell in cells:
        check_workdir(cell.workdir, cell.config)
    clock, left = Clock(), [cell for cell in cells if not cell.done]
    workdir.mkdir(parents=True, exist_ok=True)
    with clock.writing():  # before the first cell, too: a page can be made of it
        write_findings(config, workdir, every)

    def make_timed(cell: Cell) -> None:
        say(f"\n== {cell.row}, seed {cell.seed}: {sum(each.done for each in cells) + 1} of {len(cells)}")
        with clock.on(cell):
            make(cell, sandbox)

    for _ in in_turn(left, make_timed, "study"):
        console.print(progress(cells, clock))
        if clock.may_write() or all(cell.done for cell in cells):
            with clock.writing():
                write_findings(config, workdir, every)
    if not left:
        console.print(progress(cells, clock))


def make(cell: Cell, sandbox: str) -> None:
    """Trains, evaluates and measures a cell; what was done before is not done again."""
    marker = cell.workdir / "done.json"
    train(cell.config, cell.workdir, sandbox)
    known = read_json(marker)
    if known.get("evaluated") != cell.stamp:
        evaluate(cell.config, cell.workdir, "stages", sandbox)
        rows = read_jsonl(cell.workdir / "attempts.jsonl")
        known = {"evaluated": cell.stamp, "attempts": digests_of(rows)}
        write_json(marker, known)
    measured = {}
    for name, section in cell.measures.items():
        config = measured_with(cell.config, section)
        with Checkpoints(cell.workdir / "checkpoints") as checkpoints:
            if section.checkpoints == "every":
                chosen = {f"{step:05d}": step for step in (0, *checkpoints.steps())}
            else:
                chosen = dict(list(choose(config, checkpoints, "stages").items())[-1:])
        firsts = base_attempts(cell.workdir) if section.given else None
        measure(config, cell.workdir, name, chosen, samples=section.samples, firsts=firsts, sandbox=sandbox)
        measured[name] = list(chosen)
    write_json(marker, {"stamp": cell.stamp, **known, "measures": measured})


def write_findings(config: ml_collections.ConfigDict, workdir: epath.Path, cells: Sequence[Cell]) -> None:
    """Writes study.json from all of a study's cells that are done, whichever call made them."""

    def write() -> None:
        done = [(cell.row, cell.seed) for cell in cells if cell.done]
        missing = [f"{cell.row}/{cell.seed}" for cell in cells if (cell.row, cell.seed) not in done]
        write_json(workdir / "study.json", findings_of(config, workdir, done, missing=missing))

    kept_current(cells, write)


def base_attempts(workdir: epath.Path) -> dict[str, str]:
    """The base model's first attempt at each problem that was evaluated."""
    rows = read_jsonl(workdir / "attempts.jsonl")
    return {row["id"]: row["attempts"][0] for row in rows if row["checkpoint"] == "base"}


def progress(cells: Sequence[Cell], clock: Clock) -> rich.table.Table:
    """Which cells are done, what they say, and the time left."""
    done = [cell for cell in cells if cell.done]
    times = " and ".join(
        f"{hours_and_minutes(seconds)} {word}"
        for seconds, word in ((clock.seconds, "so far"), (clock.left(cells), "left"))
    )
    table = rich.table.Table(title=f"{len(done)} of {len(cells)} done; about {times}")
    for head in ("row", "seeds done", "Acc@t1", "Acc@t2", DELTA):
        table.add_column(head, justify="left" if head == "row" else "right")
    for row in dict.fromkeys(cell.row for cell in cells):
        mine = [cell for cell in cells if cell.row == row]
        results = [judged_result(cell) for cell in mine if cell.done]
        table.add_row(row, f"{len(results)}/{len(mine)}", *means(results))
    return table


def judged_result(cell: Cell) -> Mapping[str, Any]:
    """What results.json says of the checkpoint by which a cell is judged."""
    return read_json(cell.workdir / "results.json")[judged_by(cell.config)]


def means(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Acc@t1, Acc@t2 and their difference in per cent over seeds; nothing where no seed is done."""
    keys = ("acc_t1", "acc_t2", "delta") if results else ()
    return [f"{100 * sum(result[key] for result in results) / len(results):.1f}" for key in keys]
