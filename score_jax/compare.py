"""Methods compared over seeds: FOLDER/METHOD/SEED/attempts.jsonl to FOLDER/comparison.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from score_jax.config import config_of
from score_jax.metrics import Difference, aligned, paired_difference
from score_jax.records import read_jsonl, write_json

STATISTICS = ("acc_t1", "acc_t2", "delta", "i_to_c", "c_to_i")
Runs = dict[str, list[Float[np.ndarray, "n N"]]]  # method -> rewards of each seed, problems in one order


def compare(folder: str | Path, method: str = "score") -> dict:
    """Means over seeds with 95% paired-bootstrap intervals, and `method` against each other one in Acc@t2.

    Args:
      folder: holds a work directory for each method and seed, each evaluated on the same problems.
      method: the one that the others are compared with.

    Returns:
      {"seeds": {method: n}, "table": {method: {statistic: [value, low, high]}}, "acc_t2_gain": {...}}.

    Raises:
      FileNotFoundError: no evaluated work directory there, or none of `method`.
      ValueError: the methods have different seeds, or were evaluated on different problems.
    """
    runs = read_runs(Path(folder), method)
    if method not in runs:
        raise FileNotFoundError(
            f"{folder} holds no evaluated {method}/SEED/attempts.jsonl; found {sorted(runs)}"
        )
    table = {name: {s: _interval(_mean(rewards, s)) for s in STATISTICS} for name, rewards in runs.items()}
    gain = {
        name: _interval(paired_difference(runs[method], rewards, "acc_t2"))
        for name, rewards in runs.items()
        if name != method
    }
    found = {
        "seeds": {name: len(rewards) for name, rewards in runs.items()},
        "problems": len(runs[method][0]),
        "table": table,
        "acc_t2_gain": gain,
    }
    write_json(Path(folder) / "comparison.json", found)
    return found


def read_runs(folder: Path, method: str) -> Runs:
    """The rewards of the base (from the runs of `method`) and of every method, seed by seed.

    A method is judged by the best checkpoint of its last stage.

    Raises:
      ValueError: a method has other seeds than `method`.
    """
    runs: dict[str, dict[str, Float[np.ndarray, "n N"]]] = {}
    order: list[str] = []
    for path in sorted(folder.glob("*/*/attempts.jsonl")):
        name, seed = path.parent.parent.name, path.parent.name
        config = config_of(path.parent)
        last = config[config.stages[-1]].name
        rows = read_jsonl(path)
        wanted = {"base": "base", name: last} if name == method else {name: last}
        for run, checkpoint in wanted.items():
            mine = [row for row in rows if row["checkpoint"] == checkpoint]
            if not mine:
                raise ValueError(f"{path.parent}: {checkpoint} has not been evaluated; run evaluate there")
            ids = [row["id"] for row in mine]
            order = order or ids
            rewards = np.array([row["rewards"] for row in mine], float)
            runs.setdefault(run, {})[seed] = aligned(rewards, ids, order)
    for name, seeds in runs.items():
        if method in runs and seeds.keys() != runs[method].keys():
            raise ValueError(
                f"{folder}: {name} has the seeds {', '.join(seeds)}, {method} has "
                f"{', '.join(runs[method])}; train and evaluate both with the same"
            )
    names = sorted(runs, key=lambda name: (name != "base", name))
    return {name: list(runs[name].values()) for name in names}


def _mean(rewards: list[Float[np.ndarray, "n N"]], statistic: str) -> Difference:
    nothing = [np.zeros_like(run) for run in rewards]
    return paired_difference(rewards, nothing, statistic)


def _interval(difference: Difference) -> list[float]:
    return [difference.value, difference.low, difference.high]


def as_markdown(found: Mapping) -> str:
    """The comparison as a Markdown table, in percent."""
    heads = ("Acc@t1", "Acc@t2", "Δ", "i→c", "c→i")
    lines = [
        f"| {found['problems']} problems | seeds | " + " | ".join(heads) + " | Acc@t2, SCoRe minus this |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for name, row in found["table"].items():
        cells = [_cell(row[statistic]) for statistic in STATISTICS]
        gain = _cell(found["acc_t2_gain"][name], signed=True) if name in found["acc_t2_gain"] else ""
        lines.append(f"| {name} | {found['seeds'][name]} | " + " | ".join(cells) + f" | {gain} |")
    return "\n".join(lines)


def _cell(interval: list[float], signed: bool = False) -> str:
    value, low, high = (100 * number for number in interval)
    return f"{value:{'+' if signed else ''}.1f} [{low:.1f}, {high:.1f}]"
