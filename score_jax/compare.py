"""Methods compared over seeds: FOLDER/METHOD/SEED/attempts.jsonl to FOLDER/comparison.json."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from etils import epath
from jaxtyping import Float

from score_jax import markdown
from score_jax.config import config_of, judged_by
from score_jax.estimates import differences_of, statistics_of
from score_jax.metrics import aligned
from score_jax.percent import with_interval
from score_jax.records import read_jsonl, write_json

Runs = dict[str, list[Float[np.ndarray, "n N"]]]  # method -> rewards of each seed, problems in one order


def compare(folder: epath.PathLike, method: str = "score") -> dict:
    """Means over seeds with 95% paired-bootstrap intervals, and `method` against each other one.

    The latter in the accuracy of the last attempt, number N.

    Args:
      folder: holds a work directory for each method and seed, each evaluated on the same problems.
      method: the one that the others are compared with.

    Returns:
      {"method": method, "attempts": N, "seeds": {method: n}, "problems": of the split, "table": {method:
      {statistic: [value, low, high]}}, "acc_tN_gain": {method: [value, low, high]}}.

    Raises:
      FileNotFoundError: no evaluated work directory there, or none of `method`.
      ValueError: the methods have different seeds, or were evaluated on different splits or problems, or with
        different numbers of attempts.
    """
    runs = read_runs(folder, method)
    if method not in runs:
        raise FileNotFoundError(
            f"{folder}: holds no evaluated {method}/SEED; name a folder of work directories METHOD/SEED, and "
            f"by --method the one to compare with; evaluated are {', '.join(runs) or 'none'}"
        )
    attempts = runs[method][0].shape[1]
    last, shown = f"acc_t{attempts}", _statistics(attempts)
    estimated = {name: statistics_of(rewards) for name, rewards in runs.items()}
    table = {name: {s: _interval(found[s]) for s in shown} for name, found in estimated.items()}
    gain = {
        name: _interval(differences_of(runs[method], rewards)[last])
        for name, rewards in runs.items()
        if name != method
    }
    found = {
        "method": method,
        "attempts": attempts,
        "seeds": {name: len(rewards) for name, rewards in runs.items()},
        "problems": len(runs[method][0]),
        "table": table,
        f"{last}_gain": gain,
    }
    write_json(epath.Path(folder) / "comparison.json", found)
    return found


def read_runs(folder: epath.PathLike, method: str) -> Runs:
    """The rewards of the base (from the runs of `method`) and of every method, seed by seed.

    A method is judged by `config.judged_by`.

    Raises:
      ValueError: a method has other seeds than `method`, or was evaluated otherwise.
    """
    runs: dict[str, dict[str, Float[np.ndarray, "n N"]]] = {}
    how: dict[str, str] = {}  # something was evaluated -> where for the first time
    order: list[str] = []
    for path in sorted(epath.Path(folder).glob("*/*/attempts.jsonl")):
        name, seed = path.parent.parent.name, path.parent.name
        last = judged_by(config_of(path.parent))
        rows = read_jsonl(path)
        wanted = {"base": "base", name: last} if name == method else {name: last}
        for run, checkpoint in wanted.items():
            mine = [row for row in rows if row["checkpoint"] == checkpoint]
            if not mine:
                raise ValueError(f"{path.parent}: {checkpoint} has not been evaluated; run evaluate there")
            for row in mine:
                how.setdefault(_evaluation(row), f"{checkpoint} in {path.parent}")
            if len(how) > 1:
                said = ", ".join(f"{where} {evaluation}" for evaluation, where in how.items())
                raise ValueError(
                    f"{folder}: not all were evaluated alike: {said}; evaluate one of them again"
                )
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


def _evaluation(row: Mapping) -> str:
    """How a row of attempts.jsonl was evaluated, in words."""
    attempts = f"{len(row['rewards'])} attempts" + " and critiques" * ("critiques" in row)
    split, temperature = row.get("split", "unknown"), row.get("temperature", 0.0)
    return f"on the {split} split with {attempts} at temperature {temperature}"


def _statistics(attempts: int) -> dict[str, str]:
    """{statistic: head of its column} of so many attempts."""
    heads = {"acc_t1": "Acc@t1", f"acc_t{attempts}": f"Acc@t{attempts}"}
    return heads | ({"delta": "Δ", "i_to_c": "i→c", "c_to_i": "c→i"} if attempts > 1 else {})


def _interval(estimate: Mapping[str, float]) -> list[float]:
    return [estimate["mean"], estimate["low"], estimate["high"]]


def as_markdown(found: Mapping) -> str:
    """The comparison as a Markdown table, in percent."""
    last, shown = f"acc_t{found['attempts']}", _statistics(found["attempts"])
    gains, method = found[f"{last}_gain"], "SCoRe" if found["method"] == "score" else found["method"]
    heads = ("seeds", *shown.values(), f"{shown[last]}, {method} minus this")
    rows = []
    for name, row in found["table"].items():
        cells = [with_interval(*row[statistic]) for statistic in shown]
        gain = with_interval(*gains[name], signed=True) if name in gains else ""
        rows.append([name, str(found["seeds"][name]), *cells, gain])
    return markdown.table([f"{found['problems']} problems", *heads], rows)
