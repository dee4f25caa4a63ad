"""The loop of every stage: an update, its row in metrics.jsonl, a checkpoint where one is due."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
from etils import epath

from score_jax import diagnosis, interruption
from score_jax.checkpoint import Checkpoints
from score_jax.log import Metrics, Progress, say
from score_jax.retention import note_of
from score_jax.schedule import learning_rate_at
from score_jax.types import TrainState


@dataclasses.dataclass(frozen=True)
class Update:
    """What one update came to.

    Attributes:
      state: after it.
      row: of metrics.jsonl, but for what the loop itself knows.
      problems: the id of each learned row's problem.
      batch: gives what is kept of the update if it was one skipped too many.
      reward: by which checkpoints are compared, see `Note`. Without a training reward all are equally good.
      shown: numbers beside the progress bar.
      transcript: one of its episodes as text.
      seconds: that went into it before its stage's loop began.
    """

    state: TrainState
    row: Mapping[str, Any]
    problems: Sequence[str]
    batch: Callable[[], diagnosis.Batch]
    reward: float = 0.0
    shown: Mapping[str, float] = dataclasses.field(default_factory=dict)
    transcript: str = ""
    seconds: float = 0.0


# Makes an update: of the state before it, which is given away; its number in the stage, from 0; the learning
# rate; and the run's row of metrics.jsonl before it, None at the first.
Updater = Callable[[TrainState, int, float, Mapping[str, Any] | None], Update]


def run_stage(
    config: ml_collections.ConfigDict,
    stage: ml_collections.ConfigDict,
    state: TrainState,
    update: Updater,
    checkpoints: Checkpoints,
    workdir: epath.Path,
    *,
    begin: int,
) -> TrainState:
    """Runs a stage from where `state` stands to its end.

    Args:
      config: the run's.
      stage: the stage's part of it.
      state: `begin` updates or more came before it.
      update: makes one.
      checkpoints: what is due is saved there.
      workdir: has metrics.jsonl.
      begin: updates that came before the stage.

    Raises:
      Interrupted: the run was told to stop, and what it has is saved.
      Diverged: too many updates in a row were skipped.
    """
    done = int(state.step) - begin
    rewards = checkpoints.window(int(state.step)) if done else []
    with (
        Metrics(workdir, int(state.step), config) as metrics,
        Progress(stage.name, stage.steps, every=config.log.every, done=done) as progress,
    ):
        for step in range(done, stage.steps):
            start, rate = time.monotonic(), learning_rate_at(stage, step)
            made = update(state, step, rate, metrics.last)
            state, number = made.state, begin + step + 1
            seconds = made.seconds + time.monotonic() - start
            known = {"step": number, "stage": stage.name, "learning_rate": rate}
            metrics.write({**known, **made.row, "seconds": seconds})
            if metrics.skipped >= config.max_skipped:
                found = {"stage": stage.name, "step": number, "times": metrics.skipped}
                diagnosis.give_up(workdir, state.params, made.batch(), made.problems, **found)
            rewards.append(made.reward)
            progress.advance(made.shown)
            if made.transcript and number % config.log.transcript_every == 0:
                say(made.transcript)
            due = (step + 1) % config.checkpoint_every == 0 or step + 1 == stage.steps
            told = interruption.asked()
            if due or told:
                metrics.flush()  # first: a checkpoint never has an update that the log has lost
                checkpoints.save(state, note_of(stage.name, rewards, due=due))
                rewards = []
            if told:
                checkpoints.wait()
                raise interruption.Interrupted(f"update {number} is saved")
        checkpoints.wait()
    return state
