"""The paper's numbers, and pay turned into advantages, against plain loops."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from score_jax import objectives
from score_jax.objectives import RewardShaping, leave_one_out, returns

A, B1, B2 = 10.0, 0.01, 0.1  # α, β₁ and β₂ of Table 8


def matrices(*, groups=1):
    """[E, N] of plain floats; few shapes, as each one compiles anew."""
    shapes = st.sampled_from([(4 * groups, 1), (4 * groups, 2), (2 * groups, 3)])
    numbers = st.floats(-1e3, 1e3, width=32).map(lambda x: round(x, 3))
    return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=numbers))


def assert_numbers(objective, *, reward_weight, bonus, kl_coef):
    np.testing.assert_allclose(objective.reward_weight, reward_weight)
    np.testing.assert_allclose(objective.bonus, bonus)
    np.testing.assert_allclose(objective.kl_coef, kl_coef)
    assert objective.attempts == len(reward_weight)
    assert objective.discount == 0.0  # App. A.4


@pytest.mark.parametrize("n", [1, 2, 3])
def test_eq_1_multi_turn(n):
    objective = objectives.multi_turn(n, beta_1=B1)
    assert_numbers(objective, reward_weight=[1] * n, bonus=[0] * n, kl_coef=[B1] * n)


def test_eq_1_multi_turn_with_held_attempts():
    two, three = (objectives.multi_turn(n, beta_1=B1, beta_2=B2) for n in (2, 3))
    assert_numbers(two, reward_weight=[1, 1], bonus=[0, 0], kl_coef=[0.11, 0.01])
    assert_numbers(three, reward_weight=[1, 1, 1], bonus=[0, 0, 0], kl_coef=[0.11, 0.11, 0.01])


def test_eq_2_single_turn_is_every_objective_of_one_attempt():
    numbers = {"reward_weight": [1], "bonus": [0], "kl_coef": [B1]}
    assert_numbers(objectives.multi_turn(1, beta_1=B1), **numbers)
    assert_numbers(objectives.stage_one(1, beta_1=B1, beta_2=B2), **numbers)
    assert_numbers(objectives.stage_two(1, alpha=A, beta_1=B1, beta_2=B2, scale_kl=True), **numbers)


def test_eq_3_stage_one():
    two = objectives.stage_one(2, beta_1=B1, beta_2=B2)
    assert_numbers(two, reward_weight=[0, 1], bonus=[0, 0], kl_coef=[0.11, 0.01])


def test_eq_3_stage_one_b_holds_both_earlier_attempts():
    three = objectives.stage_one(3, beta_1=B1, beta_2=B2)
    assert_numbers(three, reward_weight=[0, 0, 1], bonus=[0, 0, 0], kl_coef=[0.11, 0.11, 0.01])


def test_eq_4_stage_two():
    two = objectives.stage_two(2, alpha=A, beta_1=B1)
    assert_numbers(two, reward_weight=[1, 1], bonus=[0, 10], kl_coef=[0.01, 0.01])


def test_eq_4_stage_two_of_three_attempts():
    three = objectives.stage_two(3, alpha=A, beta_1=B1, beta_2=B2)
    assert_numbers(three, reward_weight=[1, 1, 1], bonus=[0, 10, 10], kl_coef=[0.11, 0.11, 0.01])


def test_scale_kl_scales_beta_1_where_there_is_a_bonus_and_beta_2_nowhere():
    two, three = (objectives.stage_two(n, alpha=A, beta_1=B1, beta_2=B2, scale_kl=True) for n in (2, 3))
    assert_numbers(two, reward_weight=[1, 1], bonus=[0, 10], kl_coef=[0.01 + 0.1, 0.11])
    assert_numbers(three, reward_weight=[1, 1, 1], bonus=[0, 10, 10], kl_coef=[0.11, 0.11 + 0.1, 0.11])


def test_section_5_2_bonus_on_the_four_outcomes():
    shape = RewardShaping(reward_weight=jnp.ones(2), bonus=jnp.array([0.0, A]))
    outcomes = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(shape(outcomes), [[0, 0], [0, 11], [1, -10], [1, 1]])


@settings(max_examples=30, deadline=None)
@given(matrices(), st.integers(0, 99))
def test_shaping_equals_a_loop(rewards, seed):
    n = rewards.shape[1]
    weight, bonus = np.random.default_rng(seed).uniform(-3, 12, size=(2, n)).astype(np.float32)
    bonus[0] = 0.0
    shaped = RewardShaping(jnp.asarray(weight), jnp.asarray(bonus))(jnp.asarray(rewards))
    for row, got in zip(rewards, shaped, strict=True):
        for i in range(n):
            progress = row[i] - row[i - 1] if i > 0 else 0.0
            assert got[i] == pytest.approx(weight[i] * row[i] + bonus[i] * progress, rel=1e-4, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(matrices(), st.sampled_from([0.0, 0.25, 0.8, 1.0]))
def test_returns_equal_a_loop(rewards, discount):
    got = returns(jnp.asarray(rewards), discount)
    for e, row in enumerate(rewards):
        ahead = 0.0
        for i in reversed(range(len(row))):
            ahead = row[i] + discount * ahead
            assert got[e, i] == pytest.approx(ahead, rel=1e-5, abs=0.01)


def test_a_discount_of_0_gives_each_attempt_exactly_its_own_pay():
    rewards = jnp.array([[1.0, -10.0, 11.0], [0.1, 0.2, 0.3]])
    np.testing.assert_array_equal(returns(rewards, 0.0), rewards)


def test_an_objective_may_be_traced():
    """As in `train_step`: an argument of the compiled update, so that all stages share one program."""
    objective = jax.tree.map(jnp.float32, objectives.stage_two(3, alpha=1.0, beta_1=B1, discount=0.5))

    @jax.jit
    def credit(objective, rewards):
        shape = RewardShaping(objective.reward_weight, objective.bonus)
        return returns(shape(rewards), objective.discount)

    # Shaped: 0, 1 + (1 − 0), 0 + (0 − 1).
    np.testing.assert_allclose(credit(objective, jnp.array([[0.0, 1.0, 0.0]])), [[0.75, 1.5, -1.0]])


@settings(max_examples=30, deadline=None)
@given(matrices(groups=2), st.sampled_from([2, 4]))
def test_leave_one_out_equals_a_loop(values, samples):
    got = leave_one_out(jnp.asarray(values), samples)
    for e in range(len(values)):
        start = e - e % samples
        others = [values[j] for j in range(start, start + samples) if j != e]
        np.testing.assert_allclose(got[e], values[e] - np.mean(others, axis=0), rtol=1e-4, atol=1e-2)


def test_advantages_are_neither_normalised_nor_clamped():
    unit = jnp.array([[0.0], [1.0], [0.0], [0.0]])
    np.testing.assert_array_equal(leave_one_out(unit, 2), [[-1], [1], [0], [0]])
    np.testing.assert_array_equal(leave_one_out(1e6 * unit, 2), [[-1e6], [1e6], [0], [0]])
    np.testing.assert_array_equal(leave_one_out(1e-6 * unit, 2), 1e-6 * leave_one_out(unit, 2))


@pytest.mark.parametrize(("episodes", "samples"), [(4, 1), (4, 0), (5, 2), (4, 3)])
def test_leave_one_out_refuses_a_lone_sample_and_broken_groups(episodes, samples):
    message = f"samples_per_problem = {samples} with {episodes} episodes: .* at least 2 samples and complete"
    with pytest.raises(ValueError, match=message):
        leave_one_out(jnp.zeros((episodes, 2)), samples)


def test_a_wrong_shape_is_refused():
    """The shapes in signatures are checked while the tests run."""
    with pytest.raises(jaxtyping.TypeCheckError):
        objectives.leave_one_out(jnp.zeros(4), 2)
