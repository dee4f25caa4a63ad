"""The page of a sweep: DIR/sweep.json in; report.html, figures/*.svg and table.md out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from etils import epath

from score_jax import charts, markdown
from score_jax.percent import DELTA, from_to, percent
from score_jax.records import write_text
from score_jax.report import template
from score_jax.study_tables import as_cell, interval_text, table_row
from score_jax.sweep_charts import BEST, sweep_charts
from score_jax.sweep_file import read_sweep

COLUMNS = {"delta": DELTA, "i_to_c": f"i{charts.ARROW}c", "c_to_i": f"c{charts.ARROW}i"}
BEHIND = "best minus this"


def write_sweep_page(folder: epath.PathLike, *, refresh: int = 0) -> epath.Path:
    """Writes report.html, figures/*.svg and table.md from folder/sweep.json; returns the page's path.

    An open page loads itself anew after `refresh` seconds, if there are any.

    Raises:
      FileNotFoundError: there is no sweep.json.
      ValueError: names the field of sweep.json that is missing.
    """
    folder, found = epath.Path(folder), read_sweep(folder)
    drawn = sweep_charts(found)
    page = template("sweep.html.j2").render(
        refresh=refresh,
        title=folder.resolve().name,
        facts=_facts(found),
        found=found,
        judged=_name(found["statistic"]),
        chosen=_chosen(found),
        table={"columns": [*_columns(found).values(), _behind(found)], "rows": _rows(found)},
        drawn=drawn,
        star=BEST,
    )
    if drawn:
        (folder / "figures").mkdir(exist_ok=True)
    for name, chart in drawn.items():
        write_text(folder / "figures" / f"{name}.svg", charts.standalone(chart, f"{found['split']} split"))
    write_text(folder / "table.md", as_markdown(found) + "\n")
    path = folder / "report.html"
    write_text(path, page)
    return path


def as_markdown(found: Mapping[str, Any]) -> str:
    """The table in Markdown, best first: per cent [95% interval]."""
    columns = _columns(found)
    heads = [f"{found['problems']} problems, {found['split']} split", *columns.values(), _behind(found)]
    rows = []
    for name in ranked(found):
        row = found["rows"][name]
        cells = [interval_text(row["statistics"][key], signed=key == "delta") for key in columns]
        cells.append(interval_text(row.get("best_minus"), signed=True) if name != found["best"] else "best")
        rows.append([name, *cells])
    return markdown.table(heads, rows)


def ranked(found: Mapping[str, Any]) -> list[str]:
    """The rows that are measured, the highest first; of equals the best goes before the others."""
    rows = found["rows"]
    measured = [name for name in rows if "statistics" in rows[name]]
    mean = lambda name: rows[name]["statistics"][found["statistic"]]["mean"]
    return sorted(measured, key=lambda name: (-mean(name), name != found["best"]))


def _rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns, table = _columns(found), []
    for name in ranked(found):
        row, best = found["rows"][name], name == found["best"]
        seeds = len(row["points"])
        entry = table_row(name, row["statistics"], [*columns], seeds=seeds, problems=found["problems"])
        entry["cells"].append(as_cell(None if best else row.get("best_minus"), signed=True))
        if best:
            entry["label"], entry["note"] = f"{BEST} {name}", "best by validation"
        table.append(entry)
    return table


def _columns(found: Mapping[str, Any]) -> dict[str, str]:
    """The statistics of the table and their heads."""
    last = int(found["statistic"].removeprefix("acc_t"))
    return {f"acc_t{t}": _name(f"acc_t{t}") for t in range(1, last + 1)} | (COLUMNS if last > 1 else {})


def _name(statistic: str) -> str:
    return f"Acc@t{statistic.removeprefix('acc_t')}"


def _behind(found: Mapping[str, Any]) -> str:
    return f"{_name(found['statistic'])}, {BEHIND}"


def _facts(found: Mapping[str, Any]) -> list[str]:
    rows, seeds = found["rows"], found["seeds"]
    points = sum(len(row["points"]) for row in rows.values())
    return [
        found["task"],
        f"{found['problems']:,} problems, {found['split']} split",
        f"{points - len(found['missing'])} of {points} points",
        f"seed{'s' if len(seeds) != 1 else ''} {', '.join(map(str, seeds))}",
    ]


def _chosen(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The best row, its lead over the second, and how to evaluate it on the test split."""
    if found["best"] is None:
        return None
    best = found["rows"][found["best"]]
    lead, gain = "", found["rows"].get(found["second"], {}).get("best_minus")
    if gain:
        interval = from_to(gain["low"], gain["high"], signed=True)
        clear = "" if gain["low"] > 0 else ", an interval that leaves open which of the two is better"
        lead = (
            f"{percent(gain['mean'], True)} points above the second, {found['second']} "
            f"(95% interval {interval}{clear})"
        )
    return {
        "name": found["best"],
        "value": interval_text(best["statistics"][found["statistic"]], signed=False),
        "lead": lead,
        "commands": [
            shlex.join(["python", "-m", "score_jax", "evaluate", *words, "--config.evaluate.split=test"])
            for words in best["points"].values()
        ],
    }
