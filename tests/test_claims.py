"""Which claims of the paper a study bears out, from made-up cells whose answers are known."""

import json

import numpy as np
import pytest

from configs import study_quickstart
from score_jax.claims import claims_of
from score_jax.findings import entry, last_tenth
from score_jax.study_cells import Cells

RIGHT, WRONG = [1, 1], [0, 0]
CORRECTED, SPOILED = [0, 1], [1, 0]


def write(folder, row, seed, checkpoints, changed=(0.5, 0.5)):
    """A cell's files: {checkpoint: rewards of each problem}, and the share of changed answers by update."""
    path = folder / row / str(seed)
    path.mkdir(parents=True)
    rows = [
        {"checkpoint": name, "id": f"{i:03d}", "rewards": rewards, "answers": ["7"] * len(rewards)}
        for name, table in checkpoints.items()
        for i, rewards in enumerate(table)
    ]
    (path / "attempts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spent = {"stage": "last", "sampled": 8, "seconds": 1.0}
    updates = [{"step": i, "changed": share} | spent for i, share in enumerate(changed, 1)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in updates))
    names = [name for name in checkpoints if name != "base"]
    config = {"stages": [f"stage{n}" for n in range(len(names))]}
    config |= {f"stage{n}": {"name": name, "objective": "multi_turn"} for n, name in enumerate(names)}
    config |= {"decisive_only": True, "temperature": 1.0}
    (path / "config.json").write_text(json.dumps(config))


def claims_in(folder, *rows, votes=None):
    config = study_quickstart.get_config()
    cells = Cells(config, folder, tuple((row, seed) for row in rows for seed in (0, 1)))
    return {claim["claim"]: claim for claim in claims_of(cells, rows, votes or {})}


def write_both(folder, row, checkpoints, **fields):
    for seed in (0, 1):
        write(folder, row, seed, checkpoints, **fields)


def holds(claims, start):
    (found,) = [claim["holds"] for text, claim in claims.items() if text.startswith(start)]
    return found


def test_score_against_the_base_and_naive_rl(tmp_path):
    base, naive = [RIGHT] * 50 + [WRONG] * 50, [RIGHT] * 55 + [WRONG] * 45
    score = [RIGHT] * 50 + [CORRECTED] * 40 + [WRONG] * 10
    write_both(tmp_path, "base", {"base": base})
    write_both(tmp_path, "multi_turn", {"base": base, "last": naive})
    write_both(tmp_path, "score", {"base": base, "one": base, "last": score})
    claims = claims_in(tmp_path, "base", "multi_turn", "score")
    assert holds(claims, "Base model: Δ is at most") is True
    assert holds(claims, "SCoRe: Acc@t1 is no more than 2 points below") is True
    gap = claims["SCoRe: Acc@t2 is above that of Naive multi-turn RL"]
    assert gap["holds"] is True
    assert gap["value"] == pytest.approx(0.9 - 0.55)
    assert holds(claims, "SCoRe: Acc@t2 is above the base's") is True


def test_a_method_that_ruins_attempt_1_does_not_pass(tmp_path):
    write_both(tmp_path, "base", {"base": [RIGHT] * 50 + [WRONG] * 50})
    write_both(tmp_path, "score", {"last": [CORRECTED] * 95 + [WRONG] * 5})
    claims = claims_in(tmp_path, "base", "score")
    assert holds(claims, "SCoRe: Acc@t1 is no more than 2 points below") is False
    assert holds(claims, "SCoRe: Acc@t2 is above the base's") is True


def test_what_the_interval_does_not_decide_is_not_shown(tmp_path):
    write_both(tmp_path, "score", {"last": [CORRECTED] * 50 + [WRONG] * 50})
    write_both(tmp_path, "no_stage_one", {"last": [CORRECTED] * 35 + [WRONG] * 65})
    claims = claims_in(tmp_path, "score", "no_stage_one")
    fall = claims["w/o Stage I: Acc@t2 falls below SCoRe's"]
    assert (fall["holds"], fall["value"]) == (True, pytest.approx(0.35 - 0.5))
    write_both(tmp_path, "no_shaping", {"last": ([WRONG, CORRECTED] * 50)})
    claims = claims_in(tmp_path, "score", "no_shaping")
    assert holds(claims, "w/o reward shaping: Acc@t2 falls below SCoRe's") is None


def test_single_turn_rl_and_imitation(tmp_path):
    write_both(tmp_path, "score", {"last": [RIGHT] * 60 + [WRONG] * 40})
    write_both(tmp_path, "single_turn", {"last": [RIGHT] * 70 + [SPOILED] * 20 + [WRONG] * 10})
    write_both(tmp_path, "star", {"last": [RIGHT] * 80 + [WRONG] * 20})
    claims = claims_in(tmp_path, "score", "single_turn", "star")
    assert holds(claims, "Single-turn RL: Δ is not above 0") is True
    star = claims["STaR, D: Acc@t2 is not above SCoRe's"]
    assert (star["holds"], star["value"]) == (False, pytest.approx(0.8 - 0.6))


def test_the_third_attempt(tmp_path):
    three = lambda last: [[0, 0, int(i < last)] for i in range(100)]
    stages = {"base": three(0), "stage_one_a": three(30), "stage_one_b": three(60), "stage_two": three(70)}
    write_both(tmp_path, "three", stages)
    claims = claims_in(tmp_path, "three")
    assert claims["Stage I(b) raises the accuracy of the third attempt above I(a)'s"][
        "value"
    ] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [([0.4] * 10 + [0.1] * 10, True), ([0.4] * 20, False)],
)
def test_naive_rl_collapses_if_its_answers_stop_changing(tmp_path, changed, expected):
    write_both(tmp_path, "multi_turn", {"last": [RIGHT, WRONG]}, changed=changed)
    found = claims_in(tmp_path, "multi_turn")
    assert holds(found, "Naive multi-turn RL: the share of changed answers more than halves") is expected
    (claim,) = [claim for text, claim in found.items() if text.startswith("Naive")]
    ends = np.mean(changed[-2:]) - np.mean(changed[:2]) / 2
    assert claim["value"] == pytest.approx(ends)
    assert (claim["n"], claim["by_seed"]) == (2, pytest.approx([ends, ends]))


def test_voting(tmp_path):
    write_both(tmp_path, "score", {"last": [RIGHT, WRONG]})
    gap = lambda low, high: {"mean": low, "low": low, "high": high, "by_seed": [low], "n": 9}
    votes = {"k": [1, 2], "difference": [gap(0.01, 0.03), gap(-0.03, -0.01)]}
    claims = claims_in(tmp_path, "score", votes=votes)
    assert claims["1 corrected samples beat 2 parallel ones"]["holds"] is True
    assert claims["2 corrected samples beat 4 parallel ones"]["holds"] is False


def test_seeds_that_only_one_method_has_are_left_out_of_the_comparison(tmp_path):
    write_both(tmp_path, "base", {"base": [WRONG] * 10})
    write(tmp_path, "score", 0, {"last": [CORRECTED] * 10})
    cells = Cells(study_quickstart.get_config(), tmp_path, (("base", 0), ("base", 1), ("score", 0)))
    claims = {claim["claim"]: claim for claim in claims_of(cells, ["base", "score"], {})}
    assert claims["SCoRe: Acc@t2 is above the base's"]["value"] == 1.0


def test_a_seed_by_itself_may_leave_a_claim_undecided(tmp_path):
    right = lambda n: {"last": [CORRECTED] * n + [WRONG] * (100 - n)}
    for seed, (score, other) in enumerate([(90, 20), (50, 55)]):
        write(tmp_path, "score", seed, right(score))
        write(tmp_path, "no_stage_one", seed, right(other))
    fall = claims_in(tmp_path, "score", "no_stage_one")["w/o Stage I: Acc@t2 falls below SCoRe's"]
    assert fall["high"] < 0 and fall["by_seed"] == pytest.approx([-0.7, 0.05])
    assert fall["holds"] is None


def test_of_scores_variants_the_paper_claims_nothing(tmp_path):
    rows = ("score", "unified", "offline", "adaptive", "critique")
    for row in rows:
        write_both(tmp_path, row, {"last": [CORRECTED] * 50 + [WRONG] * 50})
    assert not any("in one" in text or "offline" in text for text in claims_in(tmp_path, *rows))


def test_rows_of_another_pool_are_compared_with_score_on_that_pool(tmp_path):
    right = lambda n: {"last": [CORRECTED] * n + [WRONG] * (100 - n)}
    write_both(tmp_path, "base", {"base": [WRONG] * 100})
    write_both(tmp_path, "score", right(90))
    write_both(tmp_path, "multi_turn", right(80))
    write_both(tmp_path, "score@96", right(40))
    write_both(tmp_path, "multi_turn@96", right(70), changed=[0.4] * 10 + [0.1] * 10)
    rows = ("base", "score", "multi_turn", "score@96", "multi_turn@96")
    claims = claims_in(tmp_path, *rows)
    here = claims["SCoRe: Acc@t2 is above that of Naive multi-turn RL"]
    there = claims["SCoRe with 96 training problems: Acc@t2 is above that of Naive multi-turn RL"]
    assert here["value"] == pytest.approx(0.1)
    assert there["value"] == pytest.approx(-0.3)
    assert holds(claims, "SCoRe with 96 training problems: Acc@t1 is no more than 2 points") is True
    gain = claims["SCoRe with 96 training problems: Acc@t2 is above the base's"]
    assert gain["value"] == pytest.approx(0.4)
    assert holds(claims, "Naive multi-turn RL: the share of changed answers") is False
    assert holds(claims, "Naive multi-turn RL with 96 training problems: the share of changed") is True

    cells = Cells(study_quickstart.get_config(), tmp_path, tuple((row, s) for row in rows for s in (0, 1)))
    assert entry(cells, "multi_turn@96")["minus_score"]["acc_t2"]["mean"] == pytest.approx(-0.3)
    assert entry(cells, "multi_turn")["minus_score"]["acc_t2"]["mean"] == pytest.approx(0.1)
    assert "minus_score" not in entry(cells, "score@96")


def test_what_was_not_finite_in_training_is_left_out_of_its_end():
    updates = [{"kl_t1": 9.0}] * 18 + [{"kl_t1": 0.5}, {"kl_t1": None}]
    assert last_tenth(updates, "kl_t1") == 0.5
    assert last_tenth([*updates[:-2], {}, {}], "kl_t1") is None
