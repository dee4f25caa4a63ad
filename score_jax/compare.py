"""Methods compared over seeds: FOLDER/METHOD/SEED/attempts.jsonl to FOLDER/comparison.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from score_jax.log import read_jsonl
from score_jax.metrics import Difference, aligned, paired_difference

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
    """
    runs = read_runs(Path(folder))
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
    found = {"seeds": {name: len(rewards) for name, rewards in runs.items()}}
    found |= {"problems": len(runs[method][0]), "table": table, "acc_t2_gain": gain}
    (Path(folder) / "comparison.json").write_text(json.dumps(found, indent=1))
    return found


def read_runs(folder: Path) -> Runs:
    """The rewards of every method and of the base, seed by seed.

    A method is judged by the checkpoint of its last stage, the base by the first method's runs.
    """
    runs: Runs = {}
    bases: Runs = {}
    order: list[str] = []
    for path in sorted(folder.glob("*/*/attempts.jsonl")):
        rows = read_jsonl(path)
        last = list(json.loads((path.parent / "results.json").read_text()))[-1]
        for found, checkpoint in ((bases, "base"), (runs, last)):
            mine = [row for row in rows if row["checkpoint"] == checkpoint]
            ids = [row["id"] for row in mine]
            order = order or ids
            rewards = aligned(np.array([row["rewards"] for row in mine], float), ids, order)
            found.setdefault(path.parent.parent.name, []).append(rewards)
    return {"base": next(iter(bases.values())), **runs} if runs else {}


def _mean(rewards: list[Float[np.ndarray, "n N"]], statistic: str) -> Difference:
    nothing = [np.zeros_like(run) for run in rewards]
    return paired_difference(rewards, nothing, statistic)


def _interval(difference: Difference) -> list[float]:
    return [difference.value, difference.low, difference.high]


def as_markdown(found: Mapping) -> str:
    """The comparison as a Markdown table, in percent."""
    heads = ("Acc@t1", "Acc@t2", "Δ", "i→c", "c→i")
    lines = [
        f"| {found['problems']} problems | seeds | " + " | ".join(heads) + " | Acc@t2, SCoRe less this |",
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
