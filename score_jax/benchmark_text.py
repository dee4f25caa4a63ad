"""A benchmark for a reader, on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import rich.box
import rich.console
import rich.table

from score_jax.benchmark import Benchmark, Ragged
from score_jax.duration import brief
from score_jax.efficiency import Phase


def as_text(found: Benchmark) -> Iterator[rich.console.RenderableType]:
    """What the command prints, in order."""
    yield f"{found.config}: {found.parameters:,} parameters in {found.dtype}, {found.trained:,} trained"
    yield f"{found.episodes} episodes of {found.attempts} attempts in {found.length} tokens"
    yield f"{found.date}, {found.device} ({found.platform}), {found.cores} usable cores, JAX {found.jax}"
    rates = found.rates
    yield f"{rates.flops / 1e9:,.0f} GFLOP/s in matrix products, {rates.bandwidth / 1e9:,.1f} GB/s of memory"
    yield _phases(found)
    yield "ratio: at least / takes. MFU, traffic: operations and bytes that are needed over those that the"
    yield "device could do and move in that time. tokens/s: of those that are sampled."
    if found.scales:
        yield _scales(found)
    if found.ragged:
        yield from _ragged(found.ragged)
    if found.sides:
        yield _sides(found)
        yield "x ours: its time over ours, the median of all turns. start: until the first step has ended;"
        yield "memory: the most that was held until then. A peer without steps has single attempts alone."
    first = ", ".join(f"{phase.name} {brief(phase.timing.first)}" for phase in found.phases[:-1])
    yield f"first calls, compilation included: {first}"
    yield (
        f"{brief(found.startup)} from the start to the end of the first step; "
        f"at most {found.memory / 2**30:.2f} GiB held by the {found.memory_of}"
    )


def _table(title: str, heads: Sequence[str]) -> rich.table.Table:
    table = rich.table.Table(title=title, box=rich.box.SIMPLE, pad_edge=False, collapse_padding=True)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    return table


def _phases(found: Benchmark) -> rich.table.Table:
    heads = ("phase", "takes", "IQR", "at least", "by", "ratio", "MFU", "traffic", "tokens/s")
    table = _table("a step", heads)
    for phase in found.phases:
        timing = phase.timing
        table.add_row(
            *(phase.name, brief(timing.median), two_digits((timing.high - timing.low) / timing.median)),
            *(brief(phase.floor), phase.bound),
            *(two_digits(share) for share in (phase.ratio, phase.mfu, phase.traffic)),
            f"{found.sampled / timing.median:,.0f}",
        )
    return table


def _scales(found: Benchmark) -> rich.table.Table:
    heads = ("attempts", "tokens", "rollout", "of each", "ratio", "update", "of each", "ratio")
    table = _table("other numbers of attempts", heads)
    for scale in found.scales:
        cells: list[str] = []
        for phase in scale.phases:
            cells += _of_each(phase, scale.attempts)
        table.add_row(str(scale.attempts), str(scale.length), *cells)
    return table


def _ragged(found: Ragged) -> Iterator[str]:
    mean, share = two_digits(found.mean_length), two_digits(found.sampled)
    yield f"attempts of {mean} of their slot in the mean, {share} of all slots sampled:"
    step, unpadded = brief(found.seconds.median), brief(found.unpadded.median)
    yield f"a step takes {step}, for each sampled token {found.over:.2f} times as long as a step"
    yield f"of slots of {found.slot}, all sampled, which takes {unpadded}"


def _sides(found: Benchmark) -> rich.table.Table:
    heads = ("beside", "step", "x ours", "1 attempt", "tokens/s", "x ours", "start", "memory")
    table = _table("the same work by other libraries, in turn", heads)
    sampled = found.sampled / found.attempts
    for side in found.sides:
        step, alone = side.seconds.get("step"), side.seconds.get("sampling")
        table.add_row(
            side.name,
            *((brief(step.median), f"{side.ratios['step']:.2f}") if step else ("-", "-")),
            *((brief(alone.median), f"{sampled / alone.median:,.0f}") if alone else ("-", "-")),
            f"{side.ratios['sampling']:.2f}" if alone else "-",
            "-" if side.startup is None else brief(side.startup),
            f"{side.memory / 2**30:.2f} GiB",
        )
    return table


def _of_each(phase: Phase, attempts: int) -> tuple[str, str, str]:
    seconds = phase.timing.median
    return brief(seconds), brief(seconds / attempts), two_digits(phase.ratio)


def two_digits(share: float) -> str:
    """0.0123 -> '1.2%', 0.123 -> '12%'."""
    return f"{100 * share:.{0 if share >= 0.0995 else 1}f}%"
