"""How long attempts are, as far as a plan has to suppose: geometrically distributed, cut at their slot."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Of the tokens of an attempt in a slot of `slot` tokens: min(slot, X), X geometric with mean `mean`.

    Attributes:
      slot: tokens that an attempt may have.
      mean: of X, in tokens; infinity: every attempt fills its slot.
    """

    slot: int
    mean: float

    def _reached(self, rows: int) -> np.ndarray:
        """[slot]: the probability that the longest of `rows` attempts has more than 0, 1, 2, ... tokens."""
        end = 1 / self.mean
        return 1 - (1 - (1 - end) ** np.arange(self.slot)) ** rows

    @property
    def expected(self) -> float:
        """The mean number of tokens of an attempt."""
        return float(self._reached(1).sum())

    def longest(self, rows: int) -> float:
        """The mean number of tokens of the longest of `rows`: as many rounds does the sampler make."""
        return float(self._reached(rows).sum())
