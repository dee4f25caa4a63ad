"""What is handed from stage to stage, and the letters that name array axes.

B  problems in a batch     K  samples per problem       E  episodes: E = B K, row = problem * K + sample
N  attempts per episode    L  tokens in a transcript    V  vocabulary    D  width of the model
P  prompt slot             T  attempt slot              F  tokens of the correction instruction
C  critique slot

A transcript is laid out in fixed slots, so that the KV-cache index is the transcript index:

    |--- P ---|---- T ----|- F -|---- T ----|
    ··  prompt  attempt 1 ····  fix  attempt 2 ··        · = padding

A critique between two attempts has a slot and an instruction of its own. It is part of the turn of the
attempt that it prepares: its tokens are that attempt's in `Episodes.attempt`.

    |--- P ---|---- T ----|- F -|---- C ----|- F -|---- T ----|
    ··  prompt  attempt 1 ····  ask  critique ····  use  attempt 2 ··

A given first attempt stands in the prompt, with the instruction after it. The critique of one is written
before the first attempt that is sampled, and is of its turn.

    |--------------- P ------------|---- C ----|- F -|---- T ----|
    ··  prompt  given attempt  ask  critique ····  use  attempt 1 ··
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Float, Int

PADDING = -1  # in `Episodes.attempt`: nothing stands here
CONTEXT = 0  # in `Episodes.attempt`: given to the model, not sampled by it


@dataclasses.dataclass(frozen=True)
class Tests:
    """What a program has to pass.

    Attributes:
      entry: the names that the tests use of the program.
      shown: source of the tests that stand in the prompt, "" if there are none.
      hidden: source of the tests that are held back, "" if there are none.
      setup: source that runs before either of them.
    """

    entry: tuple[str, ...]
    shown: str = ""
    hidden: str = ""
    setup: str = ""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem of a task.

    Attributes:
      id: unique over all splits of the task.
      prompt: the text that the model is shown before its first attempt.
      gold: the right answer, as the task's grader reads it; of a code problem the reference program.
      level: difficulty, 1 is the easiest.
      subject: the field that it belongs to, where the task has such.
      tests: what decides about a program, in a code problem.
      first: text of a given first attempt: the model is shown it and the correction instruction as part of
        the prompt, so that the first attempt that it makes itself is the correction.
    """

    id: str
    prompt: str
    gold: str
    level: int = 1
    subject: str = ""
    tests: Tests | None = None
    first: str | None = None


@flax.struct.dataclass
class Episodes:
    """A batch of transcripts, as sampled.

    Attributes:
      tokens: token ids; `PAD` of the tokenizer where `attempt` is PADDING.
      attempt: who wrote a token: PADDING, CONTEXT, or i >= 1 for a token sampled in attempt i or in the
        critique before it.
      logp: log-probability (nats) under which the sampler drew the token; 0 where attempt < 1.
    """

    tokens: Int[Array | np.ndarray, "E L"]
    attempt: Int[Array | np.ndarray, "E L"]
    logp: Float[Array | np.ndarray, "E L"]


@flax.struct.dataclass
class Experience:
    """What one update learns from: transcripts and what the host made of them.

    Attributes:
      episodes: the transcripts.
      rewards: r̂ of each attempt, from the task's checker.
      decisive: 1 for sampled tokens that could still change their own attempt's reward, 0 for the rest
        (`PolicyGradientLoss` may leave the rest out).
    """

    episodes: Episodes
    rewards: Float[Array | np.ndarray, "E N"]
    decisive: Float[Array | np.ndarray, "E L"]


@flax.struct.dataclass
class TrainState:
    """All that an update changes.

    Attributes:
      step: updates done so far, over all stages.
      params: those of the policy's parameters that are trained.
      opt_state: the optimiser's state.
    """

    step: Int[Array, ""]
    params: dict
    opt_state: jax.typing.ArrayLike | tuple
