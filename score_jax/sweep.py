"""A sweep: the points of a grid or of random draws, trained and evaluated in turn, resumable point by point.

DIR/bases/NAME      base models, which all points with the same pre-training share
DIR/POINT           an ordinary work directory; done.json holds what the point reached on the validation split
DIR/sweep.json      what has been found so far, see `sweep_file`
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from etils import epath

from score_jax.cell import Cell, in_turn, kept_current
from score_jax.clock import Clock
from score_jax.config import check_workdir, judged_by
from score_jax.config_check import flatten
from score_jax.duration import hours_and_minutes
from score_jax.evaluate import evaluate
from score_jax.log import say
from score_jax.percent import percent
from score_jax.pretrain import SECTIONS
from score_jax.records import read_json, read_jsonl, write_json
from score_jax.sweep_file import findings_of
from score_jax.sweep_points import SEED, Point, chosen, expand, name_of
from score_jax.train import train


def sweep(
    config: ml_collections.ConfigDict, workdir: epath.Path, *, only: str = "", sandbox: str = "strict"
) -> None:
    """Makes what is missing of a sweep; the same call again goes on, and beside another one they share it.

    Args:
      config: a run's config with the section `sweep`, see configs/sweeps/alpha_beta_2.py.
      workdir: where all of it lies.
      only: names of points, with commas between them; '' is all.
      sandbox: see `Task.prepare`.

    Raises:
      ValueError: a point cannot work, or lies in `workdir` with another config; known before any compute.
      Held: others are at work on all that is left.
    """
    points = expand(config)
    every = {point.name: cell_of(point, workdir) for point in points}
    for cell in every.values():
        check_workdir(cell.workdir, cell.config)
    wanted = [every[point.name] for point in chosen(points, only)]
    clock, left = Clock(), [cell for cell in wanted if not cell.done]
    workdir.mkdir(parents=True, exist_ok=True)
    found = write_findings(config, workdir, points, every)  # before the first point, too: see `report`

    def make_timed(cell: Cell) -> None:
        say(f"\n== {cell.row}: {sum(each.done for each in wanted) + 1} of {len(wanted)}")
        with clock.on(cell):
            make(cell, sandbox)

    for _ in in_turn(left, make_timed, "sweep"):
        found = write_findings(config, workdir, points, every)
        say(progress(wanted, found, clock))
    if not left:
        say(progress(wanted, found, clock))


def list_points(config: ml_collections.ConfigDict, only: str = "") -> str:
    """A line for each point: its name, a tab, and as JSON the list of the arguments that make it."""
    points = chosen(expand(config), only)
    return "\n".join(f"{point.name}\t{json.dumps(point.arguments)}" for point in points)


def cell_of(point: Point, workdir: epath.Path) -> Cell:
    """A point as a study's cell without further measures: what has a work directory, a cost and an end.

    Its base model lies beside the points unless the config names a place for it.
    """
    config = point.config.copy_and_resolve_references()
    if not config.base_dir:
        read = {name: value for name, value in point.values.items() if name.partition(".")[0] in SECTIONS}
        config.base_dir = str(workdir / "bases" / name_of({SEED: config.seed} | read))
    return Cell(point.name, config.seed, config, {}, workdir / point.name)


def make(cell: Cell, sandbox: str) -> None:
    """Trains and evaluates a point; what was done before is not done again.

    The rewards are kept apart from attempts.jsonl, where another split may take their place later.
    """
    train(cell.config, cell.workdir, sandbox)
    evaluate(cell.config, cell.workdir, "stages", sandbox)
    checkpoint = judged_by(cell.config)
    rows = [row for row in read_jsonl(cell.workdir / "attempts.jsonl") if row["checkpoint"] == checkpoint]
    found = {"checkpoint": checkpoint, "step": rows[0]["step"]}
    found |= {key: [row[key] for row in rows] for key in ("id", "rewards")}
    write_json(cell.workdir / "done.json", {"stamp": cell.stamp, **found})


def write_findings(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    points: Sequence[Point],
    cells: Mapping[str, Cell],
) -> dict[str, Any]:
    """Writes sweep.json from all points that are done, whichever call made them.

    Args:
      config: the sweep's.
      workdir: where it lies.
      points: all of them.
      cells: theirs, by name.
    """
    about = {
        "task": (config.evaluate.task or config.task).rpartition(":")[2],
        "split": config.evaluate.split,
        "statistic": f"acc_t{config.evaluate.attempts}",
        "fields": kinds_of(config, points),
    }
    asked = []
    for point in points:
        values = {name: value for name, value in point.values.items() if name != SEED}
        asked.append(
            {
                "name": point.name,
                "row": name_of(values) or "every point",  # where nothing but the seed is swept
                "seed": point.config.seed,
                "values": values,
                "arguments": arguments_of(point, cells[point.name]),
            }
        )

    def write() -> dict[str, Any]:
        done = {name: read_json(cell.workdir / "done.json") for name, cell in cells.items() if cell.done}
        found = findings_of(about, asked, done)
        write_json(workdir / "sweep.json", found)
        return found

    return kept_current(cells.values(), write)


def arguments_of(point: Point, cell: Cell) -> list[str]:
    """The arguments of a command on a point where it lies now, but for the split."""
    split = "--config.evaluate.split="
    words = [word for word in point.arguments if not word.startswith(split)]
    if not point.config.base_dir:
        words.append(f"--config.base_dir={cell.config.base_dir}")
    return [*words, f"--workdir={cell.workdir}"]


def kinds_of(config: ml_collections.ConfigDict, points: Sequence[Point]) -> dict[str, str]:
    """How each swept field but the seed is varied: "grid", or the kind of its draws."""
    drawn = {name: spec[2] for name, spec in flatten(config.sweep.random).items()}
    return {name: drawn.get(name, "grid") for name in points[0].values if name != SEED}


def progress(cells: Sequence[Cell], found: Mapping[str, Any], clock: Clock) -> str:
    """How many of this call's points are done, the time left, and the best row so far."""
    done = sum(cell.done for cell in cells)
    line = f"{done} of {len(cells)} done; {hours_and_minutes(clock.seconds)} so far"
    line += f", about {hours_and_minutes(clock.left(cells))} left" * (done < len(cells))
    if found["best"] is None:
        return line
    statistic = found["statistic"]
    best = found["rows"][found["best"]]["statistics"][statistic]["mean"]
    return f"{line}; best on {found['split']}: {found['best']}, {statistic} {percent(best)}%"
