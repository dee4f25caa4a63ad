"""Checkpoints after an accident: what is half done is removed, what is damaged is set aside, never lost."""

from __future__ import annotations

import orbax.checkpoint as ocp
from etils import epath

from score_jax import hosts
from score_jax.log import say
from score_jax.manifest import fault_of
from score_jax.records import writing

SAVING = ".orbax-checkpoint-tmp"  # in the name of a folder that is not whole
REMOVED = "removed-"  # before the name of one that is being removed


class Damaged(ValueError):
    """A checkpoint is not as it was written."""


def steps_in(directory: epath.Path) -> list[int]:
    """The steps of which there is a folder, whole or not, ascending."""
    if not directory.exists():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def fault_of_step(directory: epath.Path, step: int, *, thorough: bool) -> str:
    """What is wrong with a step, see `manifest.fault_of`; in a bucket also that its save was cut short."""
    folder = directory / str(step)
    if "://" in str(folder) and not ocp.path.step.is_path_finalized(folder):
        return "its save was cut short"
    return fault_of(folder, thorough=thorough)


def mend(directory: epath.Path) -> int:
    """Makes a run's checkpoints fit to go on from: nothing half done, and the newest one whole.

    Those that are newer than the newest whole one are set aside, in `damaged` beside the directory, and a
    warning says why. Nobody else may be at work in the directory.

    Returns:
      The step to go on from, 0 where there is none.

    Raises:
      Damaged: none of several checkpoints is whole, which no interrupted run leaves behind.
    """
    return hosts.from_first(lambda: _mend(directory))


def _mend(directory: epath.Path) -> int:
    if not directory.exists():
        return 0
    for path in directory.iterdir():
        if SAVING in path.name or path.name.startswith(REMOVED):
            path.rmtree()
    steps, faults = steps_in(directory), {}
    for step in reversed(steps):
        if not (fault := fault_of_step(directory, step, thorough=True)):
            break
        faults[step] = fault
    else:
        step = 0
    if len(faults) > 1 and not step:
        newest = max(faults)
        raise Damaged(
            f"{directory}: none of {len(faults)} checkpoints is whole ({newest}: {faults[newest]}). "
            "If an earlier version wrote them, go on with that one; else move the folder away to start anew"
        )
    for damaged, fault in faults.items():
        place = _set_aside(directory / str(damaged))
        says = f"goes on from checkpoint {step}" if step else "starts from the beginning"
        say(f"WARNING: checkpoint {damaged} is damaged: {fault}. It is set aside in {place}; the run {says}.")
    return step


def _set_aside(folder: epath.Path) -> epath.Path:
    place = folder.parent.parent / "damaged" / folder.name
    number = 1
    while place.exists():
        number += 1
        place = place.with_name(f"{folder.name}-{number}")
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
    return place


def remove(folder: epath.Path) -> None:
    """Removes a checkpoint. Cut short, it leaves no half of one under the step's name, but in a bucket, where
    files are renamed one by one; what is left there is found damaged."""
    going = folder.with_name(REMOVED + folder.name)
    folder.rename(going)
    going.rmtree()
