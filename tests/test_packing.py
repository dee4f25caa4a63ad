"""Several episodes in a row: what stands where, and that an update does not notice."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_step import (
    LEARNER,
    OBJECTIVE,
    OPTIMIZER,
    PARAMS,
    REF_PARAMS,
    assert_same_update,
    experience,
    putting,
)

from configs import quickstart
from score_jax import packing, rl, step
from score_jax.places import Grid, as_it_stands
from score_jax.types import CONTEXT, PADDING, Episodes


def test_short_episodes_take_fewer_parts_and_full_ones_all():
    attempt = np.full((16, 10), PADDING)
    attempt[:, 2:7] = CONTEXT
    assert parts_of(attempt, Grid(2, 4)) == 2
    attempt[:] = CONTEXT
    attempt[:, 5:] = 1
    for grid in (Grid(2, 4), Grid(2, 4, 4, 2)):
        assert parts_of(attempt, grid) == 4


def parts_of(attempt, grid):
    return packing.packed(np.zeros_like(attempt), attempt, grid).parts


def test_what_samples_have_in_common_stands_once_in_a_row():
    """Two samples of 4 + 3 tokens, of which they share three, fill a row of 11, or one of 8 after 3."""
    attempt = np.full((8, 11), PADDING)
    attempt[:, 1:5], attempt[:, 5:8] = CONTEXT, 1
    tokens = np.arange(8)[:, None] // 2 * 100 + np.arange(11)
    found = packing.packed(tokens, attempt, Grid(2, 2))
    assert found.parts == 1
    assert found.places.tokens[0, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 18]
    assert found.places.common[0, 0].tolist() == [True] * 3 + [False] * 8
    shared = packing.packed(tokens, attempt, Grid(2, 2, 3, 2))
    assert (
        shared.parts == 2
    )  # a part has room for three problems: the third's prompt stands in both rows left
    rows = shared.places.tokens[0].reshape(2, 3 + 2 * 8)
    other = [45, 46, 47, 48, 49, 50, 51, -1]  # of the third problem, its prompt anew
    assert rows[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 18, *other]


def test_unlike_prompts_are_not_taken_for_one():
    attempt = np.array([[0, 0, 0, 1, 1]] * 4)
    tokens = np.arange(20).reshape(4, 5)
    assert not packing.packed(tokens, attempt, Grid(2, 2)).places.common.any()
    for parts in (1, 2):
        with pytest.raises(ValueError, match="problem 0 of the batch do not begin with the same prompt"):
            packing.packed(tokens, attempt, Grid(2, parts, 2, 2))


def test_the_fullest_row_that_has_room_is_taken():
    attempt = np.full((4, 10), PADDING)
    for row, count in enumerate((6, 9, 4, 1)):
        attempt[row, :count] = 1
    found = packing.packed(attempt, attempt, Grid(1, 2)).places.tokens[0]
    assert [set((row[row >= 0] // 10).tolist()) for row in found] == [{1, 3}, {0, 2}]


PROMPT = tiny.SLOTS.prompt - 1
SHARING = {"in rows": {}, "before rows": {"prompt": PROMPT, "group": 2}}


@functools.cache
def roomy():
    """`test_step`'s batch, where both samples of a problem have one prompt, in slots of twice the length, so
    that rows have room for two."""
    few = experience()
    wide = lambda x, empty: jnp.pad(x, ((0, 0), (0, x.shape[1])), constant_values=empty)
    one = lambda x: x.at[:, : PROMPT + 1].set(jnp.repeat(x[::2, : PROMPT + 1], 2, axis=0))
    episodes = Episodes(
        wide(one(few.episodes.tokens), tiny.PAD),
        wide(one(few.episodes.attempt), PADDING),
        wide(few.episodes.logp, 0.0),
    )
    return few.replace(episodes=episodes, decisive=wide(few.decisive, 0.0))


def train(learner, arrangement, objective=OBJECTIVE):
    put = putting(learner.mesh) if learner.mesh else lambda *both: both
    state, data = put(OPTIMIZER.init(tiny.copy(PARAMS)), roomy())
    rate = jnp.float32(1e-2)
    return step.train_step(state, {}, REF_PARAMS, data, objective, rate, arrangement, learner=learner)


def arranged(learner):
    episodes = roomy().episodes
    written = np.asarray(episodes.tokens), np.asarray(episodes.attempt)
    return packing.packed(*written, learner.grid)


@pytest.mark.parametrize("prompt", SHARING)
@pytest.mark.parametrize(
    "changes",
    [
        {"kl_estimator": "k1"},
        {"kl_estimator": "k3", "remat": True},
        {"kl_estimator": "full"},
        {"reference": False},
    ],
    ids=str,
)
def test_an_update_of_packed_rows_is_that_of_the_batch_as_it_stands(changes, prompt):
    learner = dataclasses.replace(LEARNER, micro_batches=4, **SHARING[prompt], **changes)
    objective = OBJECTIVE if learner.reference else OBJECTIVE.replace(kl_coef=np.zeros(2))
    assert arranged(learner).parts == 2
    whole = dataclasses.replace(learner, micro_batches=1, prompt=0, group=1)
    assert_same_update(train(learner, arranged(learner), objective), train(whole, None, objective), rtol=1e-3)


@pytest.mark.parametrize(
    ("prompt", "parts", "devices"),
    [
        ("in rows", 2, (2, 2, 2)),
        ("before rows", 1, (2, 2, 2)),
        ("before rows", 2, (2, 1, 2)),
        ("before rows", 2, (1, 2, 1)),
    ],
)
def test_on_several_devices_too(prompt, parts, devices):
    learner = dataclasses.replace(LEARNER, micro_batches=parts, mesh=tiny.mesh(*devices), **SHARING[prompt])
    alone = dataclasses.replace(learner, mesh=None, micro_batches=1, prompt=0, group=1)
    standing = as_it_stands(*roomy().episodes.tokens.shape, learner.grid)
    for arrangement in (standing, arranged(learner)):
        assert_same_update(train(learner, arrangement), train(alone, None), rtol=1e-3)


@pytest.mark.parametrize("prompt", SHARING)
def test_another_arrangement_compiles_nothing(prompt):
    learner = dataclasses.replace(LEARNER, micro_batches=4, **SHARING[prompt])
    train(learner, arranged(learner))
    before = step.train_step._cache_size()
    other = as_it_stands(*roomy().episodes.tokens.shape, learner.grid)
    assert_same_update(train(learner, other), train(learner, arranged(learner)), rtol=1e-3)
    assert step.train_step._cache_size() == before


def test_parts_that_hold_nothing_are_not_done():
    learner = dataclasses.replace(LEARNER, micro_batches=4)
    full = arranged(learner)
    first = full.replace(parts=np.array(1, np.int32))
    assert float(train(learner, full.replace(parts=np.array(0, np.int32)))[1]["grad_norm"]) == 0
    assert float(train(learner, first)[1]["loss"]) != float(train(learner, full)[1]["loss"])


@pytest.mark.parametrize(
    ("gemma", "devices", "micro_batches", "group"),
    [
        ("gemma3", (1, 1, 1), 8, 4), ("gemma2", (2, 2, 2), 2, 4), ("gemma3", (8, 1, 1), 2, 2),
        ("gemma3", (8, 1, 1), 4, 1), ("gemma4", (1, 1, 1), 1, 1),
    ],
)  # fmt: skip
def test_a_run_shares_prompts_among_as_many_as_its_mesh_allows(gemma, devices, micro_batches, group):
    config = quickstart.get_config()
    config.update({"problems_per_step": 8, "samples_per_problem": 4, "micro_batches": micro_batches})
    learner = rl.learner_of(config, config.stage2, tiny.FAMILIES[gemma], tiny.mesh(*devices))
    expected = config.slots.prompt - 1 if group > 1 else 0
    assert learner.grid == Grid(4, micro_batches, expected, group)
