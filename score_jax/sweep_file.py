"""A sweep on disk: DIR/sweep.json, what stands in it, made and read back.

Points that differ in their seed alone are one row. E stands for an estimate over seeds, as
score_jax.estimates makes them; fractions in [0, 1]:

  task, split   what was evaluated
  problems      of the split; 0 before the first point is done
  statistic     by which the sweep chooses: the accuracy of the last attempt, "acc_t2"
  fields        {FIELD: "grid", or how it is drawn: "log", "linear" or "integer"}, without the seed
  seeds         [0, ...]
  rows          {ROW: row}, in the order of the points
  best          the ROW with the highest statistic among those that are done with every seed, or null
  second        the ROW with the second highest, or null
  missing       [POINT, ...], still to run

A row is {"values": {FIELD: value}, "points": {POINT of each seed: the arguments of a command on it, but for
the split}, "seeds": those that are done} and, where there are any, "statistics": {"acc_t1": E, ...}; where
the row is done with every seed also "best_minus": E, the statistic of the best row minus this one's on the
same problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from score_jax.estimates import difference, statistics_of
from score_jax.metrics import aligned, per_problem
from score_jax.records import read_json

REQUIRED = ("task", "split", "problems", "statistic", "fields", "seeds", "rows", "best", "second", "missing")


def holds_sweep(folder: epath.PathLike) -> bool:
    """Whether a folder is a sweep's."""
    return (epath.Path(folder) / "sweep.json").exists()


def read_sweep(folder: epath.PathLike) -> dict[str, Any]:
    """The content of folder/sweep.json.

    Raises:
      FileNotFoundError: there is none.
      ValueError: names the field that is missing.
    """
    if not holds_sweep(folder):
        raise FileNotFoundError(f"{folder} holds no sweep.json; run the sweep first")
    found = read_json(epath.Path(folder) / "sweep.json")
    if absent := [field for field in REQUIRED if field not in found]:
        raise ValueError(f"sweep.json: has no {absent[0]!r}; run the sweep again, which writes it anew")
    return found


def spelled(value: Any) -> str:
    """A field's value in a few characters: 5, 0.1, True; different values always differ."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def findings_of(
    about: Mapping[str, Any], points: Sequence[Mapping[str, Any]], done: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """sweep.json, from what the points that are done reached.

    Args:
      about: task, split, statistic and fields, as they shall stand there.
      points: {"name", "row", "seed", "values", "arguments"} of each.
      done: POINT -> {"id": [of each problem], "rewards": [of each problem]}, rewards of all attempts.

    Raises:
      ValueError: points were evaluated on different problems.
    """
    order = next(iter(done.values()))["id"] if done else []
    rewards = {
        name: aligned(np.array(reached["rewards"], float), reached["id"], order)
        for name, reached in done.items()
    }
    rows: dict[str, dict[str, Any]] = {}
    for point in points:
        row = rows.setdefault(point["row"], {"values": point["values"], "points": {}, "seeds": []})
        row["points"][point["name"]] = point["arguments"]
        row["seeds"] += [point["seed"]] * (point["name"] in done)
    statistic, whole = about["statistic"], {}
    for name, row in rows.items():
        runs = [rewards[point] for point in row["points"] if point in done]
        if runs:
            row["statistics"] = statistics_of(runs)
        if len(runs) == len(row["points"]):
            whole[name] = [per_problem(run)[statistic] for run in runs]
    # sorted() is stable: of equals the first point's row comes first.
    ranked = sorted(whole, key=lambda name: -rows[name]["statistics"][statistic]["mean"])
    first, second, *_ = [*ranked, None, None]
    for name, runs in whole.items():
        rows[name]["best_minus"] = difference(whole[first], runs)
    return {
        **about,
        "problems": len(order),
        "seeds": list(dict.fromkeys(point["seed"] for point in points)),
        "rows": rows,
        "best": first,
        "second": second,
        "missing": [point["name"] for point in points if point["name"] not in done],
    }
