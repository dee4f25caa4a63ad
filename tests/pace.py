"""How fast this machine runs Python, so that a bar in seconds holds on any."""

import time
import timeit
from collections.abc import Callable

STEPS = 300_000
SECONDS = 0.05  # of CPU time for `_loop` on a free core of the machine on which the bars were set


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU seconds of a call on that machine: the least of five, since a busy core slows down any of them.

    Of this thread alone: the compiler's and the runtime's threads count among the process's.
    """
    return min(timeit.repeat(call, timer=time.thread_time, number=1, repeat=5)) / slowness()


def slowness() -> float:
    """How many times longer than there a fixed loop takes just now, in CPU time; at least 1."""
    seconds = timeit.repeat(_loop, timer=time.thread_time, number=1, repeat=9)
    return max(1.0, sorted(seconds)[4] / SECONDS)


def _loop() -> int:
    """As slow as what is measured beside it."""
    total = 0
    for i in range(STEPS):
        total += i * i % 7
    return total
