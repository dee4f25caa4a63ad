"""Where the parts of a transcript stand: the fixed layout that sampler, scorer and prompts share."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of a transcript that the model writes: an attempt, or the critique before it.

    Attributes:
      before: token ids of the instruction that stands right before it; none where the prompt does.
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
      critique_first: whether the first attempt follows a critique, too: that of a given attempt, with which
        and with whose feedback the prompt ends.

    Raises:
      ValueError: there is room for a critique that nothing asks for, or the other way round.
    """

    prompt: int
    attempt: int
    instruction: tuple[int, ...]
    attempts: int
    critique: int = 0
    feedback: tuple[int, ...] = ()
    critique_first: bool = False

    def __post_init__(self) -> None:
        if bool(self.critique) != bool(self.feedback):
            raise ValueError(
                f"Slots.critique = {self.critique} with an instruction of {len(self.feedback)} tokens in "
                "Slots.feedback: a critique needs both; give both, or neither"
            )
        if self.critique_first and not self.critique:
            raise ValueError("Slots.critique_first = True: Slots.critique = 0; give it some tokens")

    @property
    def between(self) -> int:
        """How many tokens stand between two attempts."""
        return len(self.feedback) + self.critique + len(self.instruction)

    @property
    def length(self) -> int:
        """L."""
        return self.start(self.attempts) + self.attempt

    def start(self, attempt: int) -> int:
        """The index of the first token of `attempt` itself (1 is the first), after its critique."""
        lead = self.critique + len(self.instruction) if self.critique_first else 0
        return self.prompt + lead + (attempt - 1) * (self.attempt + self.between)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What the model writes, in order."""
        segments = []
        for attempt in range(1, self.attempts + 1):
            start, follows = self.start(attempt), attempt > 1 or self.critique_first
            if follows and self.critique:
                stop, asked = start - len(self.instruction), self.feedback if attempt > 1 else ()
                segments.append(Segment(asked, stop - self.critique, stop, attempt, critique=True))
            before = self.instruction if follows else ()
            segments.append(Segment(before, start, start + self.attempt, attempt, critique=False))
        return tuple(segments)
