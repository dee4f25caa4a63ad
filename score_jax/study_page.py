"""The page of a study: its study.json (see score_jax.study_file) to report.html and figures/*.svg."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from score_jax import charts, paper_tables
from score_jax.charts import Chart
from score_jax.percent import DASH, from_to, percent
from score_jax.records import write_text
from score_jax.report import template
from score_jax.study_charts import DRAW
from score_jax.study_file import read_study
from score_jax.study_tables import (
    COLUMNS,
    SETTINGS,
    as_markdown,
    budget_table,
    main_table,
    settings_table,
    table_row,
)

PRINTED = ("table1", "table2", "table4", "table5")  # the paper's tables that every study is asked for

# (key in "figures", the paper's name, title, what is to be seen). Drawn by study_charts.DRAW.
FIGURES = (
    (
        "figure1",
        "Figure 1, right",
        "Correcting beside voting",
        "Majority vote of 2K parallel samples, and of K samples that were each corrected once: the same "
        "number of sampled attempts.",
    ),
    (
        "figure3",
        "Figure 3",
        "How much the second attempt rewrites the first",
        "Edit distance over the length of both texts: 0 repeats the text. Height: share of problems; "
        "thin bars: 95% intervals.",
    ),
    (
        "figure4",
        "Figure 4",
        "Correcting given first attempts, and one’s own",
        "Problems corrected, through training: a method may learn to correct the mistakes it was shown, and "
        "not those that it makes.",
    ),
    (
        "figure5",
        "Figure 5",
        "Both attempts in training",
        "On the training batches, mean of the seeds. Faint: each step; bold: running mean; bands: from the "
        "lowest to the highest seed.",
    ),
    (
        "figure7",
        "Figure 7",
        "Corrected and spoiled, by level of difficulty",
        "Shares of the problems of each level. The paper’s SCoRe (Gemini 1.5 Flash, MATH), levels 1 to 5: "
        f"corrected {', '.join(map(str, paper_tables.FIGURE_7_I_TO_C))}; "
        f"spoiled {', '.join(map(str, paper_tables.FIGURE_7_C_TO_I))} per cent.",
    ),
    (
        "figure8",
        "Figure 8",
        "More attempts than were trained",
        "The same instruction again and again: accuracy at each attempt.",
    ),
    (
        "figure10",
        "Figure 10",
        "Credit with a discount",
        "An attempt paid for what follows it, too, by a discount γ, in training; γ and α stand among the "
        "numbers of each stage. Bands: from the lowest to the highest seed.",
    ),
    (
        "pool",
        "Beyond the paper",
        "The number of training problems",
        "With pools of different sizes, the same updates and samples.",
    ),
)


@dataclass(frozen=True)
class Section:
    """A table or a figure of the page.

    Attributes:
      key: as in study.json.
      name: the paper's name of it.
      title: what it shows.
      lead: a line on how to read it.
      missing: what is still to run for it, as a sentence, or ''.
      columns: heads of a table.
      rows: of a table, see study_tables.table_row.
      drawn: drawings of a figure, by the names of their files.
    """

    key: str
    name: str
    title: str
    lead: str
    missing: str
    columns: Sequence[str] = ()
    rows: Sequence[Mapping] = ()
    drawn: Mapping[str, Chart] | None = None


def write_study_page(folder: epath.PathLike, *, refresh: int = 0) -> epath.Path:
    """Writes report.html, figures/*.svg and table.md from folder/study.json; returns the page's path.

    The files in figures/ are the page's drawings, in light colours on a background. An open page loads itself
    anew after `refresh` seconds, if there are any.

    Raises:
      FileNotFoundError: there is no study.json.
      ValueError: names the field of study.json that is missing or wrong.
    """
    folder, study = epath.Path(folder), read_study(folder)
    figures = [_figure(study, *figure) for figure in FIGURES]
    page = template("study.html.j2").render(
        refresh=refresh,
        missing=study.get("missing", []),
        title=folder.resolve().name,
        facts=_facts(study),
        setting=[(name.replace("_", " "), str(value)) for name, value in study.get("setting", {}).items()],
        claims=[_claim(claim) for claim in study.get("claims", ())],
        main=main_table(study, "statistics"),
        validation=main_table(study, "validation"),
        budget=budget_table(study["rows"]),
        numbers=list(SETTINGS.values()),
        stages=settings_table(study["rows"]),
        pools=any("pool" in row for row in study["rows"].values()),
        tables=[_table(study, key) for key in _asked(study)],
        figures=figures,
    )
    (folder / "figures").mkdir(exist_ok=True)
    for figure in figures:
        for name, chart in (figure.drawn or {}).items():
            write_text(folder / "figures" / f"{name}.svg", charts.standalone(chart, figure.title))
    write_text(folder / "table.md", as_markdown(study) + "\n")
    path = folder / "report.html"
    write_text(path, page)
    return path


def _facts(study: Mapping[str, Any]) -> list[str]:
    seeds = study["seeds"]
    return [
        study["task"],
        f"{study['problems']:,} problems, {study['split']} split",
        f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''} ({', '.join(map(str, seeds))})",
    ]


def _claim(claim: Mapping[str, Any]) -> dict[str, str]:
    words = {True: ("up", "holds"), False: ("down", "does not hold"), None: ("", "not shown")}
    sign, verdict = words[claim["holds"]]
    return {
        "claim": claim["claim"],
        "sign": sign,
        "verdict": verdict,
        "value": f"{percent(claim['value'], signed=True)} points",
        "interval": from_to(claim["low"], claim["high"], signed=True),
        "seeds": ", ".join(percent(seed, True) for seed in claim.get("by_seed", ())),
        "drawn": f"n = {claim['n']:,}",
    }


def _asked(study: Mapping[str, Any]) -> list[str]:
    """The tables of the page, in the paper's order: those of every study, and those that this one names."""
    return [key for key in paper_tables.TABLES if key in PRINTED or key in study.get("tables", {})]


def _table(study: Mapping[str, Any], key: str) -> Section:
    """One of the paper's tables with our numbers, and the paper's beside them."""
    paper = paper_tables.TABLES[key]
    names = study.get("tables", {}).get(key, [])
    rows, absent = [], []
    for name, (method, numbers) in zip(names, paper.rows, strict=bool(names)):
        if name not in study["rows"]:
            absent.append(f"{method} ({name})")
            continue
        row = study["rows"][name]
        rows.append(
            table_row(
                row["label"],
                row["statistics"],
                paper.statistics,
                seeds=len(study["seeds"]),
                problems=study["problems"],
                printed=dict(zip(paper.statistics, numbers, strict=True)),
            )
        )
    waiting = _waiting(study) if not names else f"Still to run: {', '.join(absent)}." if absent else ""
    return Section(
        key=key,
        name=f"Table {key.removeprefix('table')}",
        title=paper.title,
        lead="Small, from above: 95% interval; lowest and highest seed; in italics the paper’s number, of "
        f"{paper.model} on {paper.task}: another model and another task, to be compared in kind alone.",
        missing=waiting,
        columns=[COLUMNS[name] for name in paper.statistics],
        rows=rows,
    )


def _figure(study: Mapping[str, Any], key: str, name: str, title: str, lead: str) -> Section:
    entry = study.get("figures", {}).get(key)
    labels = {method: row["label"] for method, row in study["rows"].items()}
    drawn = DRAW[key](entry, labels) if entry else {}
    waiting = "" if drawn else _waiting(study)
    sampled = (
        f"Temperature {entry['temperature']:g}."
        if key == "figure1" and "temperature" in (entry or {})
        else ""
    )
    return Section(
        key, name, title, " ".join(filter(None, [lead, sampled, counted(entry)])), waiting, drawn=drawn
    )


def counted(entry: Any) -> str:
    """Over how many problems and seeds the estimates of a figure were taken; '' where there are none."""
    estimates = list(_estimates(entry))
    if not estimates:
        return ""
    sizes, seeds = {e["n"] for e in estimates}, {len(e["by_seed"]) for e in estimates}
    between = lambda found: DASH.join(f"{end:,}" for end in sorted({min(found), max(found)}))
    return f"n = {between(sizes)} × {between(seeds)} seed{'s' * (max(seeds) > 1)}."


def _estimates(entry: Any) -> Iterator[Mapping[str, Any]]:
    """Those that stand anywhere in a figure's numbers."""
    if isinstance(entry, Mapping) and "by_seed" in entry:
        yield entry
    elif isinstance(entry, Mapping | list):
        for part in entry.values() if isinstance(entry, Mapping) else entry:
            yield from _estimates(part)


def _waiting(study: Mapping[str, Any]) -> str:
    """What a table or figure without numbers waits for."""
    if missing := study.get("missing"):
        return f"Not measured yet; of the whole study are still to run: {', '.join(missing)}."
    return "Not measured in this study."
