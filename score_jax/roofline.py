"""The least time that an RL step can take on a chip: the roofline of each of its phases.

Each region of a program (`program_cost`) takes at least as long as the slowest of its operations, its memory
traffic and its network traffic would take by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from score_jax.compiled import DECODE, Counted
from score_jax.program_cost import Cost, Region, total
from score_jax.topology import Chip


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a step.

    Attributes:
      name: prefill | decode | reference | update.
      cost: of a chip, in one step.
      seconds: the least that it can take.
      bound: what takes that long: flops | memory | network.
    """

    name: str
    cost: Cost
    seconds: float
    bound: str


def phases_of(programs: Sequence[Counted], chip: Chip, rounds: float) -> tuple[Phase, ...]:
    """A step's phases in their order; of the sampler's rounds only the share `rounds` is made."""
    if not all(program.regions for program in programs):
        return ()
    found: dict[str, list[Region]] = {}
    for program in programs:
        for region in program.regions:
            runs = region.runs * program.times * (rounds if region.phase == DECODE and region.loop else 1)
            found.setdefault(region.phase, []).append(dataclasses.replace(region, runs=runs))
    order = ("prefill", DECODE, "reference", "update")
    return tuple(phase(name, found[name], chip) for name in order if name in found)


def phase(name: str, found: Sequence[Region], chip: Chip) -> Phase:
    """The least time that a phase's regions take, each as long as what it has most of."""
    spent = dict.fromkeys(("flops", "memory", "network"), 0.0)
    for region in found:
        times = times_of(region.cost * region.runs, chip)
        longest = max(times, key=times.__getitem__)
        spent[longest] += times[longest]
    return Phase(name, total(found), sum(spent.values()), max(spent, key=spent.__getitem__))


def times_of(cost: Cost, chip: Chip) -> dict[str, float]:
    """Seconds that a chip needs for each of a cost's parts alone."""
    return {
        "flops": cost.flops / chip.flops,
        "memory": cost.memory / chip.bandwidth,
        "network": cost.network / chip.network,
    }
