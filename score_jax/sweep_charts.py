"""A sweep's map: the statistic by which it chooses, over two of its fields. Numbers in, drawings out.

Which fields: alpha by beta_2 where both take several values, else the first two that do. Other fields of the
grid get a drawing for each combination of their values, so that nothing is averaged over them. Two fields of
the grid make a heat map, whose cells are means over the draws of other fields, if there are any; where one of
the two is drawn at random, each row stands at its own place on the axes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator

from score_jax import charts
from score_jax.charts import Chart
from score_jax.percent import DASH, percent
from score_jax.sweep_file import spelled

SYMBOLS = {"alpha": "α", "beta_1": "β₁", "beta_2": "β₂"}
BEST = "\N{BLACK STAR}"
_PAIR = ("beta_2", "alpha")  # across and up
_WASH = (0.06, 0.42)  # opacity of the lowest and the highest: text stays readable on both
_ROW, _COLUMN = 0.4, 0.55  # inches of a cell, at the least


def sweep_charts(found: Mapping[str, Any]) -> dict[str, Chart]:
    """The map of a sweep.json, a drawing per file name; none before two values of a field are measured."""
    rows = {name: row for name, row in found["rows"].items() if "statistics" in row}
    across, up = axes_of(found)
    if across is None or not rows:
        return {}
    facets = [name for name, kind in found["fields"].items() if kind == "grid" and name not in (across, up)]
    groups: dict[tuple, list[str]] = {}
    for name in found["rows"]:
        groups.setdefault(tuple(spelled(found["rows"][name]["values"][f]) for f in facets), []).append(name)
    every = [row["statistics"][found["statistic"]]["mean"] for row in rows.values()]
    drawn = {}
    for number, (values, names) in enumerate(groups.items(), start=1):
        key = "map" if len(groups) == 1 else f"map-{number}"
        varied = [i for i in range(len(facets)) if len({group[i] for group in groups}) > 1]
        where = ", ".join(f"{label_of(facets[i])} = {values[i]}" for i in varied)
        title = f"Acc@t{found['statistic'][5:]}" + f", {where}" * bool(where)
        mine = {name: found["rows"][name] for name in names}
        draw = places if {found["fields"][f] for f in (across, up) if f} - {"grid"} else heat_map
        drawn[key] = draw(key, title, found, mine, (across, up), (min(every), max(every)))
    return drawn


def axes_of(found: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The fields across and up; the second, or both, None where no more take several values."""
    varied = [
        name
        for name in found["fields"]
        if len({spelled(row["values"][name]) for row in found["rows"].values()}) > 1
    ]
    pair = [next((name for name in varied if name.split(".")[-1] == leaf), None) for leaf in _PAIR]
    if all(pair):
        return pair[0], pair[1]
    first, second, *_ = [*varied, None, None]
    return first, second


def heat_map(
    key: str,
    title: str,
    found: Mapping[str, Any],
    rows: Mapping[str, Mapping],
    fields: tuple[str, str | None],
    span: tuple[float, float],
) -> Chart:
    """A cell for each pair of values, with its number; the best row's has a star and a frame.

    Args:
      key: unique on the page.
      title: of the drawing.
      found: the sweep.json.
      rows: those that are drawn here, done or not.
      fields: across and up; without the second there is one line of cells.
      span: the lowest and the highest number of all drawings, which the shades span.
    """
    across, up = fields
    columns, lines = (_ordered(rows, field) for field in fields)
    cells = [[_in_cell(rows, fields, (x, y)) for x in columns] for y in lines]
    means = np.array([[_mean(found, rows, names) for names in line] for line in cells])
    size = (max(charts.CURVE[0], 1.0 + _COLUMN * len(columns)), 0.9 + _ROW * max(len(lines), 2))
    with matplotlib.rc_context(charts.STYLE | {"svg.hashsalt": key, "axes.grid": False}):
        figure, axes = charts.new_axes(size)
        _place(axes, size)
        for y, line in enumerate(cells):
            for x, names in enumerate(line):
                _cell(axes, x, y, means[y, x], span, found["best"] in names)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(-0.5, len(lines) - 0.5)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks(range(len(columns)), [spelled(value) for value in columns])
        axes.set_yticks(range(len(lines)), [spelled(value) for value in lines] if up else [""])
        _name_axes(axes, fields)
        said = "; ".join(
            ", ".join(
                f"{label_of(field)} {spelled(value)}"
                for field, value in ((across, columns[x]), (up, lines[y]))
                if field
            )
            + f": {_spoken(means[y, x])}"
            for y in range(len(lines))
            for x in range(len(columns))
        )
        svg = charts.inline(figure, key, f"{title}; {said}")
    averaged = max(len(names) for line in cells for names in line)
    caption = f"Cells with several rows show their mean, of up to {averaged}." if averaged > 1 else ""
    return Chart(title, svg, caption)


def places(
    key: str,
    title: str,
    found: Mapping[str, Any],
    rows: Mapping[str, Mapping],
    fields: tuple[str, str | None],
    span: tuple[float, float],
) -> Chart:
    """Each row at its place over two fields of which one is drawn at random. Arguments: see `heat_map`."""
    across, up = fields
    rows = {name: row for name, row in rows.items() if "statistics" in row}
    points = [
        (row["values"][across], row["values"][up] if up else 0.0, _mean(found, rows, [name]), name)
        for name, row in rows.items()
    ]
    size = (charts.CURVE[0], 3.2 if up else 1.5)
    with matplotlib.rc_context(charts.STYLE | {"svg.hashsalt": key, "axes.grid.axis": "both"}):
        figure, axes = charts.new_axes(size)
        _place(axes, size)
        for field, axis, scale in ((across, axes.xaxis, axes.set_xscale), (up, axes.yaxis, axes.set_yscale)):
            if field and found["fields"][field] == "log":
                scale("log")
                axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axis.set_minor_locator(NullLocator())
            if field:
                axis.set_major_formatter(lambda value, _: f"{value:g}")
        if not up:
            axes.set_yticks([])
        for x, y, mean, name in points:
            best = name == found["best"]
            edge, width = (charts.INK, 1.8) if best else (charts.RULE, 0.8)
            axes.scatter(
                [x], [y], s=150, facecolor=_shade(mean, span), edgecolor=edge, linewidths=width, zorder=3
            )
            axes.annotate(
                percent(mean) + f" {BEST}" * best,
                (x, y),
                (0, 9),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=9,
                zorder=4,
            )
        axes.margins(0.12)
        _name_axes(axes, fields)
        said = "; ".join(f"{name}: {_spoken(mean)}" for _, _, mean, name in points)
        svg = charts.inline(figure, key, f"{title}; {said}")
    return Chart(title, svg, "Where numbers lie upon each other, the table tells them apart.")


def label_of(field: str) -> str:
    """A field on an axis: with the paper's letter where it has one."""
    symbol = SYMBOLS.get(field.split(".")[-1])
    return f"{symbol}, {field}" if symbol else field


def _ordered(rows: Mapping[str, Mapping], field: str | None) -> list[Any]:
    """A field's values: numbers ascending, others as they come."""
    if field is None:
        return [None]
    values = list({spelled(row["values"][field]): row["values"][field] for row in rows.values()}.values())
    return sorted(values) if all(isinstance(value, int | float) for value in values) else values


def _in_cell(
    rows: Mapping[str, Mapping], fields: tuple[str, str | None], values: tuple[Any, Any]
) -> list[str]:
    """The rows with these values."""
    wanted = {field: value for field, value in zip(fields, values, strict=True) if field}
    return [name for name, row in rows.items() if wanted.items() <= row["values"].items()]


def _mean(found: Mapping[str, Any], rows: Mapping[str, Mapping], names: Sequence[str]) -> float:
    """Mean of the statistic over those of the rows that are measured; NaN if none is."""
    values = [
        rows[name]["statistics"][found["statistic"]]["mean"] for name in names if "statistics" in rows[name]
    ]
    return float(np.mean(values)) if values else math.nan


def _cell(axes: Axes, x: int, y: int, mean: float, span: tuple[float, float], best: bool) -> None:
    known = math.isfinite(mean)
    colour = _shade(mean, span) if known else "none"
    box = functools.partial(Rectangle, (x - 0.48, y - 0.46), 0.96, 0.92)
    axes.add_patch(box(facecolor=colour, edgecolor=charts.RULE, linewidth=0.6))
    if best:
        axes.add_patch(box(facecolor="none", edgecolor=charts.INK, linewidth=1.8, zorder=3))
    text = percent(mean) + f" {BEST}" * best if known else DASH
    axes.text(x, y, text, ha="center", va="center", color=charts.INK if known else charts.MUTED, zorder=4)


def _shade(mean: float, span: tuple[float, float]) -> tuple[str, float]:
    """The page's colour for what is high, more or less of it."""
    low, high = span
    share = (mean - low) / (high - low) if high > low else 1.0
    return charts.UP, _WASH[0] + share * (_WASH[1] - _WASH[0])


def _place(axes: Axes, size: tuple[float, float]) -> None:
    """Room in inches for the names of both axes."""
    left, bottom = 0.75 / size[0], 0.55 / size[1]
    axes.set_position((left, bottom, 0.98 - left, 0.95 - bottom))


def _name_axes(axes: Axes, fields: tuple[str, str | None]) -> None:
    axes.set_xlabel(label_of(fields[0]), loc="right")
    if fields[1]:
        axes.set_ylabel(label_of(fields[1]), loc="top")


def _spoken(mean: float) -> str:
    return f"{percent(mean)} per cent" if math.isfinite(mean) else "not measured"
