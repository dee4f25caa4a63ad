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
    first = _seconds(call) if first is None else first
    return Timing.of(first, [_seconds(call) for _ in range(repeats)])


def in_turn(call: Callable[[], Any], other: Callable[[], Any], repeats: int) -> tuple[Timing, Timing, float]:
    """Times two calls in turn, so that what else the machine does falls on both alike; see `timed`.

    Returns:
      Seconds of both, and the first's over the other's, the median of all turns.
    """
    mine, others = zip(*((_seconds(call), _seconds(other)) for _ in range(repeats + 1)), strict=True)
    ratio = float(np.median(np.divide(mine[1:], others[1:])))
    return Timing.of(mine[0], mine[1:]), Timing.of(others[0], others[1:]), ratio


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin
