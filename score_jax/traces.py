"""Episodes as traces, and which of them STaR and Pair-SFT imitate: the baselines of section 4.

                      attempt 1   attempt 2
    STaR      D       wrong       right: what the model wrote after this very attempt
              D⁺      right too   right
    Pair-SFT  D       wrong       right: any right attempt at the same problem, put in its place
              D⁺      right too   right

What is learned is attempt 2 alone: attempt 1 is what is to be corrected, and imitating the wrong ones would
teach mistakes (in Table 1, STaR's Acc@t1 does not fall below the base's).
"""

from __future__ import annotations

import dataclasses
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from score_jax.imitation import Examples
from score_jax.slots import Slots
from score_jax.types import CONTEXT, PADDING, Problem


@dataclasses.dataclass(frozen=True)
class Trace:
    """An episode of two attempts as token ids, as they were sampled; padding and instruction left out.

    Attributes:
      problem: the id of its problem.
      prompt: the prompt.
      attempts: both attempts, with their end token where they have one.
      right: whether each attempt is.
    """

    problem: str
    prompt: Int[np.ndarray, "_"]
    attempts: tuple[Int[np.ndarray, "_"], Int[np.ndarray, "_"]]
    right: tuple[bool, bool]


def traces_of(
    tokens: Int[np.ndarray, "E L"],
    attempt: Int[np.ndarray, "E L"],
    rewards: Float[np.ndarray, "E 2"],
    problems: Sequence[Problem],
    slots: Slots,
) -> list[Trace]:
    """Episodes as traces, row by row."""
    return [
        Trace(
            problem=problem.id,
            prompt=row[: slots.prompt][who[: slots.prompt] == CONTEXT],
            attempts=(row[who == 1], row[who == 2]),
            right=(bool(reward[0] == 1), bool(reward[1] == 1)),
        )
        for row, who, reward, problem in zip(tokens, attempt, rewards, problems, strict=True)
    ]


def star(traces: Sequence[Trace], *, keep_right: bool) -> list[Trace]:
    """STaR's filter (Zelikman et al. 2022): traces that correct a wrong first attempt, D_STaR.

    Args:
      traces: to choose from.
      keep_right: those that are right twice, too: D⁺_STaR.
    """
    return [trace for trace in traces if trace.right[1] and (keep_right or not trace.right[0])]


def remember_right(solutions: defaultdict[str, list[Int[np.ndarray, "_"]]], traces: Sequence[Trace]) -> None:
    """Adds the right attempts of `traces`, first or second, to those of their problem."""
    for trace in traces:
        for ids, right in zip(trace.attempts, trace.right, strict=True):
            if right:
                solutions[trace.problem].append(ids)


def pair(
    traces: Sequence[Trace],
    solutions: Mapping[str, Sequence[Int[np.ndarray, "_"]]],
    *,
    seed: int,
    first_row: int,
    keep_right: bool,
) -> list[Trace]:
    """Pair-SFT's examples: each wrong first attempt, then a right attempt at the same problem, D_SFT.

    A first attempt whose problem nobody has solved yet makes no pair.

    Args:
      traces: whose first attempts are to be paired.
      solutions: right attempts by problem; one of them is drawn, a function of (seed, row).
      seed: of the run.
      first_row: how many traces came before these in the run.
      keep_right: right first attempts are paired likewise, maybe with themselves: D⁺_SFT.
    """
    pairs = []
    for row, trace in enumerate(traces, start=first_row):
        known = solutions.get(trace.problem, ())
        if known and (keep_right or not trace.right[0]):
            rng = np.random.default_rng([seed, zlib.crc32(b"pair"), row])
            attempts = (trace.attempts[0], known[int(rng.integers(len(known)))])
            pairs.append(dataclasses.replace(trace, attempts=attempts, right=(trace.right[0], True)))
    return pairs


def lay_out(traces: Sequence[Trace], slots: Slots, pad: int) -> Examples:
    """Traces in the slots of a transcript, where sampled tokens stand as they stood; learned: attempt 2."""
    shape = (len(traces), slots.length)
    tokens = np.full(shape, pad, np.int32)
    attempt = np.full(shape, PADDING, np.int32)

    def write(row: int, start: int, ids: Sequence[int] | Int[np.ndarray, "_"], who: int) -> None:
        tokens[row, start : start + len(ids)] = ids
        attempt[row, start : start + len(ids)] = who

    for row, trace in enumerate(traces):
        write(row, slots.prompt - len(trace.prompt), trace.prompt, CONTEXT)
        write(row, slots.start(1), trace.attempts[0], 1)
        write(row, slots.start(2) - len(slots.instruction), slots.instruction, CONTEXT)
        write(row, slots.start(2), trace.attempts[1], 2)
    return Examples(tokens, attempt, (attempt == 2).astype(np.float32))
