"""A study's tables: our numbers with intervals and seeds, the paper's beside them, and the budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_jax import markdown
from score_jax.charts import ARROW
from score_jax.percent import DASH, DELTA, direction, from_to, percent, with_interval
from score_jax.study_file import SCORE, check_study

COLUMNS = {
    "acc_t1": "Acc@t1",
    "acc_t2": "Acc@t2",
    "acc_t3": "Acc@t3",
    "delta": DELTA,
    "i_to_c": f"i{ARROW}c",
    "c_to_i": f"c{ARROW}i",
    "mbpp_r": "MBPP-R",
}
ALPHA, BETA = "\N{GREEK SMALL LETTER ALPHA}", "\N{GREEK SMALL LETTER BETA}"
OBJECTIVE = {"alpha": ALPHA, "beta_1": f"{BETA}\N{SUBSCRIPT ONE}", "beta_2": f"{BETA}\N{SUBSCRIPT TWO}"}
SETTINGS = {"steps": "updates", "learning_rate": "learning rate", **OBJECTIVE}  # of a stage
MAIN = ("acc_t1", "acc_t2", "delta", "i_to_c", "c_to_i")
_LATER = "_t1_t2"  # after the name of a change: of three attempts the one from the first to the second


def as_markdown(study: Mapping[str, Any]) -> str:
    """The main table in Markdown: per cent [95% interval], rows in the study's order, two attempts of each.

    Rows that differ in the number of training problems alone are left to the page.
    """
    check_study(study)
    heads = [COLUMNS[name] for name in MAIN] + ["Acc@t2 by seed", "Acc@t2, SCoRe minus this"]
    rows = []
    for row in _trained_alike(study["rows"]).values():
        found = row["statistics"]
        cells = [
            interval_text(found.get(name + _LATER, found.get(name)), signed=name == "delta") for name in MAIN
        ]
        cells.append(
            ", ".join(percent(seed) for seed in found["acc_t2"]["by_seed"]) if "acc_t2" in found else DASH
        )
        cells.append(interval_text(row.get("minus_score", {}).get("acc_t2"), signed=True, absent=""))
        rows.append([row["label"], *cells])
    return markdown.table([f"{study['problems']} problems, {len(study['seeds'])} seeds", *heads], rows)


def main_table(study: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Every method's numbers, and SCoRe minus it."""
    rows = {name: row for name, row in _trained_alike(study["rows"]).items() if part in row}
    names = [name for name in COLUMNS if any(name in row[part] for row in rows.values())]
    gains = part == "statistics" and any("acc_t2" in row.get("minus_score", {}) for row in rows.values())
    sizes = [found["n"] for row in rows.values() for found in row[part].values()]
    whole = study["problems"] if part == "statistics" else max(sizes, default=0)
    seeds = len(study["seeds"])
    table = [table_row(row["label"], row[part], names, seeds=seeds, problems=whole) for row in rows.values()]
    for entry, row in zip(table, rows.values(), strict=True):
        if gains:
            entry["cells"].append(as_cell(row.get("minus_score", {}).get("acc_t2"), signed=True))
    columns = [COLUMNS[name] for name in names] + ["Acc@t2, SCoRe minus this"] * gains
    return {"columns": columns, "rows": table}


def _trained_alike(rows: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """The methods: not those with another number of training problems, nor earlier stages (METHOD.STAGE)."""
    return {name: row for name, row in rows.items() if "pool" not in row and "." not in name}


def table_row(
    label: str,
    found: Mapping[str, Any],
    names: Sequence[str],
    *,
    seeds: int,
    problems: int,
    printed: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """A row of a table: {"label", "note": what is unusual about it, "cells"}.

    Args:
      label: the method's.
      found: its estimates.
      names: the statistics of the columns.
      seeds: that the study has; a row of fewer says so.
      problems: that were evaluated; a row of others says so.
      printed: the paper's numbers, per cent.
    """
    notes = []
    ran = min((len(found[name]["by_seed"]) for name in names if name in found), default=0)
    if ran and ran != seeds:
        notes.append(f"{ran} of {seeds} seeds")
    sizes = {found[name]["n"] for name in names if name in found}
    notes += [f"{size:,} problems" for size in sorted(sizes - {problems})]
    cells = [
        as_cell(found.get(name), signed=name == "delta", printed=(printed or {}).get(name)) for name in names
    ]
    return {"label": label, "note": ", ".join(notes), "cells": cells}


def as_cell(found: Mapping[str, Any] | None, *, signed: bool, printed: float | None = None) -> dict[str, str]:
    """A cell of a table: an estimate as text, with its interval and the range of its seeds."""
    paper = "" if printed is None else percent(printed / 100, signed)
    if found is None:
        return {"text": DASH, "interval": "", "seeds": "", "sign": "", "paper": paper}
    seeds = found["by_seed"]
    return {
        "text": percent(found["mean"], signed),
        "interval": from_to(found["low"], found["high"], signed=signed),
        "seeds": from_to(min(seeds), max(seeds), signed=signed) if len(seeds) > 1 else "",
        "sign": direction(found["low"], found["high"]) if signed else "",
        "paper": paper,
    }


def interval_text(found: Mapping[str, Any] | None, *, signed: bool, absent: str = DASH) -> str:
    """71.2 [68.0, 74.1]: an estimate on one line."""
    if found is None:
        return absent
    return with_interval(found["mean"], found["low"], found["high"], signed=signed)


def budget_table(rows: Mapping[str, Mapping]) -> list[dict[str, Any]]:
    """Updates and sampled attempts of every row, beside SCoRe's, the minutes of a seed, attempt 1's KL."""
    score = rows.get(SCORE, {})
    table = []
    for name, row in rows.items():
        seconds, kl = row.get("seconds") or [], row.get("kl_t1") or []
        table.append(
            {
                "label": row["label"],
                "note": f"pool of {row['pool']:,}" if "pool" in row else "",
                "checkpoint": row.get("checkpoint", DASH).replace("_", " "),
                "updates": _spent(row, score, "updates", name),
                "sampled": _spent(row, score, "sampled", name),
                "minutes": f"{np.mean(seconds) / 60:.1f}" if seconds else DASH,
                "kl": f"{np.mean(kl):.2f}" if kl else DASH,
                "kl_range": f"{min(kl):.2f}{DASH}{max(kl):.2f}" if len(kl) > 1 else "",
            }
        )
    return table


def _spent(row: Mapping, score: Mapping, key: str, name: str) -> dict[str, str]:
    """One part of the budget, and how it stands to SCoRe's where it is not the same."""
    if row.get(key) is None:
        return {"text": DASH, "beside": ""}
    if row[key] == 0:
        return {"text": "none", "beside": ""}
    same = name == SCORE or not score.get(key) or row[key] == score[key]
    return {"text": f"{row[key]:,}", "beside": "" if same else f"{row[key] / score[key]:.2g} × SCoRe’s"}


def settings_table(rows: Mapping[str, Mapping]) -> list[dict[str, Any]]:
    """What every stage of every method was trained with."""
    usual = [None, *(stage.get("temperature") for stage in rows.get(SCORE, {}).get("stages", ()))]
    return [
        {
            "label": row["label"],
            "stage": stage["name"].replace("_", " "),
            "numbers": [_number(stage, key) for key in SETTINGS],
            "more": ", ".join(_further(stage, usual)),
        }
        for row in _trained_alike(rows).values()
        for stage in row.get("stages", ())
    ]


def _number(stage: Mapping[str, Any], key: str) -> str:
    """A number of a stage; of an objective that goes from one's to another's, both."""
    ends = stage.get("between", [stage]) if key in OBJECTIVE else [stage]
    return f" {ARROW} ".join(f"{end[key]:g}" for end in ends if key in end) or DASH


def _further(stage: Mapping[str, Any], usual: Sequence[float | None]) -> list[str]:
    """What sets a stage apart, in words; `usual` are the temperatures at which SCoRe samples."""
    told = lambda key: max(end.get(key, 0) for end in stage.get("between", [stage]))
    attempts = stage.get("attempts", 2)
    said = {
        f"{BETA}\N{SUBSCRIPT ONE} \N{MULTIPLICATION SIGN} (1 + {ALPHA})": told("scale_kl"),
        f"{BETA}\N{SUBSCRIPT TWO} adapted": told("adapt_beta_2"),
        f"\N{GREEK SMALL LETTER GAMMA} {told('discount'):g}": told("discount"),
        f"{told('offline'):.0%} of first attempts given": told("offline"),
        "critiques trained": told("critique"),
        "right answers kept, too": told("keep_right"),
        "tokens after the answer paid, too": not stage.get("decisive_only", True),
        f"{attempts} attempt{'s' * (attempts != 1)}": attempts != 2,
        f"sampled at temperature {stage.get('temperature', 1):g}": stage.get("temperature") not in usual,
    }
    return [words for words, so in said.items() if so]
