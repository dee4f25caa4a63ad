"""A study's figures: the numbers of score_jax.figures in, drawings in the style of score_jax.charts out.

Each function takes an entry of study.json's "figures" and gives drawings by the names of their files.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter

from score_jax import charts, paper_tables
from score_jax.charts import ARROW, BAND, CURVE, DOWN, SMALL, UP, Chart, Line, attempt_colour
from score_jax.percent import percent
from score_jax.study_file import SCORE

ROOM = 0.26  # of a drawing's width, for the names of methods
NAME = 17  # characters of a name that fit there
COLOURS = (attempt_colour(2), DOWN, attempt_colour(3), attempt_colour(4), attempt_colour(1), charts.INK)

Estimates = Sequence[Mapping[str, Any]]  # of score_jax.estimates
Labels = Mapping[str, str]  # a method's name in study.json -> what it is called on the page
Charts = dict[str, Chart]  # file name without its ending -> drawing


@dataclass(frozen=True)
class Series:
    """A curve of estimates: its name at the right end, colour, and whether it is dashed."""

    label: str
    colour: str
    x: Sequence[int]
    y: Estimates
    dashed: bool = False


def vote_charts(figure: Mapping[str, Any], labels: Labels) -> Charts:
    """Figure 1, right: votes over 2K parallel samples and over K that were corrected once."""
    sampled = [2 * k for k in figure["k"]]
    series = [
        Series("all in parallel", attempt_colour(1), sampled, figure["parallel"]),
        Series("half of them corrections", attempt_colour(2), sampled, figure["corrected"]),
    ]
    title = "Accuracy of the majority vote"
    drawn = estimate_curve("figure1", title, series, "sampled attempts per problem", doubling=True)
    one = figure["parallel"][0]["mean"]
    gains = [estimates[-1]["mean"] - one for estimates in (figure["parallel"], figure["corrected"])]
    printed = (paper_tables.FIGURE_1_PARALLEL / 100, paper_tables.FIGURE_1_CORRECTED / 100)
    ours, theirs = (" and ".join(percent(gain, True) for gain in pair) for pair in (gains, printed))
    caption = (
        f"Points gained over {sampled[0]} attempts in parallel by {sampled[-1]} in parallel and by "
        f"{sampled[-1]} with corrections: {ours}. The paper ({paper_tables.GEMINI_FLASH}, MATH), by "
        f"{paper_tables.FIGURE_1_BUDGET}: {theirs}."
    )
    return {"figure1": Chart(title, drawn.svg, caption)}


def edit_charts(figure: Mapping[str, Any], labels: Labels) -> Charts:
    """Figure 3: a histogram per method, of training and of test problems."""
    splits = [split for split in ("train", "test") if split in figure]
    top = max(one["high"] for split in splits for bins in figure[split].values() for one in bins)
    names = [name for name in labels if any(name in figure[split] for split in splits)]
    return {
        f"figure3-{name}": edit_steps(
            f"figure3-{name}",
            labels[name],
            np.array(figure["edges"]),
            {split: figure[split][name] for split in splits if name in figure[split]},
            top,
        )
        for name in names
    }


def correction_charts(figure: Mapping[str, Any], labels: Labels) -> Charts:
    """Figure 4: correction of fixed and of own first attempts through training, a drawing per method."""
    every = [point for entry in figure.values() for kind in ("fixed", "own") for point in entry[kind]]
    shares = _span([point[end] for point in every for end in ("low", "high")])
    drawn = {}
    for name in _named(figure, labels):
        entry = figure[name]
        series = [
            Series("first attempts of the base", attempt_colour(3), entry["step"], entry["fixed"]),
            Series("own first attempts", attempt_colour(2), entry["step"], entry["own"]),
        ]
        key = f"figure4-{name}"
        drawn[key] = estimate_curve(key, labels[name], series, "step", shares=shares)
    return drawn


def training_charts(figure: Mapping[str, Any], labels: Labels, prefix: str) -> Charts:
    """Figures 5 and 10: accuracies in training, a drawing per method; of all, how often answers change."""
    names = _named(figure, labels)
    attempts = {key: f"attempt {key[-1]}" for key in ("acc_t1", "acc_t2")}
    values = [
        value
        for entry in figure.values()
        for key in attempts
        for value in entry.get(key, ())
        if value is not None
    ]
    drawn = {}
    for name in names:
        lines = [
            Line(key, label, attempt_colour(int(key[-1])), band=_band(key, figure[name]))
            for key, label in attempts.items()
            if key in figure[name]
        ]
        if lines:
            key = f"{prefix}-{name}"
            rows = _rows_of(figure[name])
            drawn[key] = charts.curve(key, labels[name], rows, lines, _span(values), room=0.15)
    changed = [name for name in names if "changed" in figure[name]]
    if changed:
        drawn[f"{prefix}-changed"] = _changed_chart(f"{prefix}-changed", figure, labels, changed)
    return drawn


def _changed_chart(key: str, figure: Mapping[str, Any], labels: Labels, names: Sequence[str]) -> Chart:
    """How often the second attempt gives another answer, one curve per method, with the stages of those that
    have several."""
    rows: dict[int, dict] = {}
    for name in names:
        staged = len({*figure[name].get("stage", ())}) > 1
        for row in _rows_of(figure[name]):
            seen = {name + end: row.get("changed" + end) for end in ("", "_low", "_high")}
            seen |= {"stage": row["stage"]} if staged else {}
            rows.setdefault(row["step"], {"step": row["step"]}).update(seen)
    series = method_series({name: ((), ()) for name in names}, labels)
    lines = [
        Line(name, _wrapped(one), one.colour, one.dashed, (f"{name}_low", f"{name}_high"))
        for name, one in series.items()
    ]
    values = [value for row in rows.values() for name, value in row.items() if name in names]
    shares = _span([value for value in values if value is not None])
    ordered = [rows[step] for step in sorted(rows)]
    return charts.curve(key, "How often the answer changes", ordered, lines, shares, room=ROOM)


def _band(key: str, entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys of the lowest and the highest seed; None in a study.json without them."""
    return (f"{key}_low", f"{key}_high") if f"{key}_low" in entry else None


def level_charts(figure: Mapping[str, Any], labels: Labels) -> Charts:
    """Figure 7: problems corrected (up) and spoiled (down) at each level, a drawing per method."""
    ends = [p["high"] for entry in figure.values() for key in ("i_to_c", "c_to_i") for p in entry[key]]
    top = max([0.01, *ends])
    return {
        f"figure7-{name}": flow_bars(f"figure7-{name}", labels[name], figure[name], top)
        for name in _named(figure, labels)
    }


def attempt_charts(figure: Mapping[str, Any], labels: Labels) -> Charts:
    """Figure 8: accuracy at attempt 1, 2, ..., a curve per method."""
    curves = {name: (range(1, len(points) + 1), points) for name, points in figure.items()}
    series = method_series(curves, labels)
    return {"figure8": estimate_curve("figure8", "Accuracy at each attempt", [*series.values()], "attempt")}


def pool_charts(figure: Mapping[str, Any], labels: Labels) -> Charts:
    """Accuracy of either attempt against the number of training problems, a curve per method."""
    drawn = {}
    for key, title in (("acc_t2", "Accuracy of attempt 2"), ("acc_t1", "Accuracy of attempt 1")):
        series = method_series({name: (entry["pool"], entry[key]) for name, entry in figure.items()}, labels)
        name = f"pool-{key}"
        drawn[name] = estimate_curve(name, title, [*series.values()], "training problems", doubling=True)
    return drawn


def method_series(curves: Mapping[str, tuple[Sequence[int], Estimates]], labels: Labels) -> dict[str, Series]:
    """Curves of methods, SCoRe's first, each of a colour; once the colours are used up, dashed."""
    names = sorted(_named(curves, labels), key=lambda name: name != SCORE)
    return {
        name: Series(labels[name], COLOURS[i % len(COLOURS)], *curves[name], dashed=i >= len(COLOURS))
        for i, name in enumerate(names)
    }


def estimate_curve(
    name: str,
    title: str,
    series: Sequence[Series],
    xlabel: str,
    *,
    doubling: bool = False,
    shares: tuple[float, float] | None = None,
) -> Chart:
    """Means over seeds with bands of their 95% intervals.

    doubling: the x-axis is logarithmic, with a tick at every value. shares: as in charts.curve.
    """
    with matplotlib.rc_context(charts.STYLE | {"svg.hashsalt": name}):
        lines = sum(1 + _wrapped(one).count("\n") for one in series)
        figure, axes = charts.new_axes((CURVE[0], max(CURVE[1], charts.LINE * lines / 0.7)), right=ROOM)
        ends = []
        for one in series:
            mean, low, high = (np.array([p[key] for p in one.y]) for key in ("mean", "low", "high"))
            axes.fill_between(one.x, low, high, color=one.colour, alpha=BAND, linewidth=0)
            dashes = "--" if one.dashed else "-"
            axes.plot(one.x, mean, color=one.colour, lw=1.6, ls=dashes, marker="o", ms=3.5)
            ends.append((Line("", _wrapped(one), one.colour), float(mean[-1])))
        _scale(axes, series, doubling, shares)
        axes.set_xlabel(xlabel, loc="right")
        charts.label_ends(figure, axes, ends)
        said = "; ".join(
            f"{one.label}: " + ", ".join(f"{point['mean']:.1%} at {x:g}" for x, point in _first_and_last(one))
            for one in series
        )
        return Chart(title, charts.inline(figure, name, f"{title}, by {xlabel}; {said}"))


def edit_steps(
    name: str,
    title: str,
    edges: Float[np.ndarray, "bins_and_one"],
    shares: Mapping[str, Estimates],
    top: float,
) -> Chart:
    """Figure 3: shares of the edit-distance ratios per bin; training problems outlined, test ones filled.

    top: the highest end of an interval in any drawing beside it.
    """
    with matplotlib.rc_context(charts.STYLE | {"svg.hashsalt": name}):
        figure, axes = charts.new_axes(SMALL)
        colours = {"train": DOWN, "test": attempt_colour(2)}
        heights = {split: np.array([one["mean"] for one in bins]) for split, bins in shares.items()}
        for split, bins in reversed(list(shares.items())):
            fill, colour = split == "test", colours[split]
            axes.stairs(heights[split], edges, color=colour, fill=fill, alpha=0.6 if fill else 1, lw=1.6)
            seen = [(one["low"], one["high"]) for one in bins]
            places = edges[:-1] + np.diff(edges) * (0.6 if fill else 0.4)
            axes.vlines(places, *zip(*seen, strict=True), color=colour, linewidth=1)
            word = "training (outline)" if split == "train" else "test (filled)"
            _corner(axes, word, colour, 1.07, right=0.99 if fill else 0.66)
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(0, top * 1.08)
        axes.set_xlabel("edit-distance ratio", loc="right")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        said = "; ".join(
            f"{split}: {bins[0]:.0%} below {edges[1]:.2g}, {bins.sum() - bins[0]:.0%} beyond"
            for split, bins in heights.items()
        )
        return Chart(title, charts.inline(figure, name, f"Edit-distance ratio, {title}; {said}"))


def flow_bars(name: str, title: str, entry: Mapping[str, Any], top: float) -> Chart:
    """Figure 7: shares corrected (up) and spoiled (down) at every level, with intervals.

    top: the highest share, or end of an interval, in any drawing beside it.
    """
    places = np.arange(len(entry["levels"]))
    flows = (("i_to_c", UP, 1, "corrected", 0.92), ("c_to_i", DOWN, -1, "spoiled", 0.08))
    with matplotlib.rc_context(charts.STYLE | {"svg.hashsalt": name}):
        figure, axes = charts.new_axes(SMALL)
        for key, colour, sign, word, height in flows:
            mean, low, high = (np.array([p[k] for p in entry[key]]) for k in ("mean", "low", "high"))
            axes.bar(places, sign * mean, 0.5, color=colour)
            axes.vlines(places, sign * low, sign * high, color=charts.INK, linewidth=1)
            _corner(axes, f"{word}, {key[0]}{ARROW}{key[-1]}", colour, height)
        axes.axhline(0, color=charts.MUTED, linewidth=0.8)
        axes.set_ylim(-top * 1.35, top * 1.35)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(lambda y, _: f"{abs(y) * 100:.3g}%")
        charts.name_levels(axes, entry["levels"])
        said = "; ".join(
            f"level {level}: corrected {up['mean']:.1%}, spoiled {down['mean']:.1%}"
            for level, up, down in zip(entry["levels"], entry["i_to_c"], entry["c_to_i"], strict=True)
        )
        return Chart(title, charts.inline(figure, name, f"Corrected and spoiled by level, {title}; {said}"))


def _scale(axes: Axes, series: Sequence[Series], doubling: bool, shares: tuple[float, float] | None) -> None:
    ticks = sorted({x for one in series for x in one.x})
    if doubling:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(ticks) if doubling or len(ticks) <= 10 else MaxNLocator(6))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    if shares:
        axes.set_ylim(*shares)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=charts.ROUND))
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if high - low > 0.05 else 1))


def _span(values: Sequence[float]) -> tuple[float, float]:
    """An axis that holds the values with a little room on both sides."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = max(0.05 * (high - low), 0.005)
    return low - room, high + room


def _corner(axes: Axes, text: str, colour: str, height: float, right: float = 0.99) -> None:
    """A word at the right side of a plot, at a height from 0 to 1."""
    place = axes.transAxes
    axes.text(right, height, text, color=colour, fontsize=9, ha="right", va="center", transform=place)


def _rows_of(entry: Mapping[str, Sequence]) -> list[dict[str, Any]]:
    """Columns of equal length as rows."""
    return [dict(zip(entry, values, strict=True)) for values in zip(*entry.values(), strict=True)]


def _named(entries: Mapping[str, Any], labels: Labels) -> list[str]:
    """The methods of an entry in the study's order."""
    return [name for name in labels if name in entries]


def _first_and_last(one: Series) -> list[tuple[int, Mapping[str, Any]]]:
    points = list(zip(one.x, one.y, strict=True))
    return [points[0], points[-1]] if len(points) > 1 else points


def _wrapped(one: Series) -> str:
    """The label of a curve in lines that fit at its end; that of a dashed one begins with dashes."""
    label = f"- - {one.label}" if one.dashed else one.label
    return "\n".join(textwrap.wrap(label, NAME)) or label


# Each figure of study.json: the drawings of its entry.
DRAW: dict[str, Callable[[Mapping[str, Any], Labels], Charts]] = {
    "figure1": vote_charts,
    "figure3": edit_charts,
    "figure4": correction_charts,
    "figure5": lambda figure, labels: training_charts(figure, labels, "figure5"),
    "figure7": level_charts,
    "figure8": attempt_charts,
    "figure10": lambda figure, labels: training_charts(figure, labels, "figure10"),
    "pool": pool_charts,
}
