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

from score_jax import packing, step
from score_jax.places import as_it_stands
from score_jax.types import CONTEXT, PADDING, Episodes


def test_short_episodes_take_fewer_parts_and_full_ones_all():
    attempt = np.full((16, 10), PADDING)
    attempt[:, 2:7] = CONTEXT
    assert parts_of(attempt, 2, 4) == 2
    attempt[:] = CONTEXT
    attempt[:, 1:] = 1
    assert parts_of(attempt, 2, 4) == 4


def parts_of(attempt, *how):
    return packing.packed(np.zeros_like(attempt), attempt, *how).parts


def test_what_samples_have_in_common_stands_once_in_a_row():
    """Two samples of 4 + 3 tokens, three of the four alike, fill a row of 11 places or one of 8 after 3."""
    attempt = np.full((8, 11), PADDING)
    attempt[:, 1:5], attempt[:, 5:8] = CONTEXT, 1
    tokens = np.arange(8)[:, None] // 2 * 100 + np.arange(11)
    found = packing.packed(tokens, attempt, 2, 2)
    assert found.parts == 1
    assert found.places.tokens[0, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 18]
    assert found.places.common[0, 0].tolist() == [True] * 3 + [False] * 8
    shared = packing.packed(tokens, attempt, 2, 2, prompt=3)
    assert shared.parts == 2  # a part has room for three of the prompts: before its rows, and in one of them
    rows = shared.places.tokens[0].reshape(2, 3 + 2 * 8)
    other = [45, 46, 47, 48, 49, 50, 51, -1]  # of the third problem, its prompt anew
    assert rows[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 18, *other]


def test_unlike_prompts_are_not_taken_for_one():
    attempt = np.array([[0, 0, 0, 1, 1]] * 4)
    tokens = np.arange(20).reshape(4, 5)
    assert not packing.packed(tokens, attempt, 2, 2).places.common.any()
    for parts in (1, 2):
        with pytest.raises(ValueError, match="problem 0 of the batch do not begin with the same prompt"):
            packing.packed(tokens, attempt, 2, parts, prompt=2)


def test_the_fullest_row_that_has_room_is_taken():
    attempt = np.full((4, 10), PADDING)
    for row, count in enumerate((6, 9, 4, 1)):
        attempt[row, :count] = 1
    found = packing.packed(attempt, attempt, 1, 2).places.tokens[0]
    assert [set((row[row >= 0] // 10).tolist()) for row in found] == [{1, 3}, {0, 2}]


PROMPT = tiny.SLOTS.prompt - 1  # S, where prompts are shared


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
    return packing.packed(*written, learner.samples, learner.micro_batches, learner.prompt)


@pytest.mark.parametrize("prompt", [0, PROMPT])
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
    learner = dataclasses.replace(LEARNER, micro_batches=4, prompt=prompt, **changes)
    objective = OBJECTIVE if learner.reference else OBJECTIVE.replace(kl_coef=np.zeros(2))
    assert arranged(learner).parts == 2
    whole = dataclasses.replace(learner, micro_batches=1, prompt=0)
    assert_same_update(train(learner, arranged(learner), objective), train(whole, None, objective))


@pytest.mark.parametrize(("prompt", "micro_batches"), [(0, 2), (PROMPT, 1), (PROMPT, 2)])
def test_on_eight_devices_too(prompt, micro_batches):
    learner = dataclasses.replace(
        LEARNER, micro_batches=micro_batches, mesh=tiny.mesh(2, 2, 2), prompt=prompt
    )
    alone = dataclasses.replace(learner, mesh=None, prompt=0)
    assert arranged(learner).parts == 1
    assert_same_update(train(learner, arranged(learner)), train(alone, None))


@pytest.mark.parametrize("prompt", [0, PROMPT])
def test_another_arrangement_compiles_nothing(prompt):
    learner = dataclasses.replace(LEARNER, micro_batches=4, prompt=prompt)
    train(learner, arranged(learner))
    before = step.train_step._cache_size()
    other = as_it_stands(*roomy().episodes.tokens.shape, learner.samples, 4, prompt)
    assert_same_update(train(learner, other), train(learner, arranged(learner)))
    assert step.train_step._cache_size() == before


def test_parts_that_hold_nothing_are_not_done():
    learner = dataclasses.replace(LEARNER, micro_batches=4)
    full = arranged(learner)
    first = full.replace(parts=np.array(1, np.int32))
    assert float(train(learner, full.replace(parts=np.array(0, np.int32)))[1]["grad_norm"]) == 0
    assert float(train(learner, first)[1]["loss"]) != float(train(learner, full)[1]["loss"])
