"""A study: many methods over several seeds on one task, resumable cell by cell, into DIR/study.json.

DIR/bases/SEED      the base models, one for each seed, which all rows share
DIR/ROW/SEED        a cell: an ordinary work directory, with a method trained from that base
DIR/study.json      what has been measured so far
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import rich.table
from etils import epath

from score_jax import lock
from score_jax.checkpoint import Checkpoints
from score_jax.config import check_workdir, deciding
from score_jax.config_check import SPLITS, check_config
from score_jax.evaluate import choose, evaluate
from score_jax.findings import VOTES, findings_of
from score_jax.log import console, say
from score_jax.measure import measure
from score_jax.records import read_json, read_jsonl, write_json
from score_jax.task import evaluation_task, training_task
from score_jax.train import train

_MAPS = Path("/proc/self/maps")  # Linux: a line for each memory map of this process
_MANY_MAPS = 20_000
# For the time left: what a cell takes beside its samples, the weight of an attempt that is only evaluated,
# and how many problems a split may have.
_OVERHEAD, _EVALUATED, _PROBLEMS = 10_000, 0.2, 1000


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row of the study with one seed.

    Attributes:
      row: METHOD, or METHOD@POOL with another number of training problems.
      seed: of the base model, the episodes and the batches.
      config: the run's.
      measures: its further evaluations, sections of config.study.measures by name.
      workdir: where it lies.
    """

    row: str
    seed: int
    config: ml_collections.ConfigDict
    measures: Mapping[str, ml_collections.ConfigDict]
    workdir: epath.Path

    @property
    def stamp(self) -> int:
        """Of all that decides about the cell's numbers."""
        measures = {name: section.to_dict() | {"rows": None} for name, section in self.measures.items()}
        return zlib.crc32(json.dumps([deciding(self.config), measures], sort_keys=True).encode())

    @property
    def done(self) -> bool:
        """Whether all of it has been measured."""
        return read_json(self.workdir / "done.json").get("stamp") == self.stamp


def cost_of(cells: Sequence[Cell]) -> float:
    """A rough measure of the time that cells take: in attempts that are sampled and learned from."""
    total, bases = 0.0, {}
    for cell in cells:
        run = cell.config
        stages = [run[key] for key in run.stages]
        attempts = sum(
            stage.steps * stage.samples_factor * (stage.attempts - stage.get("offline", 0))
            for stage in stages
        )
        total += _OVERHEAD + attempts * run.problems_per_step * run.samples_per_problem
        for section in cell.measures.values():
            checkpoints = sum(stage.steps for stage in stages) / run.checkpoint_every
            often = 1 + checkpoints * (section.checkpoints == "every")
            evaluated = run.evaluate.to_dict() | section.evaluate.to_dict()
            problems = evaluated["problems"] or _PROBLEMS
            total += _EVALUATED * often * section.samples * evaluated["attempts"] * problems
        if "pretrain" in run and not (epath.Path(run.base_dir) / "settings.json").exists():
            phases = [run.pretrain[key] for key in run.pretrain.phases]
            bases[run.base_dir] = run.pretrain.batch * sum(phase.steps * phase.attempts for phase in phases)
    return total + sum(bases.values())


def study(
    config: ml_collections.ConfigDict, workdir: epath.Path, *, fast: bool = False, sandbox: str = "strict"
) -> None:
    """Makes what is missing of a study; the same call again goes on.

    Args:
      config: a run's config with the sections `methods` and `study`, see configs/study_quickstart.py.
      workdir: where all of it lies.
      fast: the rows and seeds of config.study.fast alone.
      sandbox: see `Task.prepare`.

    Raises:
      ValueError: a row cannot work, or lies in `workdir` with another config; known before any compute.
    """
    cells = plan(config, workdir, fast=fast)
    for cell in cells:
        check_workdir(cell.workdir, cell.config)
    clock = Clock()
    for number, cell in enumerate(cells, start=1):
        if not cell.done:
            say(f"\n== {cell.row}, seed {cell.seed}: {number} of {len(cells)}")
            with clock.on(cell):
                make(cell, sandbox)
            console.print(progress(cells, clock))
            if clock.may_write():
                with clock.writing():
                    write_findings(config, workdir)
    write_findings(config, workdir)
    if not clock.done:
        console.print(progress(cells, clock))


def plan(config: ml_collections.ConfigDict, workdir: epath.Path, *, fast: bool = False) -> list[Cell]:
    """All cells of a study in the order in which they are made: seed by seed; other pools after all rows.

    Raises:
      ValueError: names the row, and the field that cannot work.
    """
    for section in ("methods", "study"):
        if section not in config:
            raise ValueError(
                f"config.{section} is missing; configs/study_quickstart.py shows what belongs there"
            )
    check_study(config)
    wanted = config.study.fast if fast else config.study
    pools = [f"{row}@{pool}" for pool in wanted.pools for row in wanted.pool_rows]
    cells = [
        cell_of(config, workdir, row, seed)
        for rows in (wanted.rows, pools)
        for seed in wanted.seeds
        for row in rows
    ]
    for cell in cells:
        try:
            check_config(cell.config)
        except ValueError as error:
            raise ValueError(f"row {cell.row}: {error}") from error
    return cells


def check_study(config: ml_collections.ConfigDict) -> None:
    """Refuses a `study` section that cannot work.

    Raises:
      ValueError: names the field.
    """
    every = {*config.study.rows, *config.study.pool_rows}
    for name, section in config.study.measures.items():
        key = f"config.study.measures.{name}"
        if unknown := [row for row in section.rows if row not in config.methods]:
            raise ValueError(f"{key}.rows: {unknown[0]!r} is not among config.methods")
        allowed = ("every",) if name in ("own", "fixed") else ("last", "every")
        if section.checkpoints not in allowed:
            raise ValueError(f"{key}.checkpoints = {section.checkpoints!r}: choose {' or '.join(allowed)}")
        if name == "votes" and section.samples % (2 * max(VOTES)):
            raise ValueError(
                f"{key}.samples = {section.samples}: votes of up to {2 * max(VOTES)} samples are counted; "
                "sample a multiple of it"
            )
    if absent := {*config.study.fast.rows} - every:
        raise ValueError(f"config.study.fast.rows: {min(absent)!r} is not among config.study.rows")
    if absent := {*config.study.fast.seeds} - {*config.study.seeds}:
        raise ValueError(f"config.study.fast.seeds: {min(absent)} is not among config.study.seeds")
    trained_on = training_task(config)
    for name, section in config.study.measures.items():
        measured = measured_with(config, section)
        if (split := measured.evaluate.split) not in SPLITS:
            field = f"config.study.measures.{name}.evaluate.split"
            raise ValueError(f"{field} = {split!r}: choose one of {', '.join(SPLITS)}")
        evaluation_task(measured, trained_on).problems(split)  # of files it may lack one
    size = len(trained_on.problems("train"))
    if too_large := [pool for pool in config.study.pools if pool > size]:
        raise ValueError(f"config.study.pools: {too_large[0]} of the {size} training problems; choose less")


def cell_of(config: ml_collections.ConfigDict, workdir: epath.Path, row: str, seed: int) -> Cell:
    """One cell: the study's config with the fields of its method in place.

    Raises:
      ValueError: there is no such method.
    """
    name, _, pool = row.partition("@")
    if name not in config.methods:
        known = ", ".join(config.methods)
        raise ValueError(f"config.study: {name!r} is not a method; config.methods has {known}")
    run = config.copy_and_resolve_references()
    with run.unlocked():
        del run.methods, run.study
        for key, value in config.methods[name].items():
            if is_stage(run.get(key)):
                del run[key]  # replaced as a whole, not field by field
            if key != "label":
                run.update({key: value})
        read = {*run.stages} | {key for stage in run.stages for key in run[stage].get("between", ())}
        for key in [key for key in run if is_stage(run[key]) and key not in read]:
            del run[key]  # a stage of another method
    run.seed, run.base_dir = seed, str(workdir / "bases" / str(seed))
    run.train_problems = int(pool or run.train_problems)
    sections = {key: part for key, part in config.study.measures.items() if row in part.rows}
    return Cell(row, seed, run, sections, workdir / row / str(seed))


def is_stage(section: Any) -> bool:
    """Whether a section of a config is a stage's."""
    return isinstance(section, ml_collections.ConfigDict) and "objective" in section


@contextlib.contextmanager
def holding(cell: Cell, command: str) -> Iterator[None]:
    """Holds a cell's work directory for a command; at its end what was compiled goes if it has become much.

    A program takes memory maps, of which Linux gives a process 65,530: dozens of cells would use them up. The
    same row of another seed needs the same programs.
    """
    with lock.hold(cell.workdir, command):
        try:
            yield
        finally:
            if _memory_maps() > _MANY_MAPS:
                jax.clear_caches()
                gc.collect()  # a program within a cycle of references waits for it


def _memory_maps() -> int:
    """How many this process has; 0 where the system does not say."""
    return _MAPS.read_bytes().count(b"\n") if _MAPS.exists() else 0


def make(cell: Cell, sandbox: str) -> None:
    """Trains, evaluates and measures a cell; what was done before is not done again."""
    with holding(cell, "study"):
        _make(cell, sandbox)


def _make(cell: Cell, sandbox: str) -> None:
    train(cell.config, cell.workdir, sandbox)
    evaluate(cell.config, cell.workdir, "stages", sandbox)
    measured = {}
    for name, section in cell.measures.items():
        config = measured_with(cell.config, section)
        with Checkpoints(cell.workdir / "checkpoints") as checkpoints:
            chosen = choose(config, checkpoints, "stages")
            match section.checkpoints:
                case "last":
                    chosen = {label: chosen[label] for label in list(chosen)[-1:]}
                case "every":
                    chosen = {f"{step:05d}": step for step in (0, *checkpoints.steps())}
        firsts = base_attempts(cell.workdir) if section.given else None
        measure(config, cell.workdir, name, chosen, samples=section.samples, firsts=firsts, sandbox=sandbox)
        measured[name] = list(chosen)
    write_json(cell.workdir / "done.json", {"stamp": cell.stamp, "measures": measured})


def measured_with(
    config: ml_collections.ConfigDict, section: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    """A run's config with `evaluate` as one of config.study.measures has it."""
    config = config.copy_and_resolve_references()
    with config.evaluate.unlocked():
        if "files" in section.evaluate:
            del config.evaluate.files  # those of another task, not of both
        config.evaluate.update(section.evaluate)
    return config


def write_findings(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Writes study.json from all cells that are done, whichever call made them."""
    cells = plan(config, workdir)
    done = [(cell.row, cell.seed) for cell in cells if cell.done]
    missing = [f"{cell.row}/{cell.seed}" for cell in cells if not cell.done]
    found = findings_of(config, workdir, done, missing=missing)
    write_json(workdir / "study.json", found)


def base_attempts(workdir: epath.Path) -> dict[str, str]:
    """The base model's first attempt at each problem that was evaluated."""
    rows = read_jsonl(workdir / "attempts.jsonl")
    return {row["id"]: row["attempts"][0] for row in rows if row["checkpoint"] == "base"}


class Clock:
    """How long the cells of this call took, and about how long those that are left will."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.done = 0  # cells made in this call
        self._cost = 0.0
        self._wrote, self._writing = 0.0, 0.0  # when study.json was last written, and how long that took

    @contextlib.contextmanager
    def on(self, cell: Cell) -> Iterator[None]:
        """Counts the time that a cell takes."""
        start, cost = time.monotonic(), cost_of([cell])  # before its base model is there
        yield
        self.seconds += time.monotonic() - start
        self._cost += cost
        self.done += 1

    def may_write(self) -> bool:
        """Whether writing study.json now would take less than a tenth of the time."""
        return time.monotonic() - self._wrote > 10 * self._writing

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Notes how long it takes to write study.json: all that was measured is read for it."""
        start = time.monotonic()
        yield
        self._wrote = time.monotonic()
        self._writing = self._wrote - start

    def left(self, cells: Sequence[Cell]) -> float:
        """Seconds, as far as cells made in this call tell."""
        missing = cost_of([cell for cell in cells if not cell.done])
        return missing * self.seconds / self._cost if self._cost else 0.0


def progress(cells: Sequence[Cell], clock: Clock) -> rich.table.Table:
    """Which cells are done, what they say, and the time left."""
    done = [cell for cell in cells if cell.done]
    times = " and ".join(
        f"{spoken(seconds)} {word}"
        for seconds, word in ((clock.seconds, "so far"), (clock.left(cells), "left"))
    )
    table = rich.table.Table(title=f"{len(done)} of {len(cells)} done; about {times}")
    for head in ("row", "seeds done", "Acc@t1", "Acc@t2", "\N{GREEK CAPITAL LETTER DELTA}"):
        table.add_column(head, justify="left" if head == "row" else "right")
    for row in dict.fromkeys(cell.row for cell in cells):
        mine = [cell for cell in cells if cell.row == row]
        results = [result_of(cell) for cell in mine if cell.done]
        table.add_row(row, f"{len(results)}/{len(mine)}", *means(results))
    return table


def result_of(cell: Cell) -> Mapping[str, Any]:
    """What results.json says of the checkpoint by which a cell is judged."""
    stages = cell.config.stages
    return read_json(cell.workdir / "results.json")[cell.config[stages[-1]].name if stages else "base"]


def means(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Acc@t1, Acc@t2 and their difference in per cent over seeds; nothing where no seed is done."""
    keys = ("acc_t1", "acc_t2", "delta") if results else ()
    return [f"{100 * sum(result[key] for result in results) / len(results):.1f}" for key in keys]


def spoken(seconds: float) -> str:
    """3725 -> '1 h 2 min'."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
