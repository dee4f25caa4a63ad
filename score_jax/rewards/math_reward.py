"""The reward for maths: right or not, and at most a second per answer, whatever the policy wrote.

Texts and literal numbers (most of MATH) are compared here; what takes computer algebra goes to worker
processes that can be killed.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Sequence

from score_jax.rewards import math_form, math_pool
from score_jax.rewards.cores import cores

GOLD_LIMIT_S = 10.0  # for `check_gold`: gold answers are the user's own


class Verdict(enum.Enum):
    """What became of an answer; `reward` is what it earns."""

    RIGHT = "right"
    WRONG = "wrong"
    MISSING = "missing"  # the attempt gave no answer
    REFUSED = "refused"  # not read: empty, too long, too deeply nested, unbalanced, or several answers
    TIMEOUT = "timeout"  # not decided within the limit
    CRASHED = "crashed"  # out of memory, or its worker died twice

    @property
    def reward(self) -> float:
        return float(self is Verdict.RIGHT)


VERDICTS = {
    True: Verdict.RIGHT,
    False: Verdict.WRONG,
    None: Verdict.CRASHED,
    math_pool.TIMEOUT: Verdict.TIMEOUT,
    math_pool.CRASHED: Verdict.CRASHED,
}


class _Undecided(Exception):
    """It takes computer algebra."""


def _undecided(gold: str, answer: str) -> bool:
    raise _Undecided


def quick(gold: str, answer: str | None) -> Verdict | None:
    """The verdict, or None if it takes computer algebra."""
    if answer is None:
        return Verdict.MISSING
    if math_form.fault(answer):
        return Verdict.REFUSED
    golden, given = math_form.read(gold), math_form.read(answer)
    if golden is None or given is None:
        return Verdict.WRONG
    try:
        return Verdict.RIGHT if math_form.equal(golden, given, _undecided) else Verdict.WRONG
    except _Undecided:
        return None


class MathGrader:
    """Compares answers with gold answers; a context manager, for any number of threads.

    Args:
      workers: how many processes at most, by default one for each core that this process may use; they start
        when a pair needs them.
      limit_s: seconds of wall-clock time that a pair may take.
    """

    def __init__(self, workers: int | None = None, limit_s: float = 1.0):
        if workers is not None and workers < 1:
            raise ValueError(f"workers = {workers}: choose at least 1, or None for one per core")
        if not limit_s > 0:
            raise ValueError(f"limit_s = {limit_s}: choose a positive number of seconds")
        self.limit_s = limit_s
        self._pool = math_pool.Pool(workers or cores())
        self._lock = threading.Lock()

    def __enter__(self) -> MathGrader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers; grading again starts new ones."""
        with self._lock:
            self._pool.close()

    def grade(self, golds: Sequence[str], answers: Sequence[str | None]) -> list[Verdict]:
        """The verdict on each answer. Where two threads need the workers, one waits for the other."""
        if len(golds) != len(answers):
            raise ValueError(f"{len(golds)} golds and {len(answers)} answers: give one answer for each gold")
        verdicts = [quick(gold, answer) for gold, answer in zip(golds, answers, strict=True)]
        # The workers see each different pair once: samples of one problem often agree.
        hard = {(golds[i], answers[i]): i for i, verdict in enumerate(verdicts) if verdict is None}
        said = self._work({i: pair for pair, i in hard.items()}, self.limit_s)
        return [verdict or said[hard[golds[i], answers[i]]] for i, verdict in enumerate(verdicts)]

    def check_gold(self, gold: str) -> None:
        """Raises ValueError, in one line, if `gold` cannot be graded against."""
        form = None
        if not (why := math_form.fault(gold)) and (form := math_form.read(gold)) is None:
            why = "is not well formed: an item is empty, or numbers stand side by side"
        if form and math_form.has_expression(form):
            readable = self._work({0: (gold, None)}, GOLD_LIMIT_S)[0] is Verdict.RIGHT
            why = None if readable else r"cannot be parsed; write words as \text{...}"
        if why:
            raise ValueError(f"gold answer {gold[:80]!r} {why}")

    def _work(self, pairs: dict[int, tuple[str, str | None]], limit_s: float) -> dict[int, Verdict]:
        if not pairs:
            return {}
        with self._lock:
            return {i: VERDICTS[said] for i, said in self._pool.run(pairs, limit_s).items()}
