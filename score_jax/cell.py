"""A cell of a study, a point of a sweep: one run among many, what it costs, and whether it is done."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import ml_collections
from etils import epath

from score_jax import lock
from score_jax.config import deciding
from score_jax.log import say
from score_jax.records import read_json

_MAPS = Path("/proc/self/maps")  # Linux: a line for each memory map of this process
_MANY_MAPS = 20_000
# For the time left: what a cell takes beside its samples, the weight of an attempt that is only evaluated,
# and how many problems a split may have.
_OVERHEAD, _EVALUATED, _PROBLEMS = 10_000, 0.2, 1000


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run among many: a row of a study with one seed, or a point of a sweep.

    Attributes:
      row: METHOD, or METHOD@POOL with another number of training problems; of a sweep the point's name.
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


def in_turn(cells: Sequence[Cell], make: Callable[[Cell], None], command: str) -> Iterator[Cell]:
    """Makes cells one after the other, each held for a command, and gives each when it is done.

    One that another process is at is passed over, and looked at again after the others: so several that are
    given the same command share its cells.

    Raises:
      Held: what is left is all in other processes' hands.
    """
    left = list(cells)
    while left:
        held: list[Cell] = []
        for cell in left:
            if cell.done:  # by another process, meanwhile
                continue
            try:
                with holding(cell, command):
                    if not cell.done:  # by one that held it until now
                        make(cell)
            except lock.Held as error:
                refusal = error
                held.append(cell)
                say(f"Passed over, {str(error).partition(';')[0]}.")  # without the mend: this is one
            else:
                yield cell
        if len(held) == len(left):
            raise refusal
        left = held


def kept_current[T](cells: Collection[Cell], write: Callable[[], T]) -> T:
    """What `write` gives, which writes a file that tells of all cells that are done.

    Written again where another process has finished one meanwhile: this file may lie over its newer one.
    """
    done = lambda: sum(cell.done for cell in cells)
    while True:
        before = done()
        found = write()
        if done() == before:
            return found


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
