"""How long the cells of a study or a sweep have taken, and about how long those that are left will."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from score_jax.cell import Cell, cost_of


class Clock:
    """How long the cells of this call took, and about how long those that are left will."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.done = 0  # cells made in this call
        self._cost = 0.0
        self._wrote, self._writing = 0.0, 0.0  # when the findings were last written, and how long that took

    @contextlib.contextmanager
    def on(self, cell: Cell) -> Iterator[None]:
        """Counts the time that a cell takes."""
        start, cost = time.monotonic(), cost_of([cell])  # before its base model is there
        yield
        self.seconds += time.monotonic() - start
        self._cost += cost
        self.done += 1

    def may_write(self) -> bool:
        """Whether writing the findings now would take less than a tenth of the time."""
        return time.monotonic() - self._wrote > 10 * self._writing

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Notes how long it takes to write the findings: all that was measured is read for it."""
        start = time.monotonic()
        yield
        self._wrote = time.monotonic()
        self._writing = self._wrote - start

    def left(self, cells: Sequence[Cell]) -> float:
        """Seconds, as far as cells made in this call tell."""
        missing = cost_of([cell for cell in cells if not cell.done])
        return missing * self.seconds / self._cost if self._cost else 0.0
