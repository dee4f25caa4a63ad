"""metrics against plain loops, the paper's printed tables, and other people's bootstraps."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from score_jax import metrics

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT.parent / "shared/paper/tables.json"

binary_rewards = hnp.arrays(
    float,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7),
    elements=st.sampled_from([0.0, 1.0]),
)


def paper_rows():
    if not TABLES.exists():
        return []
    tables = json.loads(TABLES.read_text())
    rows = itertools.chain.from_iterable(rows for name, rows in tables.items() if "table" in name)
    return [row for row in rows if "acc_t2" in row]


def rewards_of(i_to_c: int, c_to_i: int, kept_right: int, n: int) -> np.ndarray:
    """n problems of two attempts with the given numbers of outcomes, in shuffled order."""
    kept_wrong = n - i_to_c - c_to_i - kept_right
    rows = [[0, 1]] * i_to_c + [[1, 0]] * c_to_i + [[1, 1]] * kept_right + [[0, 0]] * kept_wrong
    return np.random.default_rng(0).permutation(np.array(rows, dtype=float))


def row(id="a", rewards=(0.0, 1.0), **changes):
    n = len(rewards)
    base = {"checkpoint": "base", "step": 3, "split": "test", "id": id, "prompt": "?", "gold": "1"}
    base |= {"level": 1, "attempts": ["x"] * n, "answers": ["1"] * n, "rewards": list(rewards)}
    return base | {"finished": [True] * n} | changes


@given(binary_rewards)
def test_statistics_equal_plain_loops(rewards):
    n, attempts = rewards.shape
    summary = metrics.summarize(rewards, resamples=0)
    for t in range(attempts):
        right = sum(1 for i in range(n) if rewards[i][t] == 1)
        assert summary[f"acc_t{t + 1}"] == pytest.approx(right / n)
    pairs = {"": (0, attempts - 1)} if attempts > 1 else {}
    if attempts > 2:
        pairs |= {f"_t{t}_t{t + 1}": (t - 1, t) for t in range(1, attempts)}
    for suffix, (a, b) in pairs.items():
        fixed = sum(1 for i in range(n) if rewards[i][a] == 0 and rewards[i][b] == 1)
        spoiled = sum(1 for i in range(n) if rewards[i][a] == 1 and rewards[i][b] == 0)
        assert summary[f"i_to_c{suffix}"] == pytest.approx(fixed / n)
        assert summary[f"c_to_i{suffix}"] == pytest.approx(spoiled / n)
    assert sum(key.startswith("delta") for key in summary) == len(pairs)


@given(binary_rewards)
def test_delta_is_corrected_minus_spoiled_exactly(rewards):
    summary = metrics.summarize(rewards, levels=[1] * len(rewards), resamples=0)
    for numbers in (summary, summary["by_level"]["1"]):
        for key in [k for k in numbers if k.startswith("delta")]:
            suffix = key.removeprefix("delta")
            assert numbers[key] == numbers[f"i_to_c{suffix}"] - numbers[f"c_to_i{suffix}"]
    if "delta" in summary:
        last = rewards.shape[1]
        assert summary["delta"] == pytest.approx(summary[f"acc_t{last}"] - summary["acc_t1"])


@pytest.mark.skipif(not TABLES.exists(), reason="the paper's tables are not at hand")
@pytest.mark.parametrize("printed", paper_rows(), ids=lambda p: f"{p['method']}-{p['acc_t1']}")
def test_rows_of_the_papers_tables(printed):
    n = 1000  # so that 0.1% is one problem
    count = {k: round(v * n / 100) for k, v in printed.items() if k != "method"}
    # Where a table prints no flows, any flows with its two accuracies will do.
    gained = count.get("i_to_c", max(0, count["acc_t2"] - count["acc_t1"]))
    lost = count.get("c_to_i", max(0, count["acc_t1"] - count["acc_t2"]))
    summary = metrics.summarize(rewards_of(gained, lost, count["acc_t1"] - lost, n), resamples=0)
    for key in {"acc_t1", "acc_t2", "delta", "i_to_c", "c_to_i"} & set(printed):
        assert round(100 * summary[key], 1) == printed[key], key


def test_a_reward_counts_as_right_at_one_only():
    rewards = np.array([[0.999, 1.0], [1.0, 0.5], [2.0, -1.0]])
    assert metrics.is_right(rewards).tolist() == [[False, True], [True, False], [False, False]]


def test_answers_finished_and_levels():
    summary = metrics.summarize(
        np.array([[0, 1], [1, 1], [0, 0], [1, 0]], dtype=float),
        answers=[["3", "4"], ["4", "4"], [None, None], ["4", None]],
        finished=np.array([[True, True], [True, False], [False, False], [True, True]]),
        levels=[10, 2, 2, 10],
        resamples=0,
    )
    assert summary["changed"] == 2 / 4
    assert (summary["unparsed_t1"], summary["unparsed_t2"]) == (1 / 4, 2 / 4)
    assert (summary["unfinished_t1"], summary["unfinished_t2"]) == (1 / 4, 2 / 4)
    assert list(summary["by_level"]) == ["2", "10"]  # by difficulty, not by spelling
    assert summary["by_level"]["10"] == {
        "n": 2, "acc_t1": 0.5, "acc_t2": 0.5, "delta": 0.0, "i_to_c": 0.5, "c_to_i": 0.5
    }  # fmt: skip


def test_notes_are_averaged_over_problems_by_attempt():
    notes = [[{"timeout": 1.0}, {}], [{}, {"timeout": 1.0, "size": 3.0}], [{"timeout": 1.0}, {}], [{}, {}]]
    summary = metrics.summarize(np.zeros((4, 2)), notes=notes, resamples=0)
    assert {key: summary[key] for key in ("timeout_t1", "timeout_t2", "size_t2")} == {
        "timeout_t1": 0.5, "timeout_t2": 0.25, "size_t2": 0.75,
    }  # fmt: skip
    assert "size_t1" not in summary
    with pytest.raises(ValueError, match="notes: 'acc_t1' is the name of another metric"):
        metrics.summarize(np.zeros((1, 1)), notes=[[{"acc": 1.0}]], resamples=0)
    with pytest.raises(ValueError, match="notes: got 1 entries for 2 problems"):
        metrics.summarize(np.zeros((2, 1)), notes=[[{}]], resamples=0)


def test_a_note_of_some_problems_alone_counts_as_0_for_the_others():
    """A checker may say more of few attempts: those of a whole batch may be none of them."""
    noted = row("a", notes=[{"timeout": 1.0}, {}])
    assert metrics.result_of([noted, row("b")])["timeout_t1"] == 0.5
    assert "timeout_t1" not in metrics.result_of([row("a"), row("b")])


def test_changed_between_neighbours_of_three_attempts():
    answers = [["1", "2", "1"], ["1", "1", "2"]]
    summary = metrics.summarize(np.zeros((2, 3)), answers=answers, resamples=0)
    assert (summary["changed"], summary["changed_t1_t2"], summary["changed_t2_t3"]) == (0.5, 0.5, 1)


def test_bootstrap_equals_a_resampling_loop():
    rng = np.random.default_rng(1)
    rewards = (rng.random((150, 2)) < [0.4, 0.55]).astype(float)
    ours = metrics.summarize(rewards)["ci95"]
    draws = []
    for _ in range(4000):
        again = rewards[rng.integers(0, 150, 150)]
        draws.append(
            [
                again[:, 0].mean(),
                again[:, 1].mean(),
                (again[:, 1] - again[:, 0]).mean(),
                ((again[:, 0] == 0) & (again[:, 1] == 1)).mean(),
            ]
        )
    loop = np.quantile(draws, [0.025, 0.975], axis=0).T
    # A quantile at 2.5% of 4,000 draws has a standard error near 0.0017, one problem is 0.0067.
    for key, interval in zip(("acc_t1", "acc_t2", "delta", "i_to_c"), loop, strict=True):
        np.testing.assert_allclose(ours[key], interval, atol=0.009, err_msg=key)


def test_bootstrap_equals_scipy():
    scipy_stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(2).integers(0, 2, (200, 1)).astype(float)
    theirs = scipy_stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=10_000, method="percentile", rng=3
    ).confidence_interval
    ours = metrics.bootstrap_interval(values)[0]
    np.testing.assert_allclose(ours, [theirs.low, theirs.high], atol=0.006)


def test_bootstrap_is_paired_seeded_and_exact_where_nothing_varies():
    rewards = np.tile([[0.0, 1.0]], (30, 1))
    summary = metrics.summarize(rewards)
    assert summary["ci95"]["delta"] == [1.0, 1.0]
    flips = np.array([[0.0, 1.0], [1.0, 0.0]] * 40)  # attempts disagree on each problem
    kept = np.array([[0.0, 0.0], [1.0, 1.0]] * 40)  # attempts agree: delta cannot vary
    assert metrics.summarize(kept)["ci95"]["delta"] == [0.0, 0.0]
    assert metrics.summarize(flips)["ci95"]["delta"][1] > 0.1
    values = np.random.default_rng(0).normal(size=(50, 1))
    first, again, other = (metrics.bootstrap_interval(values, seed=s).tolist() for s in (0, 0, 1))
    assert first == again != other


def test_aligned_brings_rows_into_one_order():
    rewards = np.array([[0.0], [1.0], [0.5]])
    assert metrics.aligned(rewards, ["x", "y", "z"], ["z", "x", "y"])[:, 0].tolist() == [0.5, 0, 1]


@given(st.text(max_size=12), st.text(max_size=12))
def test_edit_distance_ratio_equals_the_textbook_table(first, second):
    table = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        diagonal, table[0] = table[0], i
        for j, b in enumerate(second, 1):
            best = min(table[j] + 1, table[j - 1] + 1, diagonal + (a != b))
            diagonal, table[j] = table[j], best
    expected = table[-1] / (len(first) + len(second)) if first or second else 0.0
    assert metrics.edit_distance_ratio(first, second) == expected


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["1", "2", "2"], "2"),
        (["2", "1", "1", "2"], "2"),  # a tie: the first to come
        ([None, None, None, "7"], "7"),
        ([None, None], None),
    ],
)
def test_majority_vote(answers, winner):
    assert metrics.majority_vote(answers) == winner


def test_result_of_rows():
    rows = [row("a", (0.0, 1.0), level=2), row("b", (1.0, 1.0), finished=[True, False])]
    result = metrics.result_of(rows)
    assert list(result)[:3] == ["step", "split", "n"]
    assert (result["step"], result["split"], result["n"]) == (3, "test", 2)
    assert (result["acc_t1"], result["acc_t2"], result["delta"]) == (0.5, 1.0, 0.5)
    assert (result["unfinished_t2"], result["by_level"]["2"]["i_to_c"]) == (0.5, 1.0)
    assert json.loads(json.dumps(result)) == result


def test_one_attempt_has_no_delta():
    result = metrics.result_of([row(rewards=(1.0,))])
    assert result["acc_t1"] == 1.0
    assert not [key for key in result if key.startswith(("delta", "i_to_c", "changed"))]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "rows: got 0 rows"),
        ([row("a"), row("a")], "id: 'a' occurs 2 times"),
        ([row("a"), row("b", (1.0,))], "attempts of problem 'b': got 1 entries, expected 2"),
        ([row("a", answers=["1"])], "answers of problem 'a': got 1 entries, expected 2"),
        ([row("a"), row("b", step=4)], r"step: got \[3, 4\]"),
        ([{"id": "a"}], "has no 'checkpoint'"),
        ([row("a", (0.0, float("nan")))], r"rewards\[0, 1\]: got nan"),
    ],
)
def test_bad_rows_are_refused_by_name(rows, words):
    with pytest.raises(ValueError, match=words):
        metrics.result_of(rows)


def test_bad_arguments_are_refused_by_name():
    two = np.ones((2, 2))
    with pytest.raises(ValueError, match="rewards: got shape"):
        metrics.summarize(np.ones((0, 2)))
    with pytest.raises(ValueError, match="levels: got 1 entries for 2 problems"):
        metrics.summarize(two, levels=[1])
    with pytest.raises(ValueError, match="answers: got 0 answers"):
        metrics.majority_vote([])
    with pytest.raises(ValueError, match="'c' and 1 more are in only one"):
        metrics.aligned(two, ["a", "c"], ["a", "d"])


def test_starts_without_jax():
    heavy = "('jax', 'gemma', 'tensorflow', 'tensorflow_datasets')"
    code = f"import sys, score_jax.report; assert not [m for m in {heavy} if m in sys.modules]"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
