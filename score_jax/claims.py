"""The claims of the paper that a study tests, each with the interval that decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from score_jax.estimates import Side, claim, difference, estimate
from score_jax.metrics import per_problem
from score_jax.study_cells import Cells, rewards
from score_jax.study_file import SCORE


def claims_of(cells: Cells, rows: Sequence[str], votes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The paper's claims as far as there are rows for them, each with the interval that decides it.

    Of SCoRe's own variants the paper claims nothing; how they do beside it, `minus_score` of their rows says.

    Args:
      cells: the finished ones.
      rows: that have any.
      votes: the numbers of Fig. 1, right, or {}.
    """
    found = []

    def values(name: str, statistic: str, *others: str) -> list[Float[np.ndarray, "n"]]:
        row = name.partition(".")[0]
        seeds = cells.seeds(row, *(other.partition(".")[0] for other in others))
        return [per_problem(rewards(cells.attempts(name, seed)))[statistic] for seed in seeds]

    def alone(text: str, row: str, statistic: str, side: Side, bound: float = 0.0) -> None:
        if row in rows:
            found.append(claim(text, estimate(values(row, statistic)), side, bound))

    def against(text: str, a: str, b: str, statistic: str, side: Side = "above", bound: float = 0.0) -> None:
        if {a.partition(".")[0], b.partition(".")[0]} <= {*rows}:
            gap = difference(values(a, statistic, b), values(b, statistic, a))
            found.append(claim(text, gap, side, bound))

    label = {row: cells.config.methods[row.partition("@")[0]].label for row in rows}
    alone("Base model: Δ is at most 2 points", "base", "delta", "at_most", 0.02)
    for row in label:
        method, at, pool = row.partition("@")
        score, where = SCORE + at + pool, f" with {pool} training problems" * bool(pool)
        if method == SCORE:
            text = f"SCoRe{where}: Acc@t1 is no more than 2 points below the base's"
            against(text, row, "base", "acc_t1", "at_least", -0.02)
            against(f"SCoRe{where}: Acc@t2 is above the base's", row, "base", "acc_t2")
        elif method in ("self_refine", "multi_turn", "single_turn"):
            against(f"SCoRe{where}: Acc@t2 is above that of {label[row]}", score, row, "acc_t2")
        elif method in ("no_stage_one", "no_shaping", "star_stage_two", "no_online"):
            against(f"{label[row]}{where}: Acc@t2 falls below SCoRe's", row, score, "acc_t2", "below")
        elif method in ("star", "star_plus", "pair_sft", "pair_sft_plus"):
            against(f"{label[row]}{where}: Acc@t2 is not above SCoRe's", row, score, "acc_t2", "at_most")
        if method == "single_turn":
            alone(f"Single-turn RL{where}: Δ is not above 0", row, "delta", "at_most")
        if method in ("multi_turn", "discount"):
            found.append(collapse(cells, row, f"{label[row]}{where}"))
    for k, gap in zip(votes.get("k", ()), votes.get("difference", ()), strict=True):
        found.append(claim(f"{k} corrected samples beat {2 * k} parallel ones", gap, "above"))
    third = ("three.stage_one_b", "three.stage_one_a", "acc_t3")
    against("Stage I(b) raises the accuracy of the third attempt above I(a)'s", *third)
    return found


def collapse(cells: Cells, row: str, name: str) -> dict[str, Any]:
    """Figs. 5 and 10: naive multi-turn RL, and SCoRe with a discount, come to repeat their first answers on
    training problems."""
    runs = [
        np.array([update["changed"] for update in cells.training(row, seed)]) for seed in cells.seeds(row)
    ]
    tenth = max(1, len(runs[0]) // 10)
    text = (
        f"{name}: the share of changed answers more than halves through training "
        f"(the last {tenth} updates' less half of the first {tenth}'s; n counts updates)"
    )
    return claim(text, difference([run[-tenth:] for run in runs], [run[:tenth] / 2 for run in runs]), "below")
