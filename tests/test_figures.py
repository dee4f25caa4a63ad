"""The figures' numbers against brute force."""

import numpy as np
import pytest

from score_jax import figures


def plain_vote(said, right):
    """Whether the vote of one group is right: counted by hand, ties to the answer that came first."""
    best, most = None, 0
    for answer in said:
        times = sum(1 for other in said if other == answer)
        if answer is not None and times > most:
            best, most = answer, times
    return any(right[i] for i in range(len(said)) if said[i] == best)


def sampled(n=7, samples=8, seed=0):
    """Answers among three and None, rewards 1 for '0' (and so a function of the answer)."""
    rng = np.random.default_rng(seed)
    answers = [[None if k == 3 else str(k) for k in row] for row in rng.integers(4, size=(n, samples))]
    rewards = np.array([[float(answer == "0") for answer in row] for row in answers])
    return answers, rewards


def test_votes_equal_brute_force():
    (first, first_rewards), (second, second_rewards) = sampled(seed=1), sampled(seed=2)
    curve = figures.vote_curve(first, second, first_rewards, second_rewards, ks=(1, 2, 4))
    assert curve.k == (1, 2, 4)
    for point, k in enumerate(curve.k):
        for problem in range(7):
            for found, said, rewards, group in (
                (curve.parallel, first, first_rewards, 2 * k),
                (curve.corrected, second, second_rewards, k),
            ):
                votes = [
                    plain_vote(said[problem][a : a + group], rewards[problem][a : a + group])
                    for a in range(0, 8, group)
                ]
                assert found[point, problem] == pytest.approx(sum(votes) / len(votes))


def test_a_vote_over_one_attempt_is_its_accuracy():
    answers, rewards = sampled(seed=3)
    np.testing.assert_allclose(figures.vote_accuracy(answers, rewards, 1), rewards.mean(axis=1))


def test_a_tied_vote_goes_to_the_first_and_unreadable_answers_do_not_vote():
    answers = [["1", "0", None, None], [None, None, None, "0"], ["1", "1", "0", "0"]]
    rewards = np.array([[0.0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]])
    assert figures.vote_accuracy(answers, rewards, 4).tolist() == [0, 1, 0]
    assert figures.vote_accuracy(answers, rewards, 2).tolist() == [0, 0.5, 0.5]


def test_a_vote_is_right_if_an_attempt_with_its_answer_is():
    """A grader may know two spellings of one answer, and refuse an attempt for other reasons."""
    answers = [["a", "a", "b"]]
    assert figures.vote_accuracy(answers, np.array([[0.0, 1, 0]]), 3).tolist() == [1]
    assert figures.vote_accuracy(answers, np.array([[0.0, 0, 1]]), 3).tolist() == [0]


def test_votes_over_seeds_and_their_difference():
    curves = [
        figures.VoteCurve((1, 2), np.array([[0.0, 1], [0.5, 1]]), np.array([[1.0, 1], [1, 1]])),
        figures.VoteCurve((1, 2), np.array([[1.0, 1], [1, 1]]), np.array([[1.0, 0], [1, 1]])),
    ]
    found = figures.votes_over_seeds(curves)
    assert found["k"] == [1, 2]
    assert [e["mean"] for e in found["parallel"]] == [0.75, 0.875]
    assert [e["mean"] for e in found["corrected"]] == [0.75, 1.0]
    assert [e["mean"] for e in found["difference"]] == [0.0, 0.125]
    assert found["difference"][0]["by_seed"] == [0.5, -0.5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, r: figures.vote_accuracy(a, r, 3), "group = 3: 8 samples do not divide"),
        (lambda a, r: figures.vote_accuracy(a[:-1], r, 2), "give 8 for each of 7 problems"),
        (lambda a, r: figures.vote_accuracy([row[:-1] for row in a], r, 2), "give 8 for each of 7 problems"),
        (lambda a, r: figures.vote_curve(a, a, r, r, ks=(8,)), "group = 16: 8 samples"),
    ],
)
def test_votes_that_cannot_be_cut_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*sampled())


def test_edit_shares_are_counted_over_each_seed_and_averaged():
    ratios = {
        "train": {"a": [np.array([0.0, 0.0, 0.07, 0.62]), np.array([0.12, 0.12, 0.12, 0.12])]},
        "test": {"a": [np.array([0.3])], "b": [np.array([0.0, 0.3])]},
    }
    found = figures.edit_shares(ratios)
    edges = found["edges"]
    assert edges[0] == 0 and edges[-1] > 0.62
    for split, methods in ratios.items():
        for name, runs in methods.items():
            for i in range(len(edges) - 1):
                inside = [np.mean([edges[i] <= x < edges[i + 1] for x in run]) for run in runs]
                share = found[split][name][i]
                assert share["mean"] == pytest.approx(sum(inside) / len(inside))
                assert share["n"] == len(runs[0]) and share["low"] <= share["mean"] <= share["high"]
            assert sum(share["mean"] for share in found[split][name]) == pytest.approx(1)


def test_edit_ratios_go_from_the_first_attempt_to_the_last():
    rows = [{"attempts": ["abcd", "zzzz", "abcx"]}, {"attempts": ["", "ab"]}, {"attempts": ["ab", "ab"]}]
    assert figures.edit_ratios(rows).tolist() == [1 / 8, 1.0, 0.0]


def test_correction_of_fixed_and_of_own_attempts():
    fixed = {20: [np.array([[0.0, 1], [0, 0], [1, 0]])], 40: [np.array([[0.0, 1], [0, 1], [1, 1]])]}
    own = {40: [np.array([[1.0, 1], [0, 0], [1, 1]])], 20: [np.array([[0.0, 0], [0, 0], [1, 1]])]}
    found = figures.correction_curves(fixed, own)
    assert found["step"] == [20, 40]
    assert [e["mean"] for e in found["fixed"]] == pytest.approx([1 / 3, 2 / 3])
    assert [e["mean"] for e in found["own"]] == [0, 0]
    gained = figures.correction_curves(fixed, own, statistic="delta")
    assert [e["mean"] for e in gained["fixed"]] == pytest.approx([0, 2 / 3])
    with pytest.raises(ValueError, match=r"own: got steps \[40\], fixed has \[20, 40\]"):
        figures.correction_curves(fixed, {40: own[40]})
    with pytest.raises(ValueError, match="statistic: got 'x'; choose one of acc_t1"):
        figures.correction_curves(fixed, own, statistic="x")


def test_training_curves_are_the_means_of_the_seeds():
    rows = lambda r1: [
        {"step": 1, "stage": "one", "reward_t1": r1, "reward_t2": 0.5, "loss": 9},
        {"step": 2, "stage": "two", "reward_t1": r1 + 0.1, "reward_t2": 0.7, "changed": r1},
    ]
    found = figures.training_curves([rows(0.2), rows(0.4)])
    assert found == {
        "step": [1, 2],
        "stage": ["one", "two"],
        "acc_t1": pytest.approx([0.3, 0.4]),
        "acc_t1_low": pytest.approx([0.2, 0.3]),
        "acc_t1_high": pytest.approx([0.4, 0.5]),
        "acc_t2": [0.5, 0.7],
        "acc_t2_low": [0.5, 0.7],
        "acc_t2_high": [0.5, 0.7],
        "changed": [None, pytest.approx(0.3)],
        "changed_low": [None, 0.2],
        "changed_high": [None, 0.4],
    }
    single = figures.training_curves([[{"step": 1, "stage": "one", "reward_t1": 0.2}]])
    assert single.keys() == {"step", "stage", "acc_t1", "acc_t1_low", "acc_t1_high"}


def test_training_curves_of_an_unfinished_seed_are_refused():
    done, torn = [{"step": 1}, {"step": 2}], [{"step": 1}]
    with pytest.raises(ValueError, match=r"got \[2, 1\] rows, not of the same steps"):
        figures.training_curves([done, torn])


def test_flows_by_level_are_shares_of_the_levels_problems():
    rewards = [np.array([[0.0, 1], [1, 0], [0, 1], [0, 0]]), np.array([[0.0, 0], [1, 1], [0, 1], [1, 0]])]
    found = figures.flows_by_level(rewards, [10, 2, 2, 2])
    assert found["levels"] == ["2", "10"]
    assert [e["mean"] for e in found["i_to_c"]] == pytest.approx([2 / 6, 1 / 2])
    assert [e["mean"] for e in found["c_to_i"]] == pytest.approx([2 / 6, 0])
    assert [e["n"] for e in found["i_to_c"]] == [3, 1]
    with pytest.raises(ValueError, match=r"levels: got 3 for runs of \[4, 4\] problems"):
        figures.flows_by_level(rewards, [1, 2, 3])


def test_accuracy_by_attempt_and_by_pool():
    rewards = np.array([[0.0, 1, 1], [0, 0, 1]])
    assert [e["mean"] for e in figures.accuracy_by_attempt([rewards])] == [0, 0.5, 1]
    found = figures.pool_curve({384: [rewards], 96: [1 - rewards]})
    assert found["pool"] == [96, 384]
    assert [e["mean"] for e in found["acc_t1"]] == [1, 0]
    assert [e["mean"] for e in found["acc_t2"]] == [0.5, 0.5]
    with pytest.raises(ValueError, match=r"got \[2, 3\] attempts"):
        figures.accuracy_by_attempt([rewards, rewards[:, :2]])
