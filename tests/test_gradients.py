"""The update's expected gradient, exactly: every episode of a small tabular policy is enumerated.

The left side is the code: reward shaping, returns, (baseline,) loss. The right side is jax.grad of the
objective as the paper writes it, a sum of probabilities times pay. Attempt 2's distribution is conditioned on
attempt 1's tokens.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tabular import Tabular, close

from score_jax import objectives
from score_jax.losses import PolicyGradientLoss
from score_jax.objectives import RewardShaping, leave_one_out, returns

ALPHA = 10.0
NO_KL = {"beta_1": 0.0, "beta_2": 0.0}


def grade(text):
    """r̂: the answer's last written token is 1, or it is 22."""
    written = [token for token in text if token >= 0]
    return written[-1] == 1 or written == [2, 2]


ONE = Tabular(2)
TWO = Tabular(2, 1)
RAGGED = Tabular(2, 2, stops=True)
THREE = Tabular(1, 1, 1)
BY_NAME = {"2+1": TWO, "ragged": RAGGED}
two_attempts = pytest.mark.parametrize("policy", BY_NAME.values(), ids=BY_NAME.keys())


def credit(policy, objective, grade=grade):
    """[E, N] what each attempt is credited with, by the code."""
    numbers = jnp.asarray(objective.reward_weight), jnp.asarray(objective.bonus)
    numbers = (x.astype(jnp.float32) for x in numbers)
    return returns(RewardShaping(*numbers)(policy.rewards(grade)), objective.discount)


def ascent(policy, table, objective, *, grade=grade, decisive=None):
    """−E[∇loss] by the code, without a baseline; with `decisive` given, its tokens alone are paid."""
    advantages = credit(policy, objective, grade)
    marks = jnp.ones(policy.attempt.shape) if decisive is None else decisive
    loss = PolicyGradientLoss(decisive_only=decisive is not None)
    none = jnp.zeros_like(advantages)
    return -policy.expected_grad(
        lambda table: loss(policy.logp(table), advantages, none, policy.attempt, marks), table
    )


def ascent_with_baseline(policy, table, objective):
    """−E[∇loss] by the code, with the leave-one-out baseline of K = 2 episodes."""
    pay = credit(policy, objective)

    def loss(table, rows):
        advantages = leave_one_out(pay[rows], 2)
        ones = jnp.ones((len(rows), policy.attempt.shape[1]))
        return PolicyGradientLoss()(
            policy.logp(table)[rows], advantages, jnp.zeros_like(advantages), policy.attempt[rows], ones
        )

    return -policy.expected_pair_grad(loss, table)


def own_pay_gradient(policy, table, pay):
    """∇ Σ_i E[pay_i] where only attempt i's own distribution is differentiated (γ = 0)."""

    def value(table):
        return sum(jnp.sum(policy.attempt_prob(table, i) * pay[:, i]) for i in range(policy.attempts))

    return jax.grad(value)(table)


def full_gradient(policy, table, pay):
    """∇ E[Σ_i pay_i]: an episode's whole probability is differentiated."""
    return jax.grad(lambda table: jnp.sum(policy.prob(table) * pay.sum(axis=1)))(table)


def shaped(policy):
    """Eq. 4's pay of two attempts, written out."""
    r = policy.rewards(grade)
    return jnp.stack([r[:, 0], r[:, 1] + ALPHA * (r[:, 1] - r[:, 0])], axis=1)


def test_the_enumeration_is_complete():
    for policy, count in ((ONE, 9), (TWO, 27), (RAGGED, 49), (THREE, 27)):
        assert len(policy.written) == count
        assert float(policy.prob(policy.table(0)).sum()) == pytest.approx(1.0, abs=1e-6)
        assert 0 < policy.rewards(grade).mean() < 1


def test_eq_2_single_turn():
    table = ONE.table(0)
    got = ascent(ONE, table, objectives.multi_turn(1, beta_1=0.0))
    assert close(got, full_gradient(ONE, table, ONE.rewards(grade)))


@two_attempts
def test_eq_1_multi_turn(policy):
    table, rewards = policy.table(1), policy.rewards(grade)
    own = ascent(policy, table, objectives.multi_turn(2, beta_1=0.0))
    assert close(own, own_pay_gradient(policy, table, rewards))
    whole = ascent(policy, table, objectives.multi_turn(2, beta_1=0.0, discount=1.0))
    assert close(whole, full_gradient(policy, table, rewards))
    assert not close(own, whole)


@two_attempts
def test_eq_3_stage_one_pays_the_second_attempt_alone(policy):
    table = policy.table(2)
    got = ascent(policy, table, objectives.stage_one(2, **NO_KL))
    only_second = policy.rewards(grade) * jnp.array([0.0, 1.0])
    assert close(got, own_pay_gradient(policy, table, only_second))


@two_attempts
def test_eq_4_stage_two_pays_each_attempt_its_own(policy):
    table = policy.table(3)
    got = ascent(policy, table, objectives.stage_two(2, alpha=ALPHA, beta_1=0.0))
    assert close(got, own_pay_gradient(policy, table, shaped(policy)))


@two_attempts
def test_eq_4_with_a_discount_of_1_is_the_full_gradient_of_the_shaped_sum(policy):
    table = policy.table(3)
    got = ascent(policy, table, objectives.stage_two(2, alpha=ALPHA, beta_1=0.0, discount=1.0))
    assert close(got, full_gradient(policy, table, shaped(policy)))
    # ... in which the first attempt is paid to be wrong (App. A.4): why the paper has γ = 0.
    right = full_gradient(policy, table, policy.rewards(grade) * jnp.array([1.0, 0.0]))
    first = right != 0
    cosine = lambda a, b: np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
    assert cosine(got[first], right[first]) < 0
    own = ascent(policy, table, objectives.stage_two(2, alpha=ALPHA, beta_1=0.0))
    assert cosine(own[first], right[first]) > 0


def test_eq_4_of_three_attempts():
    table, r = THREE.table(4), THREE.rewards(grade)
    got = ascent(THREE, table, objectives.stage_two(3, alpha=ALPHA, beta_1=0.0))
    pay = [r[:, 0], r[:, 1] + ALPHA * (r[:, 1] - r[:, 0]), r[:, 2] + ALPHA * (r[:, 2] - r[:, 1])]
    assert close(got, own_pay_gradient(THREE, table, jnp.stack(pay, axis=1)))


@two_attempts
def test_the_bonus_multiplies_the_second_attempts_gradient_by_one_plus_alpha(policy):
    table = policy.table(5)
    second = ascent(policy, table, objectives.stage_one(2, **NO_KL))
    both = ascent(policy, table, objectives.multi_turn(2, beta_1=0.0))
    got = ascent(policy, table, objectives.stage_two(2, alpha=ALPHA, beta_1=0.0))
    assert close(got, (both - second) + (1 + ALPHA) * second)


@pytest.mark.parametrize(
    "objective",
    [
        objectives.multi_turn(2, beta_1=0.0),
        objectives.stage_one(2, **NO_KL),
        objectives.stage_two(2, alpha=ALPHA, beta_1=0.0),
        objectives.stage_two(2, alpha=ALPHA, beta_1=0.0, discount=1.0),
    ],
    ids=["multi_turn", "stage_one", "stage_two", "stage_two, discount 1"],
)
def test_the_leave_one_out_baseline_leaves_the_expected_gradient(objective):
    table = TWO.table(6)
    assert close(ascent_with_baseline(TWO, table, objective), ascent(TWO, table, objective))


def decided_by_first_token(policy):
    """A reward of an attempt's first token alone, and the mark of the tokens that decide it."""
    before = jnp.pad(policy.attempt, ((0, 0), (1, 0)))[:, :-1]
    first = (policy.attempt > 0) & (before != policy.attempt)
    return lambda text: text[0] == 1, first.astype(jnp.float32)


def test_decisive_only_leaves_the_expected_gradient():
    table = RAGGED.table(7)
    first_token, decisive = decided_by_first_token(RAGGED)
    objective = objectives.stage_two(2, alpha=ALPHA, beta_1=0.0)
    everything = ascent(RAGGED, table, objective, grade=first_token)
    assert close(ascent(RAGGED, table, objective, grade=first_token, decisive=decisive), everything)
    # ... which tokens that do decide the reward would not.
    wrong = ascent(RAGGED, table, objective, decisive=decisive)
    assert not close(wrong, ascent(RAGGED, table, objective))


def test_decisive_only_needs_a_discount_of_0():
    """With γ > 0 the first attempt is credited with the second, which its last tokens do change."""
    table = RAGGED.table(7)
    first_token, decisive = decided_by_first_token(RAGGED)
    objective = objectives.stage_two(2, alpha=ALPHA, beta_1=0.0, discount=1.0)
    everything = ascent(RAGGED, table, objective, grade=first_token)
    assert not close(ascent(RAGGED, table, objective, grade=first_token, decisive=decisive), everything)
