"""Where the parts of a transcript stand: the fixed layout that sampler, scorer and prompts share."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of a transcript that the model writes: an attempt, or the critique before it.

    Attributes:
      before: token ids of the instruction that stands right before it; none before the first attempt.
      start: index of its first token.
      stop: index after its last token.
      attempt: whose tokens they are in `Episodes.attempt`.
      critique: whether it is the critique before that attempt.
    """

    before: tuple[int, ...]
    start: int
    stop: int
    attempt: int
    critique: bool


@dataclasses.dataclass(frozen=True)
class Slots:
    """The fixed layout of a transcript (the drawings stand in `score_jax.types`).

    Attributes:
      prompt: P, tokens for the prompt.
      attempt: T, tokens for each attempt, the end token included.
      instruction: the correction instruction's token ids (F of them), the same in every row.
      attempts: N.
      critique: C, tokens for the critique before each later attempt, its end token included; 0: none is
        asked for.
      feedback: token ids of the instruction that asks for a critique; none where none is asked for.

    Raises:
      ValueError: there is room for a critique that nothing asks for, or the other way round.
    """

    prompt: int
    attempt: int
    instruction: tuple[int, ...]
    attempts: int
    critique: int = 0
    feedback: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.critique) != bool(self.feedback):
            raise ValueError(
                f"Slots.critique = {self.critique} with an instruction of {len(self.feedback)} tokens in "
                "Slots.feedback: a critique needs both; give both, or neither"
            )

    @property
    def between(self) -> int:
        """How many tokens stand between two attempts."""
        return len(self.feedback) + self.critique + len(self.instruction)

    @property
    def length(self) -> int:
        """L."""
        return self.prompt + self.attempts * self.attempt + (self.attempts - 1) * self.between

    def start(self, attempt: int) -> int:
        """The index of the first token of `attempt` itself (1 is the first), after its critique."""
        return self.prompt + (attempt - 1) * (self.attempt + self.between)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What the model writes, in order."""
        segments = []
        for attempt in range(1, self.attempts + 1):
            start = self.start(attempt)
            if attempt > 1 and self.critique:
                stop = start - len(self.instruction)
                segments.append(Segment(self.feedback, stop - self.critique, stop, attempt, critique=True))
            before = self.instruction if attempt > 1 else ()
            segments.append(Segment(before, start, start + self.attempt, attempt, critique=False))
        return tuple(segments)
