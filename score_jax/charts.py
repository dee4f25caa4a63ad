"""The report's charts: rows and fractions in, one inline SVG out.

Each is drawn about as wide as it is read, on a phone or in a column of a wide page. Colours and
fonts are the page's CSS variables: one drawing fits light and dark.
"""

import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.typing import RcKeyType

CURVE, SMALL = (5.0, 2.5), (4.2, 2.3)  # inches of 72 units: two beside each other, or three
BAND = 0.14  # opacity of an interval
LINE = 0.17  # inches from one line of a curve's label to the next
ROUND = (1, 2, 2.5, 5, 10)  # ticks of a per cent axis lie at multiples of these
BIN = 0.05  # width of an edit-distance-ratio bin
ARROW = "\N{RIGHTWARDS ARROW}"

# Stand-ins that matplotlib accepts; the finished SVG names the page's variables in their place.
INK, MUTED, RULE, UP, DOWN = "#010101", "#010102", "#010103", "#010104", "#010105"
ATTEMPT = ("#0101a1", "#0101a2", "#0101a3", "#0101a4")
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", UP: "--up", DOWN: "--down"}
VARIABLES |= {colour: f"--t{i + 1}" for i, colour in enumerate(ATTEMPT)}

# The page's light colours and font, for drawings that stand alone.
LIGHT = {
    "--paper": "#fdfdfb", "--ink": "#1c2126", "--muted": "#5a626c", "--rule": "#dcdcd5", "--up": "#1d5fae",
    "--down": "#b0470c", "--t1": "#736e68", "--t2": "#1d5fae", "--t3": "#0b7565", "--t4": "#7a4bb0",
    "--sans": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
}  # fmt: skip

STYLE: dict[RcKeyType, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": MUTED,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # names come from files: a dollar sign is a dollar sign
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 5,
}


@dataclass(frozen=True)
class Chart:
    """One figure of the page: its title, the drawing, and a line of explanation (may be '')."""

    title: str
    svg: Markup
    caption: str = ""


@dataclass(frozen=True)
class Line:
    """One curve: the key it has in each row, its label at the right end, its colour, whether dashed, and
    the keys of a band's two edges."""

    key: str
    label: str
    colour: str
    dashed: bool = False
    band: tuple[str, str] | None = None


def attempt_lines(rows: Sequence[Mapping], stem: str) -> list[Line]:
    """The curves stem_t1, stem_t2, ... that occur in any row."""
    found = {int(m[1]) for row in rows for key in row if (m := re.fullmatch(rf"{stem}_t(\d+)", key))}
    return [Line(f"{stem}_t{t}", str(t), attempt_colour(t)) for t in sorted(found)]


def attempt_colour(t: int) -> str:
    """The colour of attempt t = 1, 2, ...; the fourth serves all later ones too."""
    return ATTEMPT[min(t, len(ATTEMPT)) - 1]


def running_mean(values: Float[np.ndarray, "s"], window: int) -> Float[np.ndarray, "s"]:
    """Mean of each value and up to window - 1 before it; NaN values are left out of the mean."""
    known = np.isfinite(values)
    total, count = (
        np.cumsum(np.concatenate([np.zeros(window), column]))
        for column in (np.where(known, values, 0.0), known.astype(float))
    )
    with np.errstate(invalid="ignore"):
        return (total[window:] - total[:-window]) / (count[window:] - count[:-window])


def smoothing(rows: Sequence) -> int:
    """How many steps the running mean of a curve spans."""
    return max(1, len(rows) // 40)


def curve(
    name: str,
    title: str,
    rows: Sequence[Mapping],
    lines: Sequence[Line],
    shares: tuple[float, float] | None = None,
    room: float = 0.05,
) -> Chart:
    """Curves over training steps: faint the values, bold their running mean, which crosses no
    border of a stage; a band's edges are smoothed alike. Rows hold 'step' and perhaps 'stage'; an absent
    value leaves a gap.
    shares: the axis in per cent from the one to the other, shared by charts that are read together;
    room: of the width, for the lines' labels."""
    steps = np.array([row["step"] for row in rows])
    stages = [str(row.get("stage", "")) for row in rows]
    borders = [0, *(i for i in range(1, len(rows)) if stages[i] != stages[i - 1]), len(rows)]
    spans = list(pairwise(borders))
    window = smoothing(rows)
    ends = []
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure, axes = new_axes(CURVE, room)
        column = lambda key: np.array([_number(row.get(key)) for row in rows])
        smooth = lambda values: np.concatenate([running_mean(values[a:b], window) for a, b in spans])
        for line in lines:
            values = column(line.key)
            if window > 1:
                axes.plot(steps, values, color=line.colour, linewidth=0.6, alpha=0.35)
            mean, edges = smooth(values), [smooth(column(key)) for key in line.band or ()]
            dashes = "--" if line.dashed else "-"
            for a, b in spans:
                marker = "o" if np.isfinite(mean[a:b]).sum() == 1 else ""
                axes.plot(steps[a:b], mean[a:b], color=line.colour, lw=1.6, ls=dashes, marker=marker, ms=3)
                if edges:
                    low, high = (edge[a:b] for edge in edges)
                    axes.fill_between(steps[a:b], low, high, color=line.colour, alpha=BAND, linewidth=0)
            known = np.flatnonzero(np.isfinite(mean))
            if len(known):
                ends.append((line, float(mean[known[-1]])))
        if shares:
            axes.set_ylim(*shares)
        _mark_stages(axes, steps, stages, spans)
        if len(lines) > 1:
            label_ends(figure, axes, ends)
        axes.set_xlabel("step", loc="right")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND) if shares else MaxNLocator(5))
        if shares:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        else:
            _plain_numbers(axes)
        said = "; ".join(f"{_spoken(line)} ends at {value:.3g}" for line, value in ends)
        svg = inline(figure, name, f"{title}, steps {steps[0]} to {steps[-1]}: {said or 'empty'}")
    return Chart(title, svg)


def edit_histogram(
    name: str, title: str, ratios: Mapping[int, Float[np.ndarray, "n"]], right: float, top: float
) -> Chart:
    """Fig. 3: edit-distance ratios from attempt t - 1 to attempt t, for every later attempt t.

    right and top, shared by the checkpoints: the largest ratio and the largest share of a bin.
    """
    edges = edit_bins(right)
    same = {t: np.mean(values == 0) for t, values in ratios.items()}
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure, axes = new_axes(SMALL)
        for t, values in ratios.items():
            shares = bin_shares(values, edges)
            fill = len(ratios) == 1
            axes.stairs(shares, edges, color=attempt_colour(t), fill=fill, alpha=0.85 if fill else 1, lw=1.4)
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(0, top * 1.08)
        axes.set_xlabel("edit-distance ratio", loc="right")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        said = "; ".join(
            f"attempt {t - 1} to {t}: median {np.median(values):.2f}, {same[t]:.0%} repeat the text"
            for t, values in ratios.items()
        )
        svg = inline(figure, name, f"Edit-distance ratio, {title}; {said}")
    return Chart(title, svg, said[0].upper() + said[1:] + ".")


def edit_bins(right: float) -> Float[np.ndarray, "bins_and_one"]:
    """Bin edges from 0 to past the largest ratio, at least to 0.5."""
    return np.arange(max(10, math.floor(right / BIN) + 1) + 1) * BIN


def bin_shares(
    values: Float[np.ndarray, "n"], edges: Float[np.ndarray, "bins_and_one"]
) -> Float[np.ndarray, "bins"]:
    """Share of the values in each bin."""
    return np.histogram(values, edges)[0] / max(len(values), 1)


def level_accuracy(name: str, title: str, by_level: Mapping[str, Mapping]) -> Chart:
    """Accuracy of each attempt at every level of difficulty, for one checkpoint."""
    levels, places = list(by_level), np.arange(len(by_level))
    count = sum(key.startswith("acc_t") for key in by_level[levels[0]])
    table = np.array([[by_level[k][f"acc_t{t + 1}"] for t in range(count)] for k in levels])
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure, axes = new_axes(SMALL)
        axes.vlines(places, table.min(1), table.max(1), color=RULE, linewidth=3)
        for t in range(count):
            colour = attempt_colour(t + 1)
            face = "none" if t == 0 and count > 1 else colour
            axes.scatter(places, table[:, t], s=34, color=colour, facecolor=face, zorder=3, lw=1.4)
        axes.set_ylim(-0.04, 1.04)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_yticks(np.linspace(0, 1, 5))
        name_levels(axes, by_level)
        said = "; ".join(
            f"level {k}: " + ", ".join(f"{value:.0%}" for value in row)
            for k, row in zip(levels, table, strict=True)
        )
        svg = inline(figure, name, f"Accuracy by level, {title}; {said}")
    return Chart(title, svg)


def level_flows(name: str, title: str, by_level: Mapping[str, Mapping], top: float) -> Chart:
    """Fig. 7: share of problems corrected (up) and spoiled (down) at every level of difficulty."""
    places = np.arange(len(by_level))
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure, axes = new_axes(SMALL)
        axes.bar(places, [row["i_to_c"] for row in by_level.values()], 0.5, color=UP)
        axes.bar(places, [-row["c_to_i"] for row in by_level.values()], 0.5, color=DOWN)
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_ylim(-top * 1.1, top * 1.1)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(lambda y, _: f"{abs(y) * 100:.3g}%")
        name_levels(axes, by_level)
        said = "; ".join(
            f"level {k}: corrected {row['i_to_c']:.1%}, spoiled {row['c_to_i']:.1%}"
            for k, row in by_level.items()
        )
        svg = inline(figure, name, f"Corrected and spoiled by level, {title}; {said}")
    return Chart(title, svg)


def standalone(chart: Chart, subtitle: str = "") -> str:
    """The drawing as a file of its own: in the page's light colours on their background, with its titles."""
    root = ElementTree.fromstring(chart.svg)
    left, top, width, height = (float(number) for number in root.attrib["viewBox"].split())
    left, top, width, height = left - 10, top - 42, width + 20, height + 50
    for key, numbers in (("viewBox", (left, top, width, height)), ("width", (width,)), ("height", (height,))):
        root.set(key, " ".join(f"{number:g}" for number in numbers))
    root.set("xmlns", "http://www.w3.org/2000/svg")
    place = {"x": f"{left:g}", "y": f"{top:g}", "width": f"{width:g}", "height": f"{height:g}"}
    root.insert(0, ElementTree.Element("rect", place | {"style": "fill: var(--paper)"}))
    titles = ((chart.title, "600 13px", "--ink", 19), (subtitle, "10px", "--muted", 34))
    for number, (text, font, colour, down) in enumerate(titles if subtitle else titles[:1], 1):
        style = {"style": f"font: {font} var(--sans); fill: var({colour})"}
        line = ElementTree.Element("text", {"x": f"{left + 10:g}", "y": f"{top + down:g}"} | style)
        line.text = text
        root.insert(number, line)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key in ("style", "fill", "stroke"):
                element.set(key, re.sub(r"var\((--\w+)\)", lambda found: LIGHT[found[1]], value))
    return ElementTree.tostring(root, encoding="unicode")


def new_axes(size: tuple[float, float], right: float = 0.05) -> tuple[Figure, Axes]:
    """An empty plot of `size` inches; `right` of its width is left for the names of curves."""
    figure = Figure(figsize=size)
    return figure, figure.add_axes((0.12, 0.19, 0.88 - right, 0.71))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _spoken(line: Line) -> str:
    label = line.label.replace("\n", " ")
    return f"attempt {label}" if label.isdigit() else label or "the curve"


def _mark_stages(
    axes: Axes, steps: Int[np.ndarray, "s"], stages: Sequence[str], spans: Sequence[tuple[int, int]]
) -> None:
    """A dashed line where a stage begins, and its name above wherever it finds room."""
    axes.margins(x=0.02)
    low, high = axes.get_xlim()
    for a, b in spans:
        if a:
            axes.axvline(steps[a], color=MUTED, linewidth=0.8, dashes=(2, 3))
        name = stages[a].replace("_", " ")
        room = (steps[b - 1] - steps[a]) / (high - low) * axes.get_position().width * CURVE[0] * 72
        if len(name) * 5 < room:
            place = {"x": steps[a], "y": 1.03, "transform": axes.get_xaxis_transform()}
            axes.text(s=name, color=MUTED, fontsize=9, **place)


def _plain_numbers(axes: Axes) -> None:
    """Every tick in full: a factor at the axis' end would stand where the stages' names do. A
    curve that is flat but for rounding gets an axis that shows it flat."""
    low, high = axes.get_ylim()
    size = max(abs(low), abs(high))
    if high - low < 1e-3 * size:
        axes.set_ylim(low - 0.05 * size, high + 0.05 * size)
    if 1e-2 <= size < 1e5:
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    else:
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:.2g}".replace("-", "\N{MINUS SIGN}"))


def label_ends(figure: Figure, axes: Axes, ends: Sequence[tuple[Line, float]]) -> None:
    """Each curve's label at its end; where two would touch the upper moves up, and all down from the top."""
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[1])
    height = figure.get_figheight() * axes.get_position().height
    tall = [LINE / height * (1 + line.label.count("\n")) for line, _ in ends]
    bottoms: list[float] = []
    for (_, value), size in zip(ends, tall, strict=True):
        wanted = (value - low) / (high - low) - size / 2
        bottoms.append(max(wanted, bottoms[-1] + tall[len(bottoms) - 1]) if bottoms else wanted)
    above = max(1.04, sum(tall))
    for i in reversed(range(len(bottoms))):
        bottoms[i] = above = min(bottoms[i], above - tall[i])
    for (line, _), bottom, size in zip(ends, bottoms, tall, strict=True):
        place = axes.transAxes
        axes.text(1.01, bottom + size / 2, line.label, color=line.colour, va="center", transform=place)


def name_levels(axes: Axes, by_level: Iterable[str]) -> None:
    """The levels' names under places 0, 1, 2, ...; of many, every few."""
    names = list(by_level)
    every = max(1, len(names) // 10)
    axes.set_xticks(range(0, len(names), every), names[::every])
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_xlabel("level", loc="right")


def inline(figure: Figure, name: str, spoken: str) -> Markup:
    """The figure as an SVG element: ids unique to it, colours and font those of the page."""
    page = io.StringIO()
    with warnings.catch_warnings():  # the reader's fonts draw the text, not matplotlib's
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        figure.savefig(page, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(page.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            element.set(key.replace("{http://www.w3.org/1999/xlink}", ""), _restyle(value, key, name))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", spoken)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # names in it stand escaped


def _restyle(value: str, key: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return value.replace("#", f"#{name}-")
    value = value.replace("url(#", f"url(#{name}-")
    for colour, variable in VARIABLES.items():
        value = value.replace(colour, f"var({variable})")
    value = re.sub(r"font-family: [^;]+", "font-family: var(--sans)", value)
    return re.sub(r"font: ([\d.]+px) [^;]+", r"font: \1 var(--sans)", value)
