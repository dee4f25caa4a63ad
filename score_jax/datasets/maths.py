"""What the maths benchmarks share: the prompt, how an answer is read, and the grader."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar

from score_jax import instructions
from score_jax.datasets.published import PublishedTask
from score_jax.datasets.rows import Example
from score_jax.rewards.math_answer import final_answer
from score_jax.rewards.math_reward import MathGrader
from score_jax.task import Answer, Grade
from score_jax.types import Problem


class MathsTask(PublishedTask):
    """Maths problems with one final answer each, graded by mathematical equality."""

    instruction = instructions.MATH_CORRECTION
    feedback = instructions.MATH_FEEDBACK
    refine = instructions.MATH_REFINE

    #: Verdicts that say more than that an answer is wrong; each is a note.
    faults: ClassVar = ("refused", "timeout", "crashed")

    @functools.cached_property
    def grader(self) -> MathGrader:
        """Its worker processes start with the first pair that needs them."""
        return MathGrader()

    def problem(self, example: Example) -> Problem:
        return Problem(
            id=example.id,
            prompt=instructions.math_prompt(example.text),
            gold=example.gold,
            level=example.level,
            subject=example.subject,
        )

    def ask(self, text: str) -> str:
        return instructions.math_prompt(text)

    def check_gold(self, gold: str) -> None:
        self.grader.check_gold(gold)

    def answer(self, text: str) -> Answer | None:
        """The one final answer of `text`, as it is written: where answers are counted, changed ones or votes,
        1/2 and 0.5 are two. The grader alone knows them for one number."""
        return final_answer(text)

    def reward(self, problem: Problem, text: str) -> float:
        return self.grade([problem], [text])[0].reward

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """All answers in one call of the grader; no answer earns nothing. The notes are `faults`."""
        answers = [self.answer(text) for text in texts]
        golds = [problem.gold for problem in problems]
        verdicts = self.grader.grade(golds, [answer.value if answer else None for answer in answers])
        return [
            Grade(
                float(verdict.reward),
                {name: float(verdict.name.lower() == name) for name in self.faults},
            )
            for verdict in verdicts
        ]
