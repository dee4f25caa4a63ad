"""Which checkpoints may go: a run keeps the newest ones and the best ones, and what it still needs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Note:
    """What is known of a checkpoint beside its arrays.

    Attributes:
      stage: the stage that wrote it.
      reward: the stage's mean training reward since the checkpoint before: Σ_i w_i r̂_i, without
        bonus and KL, w being those of each update: where a unified stage comes to pay attempt 1, too, the
        sum is larger by its pay, and late checkpoints are the better ones. A supervised stage has none: all
        of its checkpoints have the same, so that the newest is its best.
      interim: written because the run was told to stop, and not where checkpoints are due. It never counts
        as best, and makes way for the next one, so that a run that was stopped ends with the checkpoints of
        one that was not.
      window: of an interim checkpoint, the rewards of the updates since the one before, which the next one's
        mean takes up.
    """

    stage: str
    reward: float
    interim: bool = False
    window: tuple[float, ...] = ()


def note_of(stage: str, window: Sequence[float], *, due: bool) -> Note:
    """The note of a checkpoint.

    Args:
      stage: its stage.
      window: the rewards of the updates since the last one that was due.
      due: whether it is; else it is an interim one.
    """
    if due:
        return Note(stage, float(np.mean(window)))
    return Note(stage, math.nan, interim=True, window=tuple(window))


def by_reward(notes: Mapping[int, Note], stage: str) -> list[int]:
    """The steps of a stage that may be called best, the best first: as the paper selects RL runs, by training
    reward; of equal ones the newest; NaN never is."""
    rewards = {
        step: note.reward
        for step, note in notes.items()
        if note.stage == stage and not note.interim and not math.isnan(note.reward)
    }
    return sorted(rewards, key=lambda step: (rewards[step], step), reverse=True)


def expendable(notes: Mapping[int, Note], *, newest: int, best: int) -> list[int]:
    """The steps that a run can do without, ascending.

    Never among them: the newest of all; the last of a stage, from which the next one starts and which a
    later one may hold as its reference; and the `best` of a stage by training reward, which are evaluated.

    Args:
      notes: of all whole checkpoints, by step.
      newest: how many of the newest are kept; 0 keeps all but interim ones.
      best: how many of the best of each stage are kept.
    """
    steps = sorted(notes)
    due = [step for step in steps if not notes[step].interim]
    kept = {*steps[-1:], *(due[-newest:] if newest else due)}
    for stage in {note.stage for note in notes.values()}:
        kept |= {*[step for step in due if notes[step].stage == stage][-1:]}
        kept |= {*by_reward(notes, stage)[:best]}
    return [step for step in steps if step not in kept]
