"""The claims of the paper that a study tests, each with the interval that decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from score_jax.estimates import claim, difference
from score_jax.metrics import per_problem
from score_jax.study_cells import Cells, rewards
from score_jax.study_file import SCORE


def claims_of(cells: Cells, rows: Sequence[str], votes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The paper's claims as far as there are rows for them, each with the interval that decides it.

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

    def alone(text: str, row: str, statistic: str, side: str, bound: float = 0.0) -> None:
        if row in rows:
            runs = values(row, statistic)
            nothing = [np.zeros_like(run) for run in runs]
            found.append(claim(text, difference(runs, nothing), side, bound))

    def against(text: str, a: str, b: str, statistic: str, side: str = "above", bound: float = 0.0) -> None:
        if {a.partition(".")[0], b.partition(".")[0]} <= {*rows}:
            gap = difference(values(a, statistic, b), values(b, statistic, a))
            found.append(claim(text, gap, side, bound))

    label = {row: cells.config.methods[row].label for row in rows if "@" not in row}
    alone("Base model: Δ is at most 2 points", "base", "delta", "at_most", 0.02)
    alone("Single-turn RL: Δ is not above 0", "single_turn", "delta", "at_most")
    against(
        "SCoRe: Acc@t1 is no more than 2 points below the base's", SCORE, "base", "acc_t1", "at_least", -0.02
    )
    for row in label:
        if row in ("base", "self_refine", "multi_turn", "single_turn"):
            against(f"SCoRe: Acc@t2 is above that of {label[row]}", SCORE, row, "acc_t2")
        elif row in ("no_stage_one", "no_shaping", "star_stage_two", "no_online"):
            against(f"{label[row]}: Acc@t2 falls below SCoRe's", SCORE, row, "acc_t2")
        elif row != SCORE:
            against(f"{label[row]}: Acc@t2 is not above SCoRe's", SCORE, row, "acc_t2", "at_least")
    for k, gap in zip(votes.get("k", ()), votes.get("difference", ()), strict=True):
        found.append(claim(f"{k} corrected samples beat {2 * k} parallel ones", gap, "above"))
    third = ("three.stage_one_b", "three.stage_one_a", "acc_t3")
    against("Stage I(b) raises the accuracy of the third attempt above I(a)'s", *third)
    found += collapse(cells, rows)
    return found


def collapse(cells: Cells, rows: Sequence[str]) -> list[dict[str, Any]]:
    """Fig. 5: naive multi-turn RL comes to repeat its first answer on training problems."""
    if "multi_turn" not in rows:
        return []
    seeds = cells.seeds("multi_turn")
    runs = [np.array([row["changed"] for row in cells.training("multi_turn", seed)]) for seed in seeds]
    tenth = max(1, len(runs[0]) // 10)
    text = (
        "Naive multi-turn RL: the share of changed answers more than halves through training "
        f"(the last {tenth} updates' less half of the first {tenth}'s; n counts updates)"
    )
    return [
        claim(text, difference([run[-tenth:] for run in runs], [run[:tenth] / 2 for run in runs]), "below")
    ]
