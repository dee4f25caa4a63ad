"""How fast this machine runs Python, so that a bar in seconds holds on any."""

import time

STEPS = 300_000
SECONDS = 0.05  # of CPU time for `_loop` on a free core of the machine on which the bars were set


def slowness() -> float:
    """How many times longer than there a fixed loop takes just now, in CPU time; at least 1."""
    return max(1.0, _loop() / SECONDS)


def _loop() -> float:
    """CPU seconds of the loop, the median of nine: it is to be as slow as what is measured beside it."""
    seconds = []
    for _ in range(9):
        begin, total = time.process_time(), 0
        for i in range(STEPS):
            total += i * i % 7
        seconds.append(time.process_time() - begin)
    return sorted(seconds)[4]
