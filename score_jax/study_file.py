"""A study on disk: DIR/study.json, what stands in it, read and checked.

A study trains methods ("rows") over several seeds into DIR/METHOD/SEED. DIR/study.json holds what came out,
flat; E stands for an estimate over seeds, as score_jax.estimates makes them; fractions in [0, 1]:

  task, split   what was evaluated
  problems      of the split
  seeds         [0, 1, ...]
  setting       {field: value}, for the page's head
  rows          {METHOD: row}, in the order of the tables; "score" is SCoRe
  tables        {"table1": [METHOD of each of the paper's rows, in the paper's order], ...}
  figures       {"figure1": {"k", "temperature", "parallel": [E], "corrected": [E], "difference": [E]},
                 "figure3": {"edges", "train": {METHOD: [E of each bin]}, "test": the same},
                 "figure4": {METHOD: {"step", "fixed": [E], "own": [E]}},
                 "figure5", "figure10": {METHOD: {"step", "stage", NAME: means over seeds, NAME_low and
                 NAME_high: the lowest and the highest seed; of acc_t1, acc_t2, changed}},
                 "figure7": {METHOD: {"levels", "i_to_c": [E], "c_to_i": [E]}},
                 "figure8": {METHOD: [E of each attempt]},
                 "pool": {METHOD: {"pool", "acc_t1": [E], "acc_t2": [E]}}, the base's the same at all}
  claims        [{"claim", "holds": true, false or null, "value", "low", "high", "by_seed", "n"}]
  missing       ["METHOD/SEED", ...], still to run

A row is {"label", "checkpoint", "updates", "sampled": attempts in training, mean of the seeds, "seconds": [of
each seed], "stages": [what each was trained with, fields of the config], "statistics": {"acc_t1": E, ...},
"validation": the same, "kl_t1": [of attempt 1 from the last stage's reference at the end, nats, by seed],
"minus_score": {"acc_t2": E, ...}: SCoRe with as many training problems minus this row, "pool" and
"method": where it differs from a method in the number of training problems alone}. Of a row label and
statistics must be there; of the study all down to rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from score_jax import paper_tables
from score_jax.records import read_json

SCORE = "score"  # SCoRe's row, on which budgets and differences lean
REQUIRED = ("task", "split", "problems", "seeds", "rows")
FIGURES = ("figure1", "figure3", "figure4", "figure5", "figure7", "figure8", "figure10", "pool")


def holds_study(folder: epath.PathLike) -> bool:
    """Whether a folder is a study's and not a single run's."""
    return (epath.Path(folder) / "study.json").exists()


def read_study(folder: epath.PathLike) -> dict[str, Any]:
    """The checked content of folder/study.json.

    Raises:
      FileNotFoundError: there is none.
      ValueError: names the field that is missing or wrong.
    """
    if not holds_study(folder):
        raise FileNotFoundError(f"{folder} holds no study.json; run the study first")
    study = read_json(epath.Path(folder) / "study.json")
    check_study(study)
    return study


def check_study(study: Mapping[str, Any]) -> None:
    """ValueError, naming the field, where study.json lacks what every page needs."""
    if absent := [field for field in REQUIRED if field not in study]:
        raise ValueError(f"study.json: has no {absent[0]!r}; write the study again")
    for name, row in study["rows"].items():
        if not re.fullmatch(r"[\w@.+-]+", name, re.ASCII):
            raise ValueError(f"study.json: rows has {name!r}; name rows with letters, digits and _ @ . + -")
        if absent := [field for field in ("label", "statistics") if field not in row]:
            raise ValueError(f"study.json: rows.{name} has no {absent[0]!r}; write the study again")
        for part in ("statistics", "validation", "minus_score"):
            for statistic, found in row.get(part, {}).items():
                _check_estimate(f"rows.{name}.{part}.{statistic}", found)
    for group, known in (("tables", paper_tables.TABLES), ("figures", FIGURES)):
        if unknown := [key for key in study.get(group, {}) if key not in known]:
            raise ValueError(f"study.json: {group} has {unknown[0]!r}; known are {', '.join(known)}")
    for figure, named in _methods_drawn(study.get("figures", {})):
        if named not in study["rows"]:
            raise ValueError(f"study.json: figures.{figure} has {named!r}, which rows has not; give it a row")
    for key, names in study.get("tables", {}).items():
        if len(names) != len(paper_tables.TABLES[key].rows):
            raise ValueError(
                f"study.json: tables.{key} has {len(names)} rows; the paper's has "
                f"{len(paper_tables.TABLES[key].rows)}: name a row for each, run or not"
            )


def _methods_drawn(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(figure, METHOD) of every method that is drawn."""
    found = []
    for figure, entry in figures.items():
        if figure == "figure3":
            found += [(figure, name) for split in entry.keys() - {"edges"} for name in entry[split]]
        elif figure != "figure1":
            found += [(figure, name) for name in entry]
    return found


def _check_estimate(field: str, found: Mapping[str, Any]) -> None:
    numbers = [found.get(key) for key in ("mean", "low", "high", "n")]
    if not found.get("by_seed") or not all(isinstance(x, int | float) and np.isfinite(x) for x in numbers):
        raise ValueError(
            f"study.json: {field} is {found!r}; give mean, low, high, by_seed and n (score_jax.estimates)"
        )
