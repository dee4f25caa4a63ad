"""Estimates over seeds against plain resampling, and what an interval bears out."""

import numpy as np
import pytest

from score_jax import estimates


def runs(seeds=3, n=80, seed=0):
    rng = np.random.default_rng(seed)
    hard = rng.random(n)
    return [(rng.random(n) < hard).astype(float) for _ in range(seeds)]


def plain_interval(values, rounds=4000):
    """Problems drawn one by one, with replacement."""
    rng = np.random.default_rng(7)
    means = [np.mean([values[i] for i in rng.integers(len(values), size=len(values))]) for _ in range(rounds)]
    return np.percentile(means, [2.5, 97.5])


def test_an_estimate_is_the_mean_of_the_seeds_with_the_bootstrap_of_its_problems():
    columns = runs()
    found = estimates.estimate(columns)
    table = [[run[i] for run in columns] for i in range(80)]
    each = [sum(row) / 3 for row in table]
    assert found["mean"] == pytest.approx(sum(each) / 80)
    assert found["by_seed"] == pytest.approx([sum(row[s] for row in table) / 80 for s in range(3)])
    assert found["n"] == 80
    # Two resamplings of 10,000 and 4,000: their percentiles differ by less than a fifth of a deviation.
    np.testing.assert_allclose([found["low"], found["high"]], plain_interval(each), atol=0.01)


def test_a_difference_equals_a_loop_and_is_narrower_than_an_unpaired_one():
    rng = np.random.default_rng(4)
    hard = rng.random(300) < 0.5
    a = np.stack([hard, hard | (rng.random(300) < 0.3)], axis=1).astype(float)
    b = np.stack([hard, hard | (rng.random(300) < 0.1)], axis=1).astype(float)
    found = estimates.differences_of([a], [b])["acc_t2"]
    assert found["mean"] == pytest.approx(a[:, 1].mean() - b[:, 1].mean())
    assert found["n"] == 300
    places = rng.integers(0, 300, (4000, 300))
    paired = np.quantile((a[:, 1] - b[:, 1])[places].mean(axis=1), [0.025, 0.975])
    np.testing.assert_allclose([found["low"], found["high"]], paired, atol=0.006)
    other = rng.integers(0, 300, (4000, 300))
    apart = np.quantile(a[:, 1][places].mean(1) - b[:, 1][other].mean(1), [0.025, 0.975])
    assert found["high"] - found["low"] < apart[1] - apart[0]


def test_a_difference_averages_over_seeds():
    rng = np.random.default_rng(5)
    runs_a, runs_b = (rng.integers(0, 2, (3, 60, 2)).astype(float) for _ in range(2))
    found = estimates.differences_of(list(runs_a), list(runs_b))["delta"]
    gap = (runs_a[..., 1] - runs_a[..., 0]).mean(0) - (runs_b[..., 1] - runs_b[..., 0]).mean(0)
    assert found["mean"] == pytest.approx(gap.mean())
    draws = gap[rng.integers(0, 60, (4000, 60))].mean(axis=1)
    np.testing.assert_allclose([found["low"], found["high"]], np.quantile(draws, [0.025, 0.975]), atol=0.02)


def test_a_difference_is_paired_in_problems_and_seeds():
    a = runs(seed=5)
    b = [run - 0.25 for run in a]
    found = estimates.difference(a, b)
    assert found["mean"] == found["low"] == found["high"] == 0.25
    assert found["by_seed"] == [0.25] * 3


def test_every_statistic_of_a_row():
    rewards = [
        np.array([[0, 1], [1, 1], [0, 0], [1, 0]], float),
        np.array([[0, 1], [1, 1], [1, 1], [1, 1]], float),
    ]
    answers = [[["3", "4"], ["4", "4"], [None, None], ["4", None]], [["1", "2"]] * 4]
    found = estimates.statistics_of(rewards, answers)
    means = {name: value["mean"] for name, value in found.items()}
    assert means == {
        "acc_t1": 5 / 8, "acc_t2": 6 / 8, "delta": 1 / 8, "i_to_c": 2 / 8, "c_to_i": 1 / 8, "changed": 6 / 8
    }  # fmt: skip
    assert found["changed"]["by_seed"] == [0.5, 1.0]
    assert "changed" not in estimates.statistics_of(rewards)


@pytest.mark.parametrize(
    ("interval", "holds"),
    [
        # interval, then what it says of: above 0, below 0, at most 0, at least 0
        ((0.01, 0.03), (True, False, False, True)),
        ((-0.03, -0.01), (False, True, True, False)),
        ((-0.01, 0.02), (None, None, None, None)),
        ((0.0, 0.0), (False, False, True, True)),
        ((0.0, 0.02), (None, False, None, True)),
        ((-0.02, 0.0), (False, None, True, None)),
    ],
)
def test_a_claim_holds_where_the_whole_interval_is_on_its_side(interval, holds):
    low, high = interval
    found = {"mean": (low + high) / 2, "low": low, "high": high}
    verdicts = lambda found, bound=0.0: tuple(
        estimates.claim("x", found | {"n": 7, "by_seed": [found["mean"]]}, side, bound)["holds"]
        for side in ("above", "below", "at_most", "at_least")
    )
    assert verdicts(found) == holds
    assert verdicts({key: value + 0.5 for key, value in found.items()}, bound=0.5) == holds


@pytest.mark.parametrize(("other_seed", "holds"), [(0.02, True), (-0.01, None)])
def test_a_claim_holds_where_every_seed_bears_it_out(other_seed, holds):
    found = {"mean": 0.1, "low": 0.05, "high": 0.2, "n": 7, "by_seed": [0.3, other_seed]}
    assert estimates.claim("x", found, "above")["holds"] is holds
    assert estimates.claim("x", found, "at_most")["holds"] is (None if holds is None else False)


def test_a_claim_keeps_its_numbers():
    found = {"mean": 0.1, "low": 0.05, "high": 0.2}
    drawn = {"n": 30, "by_seed": [0.1, 0.1]}
    said = {"claim": "A beats B.", "holds": True, "value": 0.1, "low": 0.05, "high": 0.2}
    assert estimates.claim("A beats B.", found | drawn, "above") == said | drawn


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: estimates.estimate([]), "got 0 seeds"),
        (lambda: estimates.estimate([np.zeros(3), np.zeros(4)]), r"got \[3, 4\] problems"),
        (lambda: estimates.estimate([np.array([0.0, np.nan])]), "not finite"),
        (lambda: estimates.difference([np.zeros(3)] * 2, [np.zeros(3)]), "got 1 seeds, runs_a has 2"),
        (lambda: estimates.statistics_of([]), "got 0 seeds"),
        (lambda: estimates.differences_of([], [np.zeros((2, 2))]), "got 0 and 1 seeds"),
    ],
)
def test_what_cannot_be_estimated_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()
