"""Several episodes in a row: what stands where, and who sees it."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax.packing import packed
from score_jax.places import Grid, as_it_stands
from score_jax.slots import Slots
from score_jax.types import CONTEXT, PADDING


def batch(samples, problems, seed, slots=tiny.SLOTS):
    """Tokens and attempts of random episodes; those of a problem have one prompt."""
    episodes = tiny.transcripts(samples * problems, slots, seed=seed)
    tokens, attempt = np.array(episodes.tokens), np.array(episodes.attempt)
    for x in (tokens, attempt):
        x[:, : slots.prompt] = np.repeat(x[::samples, : slots.prompt], samples, axis=0)
    return tokens, attempt


DRAWN = st.fixed_dictionaries(
    {
        "samples": st.integers(1, 3),
        "parts": st.integers(1, 4),
        "problems": st.integers(1, 3),  # to a part
        "attempts": st.integers(1, 2),
        "prompt": st.sampled_from([1, 2, 5, 9]),
        "attempt": st.integers(1, 6),
        "group": st.integers(1, 3),
        "given": st.booleans(),  # the first of two attempts, the same to all samples
        "shares": st.booleans(),
        "stands": st.booleans(),
        "seed": st.integers(0, 999),
    }
)


def packing_of(samples, parts, problems, attempts, prompt, attempt, group, given, shares, stands, seed):
    """A batch's tokens and attempts, and its packing in one of several ways."""
    slots = Slots(prompt, attempt, (7, 8, 9)[:attempts], attempts)
    tokens, who = batch(samples, parts * problems, seed, slots)
    if given and attempts == 2:
        until = slots.segments[1].start
        for x in (tokens, who):
            x[:, :until] = np.repeat(x[::samples, :until], samples, axis=0)
        who[:, :until] = np.minimum(who[:, :until], CONTEXT)
    group = group if shares and not samples % group else 1
    grid = Grid(samples, parts, prompt - 1 if group > 1 else 0, group)
    return tokens, who, as_it_stands(*who.shape, grid) if stands else packed(tokens, who, grid)


def by_part(packing):
    return [packing.places.part(number) for number in range(len(packing.places.tokens))]


@settings(max_examples=150, deadline=None)
@given(DRAWN)
def test_a_token_sees_its_own_episode_up_to_itself_and_nothing_else(drawn):
    tokens, attempt, packing = packing_of(**drawn)
    samples, length, read = drawn["samples"], attempt.shape[1], []
    for places in by_part(packing):
        valid = places.take(attempt, PADDING) != PADDING
        seen, index = np.asarray(places.seen(valid)), np.asarray(places.tokens)
        prompt, width = places.prompt, length - places.prompt
        for row, at in np.ndindex(*index.shape):
            if not valid[row, at]:
                continue
            own = prompt + max(at - prompt, 0) // width * width
            sight = np.concatenate([index[row, :prompt], index[row, own : own + width]])
            found = sight[seen[row, at]]
            episode, place = divmod(int(index[row, at]), length)
            assert found[-1] == index[row, at]
            assert np.isin(found // length, [episode, episode // samples * samples]).all()
            before = np.flatnonzero(attempt[episode, : place + 1] != PADDING)
            np.testing.assert_array_equal(found % length, before)
            np.testing.assert_array_equal(tokens.ravel()[found], tokens[episode, before])
            if at >= prompt and attempt[episode, place] > CONTEXT:
                read.append(int(index[row, at]))
    assert sorted(read) == np.flatnonzero(attempt > CONTEXT).tolist()


@settings(max_examples=50, deadline=None)
@given(DRAWN)
def test_what_is_taken_comes_back(drawn):
    _, attempt, packing = packing_of(**drawn)
    x = np.random.default_rng(0).normal(size=attempt.shape).astype(np.float32)
    back = np.zeros(x.shape, np.float32)
    for places in by_part(packing):
        taken = places.take(x, 7)
        assert (np.asarray(taken)[np.asarray(places.tokens) == -1] == 7).all()
        sampled = jnp.where(places.take(attempt, PADDING) > CONTEXT, taken, 0)
        back += np.asarray(places.put_back(places.rows(sampled), len(x)))
    np.testing.assert_array_equal(back, np.where(attempt > CONTEXT, x, 0))


@settings(max_examples=100, deadline=None)
@given(DRAWN)
def test_problems_stay_whole_and_parts_that_hold_nothing_come_last(drawn):
    _, attempt, packing = packing_of(**drawn)
    tokens, length = np.asarray(packing.places.tokens), attempt.shape[1]
    assert 1 <= packing.parts <= drawn["parts"]
    assert (tokens[packing.parts :] == -1).all()
    assert (tokens[: packing.parts] >= 0).any(axis=(1, 2)).all()
    home: dict[int, int] = {}
    for part, row, at in np.argwhere(tokens >= 0):
        assert home.setdefault(tokens[part, row, at] // length // drawn["samples"], part) == part


@pytest.mark.parametrize(("prompt", "group", "shape"), [(0, 1, (4, 12)), (4, 2, (2, 4 + 2 * 8))])
def test_as_it_stands_all_places_are_taken_once(prompt, group, shape):
    places = as_it_stands(8, 12, Grid(2, 2, prompt, group)).places
    assert places.tokens.shape == (2, *shape)
    kept = [e * 12 + i for e in range(8) for i in range(12) if e % 2 == 0 or i >= prompt]
    assert sorted(places.tokens.ravel()) == kept
    # Problems are dealt out.
    assert set((places.tokens[0] // 24).ravel().tolist()) == {0, 2}


def test_where_fewer_samples_share_it_a_prompt_stands_before_each_of_their_groups():
    places = as_it_stands(4, 6, Grid(4, 1, 2, 2)).places
    assert places.tokens[0, :, :2].tolist() == [[0, 1], [0, 1]]
    assert (places.tokens[0, :, 2:] // 6).tolist() == [[0] * 4 + [1] * 4, [2] * 4 + [3] * 4]
