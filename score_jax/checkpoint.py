"""Checkpoints of a run, through orbax: one folder per step, named by the global step."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from score_jax.types import TrainState


@dataclasses.dataclass(frozen=True)
class Note:
    """What is known of a checkpoint beside its arrays.

    Attributes:
      stage: the stage that wrote it.
      reward: the stage's mean training reward since the checkpoint before: Σ_i w_i r̂_i, without
        bonus and KL. A supervised stage has none: all of its checkpoints have the same, so that the newest
        is its best.
    """

    stage: str
    reward: float


class Checkpoints:
    """The checkpoints of one work directory. Saving goes on in the background."""

    def __init__(self, directory: epath.PathLike):
        self.directory = absolute(directory)
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=None, create=True),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """All saved steps, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, note: Note) -> None:
        """Saves `state` under its step."""
        args = {"state": ocp.args.StandardSave(_plain(state))}
        args["note"] = ocp.args.JsonSave(dataclasses.asdict(note))
        self._manager.save(int(state.step), args=ocp.args.Composite(**args), force=True)

    def note(self, step: int) -> Note:
        """The note of a step."""
        args = ocp.args.Composite(note=ocp.args.JsonRestore())
        return Note(**self._manager.restore(step, args=args).note)

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state of a step, with the shapes, dtypes and shardings of `like`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _plain(like))
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return TrainState(**self._manager.restore(step, args=args).state)

    def last(self, stage: str) -> int | None:
        """The newest step of a stage."""
        return max((s for s in self.steps() if self.note(s).stage == stage), default=None)

    def best(self, stage: str) -> int | None:
        """The step of a stage with the highest training reward, as the paper selects RL runs, and of equal
        ones the newest; NaN never wins."""
        notes = {step: self.note(step) for step in self.steps()}
        rewards = {
            step: note.reward
            for step, note in notes.items()
            if note.stage == stage and not math.isnan(note.reward)
        }
        return max(rewards, key=lambda step: (rewards[step], step), default=None)

    def wait(self) -> None:
        """Until all that was saved is on disk; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the directory."""
        self._manager.wait_until_finished()
        self._manager.close()


def _plain(state: TrainState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def absolute(path: epath.PathLike) -> epath.Path:
    """The path as orbax wants it; a bucket's address stays as it is."""
    return epath.Path(path if "://" in str(path) else os.path.abspath(path))


def save_params(params: dict, directory: epath.PathLike) -> None:
    """Writes parameters alone, over what may stand there."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(absolute(directory), params, force=True)


def load_params(directory: epath.PathLike, like: Any) -> dict:
    """Reads parameters with the shapes, dtypes and shardings of `like`."""
    with ocp.StandardCheckpointer() as checkpointer:
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return checkpointer.restore(absolute(directory), target)
