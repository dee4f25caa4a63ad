"""What was timed, beside the least time that its work takes at the rates of the device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from score_jax.machine import Rates
from score_jax.program_cost import Cost
from score_jax.timing import Timing
from score_jax.work import Part, least


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a step, as it was timed and as fast as it could be.

    Attributes:
      name: rollout | scoring | update | step.
      timing: seconds.
      cost: the operations and bytes that it needs.
      floor: seconds that it takes at least, at the device's rates.
      bound: flops | memory: what most of the floor is bound by.
      rates: the device's.
    """

    name: str
    timing: Timing
    cost: Cost
    floor: float
    bound: str
    rates: Rates

    @property
    def ratio(self) -> float:
        """Floor over measured: 1 is as fast as can be."""
        return self.floor / self.timing.median

    @property
    def mfu(self) -> float:
        """Operations that are needed over those that the device could do in the time."""
        return self.cost.flops / self.timing.median / self.rates.flops

    @property
    def traffic(self) -> float:
        """Bytes that have to be moved over those that the device could move in the time."""
        return self.cost.memory / self.timing.median / self.rates.bandwidth

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = ("name", "floor", "bound", "ratio", "mfu", "traffic")
        found = {name: getattr(self, name) for name in names}
        cost = {"flops": self.cost.flops, "memory": self.cost.memory}
        return found | cost | dataclasses.asdict(self.timing)


def phases_of(
    timings: Mapping[str, Timing], works: Mapping[str, Sequence[Part]], rates: Rates
) -> tuple[Phase, ...]:
    """What was timed, beside the least that it can take."""
    found = []
    for name, timing in timings.items():
        spent = least(works[name], rates)
        cost = functools.reduce(Cost.__add__, (part.cost for part in works[name]))
        bound = max(spent, key=spent.__getitem__)
        found.append(Phase(name, timing, cost, sum(spent.values()), bound, rates))
    return tuple(found)
