"""The loop of every stage: an update, its row in metrics.jsonl, a checkpoint where one is due."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

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
      row: of metrics.jsonl, but for step, stage, learning_rate and seconds, which the loop knows.
      problems: the id of each learned row's problem.
      batch: makes the diagnosis of this update; asked for where the run gives up.
      reward: by which checkpoints are compared, see `retention.Note`; without one all are equally good.
      shown: numbers beside the progress bar.
      transcript: one of its episodes as text, "" for none.
      seconds: that its stage took before the loop began; they go into the row's.
    """

    state: TrainState
    row: Mapping[str, Any]
    problems: Sequence[str]
    batch: Callable[[], diagnosis.Batch]
    reward: float = 0.0
    shown: Mapping[str, float] = dataclasses.field(default_factory=dict)
    transcript: str = ""
    seconds: float = 0.0


@runtime_checkable
class Updater(Protocol):
    """Makes the updates of a stage."""

    def __call__(self, state: TrainState, step: int, rate: float, last: Mapping[str, Any] | None) -> Update:
        """One update.

        Args:
          state: before it; donated, not to be used afterwards.
          step: its number among the stage's, from 0.
          rate: the learning rate.
          last: the run's row of metrics.jsonl before it, None at the first.
        """
        ...


def run_stage(
    config: ml_collections.ConfigDict,
    stage: ml_collections.ConfigDict,
    state: TrainState,
    updater: Updater,
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
      updater: makes its updates.
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
            made = updater(state, step, rate, metrics.last)
            state, number = made.state, begin + step + 1  # the run's own number, from 1
            known = {"step": number, "stage": stage.name, "learning_rate": rate}
            seconds = time.monotonic() - start + made.seconds
            metrics.write({**known, **made.row, "seconds": seconds})
            if metrics.skipped >= config.max_skipped:
                diagnosis.give_up(
                    workdir,
                    state.params,
                    made.batch(),
                    made.problems,
                    stage=stage.name,
                    step=number,
                    times=metrics.skipped,
                )
            rewards.append(made.reward)
            progress.advance(made.shown)
            if made.transcript and number % config.log.transcript_every == 0:
                say(made.transcript)
            del made  # its batch is not to lie beside the next one
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
