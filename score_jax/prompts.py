"""Between text and tokens: prompts, attempts, and where in its tokens an attempt's answer stands."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from score_jax.chat import Format
from score_jax.sampling import Slots
from score_jax.task import Answer, Demonstration, Task
from score_jax.types import CONTEXT, PADDING, Problem


def make_slots(format: Format, task: Task, *, prompt: int, attempt: int, attempts: int) -> Slots:
    """The transcript's layout for a task."""
    return Slots(prompt, attempt, tuple(format.instruction(task.instruction)), attempts)


def encode_prompts(format: Format, problems: Sequence[Problem], slots: Slots) -> Int[np.ndarray, "B P"]:
    """Prompts, left-padded. A given first attempt and the instruction that follows it belong to the prompt.

    Raises:
      ValueError: a prompt is longer than its slot; nothing is cut.
    """
    encoded = [_prompt_ids(format, problem, slots) for problem in problems]
    too_long = [(p.id, len(ids)) for p, ids in zip(problems, encoded, strict=True) if len(ids) > slots.prompt]
    if too_long:
        id_, length = max(too_long, key=lambda pair: pair[1])
        raise ValueError(
            f"config.slots.prompt = {slots.prompt}: {len(too_long)} of {len(problems)} prompts are longer, "
            f"the longest is {id_!r} with {length} tokens; shorten them, or train with "
            f"config.slots.prompt = {length}"
        )
    tokens = np.full((len(problems), slots.prompt), format.pad, np.int32)
    for row, ids in zip(tokens, encoded, strict=True):
        row[slots.prompt - len(ids) :] = ids
    return tokens


def _prompt_ids(format: Format, problem: Problem, slots: Slots) -> list[int]:
    """What stands before the model's first own token: token for token as in an episode."""
    ids = format.prompt(problem.prompt)
    if problem.first is None:
        return ids
    return [*ids, *format.attempt(problem.first), *slots.instruction]


def encode_demonstrations(
    format: Format,
    task: Task,
    problems: Sequence[Problem],
    demonstrations: Sequence[Demonstration],
    slots: Slots,
) -> tuple[Int[np.ndarray, "E L"], Int[np.ndarray, "E L"], Float[np.ndarray, "E L"]]:
    """Transcripts to imitate: tokens, `attempt` as in Episodes, and the weight of each token in the loss.

    Raises:
      ValueError: an attempt is longer than its slot; nothing is cut.
    """
    shape = (len(problems), slots.length)
    tokens = np.full(shape, format.pad, np.int32)
    attempt = np.full(shape, PADDING, np.int32)
    weight = np.zeros(shape, np.float32)
    tokens[:, : slots.prompt] = encode_prompts(format, problems, slots)
    attempt[:, : slots.prompt] = np.where(tokens[:, : slots.prompt] == format.pad, PADDING, CONTEXT)
    for number in range(1, slots.attempts + 1):
        start = slots.start(number)
        if number > 1:
            tokens[:, start - len(slots.instruction) : start] = slots.instruction
            attempt[:, start - len(slots.instruction) : start] = CONTEXT
        for row, demonstration in enumerate(demonstrations):
            text = demonstration.attempts[number - 1]
            ids = format.attempt(text)
            if len(ids) > slots.attempt:
                raise ValueError(
                    f"config.slots.attempt = {slots.attempt}: a demonstration of {problems[row].id!r} "
                    f"has {len(ids)} tokens; raise config.slots.attempt to {len(ids)} or more"
                )
            place = slice(start, start + len(ids))
            tokens[row, place] = ids
            attempt[row, place] = number
            weight[row, place] = 1.0
            answer = task.answer(text)
            if answer is not None and not demonstration.imitate_answer[number - 1]:
                first, last = (token_at(format, ids, char) for char in (answer.start, answer.stop - 1))
                weight[row, start + first : start + last + 1] = 0.0
    return tokens, attempt, weight


def token_at(format: Format, ids: Sequence[int], char: int) -> int:
    """Index of the token in whose text character `char` of an attempt stands; len(ids) if none."""
    lengths = range(len(ids) + 1)
    return bisect.bisect_right(lengths, char, key=lambda count: len(format.text(ids[:count]))) - 1


def decisive_tokens(format: Format, ids: Sequence[int], answer: Answer | None) -> int:
    """How many leading tokens of an attempt can still change its reward; all of them if it has no answer."""
    if answer is None:
        return len(ids)
    return min(len(ids), token_at(format, ids, answer.decided - 1) + 1)
