"""Checkpoints of a run, through orbax: one folder per step, named by the global step.

    checkpoints/STEP/state/          parameters and optimiser
    checkpoints/STEP/manifest.json   what the folder holds, and its note, its origin, its arrays
    checkpoints/STEP.orbax-...       a save that goes on, or that was cut short
    damaged/STEP                     what `repair` has set aside

The manifest is written before orbax gives the folder its name, so that a step with one was saved whole. A
step without is not read: orbax by itself would restore an empty folder's or a rotten file's content as if
nothing were wrong. In a bucket, where folders have no names to be given, a save lies under its own step from
the start, and orbax marks its end by one more file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from score_jax import hosts
from score_jax.log import say
from score_jax.manifest import about_of, differences, write_manifest
from score_jax.records import reading, writes, writing
from score_jax.repair import SAVING, Damaged, fault_of_step, remove, steps_in
from score_jax.retention import Note, by_reward, expendable
from score_jax.types import TrainState

_LATE = ("_CHECKPOINT_METADATA",)  # orbax writes it once more after the manifest
_SHOWN = 5  # differences in one message

# What goes wrong in orbax's threads is raised here; it need not stand in the log a second time.
logging.getLogger("absl").addFilter(lambda record: not (record.exc_info and "orbax" in record.pathname))


class Checkpoints:
    """The checkpoints of one work directory. Saving goes on in the background.

    Of several hosts all call the same methods in the same order; the first one looks, and all go by that.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        origin: Mapping[str, Any] | None = None,
        keep_newest: int = 0,
        keep_best: int = 1,
    ):
        """Opens a directory, which may be new.

        Args:
          directory: where they lie.
          origin: what a checkpoint of this run is made by, of JSON's own types; see `origin.origin_of`.
          keep_newest, keep_best: see `retention.expendable`.
        """
        self.directory = absolute(directory)
        self._origin = dict(origin or {})
        self._keep = {"newest": keep_newest, "best": keep_best}
        self._notes: dict[int, Note] = {}
        self._faults: dict[int, str] = {}  # by thorough looks
        self._saving: tuple[int, dict[str, Any]] | None = None
        with writing(self.directory, Exception):
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=None,
                    create=True,
                    async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
                ),
            )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What ended the run is what is to be told, and not that it then could not be saved.
        with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self.close()

    def steps(self) -> list[int]:
        """The steps that were saved whole, ascending, as far as a glance tells."""
        return hosts.from_first(self._steps)

    def _steps(self) -> list[int]:
        return [step for step in steps_in(self.directory) if not self._glance(step)]

    def _glance(self, step: int) -> str:
        """What is wrong with a step at a glance; warned of once."""
        fault = self._faults.get(step, "") or fault_of_step(self.directory, step, thorough=False)
        if fault and step not in self._faults:
            self._faults[step] = fault
            say(f"WARNING: checkpoint {step} in {self.directory} is damaged and left out: {fault}.")
        return fault

    def save(self, state: TrainState, note: Note) -> None:
        """Saves `state` under its step, then removes what need not be kept of those before.

        Raises:
          Unwritable: it could not be written, or the one before could not.
        """
        step, plain = int(state.step), _plain(state)
        self.wait()
        about = {"note": dataclasses.asdict(note), "origin": self._origin, "arrays": arrays_of(plain)}
        self._saving = step, about
        with writing(self.directory / str(step), Exception):
            args = ocp.args.Composite(state=ocp.args.StandardSave(plain))
            self._manager.save(step, args=args, force=True)

    def _seal(self) -> None:
        """Writes the manifest of what has just been saved; of several hosts the first one is asked to."""
        if self._saving is None:
            raise RuntimeError(f"{self.directory}: a checkpoint was written that was not to be saved")
        step, about = self._saving
        folder = self.directory / str(step)
        if not folder.exists():  # orbax is yet to give it its name
            (folder,) = (path for path in self.directory.iterdir() if path.name.startswith(f"{step}{SAVING}"))
        write_manifest(folder, about, without=_LATE)

    def note(self, step: int) -> Note:
        """The note of a step."""
        if step not in self._notes:
            note = self._about(step)["note"]
            self._notes[step] = Note(**note | {"window": tuple(note["window"])})
        return self._notes[step]

    def window(self, step: int) -> list[float]:
        """The rewards that an interim checkpoint leaves to the next one's mean; of others none."""
        return hosts.from_first(lambda: list(self.note(step).window))

    def _about(self, step: int) -> dict[str, Any]:
        try:
            return about_of(self.directory / str(step))
        except ValueError as error:
            raise Damaged(self._mend(step, str(error))) from error

    def fault(self, step: int) -> str:
        """What is wrong with a step when all of it is read; "" if nothing is."""

        def look() -> str:
            if step not in self._faults:
                self._faults[step] = fault_of_step(self.directory, step, thorough=True)
            return self._faults[step]

        return hosts.from_first(look)

    def restore(
        self, step: int, like: TrainState | Mapping[str, Any], *, origin: Mapping[str, Any] | None = None
    ) -> TrainState:
        """The state of a step, with the shapes, dtypes and shardings of `like`: a state, or its fields as
        `learner.blank_state` gives them, which takes no memory.

        Raises:
          Damaged: it is not as it was written.
          Unreadable: it is, and yet could not be read.
          ValueError: it has other arrays than `like`, or, where `origin` is given, another one.
        """
        target = self._target(step, like, origin)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        with reading(self.directory / str(step)):
            return TrainState(**self._manager.restore(step, args=args).state)

    def restore_params(
        self, step: int, like: TrainState | Mapping[str, Any], *, origin: Mapping[str, Any] | None = None
    ) -> dict:
        """What is trained of a state, as `restore` reads it; Adam's moments, twice as much, are let lie."""
        target = {"params": self._target(step, like, origin)["params"]}
        args = ocp.args.PyTreeRestore(
            target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
        )
        folder = self.directory / str(step)
        with reading(folder), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(folder / "state", args=args)["params"]

    def _target(
        self, step: int, like: TrainState | Mapping[str, Any], origin: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """The arrays of a step as orbax wants them described, once it is sure that they are those."""
        if fault := self.fault(step):
            raise Damaged(self._mend(step, fault))
        plain = _plain(like) if isinstance(like, TrainState) else dict(like)
        self._check(step, "arrays", arrays_of(plain))
        if origin is not None:
            self._check(step, "origin", origin)
        return jax.tree.map(ocp.utils.to_shape_dtype_struct, plain)

    def _check(self, step: int, kind: str, ours: Mapping[str, Any]) -> None:
        theirs = self._about(step)[kind]
        if theirs and (differ := differences(theirs, ours)):
            more = f" and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
            raise ValueError(
                f"checkpoint {step} in {self.directory} is of another run, with another {kind} "
                f"({'; '.join(differ[:_SHOWN])}{more}); take it out of there, or give the config that made it"
            )

    def _mend(self, step: int, fault: str) -> str:
        if not (self.directory / str(step)).exists():  # since it was chosen
            return (
                f"checkpoint {step} in {self.directory} is gone: a training that goes on keeps those of "
                "config.keep_newest and config.keep_best alone; give the same command again"
            )
        return (
            f"checkpoint {step} in {self.directory} is damaged: {fault}; name another one, or remove "
            "it and all later ones, and `python -m score_jax train` makes them again from the one before"
        )

    def last(self, stage: str) -> int | None:
        """The newest step of a stage that is whole."""
        mine = [step for step in self.steps() if self.note(step).stage == stage]
        return next((step for step in reversed(mine) if self._sound(step)), None)

    def best(self, stage: str) -> int | None:
        """The step of a stage with the highest training reward (`retention.by_reward`) that is whole."""
        notes = {step: self.note(step) for step in self.steps()}
        return next((step for step in by_reward(notes, stage) if self._sound(step)), None)

    def _sound(self, step: int) -> bool:
        fault = self.fault(step)
        if fault:
            say(f"WARNING: checkpoint {step} in {self.directory} is damaged, and passed over: {fault}.")
        return not fault

    def wait(self) -> None:
        """Until all that was saved is on disk, and what need not be kept is gone.

        Raises:
          Unwritable: something could not be written in the background.
        """
        what = self.directory / str(self._saving[0]) if self._saving else self.directory
        with writing(what, Exception):
            self._manager.wait_until_finished()
        if self._saving and writes():
            notes = {step: self.note(step) for step in self._steps()}
            for step in expendable(notes, **self._keep):
                with writing(self.directory / str(step), Exception):
                    remove(self.directory / str(step))
        self._saving = None

    def close(self) -> None:
        """Waits, then lets go of the directory."""
        self.wait()
        self._manager.close()


def arrays_of(tree: Any) -> dict[str, str]:
    """{path: 'float32[8, 16]'} of a tree's arrays."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def _plain(state: TrainState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def absolute(path: epath.PathLike) -> epath.Path:
    """The path as orbax wants it; a bucket's address stays as it is."""
    return epath.Path(path if "://" in str(path) else os.path.abspath(path))


def save_params(params: dict, directory: epath.PathLike) -> None:
    """Writes parameters alone, over what may stand there."""
    with writing(directory, Exception), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(absolute(directory), params, force=True)


def load_params(directory: epath.PathLike, like: Any) -> dict:
    """Reads parameters with the shapes, dtypes and shardings of `like`."""
    with reading(directory), ocp.StandardCheckpointer() as checkpointer:
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return checkpointer.restore(absolute(directory), target)
