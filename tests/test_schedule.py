"""What changes from update to update, against the formulas written out."""

import math

import numpy as np
import pytest
import tiny

from configs import quickstart
from score_jax import rl, schedule
from score_jax.config import load_config
from score_jax.config_check import check_config

ONE = dict(beta_1=0.01, beta_2=0.1)
TWO = dict(alpha=10.0, beta_1=0.02)


def unified_config(**fields):
    config = quickstart.get_config()
    config.stage1 = quickstart.stage("one", "stage_one", steps=60, **ONE)
    config.stage2 = quickstart.stage("two", "stage_two", steps=160, beta_2=0.0, **TWO)
    config.whole = quickstart.unified(
        "unified", ("stage1", "stage2"), **({"steps": 20, "ramp": (0.25, 0.75)} | fields)
    )
    config.stages = ("whole",)
    return config


def adaptive(**fields):
    return quickstart.stage("one", "stage_one", steps=9, adapt_beta_2=2.0, **ONE, **fields)


def objective_numbers(config, step):
    objective = schedule.objective_at(config, config.whole, step, 0.0)
    return [
        np.asarray(x, float).round(6).tolist()
        for x in (objective.reward_weight, objective.bonus, objective.kl_coef)
    ]


def test_a_unified_stage_goes_from_eq_3_to_eq_4():
    config = unified_config()
    check_config(config)
    begin, end = [[0, 1], [0, 0], [0.11, 0.01]], [[1, 1], [0, 10], [0.02, 0.02]]
    for step in (0, 5):  # a quarter of 20 steps is Stage I
        assert objective_numbers(config, step) == begin
    for step in (15, 19):  # the last quarter is Stage II
        assert objective_numbers(config, step) == end
    assert objective_numbers(config, 10) == [[0.5, 1], [0, 5], [0.065, 0.015]]  # half-way


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, True),
        ({"stage1.beta_1": 0.0}, True),
        ({"stage1.beta_1": 0.0, "stage1.beta_2": 0.0}, True),
        ({"stage1.beta_1": 0.0, "stage1.beta_2": 0.0, "stage2.beta_1": 0.0}, False),
    ],
)
def test_a_kl_is_asked_for_by_any_coefficient(changes, asked):
    config = unified_config()
    config.update_from_flattened_dict(changes)
    assert schedule.asks_for_kl(config, config.whole) is asked
    learner = rl.learner_of(config, config.whole, tiny.model(), tiny.mesh(1))
    assert learner.reference is asked
    for stage in (config.stage1, config.stage2):
        assert schedule.asks_for_kl(config, stage) is (stage.beta_1 > 0 or stage.beta_2 > 0)


def test_the_ramp_is_linear():
    stage = unified_config(steps=10, ramp=(0.2, 0.7)).whole
    shares = [schedule.ramp_at(stage, step) for step in range(10)]
    np.testing.assert_allclose(shares, [0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"between": ("stage1", "stage9")},
            r"config.whole.between = \['stage1', 'stage9'\]: name two stages",
        ),
        ({"between": ("stage1",)}, "config.whole.between"),
        ({"between": ("stage1", "whole")}, "config.whole.between"),
        ({"ramp": (0.5, 0.5)}, r"config.whole.ramp = \[0.5, 0.5\]: give two rising shares"),
        ({"ramp": (0.5, 1.5)}, "config.whole.ramp"),
        ({"alpha": 3.0}, "config.whole.alpha = 3.0"),
        ({"beta_1": 0.1}, "config.whole.beta_1 = 0.1: has no effect on the objective unified; set it to 0.0"),
        ({"objective": "stage_two"}, r"config.whole.between = .*: has no effect on the objective stage_two"),
    ],
)
def test_a_unified_stage_that_cannot_work_is_refused(change, message):
    config = unified_config()
    config.whole.update(change)
    with pytest.raises(ValueError, match=message):
        check_config(config)


@pytest.mark.parametrize(
    ("field", "value", "neutral"),
    [("adapt_beta_2", 1.0, "0.0"), ("offline", 0.5, "0.0"), ("critique", True, "False")],
)
def test_a_unified_stage_reads_no_more_of_its_sections_than_their_objectives(field, value, neutral):
    config = unified_config()
    config.slots.critique, config.offline_attempts = 4, 1
    config.stage1[field] = value
    config.stages = ("stage1", "whole")  # of a stage by itself it is read
    check_config(config)
    config.stages = ("whole",)
    said = rf"config.stage1.{field} = {value}: config.whole does not read it .*; set it to {neutral}"
    with pytest.raises(ValueError, match=said):
        check_config(config)


@pytest.mark.parametrize("field", ["alpha", "scale_kl", "beta_2", "adapt_beta_2", "discount", "reference"])
def test_a_field_that_a_stage_may_not_use_is_still_there(field):
    """What reads a stage need not ask which objective it has."""
    config = unified_config()
    del config.whole[field]
    with pytest.raises(ValueError, match=f"config.whole.{field} is missing"):
        check_config(config)


def test_a_unified_stage_needs_stages_of_its_attempts():
    config = unified_config(attempts=3)
    with pytest.raises(ValueError, match="sections of this config that have 3 attempts"):
        check_config(config)


def test_beta_2_is_the_configs_without_adaptation_and_at_first():
    row = {"stage": "one", "kl_t1": 0.5, "policy_t2": 3.0, "beta_2": 0.2}
    assert schedule.beta_2_after(quickstart.stage("one", "stage_one", steps=9, **ONE), row) == 0.1
    assert schedule.beta_2_after(adaptive(), None) == 0.1
    assert schedule.beta_2_after(adaptive(), row | {"stage": "before"}) == 0.1


def test_beta_2_goes_a_tenth_of_the_way_to_the_balance():
    row = {"stage": "one", "kl_t1": 0.5, "policy_t2": 0.1, "beta_2": 0.2}
    wanted = 2.0 * 0.1 / 0.5  # where beta_2 times the KL is twice the policy term
    moved = math.exp(0.9 * math.log(0.2) + 0.1 * math.log(wanted))
    assert schedule.beta_2_after(adaptive(), row) == pytest.approx(moved)
    at_rest = row | {"beta_2": wanted}
    assert schedule.beta_2_after(adaptive(), at_rest) == pytest.approx(wanted)


def test_beta_2_counts_the_kl_of_every_held_attempt():
    two = {"stage": "one", "kl_t1": 0.5, "policy_t2": 0.1, "beta_2": 0.2}
    three = {"stage": "one", "kl_t1": 0.2, "kl_t2": 0.3, "policy_t2": 9.0, "policy_t3": 0.1, "beta_2": 0.2}
    assert schedule.beta_2_after(adaptive(attempts=3), three) == schedule.beta_2_after(adaptive(), two)


@pytest.mark.parametrize(("kl", "limit"), [(1e-12, 1.0), (1e12, 0.01)])
def test_beta_2_stays_within_a_factor_of_ten(kl, limit):
    row = {"stage": "one", "kl_t1": kl, "policy_t2": 0.1, "beta_2": 0.1}
    for _ in range(100):
        row["beta_2"] = schedule.beta_2_after(adaptive(), row)
    assert row["beta_2"] == pytest.approx(limit)


@pytest.mark.parametrize("terms", [{"kl_t1": -0.1, "policy_t2": 0.1}, {"kl_t1": 0.1, "policy_t2": 0.0}])
def test_beta_2_stays_where_there_is_nothing_to_balance(terms):
    assert schedule.beta_2_after(adaptive(), {"stage": "one", "beta_2": 0.3} | terms) == 0.3


def test_the_adapted_beta_2_holds_all_attempts_but_the_last():
    stage = adaptive(attempts=3)
    objective = schedule.objective_at(quickstart.get_config(), stage, 0, 0.7)
    np.testing.assert_allclose(objective.kl_coef, [0.71, 0.71, 0.01], rtol=1e-6)


def test_adapting_needs_a_beginning():
    config = load_config("configs/quickstart.py")
    config.stage1.adapt_beta_2, config.stage1.beta_2 = 1.0, 0.0
    with pytest.raises(ValueError, match=r"config.stage1.adapt_beta_2 = 1.0: adapts beta_2, which has to"):
        check_config(config)
