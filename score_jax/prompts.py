"""Between text and tokens: prompts, attempts, and where in its tokens an attempt's answer stands."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from score_jax.chat import Format
from score_jax.slots import Segment, Slots
from score_jax.task import Answer, Demonstration, Task
from score_jax.types import CONTEXT, PADDING, Problem

_LISTED = 20  # prompts that a message lists, the longest first


def make_slots(
    format: Format, task: Task, *, prompt: int, attempt: int, attempts: int, critique: int = 0
) -> Slots:
    """The transcript's layout for a task; with `critique` tokens for a critique before each later attempt."""
    if not critique:
        return Slots(prompt, attempt, tuple(format.instruction(task.instruction)), attempts)
    feedback, refine = (tuple(format.instruction(words)) for words in (task.feedback, task.refine))
    return Slots(prompt, attempt, refine, attempts, critique, feedback)


def encode_prompts(format: Format, problems: Sequence[Problem], slots: Slots) -> Int[np.ndarray, "B P"]:
    """Prompts, left-padded. A given first attempt and the instruction right after it belong to the prompt.

    Raises:
      ValueError: a prompt is longer than its slot; nothing is cut.
    """
    encoded = [_prompt_ids(format, problem, slots) for problem in problems]
    too_long = [(p.id, len(ids)) for p, ids in zip(problems, encoded, strict=True) if len(ids) > slots.prompt]
    if too_long:
        too_long.sort(key=lambda pair: -pair[1])
        shown = ", ".join(f"{id_!r} with {length}" for id_, length in too_long[:_LISTED])
        more = f" and {len(too_long) - _LISTED} more" if len(too_long) > _LISTED else ""
        raise ValueError(
            f"config.slots.prompt = {slots.prompt}: {len(too_long)} of {len(problems)} prompts are longer "
            f"({shown}{more} tokens); shorten them, or train with config.slots.prompt = {too_long[0][1]}"
        )
    tokens = np.full((len(problems), slots.prompt), format.pad, np.int32)
    for row, ids in zip(tokens, encoded, strict=True):
        row[slots.prompt - len(ids) :] = ids
    return tokens


def longest_prompt(format: Format, problems: Sequence[Problem], slots: Slots) -> int:
    """Tokens of the longest prompt, a given first attempt and the instruction after it included."""
    return max(len(_prompt_ids(format, problem, slots)) for problem in problems)


def _prompt_ids(format: Format, problem: Problem, slots: Slots) -> list[int]:
    """What stands before the model's first own token: token for token as in an episode.

    Raises:
      ValueError: there is no place for the critique of a given first attempt, or no attempt for that place.
    """
    ids = format.prompt(problem.prompt)
    if slots.critique and slots.critique_first != (problem.first is not None):
        comes, other = ("without", "with") if slots.critique_first else ("with", "without")
        raise ValueError(
            f"problem {problem.id!r} comes {comes} a first attempt, and the transcripts are laid out for "
            f"critiques of problems {other} one; turn those of this stage or evaluation off (critique=False)"
        )
    if problem.first is None:
        return ids
    return [*ids, *format.attempt(problem.first), *(slots.feedback or slots.instruction)]


def encode_demonstrations(
    format: Format,
    task: Task,
    problems: Sequence[Problem],
    demonstrations: Sequence[Demonstration],
    slots: Slots,
) -> tuple[Int[np.ndarray, "E L"], Int[np.ndarray, "E L"], Float[np.ndarray, "E L"]]:
    """Transcripts to imitate: tokens, `attempt` as in Episodes, and the weight of each token in the loss.

    A demonstration without critiques can stand in slots that have some: the plain instruction is right before
    its attempts then, and padding in the rest, which changes nothing.

    Raises:
      ValueError: an attempt or a critique is longer than its slot, or a critique has none; nothing is cut.
    """
    shape = (len(problems), slots.length)
    tokens = np.full(shape, format.pad, np.int32)
    attempt = np.full(shape, PADDING, np.int32)
    weight = np.zeros(shape, np.float32)
    tokens[:, : slots.prompt] = encode_prompts(format, problems, slots)
    attempt[:, : slots.prompt] = np.where(tokens[:, : slots.prompt] == format.pad, PADDING, CONTEXT)
    plain = format.instruction(task.instruction)
    for row, (problem, demonstration) in enumerate(zip(problems, demonstrations, strict=True)):
        _check_critiques(problem, demonstration, slots, plain)
        for segment in slots.segments:
            if segment.critique and not demonstration.critiques:
                continue  # its place stays padding, and the instruction before the attempt is the plain one
            ids, learned = _segment_ids(format, task, demonstration, segment)
            if len(ids) > segment.stop - segment.start:
                field = "critique" if segment.critique else "attempt"
                raise ValueError(
                    f"config.slots.{field} = {segment.stop - segment.start}: a demonstration of "
                    f"{problem.id!r} has {len(ids)} tokens; raise config.slots.{field} to {len(ids)} or more"
                )
            before: Sequence[int] = segment.before
            if before and slots.critique and not demonstration.critiques:
                before = plain
            tokens[row, segment.start - len(before) : segment.start] = before
            attempt[row, segment.start - len(before) : segment.start] = CONTEXT
            place = slice(segment.start, segment.start + len(ids))
            tokens[row, place] = ids
            attempt[row, place] = segment.attempt
            weight[row, place] = learned
    return tokens, attempt, weight


def _check_critiques(
    problem: Problem, demonstration: Demonstration, slots: Slots, plain: Sequence[int]
) -> None:
    """Refuses a demonstration whose critiques, or whose lack of them, the layout cannot show."""
    count = len(demonstration.critiques)
    if count and (not slots.critique or count != slots.attempts - 1):
        wanted = slots.attempts - 1 if slots.critique else 0
        raise ValueError(
            f"Demonstration.critiques of {problem.id!r}: got {count}, the layout has places for {wanted}; "
            "give one before each later attempt where config.slots.critique > 0, else none"
        )
    if slots.critique and not count and slots.attempts > 1 and len(plain) > slots.between:
        raise ValueError(
            f"config.slots.critique = {slots.critique}: where a demonstration shows none, the instruction's "
            f"{len(plain)} tokens do not fit between two attempts; raise it to "
            f"{slots.critique + len(plain) - slots.between} or more"
        )


def _segment_ids(
    format: Format, task: Task, demonstration: Demonstration, segment: Segment
) -> tuple[list[int], Float[np.ndarray, "T"]]:
    """The tokens of one segment of a demonstration, and their weights in the loss."""
    if segment.critique:
        ids = format.attempt(demonstration.critiques[segment.attempt - 2])
        return ids, np.ones(len(ids), np.float32)
    text = demonstration.attempts[segment.attempt - 1]
    ids = format.attempt(text)
    learned = np.ones(len(ids), np.float32)
    answer = task.answer(text)
    if answer is not None and not demonstration.imitate_answer[segment.attempt - 1]:
        first, last = (token_at(format, ids, char) for char in (answer.start, answer.stop - 1))
        learned[first : last + 1] = 0.0
    return ids, learned


def token_at(format: Format, ids: Sequence[int], char: int) -> int:
    """Index of the token in whose text character `char` of an attempt stands; len(ids) if none."""
    lengths = range(len(ids) + 1)
    return bisect.bisect_right(lengths, char, key=lambda count: len(format.text(ids[:count]))) - 1


def decisive_tokens(format: Format, ids: Sequence[int], answer: Answer | None) -> int:
    """How many leading tokens of an attempt can still change its reward; all of them if it has no answer."""
    if answer is None:
        return len(ids)
    return min(len(ids), token_at(format, ids, answer.decided - 1) + 1)
