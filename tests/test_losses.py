"""The losses and their gradients against loops, token by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.losses import PolicyGradientLoss, sft_loss

# fmt: off
#                    prompt    attempt 1     fix   attempt 2       each attempt's last token is its EOS,
ATTEMPT = np.array([[-1, 0, 0, 1, 1, 1, -1,  0, 0, 2, 2, -1, -1],
                    [ 0, 0, 0, 1, 1, 1,  1,  0, 0, 2, -1, -1, -1]])  # but row 1's first was cut off
EOS = [(0, 5), (0, 10), (1, 9)]
# 1 up to the end of the attempt's answer.
DECISIVE = np.array([[0, 0, 0, 1, 1, 0,  0,  0, 0, 1, 0,  0,  0],
                     [0, 0, 0, 1, 0, 0,  0,  0, 0, 1, 0,  0,  0]])
# fmt: on
SHAPE, N = ATTEMPT.shape, 2


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    logp = -rng.exponential(size=SHAPE).astype(np.float32)
    advantages, kl_advantages = rng.normal(size=(2, SHAPE[0], N)).astype(np.float32) * 10
    return logp, advantages, kl_advantages


def loss_of(decisive_only, logp, advantages, kl_advantages):
    loss = PolicyGradientLoss(decisive_only=decisive_only)
    marks = jnp.asarray(ATTEMPT), jnp.asarray(DECISIVE, jnp.float32)
    return loss(logp, jnp.asarray(advantages), jnp.asarray(kl_advantages), *marks)


def grad_of(decisive_only, logp, advantages, kl_advantages):
    return jax.grad(lambda x: loss_of(decisive_only, x, advantages, kl_advantages).sum())(jnp.asarray(logp))


def weights(decisive_only, advantages, kl_advantages):
    """What each token's log-probability is multiplied with, by a loop."""
    weight = np.zeros(SHAPE, np.float32)
    for e, t in np.ndindex(*SHAPE):
        i = ATTEMPT[e, t]
        if i >= 1:
            pays = DECISIVE[e, t] or not decisive_only
            weight[e, t] = kl_advantages[e, i - 1] + (advantages[e, i - 1] if pays else 0.0)
    return weight


@pytest.mark.parametrize("decisive_only", [False, True])
def test_policy_gradient_loss_and_its_gradient_equal_loops(decisive_only):
    logp, advantages, kl_advantages = arrays()
    weight = weights(decisive_only, advantages, kl_advantages)
    want = [-sum(weight[e, t] * logp[e, t] for t in range(SHAPE[1])) for e in range(SHAPE[0])]
    got = loss_of(decisive_only, jnp.asarray(logp), advantages, kl_advantages)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(grad_of(decisive_only, *arrays()), -weight, rtol=1e-5)


def test_context_and_padding_get_no_gradient():
    grad = grad_of(False, *arrays())
    assert np.all(grad[ATTEMPT < 1] == 0)
    assert np.all(grad[ATTEMPT >= 1] != 0)


def test_eos_gets_a_gradient_and_what_follows_it_none():
    grad = grad_of(False, *arrays())
    for e, t in EOS:
        assert grad[e, t] != 0
        assert grad[e, t + 1] == 0


def test_each_attempt_has_its_own_advantage():
    logp, advantages, _ = arrays()
    only_second = np.where([False, True], advantages, 0).astype(np.float32)
    grad = grad_of(False, logp, only_second, np.zeros_like(advantages))
    assert np.all((grad != 0) == (ATTEMPT == 2))


def test_long_attempts_are_summed_not_averaged():
    logp, advantages, kl_advantages = arrays()
    grad = grad_of(False, logp, np.ones_like(advantages), np.zeros_like(kl_advantages))
    np.testing.assert_array_equal(grad, -(ATTEMPT >= 1).astype(np.float32))


def test_decisive_only_leaves_out_rewards_after_the_answer_but_not_the_kl():
    logp, advantages, kl_advantages = arrays()
    none = np.zeros_like(advantages)
    after = (ATTEMPT >= 1) & (DECISIVE == 0)
    assert after.sum() == 5
    assert np.all(grad_of(True, logp, advantages, none)[after] == 0)
    assert np.all(grad_of(False, logp, advantages, none)[after] != 0)
    kl_grads = [grad_of(decisive_only, logp, none, kl_advantages) for decisive_only in (True, False)]
    np.testing.assert_array_equal(*kl_grads)
    assert np.all(kl_grads[0][after] != 0)


def test_no_gradient_flows_through_the_advantages():
    logp, advantages, kl_advantages = arrays()
    through = lambda x: loss_of(False, x, advantages * x.mean(), kl_advantages * x.sum()).sum()
    x = jnp.asarray(logp)
    fixed = grad_of(False, logp, advantages * x.mean(), kl_advantages * x.sum())
    np.testing.assert_allclose(jax.grad(through)(x), fixed, rtol=1e-6)


def test_log_probabilities_outside_the_attempts_do_not_matter():
    logp, advantages, kl_advantages = arrays()
    loud = np.where(ATTEMPT < 1, np.float32(-1e30), logp)
    quiet = [loss_of(False, jnp.asarray(x), advantages, kl_advantages) for x in (loud, logp)]
    np.testing.assert_allclose(*quiet, rtol=1e-6)


def test_sft_loss_and_its_gradient_equal_loops():
    logp, _, _ = arrays()
    weight = np.random.default_rng(1).uniform(size=SHAPE).astype(np.float32) * (ATTEMPT == 2)
    want = [-sum(weight[e, t] * logp[e, t] for t in range(SHAPE[1])) for e in range(SHAPE[0])]
    np.testing.assert_allclose(sft_loss(jnp.asarray(logp), jnp.asarray(weight)), want, rtol=1e-6)
    grad = jax.grad(lambda x: sft_loss(x, jnp.asarray(weight)).sum())(jnp.asarray(logp))
    np.testing.assert_array_equal(grad, -weight)
    assert np.all(grad[ATTEMPT < 2] == 0)
