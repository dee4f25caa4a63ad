"""The numbers behind the paper's figures (arXiv 2409.12917), from rewards, answers and texts; in numpy.

Letters: n = problems, N = attempts of an episode, S = episodes sampled per problem, K = votes. What is
averaged over training seeds comes as estimates (score_jax.estimates). How they are drawn stands in
score_jax.study_charts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from score_jax.charts import edit_bins
from score_jax.estimates import difference, estimate
from score_jax.metrics import Answers, edit_distance_ratio, is_right, majority_vote, per_problem

# Keys of metrics.jsonl, and what the figures call them. A batch's mean reward is its accuracy where rewards
# are 0 or 1, as in the paper.
TRAINING = {"reward_t1": "acc_t1", "reward_t2": "acc_t2", "changed": "changed"}

Rewards = Sequence[Float[np.ndarray, "n N"]]  # of each seed, problems in one order


@dataclass(frozen=True)
class VoteCurve:
    """Figure 1, right, of one run: two ways to spend the same number of sampled attempts.

    Attributes:
      k: K of each point; 2K attempts are sampled.
      parallel: accuracy of the vote over 2K first attempts, at each problem, in [0, 1].
      corrected: accuracy of the vote over K second attempts.
    """

    k: tuple[int, ...]
    parallel: Float[np.ndarray, "K n"]
    corrected: Float[np.ndarray, "K n"]


def vote_curve(
    answers_first: Answers,
    answers_second: Answers,
    rewards_first: Float[np.ndarray, "n S"],
    rewards_second: Float[np.ndarray, "n S"],
    ks: Sequence[int] = (1, 2, 4, 8, 16),
) -> VoteCurve:
    """Majority vote over 2K parallel first attempts, and over K samples each corrected once.

    The S episodes of a problem are cut into S / 2K groups of first and S / K of second attempts, and a
    problem's value is the mean over its groups: nothing that was sampled is wasted.

    Args:
      answers_first: [n][S], of the first attempts; None where no answer could be read.
      answers_second: [n][S], of the second attempts of the same episodes.
      rewards_first: of the first attempts.
      rewards_second: of the second attempts.
      ks: the numbers of corrected samples; S must be a multiple of twice each.
    """
    return VoteCurve(
        k=tuple(ks),
        parallel=np.stack([vote_accuracy(answers_first, rewards_first, 2 * k) for k in ks]),
        corrected=np.stack([vote_accuracy(answers_second, rewards_second, k) for k in ks]),
    )


def vote_accuracy(answers: Answers, rewards: Float[np.ndarray, "n S"], group: int) -> Float[np.ndarray, "n"]:
    """Share of a problem's S / group disjoint groups, in the order of sampling, whose vote is right.

    A vote is right if an attempt of the group that gave the winning answer is right: the checker has seen
    every answer, and need not be asked again.

    Raises:
      ValueError: S is no multiple of the group, or answers and rewards differ in size.
    """
    right = is_right(rewards)
    problems, samples = right.shape
    if len(answers) != problems or any(len(row) != samples for row in answers):
        raise ValueError(f"answers: give {samples} for each of {problems} problems, as there are rewards")
    if group < 1 or samples % group:
        raise ValueError(
            f"group = {group}: {samples} samples do not divide into such groups; sample a multiple of it"
        )
    starts = range(0, samples, group)
    return np.array(
        [
            np.mean([_vote_is_right(said[a : a + group], ok[a : a + group]) for a in starts])
            for said, ok in zip(answers, right, strict=True)
        ]
    )


def _vote_is_right(answers: Sequence[str | None], right: Bool[np.ndarray, "G"]) -> bool:
    winner = majority_vote(answers)
    return any(ok for answer, ok in zip(answers, right, strict=True) if answer == winner)


def votes_over_seeds(curves: Sequence[VoteCurve]) -> dict[str, Any]:
    """Figure 1, right: {"k", "parallel", "corrected", "difference"} (corrected minus parallel)."""
    if len({curve.k for curve in curves}) != 1:
        raise ValueError(f"curves: got K of {[curve.k for curve in curves]}; give the same for every seed")
    points = range(len(curves[0].k))
    parallel = [[curve.parallel[i] for curve in curves] for i in points]
    corrected = [[curve.corrected[i] for curve in curves] for i in points]
    return {
        "k": list(curves[0].k),
        "parallel": [estimate(runs) for runs in parallel],
        "corrected": [estimate(runs) for runs in corrected],
        "difference": [difference(a, b) for a, b in zip(corrected, parallel, strict=True)],
    }


def edit_ratios(rows: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, "n"]:
    """Figure 3: edit-distance ratio from the first attempt to the last, of rows of attempts.jsonl."""
    return np.array([edit_distance_ratio(row["attempts"][0], row["attempts"][-1]) for row in rows], float)


def edit_shares(ratios: Mapping[str, Mapping[str, Sequence[Float[np.ndarray, "n"]]]]) -> dict[str, Any]:
    """Figure 3: the share of the ratios in every bin, as estimates, in bins common to all.

    Args:
      ratios: {split: {method: [ratios of each seed]}}.

    Returns:
      {"edges": [...], split: {method: [estimate of each bin's share]}}.
    """
    every = [run for methods in ratios.values() for runs in methods.values() for run in runs]
    if not every:
        raise ValueError("ratios: got none; give those of at least one method")
    edges = edit_bins(max(run.max() for run in every))
    shares = {
        split: {
            name: [
                estimate([((low <= run) & (run < high)).astype(float) for run in runs])
                for low, high in pairwise(edges)
            ]
            for name, runs in methods.items()
        }
        for split, methods in ratios.items()
    }
    return {"edges": edges.tolist(), **shares}


def correction_curves(
    fixed: Mapping[int, Rewards], own: Mapping[int, Rewards], statistic: str = "i_to_c"
) -> dict[str, Any]:
    """Figure 4: correction of fixed and of self-generated first attempts, through training.

    Args:
      fixed: step -> rewards [n, N] of each seed, where the first attempts are the base model's.
      own: the same, where they are those of the checkpoint.
      statistic: of metrics.per_problem. i_to_c is a share of all problems (section 3), so that own first
        attempts that get better leave less to correct; delta is the accuracy gained.

    Returns:
      {"step", "statistic", "fixed", "own"}.
    """
    if sorted(fixed) != sorted(own):
        raise ValueError(
            f"own: got steps {sorted(own)}, fixed has {sorted(fixed)}; evaluate both at the same checkpoints"
        )
    steps = sorted(fixed)
    curve = lambda at: [_estimate_of(at[step], statistic) for step in steps]
    return {"step": steps, "statistic": statistic, "fixed": curve(fixed), "own": curve(own)}


def training_curves(
    runs: Sequence[Sequence[Mapping[str, Any]]], keys: Mapping[str, str] = TRAINING
) -> dict[str, list]:
    """Figures 5 and 10: rows of metrics.jsonl, averaged over the seeds at every step.

    Nothing is smoothed here: the drawing adds the running mean (charts.curve).

    Args:
      runs: each seed's rows, one per step (`run.read_run` has removed those written twice).
      keys: {key in the rows: its name here}.

    Returns:
      {"step", "stage", name: [mean over seeds, None where a seed's row lacks the key], name_low and
      name_high: the lowest and the highest seed's}; a key that no row has is left out.

    Raises:
      ValueError: the seeds do not have the same steps: one of them is not done.
    """
    places = [[(row["step"], row.get("stage", "")) for row in rows] for rows in runs]
    if not places or any(place != places[0] for place in places):
        raise ValueError(
            f"runs: got {[len(rows) for rows in runs]} rows, not of the same steps and stages; "
            "give each seed's log of a whole run"
        )
    curves = {"step": [step for step, _ in places[0]], "stage": [stage for _, stage in places[0]]}
    for key, name in keys.items():
        if any(key in row for rows in runs for row in rows):
            columns = [[row.get(key) for row in at] for at in zip(*runs, strict=True)]
            for end, over in (("", np.mean), ("_low", np.min), ("_high", np.max)):
                curves[name + end] = [None if None in values else float(over(values)) for values in columns]
    return curves


def flows_by_level(runs: Rewards, levels: Sequence[int]) -> dict[str, Any]:
    """Figure 7: shares corrected and spoiled, of the problems of each level.

    Returns:
      {"levels": names in order, "i_to_c": [estimate of each], "c_to_i": [...]}.
    """
    if any(len(run) != len(levels) for run in runs):
        raise ValueError(f"levels: got {len(levels)} for runs of {[len(run) for run in runs]} problems")
    of_row = np.asarray(levels)
    found = np.unique(of_row)
    flow = lambda name: [_estimate_of([run[of_row == level] for run in runs], name) for level in found]
    return {"levels": [str(level) for level in found], "i_to_c": flow("i_to_c"), "c_to_i": flow("c_to_i")}


def accuracy_by_attempt(runs: Rewards) -> list[dict[str, Any]]:
    """Figure 8: the estimate of the accuracy at attempt 1, 2, ..., N."""
    attempts = {np.shape(run)[1] for run in runs}
    if len(attempts) != 1:
        raise ValueError(f"runs: got {sorted(attempts)} attempts; evaluate every seed with the same number")
    return [_estimate_of(runs, f"acc_t{t + 1}") for t in range(attempts.pop())]


def pool_curve(pools: Mapping[int, Rewards]) -> dict[str, Any]:
    """Accuracy of both attempts against the number of training problems: {"pool", "acc_t1", "acc_t2"}."""
    sizes = sorted(pools)
    curve = lambda name: [_estimate_of(pools[size], name) for size in sizes]
    return {"pool": sizes, "acc_t1": curve("acc_t1"), "acc_t2": curve("acc_t2")}


def _estimate_of(runs: Rewards, statistic: str) -> dict[str, Any]:
    columns = [per_problem(np.asarray(run, float)) for run in runs]
    if unknown := [column for column in columns if statistic not in column]:
        raise ValueError(f"statistic: got {statistic!r}; choose one of {', '.join(unknown[0])}")
    return estimate([column[statistic] for column in columns])
