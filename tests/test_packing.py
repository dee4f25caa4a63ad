"""Several episodes in a row: what stands where, and that an update does not notice."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
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
from score_jax.types import CONTEXT, PADDING, Episodes


@st.composite
def batches(draw):
    """`attempt`, K and M; any tokens may be missing, but never all of an episode's."""
    samples, parts, problems = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rng, length = np.random.default_rng(draw(st.integers(0, 999))), draw(st.integers(1, 12))
    shape = (samples * parts * problems, length)
    attempt = np.where(rng.random(shape) < draw(st.sampled_from([0.2, 0.5, 1.0])), CONTEXT, PADDING)
    attempt[np.arange(shape[0]), rng.integers(0, length, shape[0])] = CONTEXT
    return attempt, samples, parts


@settings(max_examples=200, deadline=None)
@given(batches())
def test_every_token_stands_once_in_order_beside_its_problem(batch):
    attempt, samples, parts = batch
    found = packing.packed(attempt, samples, parts)
    count, length = attempt.shape
    assert found.places.shape == (parts, count // parts, length) and 1 <= found.parts <= parts
    assert (found.places[found.parts :] == -1).all()
    stands = found.places[found.places >= 0]
    if parts > 1:
        assert sorted(stands) == np.flatnonzero(attempt != PADDING).tolist()
    part_of = {}
    for part, row in np.ndindex(*found.places.shape[:2]):
        here = found.places[part, row][found.places[part, row] >= 0]
        episodes = here // length
        assert (np.diff(np.flatnonzero(np.diff(episodes, prepend=-1))) > 0).all()
        for episode in set(episodes.tolist()):
            mine = np.flatnonzero(episodes == episode)
            assert (np.diff(mine) == 1).all() and (np.diff(here[mine]) > 0).all()
            assert part_of.setdefault(episode // samples, part) == part


def test_short_episodes_take_fewer_parts_and_full_ones_all():
    attempt = np.full((16, 10), PADDING)
    attempt[:, 2:7] = CONTEXT
    assert packing.packed(attempt, 2, 4).parts == 2
    attempt[:] = CONTEXT
    assert packing.packed(attempt, 2, 4).parts == 4


def test_the_fullest_row_that_has_room_is_taken():
    attempt = np.full((4, 10), PADDING)
    for row, count in enumerate((6, 9, 4, 1)):
        attempt[row, :count] = CONTEXT
    rows = [set((row[row >= 0] // 10).tolist()) for row in packing.packed(attempt, 1, 2).places[0]]
    assert rows == [{1, 3}, {0, 2}]


@given(batches())
@settings(max_examples=50, deadline=None)
def test_what_is_taken_comes_back(batch):
    attempt, samples, parts = batch
    x = np.random.default_rng(0).normal(size=attempt.shape).astype(np.float32)
    found, back = packing.packed(attempt, samples, parts), np.zeros(x.shape, np.float32)
    for places in jnp.asarray(found.places):
        taken = packing.take(x, places, 7)
        assert (np.asarray(taken)[np.asarray(places) == -1] == 7).all()
        back += np.asarray(packing.put_back(taken, places, len(x)))
    np.testing.assert_array_equal(back, np.where(attempt == PADDING, 0, x) if parts > 1 else x)


@functools.cache
def roomy():
    """`test_step`'s batch in slots of twice the length, so that rows have room for two."""
    few = experience()
    wide = lambda x, empty: jnp.pad(x, ((0, 0), (0, x.shape[1])), constant_values=empty)
    episodes = Episodes(
        *map(wide, (few.episodes.tokens, few.episodes.attempt, few.episodes.logp), (tiny.PAD, PADDING, 0.0))
    )
    return few.replace(episodes=episodes, decisive=wide(few.decisive, 0.0))


def train(learner, arrangement, objective=OBJECTIVE):
    put = putting(learner.mesh) if learner.mesh else lambda *both: both
    state, data = put(OPTIMIZER.init(tiny.copy(PARAMS)), roomy())
    rate = jnp.float32(1e-2)
    return step.train_step(state, {}, REF_PARAMS, data, objective, rate, arrangement, learner=learner)


def arranged(learner):
    return packing.packed(np.asarray(roomy().episodes.attempt), learner.samples, learner.micro_batches)


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
def test_an_update_of_packed_rows_is_that_of_the_batch_as_it_stands(changes):
    learner = dataclasses.replace(LEARNER, micro_batches=4, **changes)
    objective = OBJECTIVE if learner.reference else OBJECTIVE.replace(kl_coef=np.zeros(2))
    assert arranged(learner).parts == 2
    whole = dataclasses.replace(learner, micro_batches=1)
    assert_same_update(train(learner, arranged(learner), objective), train(whole, None, objective))


def test_on_eight_devices_too():
    learner = dataclasses.replace(LEARNER, micro_batches=2, mesh=tiny.mesh(2, 2, 2))
    alone = dataclasses.replace(learner, mesh=None)
    assert arranged(learner).parts == 1
    assert_same_update(train(learner, arranged(learner)), train(alone, None))


def test_another_arrangement_compiles_nothing():
    learner = dataclasses.replace(LEARNER, micro_batches=4)
    train(learner, arranged(learner))
    before = step.train_step._cache_size()
    other = packing.as_it_stands(*roomy().episodes.tokens.shape, learner.samples, 4)
    assert_same_update(train(learner, other), train(learner, arranged(learner)))
    assert step.train_step._cache_size() == before


def test_parts_that_hold_nothing_are_not_done():
    learner = dataclasses.replace(LEARNER, micro_batches=4)
    full = arranged(learner)
    first = full.replace(parts=np.array(1, np.int32))
    assert float(train(learner, full.replace(parts=np.array(0, np.int32)))[1]["grad_norm"]) == 0
    assert float(train(learner, first)[1]["loss"]) != float(train(learner, full)[1]["loss"])
