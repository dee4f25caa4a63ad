"""A statistic over training seeds, with its interval, and what a study claims of it.

Letters: n = problems, N = attempts, S = statistics. An estimate is a plain object, ready for JSON:
{"mean", "low", "high", "by_seed", "n"}, fractions in [0, 1] (differences in [-1, 1]).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from score_jax.metrics import Answers, bootstrap_interval, per_problem

Side = Literal["above", "below", "at_most", "at_least"]


def estimate(runs: Sequence[Float[np.ndarray, "n"]]) -> dict[str, Any]:
    """Mean over seeds and problems, its 95% bootstrap interval over problems, and each seed's mean.

    A problem's value is averaged over the seeds, then problems are resampled, jointly for all seeds. The
    interval speaks of other problems, not of other seeds: how far those lie apart is said by `by_seed`.

    Args:
      runs: the value of each problem, one array per seed, all in the same order of problems.
    """
    _check_runs(runs)
    # The sum over seeds and not the mean: of fractions it is exact, so that equal problems are one row there.
    totals = np.sum(runs, axis=0, dtype=float)
    low, high = bootstrap_interval(totals[:, None])[0] / len(runs)
    by_seed = [float(np.mean(run)) for run in runs]
    return {
        "mean": float(totals.mean() / len(runs)),
        "low": float(low),
        "high": float(high),
        "by_seed": by_seed,
        "n": len(totals),
    }


def difference(
    runs_a: Sequence[Float[np.ndarray, "n"]], runs_b: Sequence[Float[np.ndarray, "n"]]
) -> dict[str, Any]:
    """The estimate of A minus B on the same problems, seed by seed: paired in both.

    Raises:
      ValueError: A and B have different numbers of seeds or of problems.
    """
    if len(runs_a) != len(runs_b):
        raise ValueError(
            f"runs_b: got {len(runs_b)} seeds, runs_a has {len(runs_a)}; compare runs of the same seeds"
        )
    _check_runs([*runs_a, *runs_b])
    return estimate(
        [np.asarray(a, float) - np.asarray(b, float) for a, b in zip(runs_a, runs_b, strict=True)]
    )


def statistics_of(
    runs: Sequence[Float[np.ndarray, "n N"]], answers: Sequence[Answers] | None = None
) -> dict[str, dict[str, Any]]:
    """The estimate of every statistic of metrics.per_problem: acc_t1 ..., delta, i_to_c, c_to_i, changed.

    Args:
      runs: rewards, one array per seed.
      answers: of the same runs; without them `changed` is left out.
    """
    all_said: Sequence[Answers | None] = answers or [None] * len(runs)
    columns = [per_problem(run, said) for run, said in zip(runs, all_said, strict=True)]
    if not columns:
        raise ValueError("runs: got 0 seeds; give the rewards of at least one")
    return {name: estimate([values[name] for values in columns]) for name in columns[0]}


def differences_of(
    runs_a: Sequence[Float[np.ndarray, "n N"]], runs_b: Sequence[Float[np.ndarray, "n M"]]
) -> dict[str, dict[str, Any]]:
    """A minus B in every statistic that both have, from the rewards of each seed."""
    columns_a, columns_b = ([per_problem(run) for run in runs] for runs in (runs_a, runs_b))
    if not columns_a or not columns_b:
        raise ValueError(f"runs: got {len(runs_a)} and {len(runs_b)} seeds; give at least one of each")
    return {
        name: difference([values[name] for values in columns_a], [values[name] for values in columns_b])
        for name in columns_a[0]
        if name in columns_b[0]
    }


def claim(text: str, found: Mapping[str, Any], side: Side, bound: float = 0.0) -> dict[str, Any]:
    """Whether an estimate bears a claim out: its whole 95% interval, and each seed by itself.

    Args:
      text: the claim, in words.
      found: the estimate (see the module) that it speaks of.
      side: 'above' and 'below' claim a value beyond the bound ("better than"); 'at_most' and 'at_least'
        deny one ("no better than" is at_most), and are exactly their negations: what only touches the
        bound bears out the denial.
      bound: where the sides part, in the estimate's own unit.

    Returns:
      {"claim", "holds", "value", "low", "high", "by_seed", "n"}. holds is True where the interval and each
      seed's mean lie on the claimed side, False where all of them lie on the other, else None ("not shown"):
      the interval speaks of other problems, the seeds of other runs.
    """
    sides = {"above": np.greater, "below": np.less, "at_most": np.less_equal, "at_least": np.greater_equal}
    if side not in sides:
        raise ValueError(f"side: got {side!r}; choose one of {', '.join(sides)}")
    low, high, by_seed = found["low"], found["high"], found["by_seed"]
    on_its_side = sides[side]([low, high, *by_seed], bound)
    holds = True if on_its_side.all() else None if on_its_side.any() else False
    numbers = {"value": found["mean"], "low": low, "high": high, "by_seed": list(by_seed), "n": found["n"]}
    return {"claim": text, "holds": holds, **numbers}


def _check_runs(runs: Sequence[Float[np.ndarray, "n"]]) -> None:
    if not len(runs):
        raise ValueError("runs: got 0 seeds; give the values of at least one")
    sizes = [len(run) for run in runs]
    if len(set(sizes)) > 1 or not sizes[0]:
        raise ValueError(f"runs: got {sizes} problems; give every seed's values of the same problems")
    if not all(np.isfinite(run).all() for run in runs):
        raise ValueError("runs: a value is not finite; give a number for every problem")
