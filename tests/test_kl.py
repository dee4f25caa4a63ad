"""Each estimator's value against loops, and its gradient against enumeration: what kl.py's docstring says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tabular import Tabular, close

from score_jax.kl import ESTIMATORS, KLPenalty
from score_jax.losses import PolicyGradientLoss
from score_jax.objectives import leave_one_out

BETA = jnp.array([0.3, 2.0])
# Two attempts of one or two tokens each: ragged, and an early token changes what the later ones meet.
POLICY = Tabular(2, 2, stops=True)
TABLE, REFERENCE = POLICY.table(0), POLICY.table(1)


def estimate(estimator, table):
    """[E, N] of the code under test, on every episode."""
    logp, ref_logp = POLICY.logp(table), POLICY.logp(REFERENCE)
    return KLPenalty(BETA, estimator)(logp, ref_logp, POLICY.kl(table, REFERENCE), POLICY.attempt)


def as_reward_loss(table, kl, attempt=POLICY.attempt, rows=slice(None)):
    """[E] loss with −kl as the pay."""
    decisive = jnp.ones(attempt.shape)
    return PolicyGradientLoss()(POLICY.logp(table)[rows], jnp.zeros_like(kl), -kl, attempt, decisive)


def attempt_kl(table):
    """Σ_i β_i E[KL(π(·|x_i) ‖ π_ref(·|x_i))], attempt i's states x_i held fixed: Eq. 2's penalty."""
    total = 0.0
    for i in range(2):
        rho = POLICY.attempt_logp(table)[:, i] - POLICY.attempt_logp(REFERENCE)[:, i]
        total += BETA[i] * jnp.sum(POLICY.attempt_prob(table, i) * rho)
    return total


def state_kl(table, divergence):
    """E[Σ_t β KL at token t's state], with every state's probability held fixed."""
    beta = jnp.array([0.0, *BETA, 0.0])[POLICY.attempt]  # context, 1, 2, padding (= -1)
    prob = jax.lax.stop_gradient(POLICY.prob(TABLE))
    return jnp.sum(prob[:, None] * beta * divergence(table))


GRAD_ATTEMPT_KL = jax.grad(attempt_kl)(TABLE)
GRAD_STATE_KL = jax.grad(state_kl)(TABLE, lambda table: POLICY.kl(table, REFERENCE))
GRAD_STATE_KL_OF_REF = jax.grad(state_kl)(TABLE, lambda table: POLICY.kl(REFERENCE, table))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_values_equal_loops_on_ragged_attempts(estimator):
    rng = np.random.default_rng(3)
    attempt = np.array(
        [[-1, 0, 1, 1, 1, 0, 2, -1], [0, 0, 1, -1, -1, 0, 2, 2], [-1, -1, 1, 1, -1, 0, -1, -1]]
    )
    logp, ref_logp, full = rng.normal(size=(3, *attempt.shape)).astype(np.float32)
    got = KLPenalty(BETA, estimator)(*map(jnp.asarray, (logp, ref_logp, full, attempt)))
    for e, row in enumerate(attempt):
        want = [0.0, 0.0]
        for t, i in enumerate(row):
            if i < 1:
                continue
            rho = logp[e, t] - ref_logp[e, t]
            token = {"k1": rho, "k2": rho * rho / 2, "k3": np.exp(-rho) - 1 + rho, "full": full[e, t]}
            want[i - 1] += BETA[i - 1] * token[estimator]
        np.testing.assert_allclose(got[e], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k3", "full"])
def test_values_are_unbiased(estimator):
    prob = POLICY.prob(TABLE)
    assert float(prob.sum()) == pytest.approx(1.0, abs=1e-6)
    got = jnp.sum(prob[:, None] * estimate(estimator, TABLE))
    assert float(got) == pytest.approx(float(attempt_kl(TABLE)), rel=1e-5)


def test_k1_as_a_reward_has_the_gradient_of_the_attempts_kl():
    kl = estimate("k1", TABLE)
    assert close(POLICY.expected_grad(lambda table: as_reward_loss(table, kl), TABLE), GRAD_ATTEMPT_KL)


def test_k1_with_a_leave_one_out_baseline_has_the_same_gradient():
    kl = estimate("k1", TABLE)

    def loss(table, rows):
        advantages = leave_one_out(-kl[rows], 2)
        return as_reward_loss(table, -advantages, POLICY.attempt[rows], rows)

    assert close(POLICY.expected_pair_grad(loss, TABLE), GRAD_ATTEMPT_KL)


def test_k1_as_a_loss_would_have_none():
    assert close(POLICY.expected_grad(lambda table: estimate("k1", table).sum(axis=1), TABLE), 0.0)


@pytest.mark.parametrize("estimator", ["k2", "full"])
def test_k2_and_full_have_the_gradient_of_each_states_kl_with_the_states_held_fixed(estimator):
    got = POLICY.expected_grad(lambda table: estimate(estimator, table).sum(axis=1), TABLE)
    assert close(got, GRAD_STATE_KL)
    assert not close(got, GRAD_ATTEMPT_KL)  # what holding the states fixed leaves out


def test_k3_has_the_gradient_of_the_kl_from_the_reference():
    got = POLICY.expected_grad(lambda table: estimate("k3", table).sum(axis=1), TABLE)
    assert close(got, GRAD_STATE_KL_OF_REF)
    assert not close(got, GRAD_STATE_KL)


def test_k2_over_the_whole_attempt_has_the_gradient_of_k1_as_a_reward():
    def loss(table):
        rho = POLICY.attempt_logp(table) - POLICY.attempt_logp(REFERENCE)
        return jnp.sum(BETA * 0.5 * rho**2, axis=1)

    assert close(POLICY.expected_grad(loss, TABLE), GRAD_ATTEMPT_KL)


def test_only_k1_belongs_in_the_reward():
    assert [e for e in ESTIMATORS if KLPenalty(BETA, e).in_reward] == ["k1"]


def test_an_unknown_estimator_is_refused_with_the_choice():
    with pytest.raises(ValueError, match="kl_estimator = 'k4': choose one of k1, k2, k3, full"):
        KLPenalty(BETA, "k4")
