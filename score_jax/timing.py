"""How long something takes: its first call by itself, then the median of some more."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of a call that was repeated.

    Attributes:
      first: of the first call, which compiles what is not compiled yet.
      median: of the calls after it.
      low: their first quartile.
      high: their third quartile.
      repeats: how many there were.
    """

    first: float
    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, first: float, seconds: Sequence[float]) -> Timing:
        """From the seconds of the first call and of those after it; quartiles are interpolated linearly."""
        low, median, high = np.percentile(seconds, (25, 50, 75)).tolist()
        return cls(first, median, low, high, len(seconds))


def timed(call: Callable[[], Any], repeats: int, first: float | None = None) -> Timing:
    """Times a call that returns arrays, each time until they are there.

    Args:
      call: what to time.
      repeats: calls that count.
      first: seconds of the first call where that was made before; None: one is made that does not count.

    Raises:
      ValueError: there is nothing to repeat.
    """
    if repeats < 1:
        raise ValueError(f"--repeats={repeats}: the first call compiles and does not count; give 1 or more")
    first = seconds_of(call) if first is None else first
    return Timing.of(first, [seconds_of(call) for _ in range(repeats)])


def timed_in_turn(
    call: Callable[[], Any], other: Callable[[], Any], repeats: int
) -> tuple[Timing, Timing, float]:
    """Times two calls in turn, so that what else the machine does falls on both alike; see `timed`.

    Returns:
      Seconds of both, and their `ratio`.
    """
    turns = [(seconds_of(call, rested=True), seconds_of(other, rested=True)) for _ in range(repeats + 1)]
    mine, others = zip(*turns, strict=True)
    found = ratio(mine[1:], others[1:])
    return Timing.of(mine[0], mine[1:]), Timing.of(others[0], others[1:]), found


def ratio(mine: Sequence[float], others: Sequence[float]) -> float:
    """The median of all turns: seconds of one side over the other's."""
    return float(np.median(np.divide(mine, others)))


def rest(quiet: float = 0.05) -> None:
    """Waits until no thread of this process works: what a call leaves to do after it has returned, as to free
    its memory, is not to fall on whoever is timed next.

    Args:
      quiet: seconds for which all have to be still; if they never are, it ends after a hundred times as long.
    """
    for _ in range(100):
        before = time.process_time()
        time.sleep(quiet)
        if time.process_time() - before < quiet / 10:
            return


def seconds_of(call: Callable[[], Any], *, rested: bool = False) -> float:
    """Those of a call that returns arrays, until they are there; `rested`: returns after a `rest`."""
    begin = time.perf_counter()
    jax.block_until_ready(call())
    seconds = time.perf_counter() - begin
    if rested:
        rest()
    return seconds
