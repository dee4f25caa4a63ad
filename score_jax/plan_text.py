"""A plan for a reader: on the terminal, or as a row of a table."""

from __future__ import annotations

from collections.abc import Iterator

import rich.console
import rich.table

from score_jax.duration import brief
from score_jax.plan import Plan, StagePlan

_GIB, _GB, _TERA = 2**30, 1e9, 1e12
HEADER = (
    "| Config | Slice | Fits | Memory of a chip, GiB | A step takes at least | Bound by | All updates "
    "| Tokens/s |\n|---|---|---|---|---|---|---|---|"
)


def as_text(found: Plan, name: str) -> Iterator[rich.console.RenderableType]:
    """What the command prints, in order."""
    mesh = " ".join(f"{axis}={size}" for axis, size in found.mesh.items())
    yield f"{name} on {found.topology}: {mesh}, {found.memory / _GIB:.2f} GiB for programs on each chip"
    yield _needs(found)
    if any(stage.phases for stage in found.stages):
        yield _phases(found)
    for stage in found.stages:
        if stage.fits:
            yield (
                f"{stage.stage}: a step takes {brief(stage.seconds)} at least, "
                f"{stage.tokens / stage.seconds:,.0f} sampled tokens/s; "
                f"{stage.steps:,} updates {brief(stage.steps * stage.seconds)}"
            )
    yield f"attempts that end: {found.mean_length:.0f} tokens in the mean, geometrically distributed"
    yield from found.notes
    yield "It fits." if found.fits else "It does NOT fit. What would help:"
    yield from (f"  {line}" for line in found.advice)


def _needs(found: Plan) -> rich.table.Table:
    table = rich.table.Table(title="memory of a chip, GiB")
    for head in ("stage", "program", "stays", "while it runs", "together", "fits"):
        table.add_column(head, justify="left" if head in ("stage", "program") else "right")
    for stage in found.stages:
        for need in stage.needs:
            sizes = (need.stays, need.temporary, need.stays + need.temporary)
            numbers = [f"{size / _GIB:.2f}" for size in sizes]
            table.add_row(stage.stage, need.program, *numbers, "yes" if need.fits else "NO")
    return table


def _phases(found: Plan) -> rich.table.Table:
    table = rich.table.Table(title="a step, on each chip")
    for head in ("stage", "phase", "TFLOP", "HBM, GB", "sent, GB", "takes at least", "bound by"):
        table.add_column(head, justify="left" if head in ("stage", "phase") else "right")
    for stage in found.stages:
        for phase in stage.phases:
            cost = phase.cost
            table.add_row(
                *(stage.stage, phase.name),
                f"{cost.flops / _TERA:.3g}",
                f"{cost.memory / _GB:.3g}",
                f"{cost.network / _GB:.3g}",
                *(brief(phase.seconds), phase.bound),
            )
    return table


def as_row(found: Plan, name: str) -> str:
    """A row under `HEADER`, of the stage that takes most of the time."""
    most = max((need.stays + need.temporary for stage in found.stages for need in stage.needs), default=0)
    memory = f"{most / _GIB:.1f} of {found.memory / _GIB:.1f}"
    if not found.fits:
        return f"| {name} | {found.topology} | no | {memory} | | | | |"
    longest = max(found.stages, key=lambda stage: stage.steps * stage.seconds)
    speed = longest.tokens / longest.seconds
    return (
        f"| {name} | {found.topology} | yes | {memory} | {brief(longest.seconds)} | {slowest(longest)} "
        f"| {brief(found.seconds)} | {speed:,.0f} |"
    )


def slowest(stage: StagePlan) -> str:
    """The phase that takes longest, and what binds it."""
    phase = max(stage.phases, key=lambda phase: phase.seconds)
    return f"{phase.name}: {phase.bound}"
