"""The sampler against a loop that runs the plain forward pass anew for every token."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import tiny

from score_jax import decoding, hlo, mesh, policy, sampling
from score_jax.slots import Slots
from score_jax.types import CONTEXT, PADDING

VOCAB, PAD, EOS = 5, 0, 1
ROWS = 8
SLOTS = Slots(prompt=5, attempt=12, instruction=(2, 3, 4), attempts=2)
CRITIQUED = dataclasses.replace(SLOTS, critique=7, feedback=(4, 2))

# What is to be sampled, by hand: the instruction before it, its place, and whose it is.
TURNS = {
    SLOTS: [((), 5, 17, 1), ((2, 3, 4), 20, 32, 2)],
    CRITIQUED: [((), 5, 17, 1), ((4, 2), 19, 26, 2), ((2, 3, 4), 29, 41, 2)],
}


@functools.cache
def params() -> dict:
    """Small logits over few tokens, so that attempts end early."""
    params = tiny.params(VOCAB)
    return params | {"embedder": {"input_embedding": params["embedder"]["input_embedding"] * 0.4}}


def prompts(seed: int = 7) -> np.ndarray:
    """Ragged ones: row i has 1 + i % 5 tokens."""
    tokens = np.random.default_rng(seed).integers(2, VOCAB, (ROWS, SLOTS.prompt)).astype(np.int32)
    padding = SLOTS.prompt - 1 - np.arange(ROWS) % SLOTS.prompt
    return np.where(np.arange(SLOTS.prompt) < padding[:, None], PAD, tokens)


def keys(seed: int = 18):
    return jax.random.split(jax.random.key(seed), ROWS)


def sample(tokens, row_keys, temperature: float = 1.0, attempts: int = 2, slots: Slots = SLOTS, devices=None):
    slots = dataclasses.replace(slots, attempts=attempts)
    weights = mesh.place(params(), devices) if devices else params()
    args = (tiny.model(VOCAB), weights, tokens, row_keys)
    return sampling.sample(*args, slots=slots, temperature=temperature, pad=PAD, end=EOS, mesh=devices)


def sample_anew(tokens, row_keys, temperature: float, slots: Slots = SLOTS):
    """Tokens and their writers, row by row; every token from a forward pass over all that came before."""
    rows = [[int(token) for token in row if token != PAD] for row in tokens]
    episodes = [[(token, CONTEXT) for token in row] for row in rows]
    for instruction, start, stop, number in TURNS[slots]:
        for episode in episodes:
            episode += [(token, CONTEXT) for token in instruction]
        going = set(range(ROWS))
        for at in range(start, stop):
            buffer = np.full((ROWS, TURNS[slots][-1][2]), PAD, np.int32)
            for row, episode in enumerate(episodes):
                buffer[row, : len(episode)] = [token for token, _ in episode]
            last = [len(episode) - 1 for episode in episodes]
            logits = tiny.logits(tiny.model(VOCAB), params(), buffer)[np.arange(ROWS), last]
            token = np.argmax(logits, axis=-1)
            if temperature > 0:
                keys_here = jax.vmap(lambda key, at=at: jax.random.fold_in(key, at))(row_keys)
                until = np.cumsum(np.exp(tiny.log_softmax(logits, temperature)), axis=-1)
                drawn = zip(until, np.asarray(jax.vmap(jax.random.uniform)(keys_here)), strict=True)
                token = [np.searchsorted(row, number, side="right") for row, number in drawn]
            for row in sorted(going):
                episodes[row].append((int(token[row]), number))
            going = {row for row in going if token[row] != EOS}
    return episodes


@pytest.mark.parametrize(
    ("temperature", "slots"), [(1.0, SLOTS), (0.7, SLOTS), (0.0, SLOTS), (1.0, CRITIQUED), (0.0, CRITIQUED)]
)
def test_the_cache_changes_nothing(temperature, slots):
    """Same tokens as without a cache, with ragged prompts, rows that end apart, and slots left early."""
    tokens, row_keys = prompts(), keys()
    episodes = sample(tokens, row_keys, temperature, slots=slots)
    assert episodes.tokens.shape == (ROWS, TURNS[slots][-1][2])
    expected = sample_anew(tokens, row_keys, temperature, slots)
    for row, episode in enumerate(expected):
        here = episodes.attempt[row] != PADDING
        found = zip(episodes.tokens[row][here].tolist(), episodes.attempt[row][here].tolist(), strict=True)
        assert list(found) == episode


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_those_samples_do_end_apart_and_leave_a_slot_early(temperature):
    """What makes the test above worth something."""
    attempt = np.asarray(sample(prompts(), keys(), temperature).attempt)
    lengths = np.stack([(attempt == number).sum(axis=1) for number in (1, 2)], axis=1)
    assert len(set(lengths[:, 0])) > 2
    assert lengths[:, 0].max() < SLOTS.attempt  # no row needed all of the first slot: the loop left it
    assert lengths[:, 1].max() == SLOTS.attempt


@pytest.mark.parametrize(
    ("attempts", "temperature", "slots"),
    [*((n, t, SLOTS) for n in (1, 2, 3) for t in (1.0, 0.7)), (3, 0.7, CRITIQUED)],
)
def test_the_sampler_and_the_scorer_agree(attempts, temperature, slots):
    episodes = sample(prompts(14), keys(14), temperature, attempts, slots)
    scores = policy.score_episodes(tiny.model(VOCAB), params(), episodes, temperature=temperature, chunk=8)
    assert set(np.unique(episodes.attempt)) == {PADDING, *range(attempts + 1)}
    np.testing.assert_allclose(episodes.logp, scores.logp, atol=1e-5)
    assert (np.asarray(episodes.logp)[episodes.attempt > CONTEXT] < 0).all()


def test_greedy_log_probabilities_are_those_of_temperature_1():
    episodes = sample(prompts(), keys(), 0.0)
    log_p, attempt, tokens = tiny.distributions(tiny.model(VOCAB), params(), episodes)
    _, logp = tiny.move_left(episodes.attempt, episodes.logp)
    expected = np.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
    np.testing.assert_allclose(logp[attempt > 0], expected[attempt > 0], atol=1e-5)


@pytest.mark.parametrize("slots", [SLOTS, CRITIQUED], ids=["attempts", "critiques"])
def test_the_last_rows_go_on_alone_and_sample_the_same(slots, monkeypatch):
    expected = sample(prompts(), keys(), slots=slots)
    monkeypatch.setattr(decoding, "_LONG", 1)
    how = {"slots": slots, "temperature": 1.0, "pad": PAD, "end": EOS}
    alone = jax.jit(lambda *args: sampling.sample.__wrapped__(tiny.model(VOCAB), *args, **how))
    loops = str(jax.make_jaxpr(alone)(params(), prompts(), keys())).count("while[")
    found = alone(params(), prompts(), keys())
    assert loops == 2 * len(slots.segments)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.attempt, expected.attempt)
    np.testing.assert_allclose(found.logp, expected.logp, atol=1e-5)


def test_no_token_copies_a_cache_or_turns_a_kernel():
    args = (tiny.model(VOCAB), params(), prompts(), keys())
    how = {"slots": SLOTS, "temperature": 1.0, "pad": PAD, "end": EOS, "mesh": None}
    program = sampling.sample.lower(*args, **how).compile()
    computations = hlo.read(program.as_text()).computations
    instructions = [i for computation in computations.values() for i in computation.values()]
    bodies = [computations[i.called("body")] for i in instructions if i.opcode == "while"]
    loops = [body for body in bodies if len(body) > 50]  # and not the keys', within them
    head_width, kernel = 8, params()["layer_0"]["mlp"]["gating_einsum"]  # the largest
    sizes = {kernel.size} | {ROWS * stop * head_width for _, _, stop, _ in TURNS[SLOTS]}
    moved = {
        (i.name, i.shapes)
        for loop in loops
        for i in loop.values()
        if re.search("copy|transpose", i.name) and np.prod(i.shapes[0].dims) in sizes
    }
    assert len(loops) == 2 and not moved


def test_layout():
    """[prompt | attempt 1 | instruction | attempt 2]; an attempt stops with its end token or its slot."""
    tokens, attempt, logp = (np.asarray(x) for x in jax.tree.leaves(sample(prompts(), keys())))
    assert tokens.shape == (ROWS, 5 + 12 + 3 + 12)
    np.testing.assert_array_equal(tokens[:, :5], prompts())
    np.testing.assert_array_equal(attempt[:, :5], np.where(prompts() == PAD, PADDING, CONTEXT))
    np.testing.assert_array_equal(tokens[:, 17:20], np.tile(SLOTS.instruction, (ROWS, 1)))
    assert (attempt[:, 17:20] == CONTEXT).all()
    full = 0
    for number, start in ((1, 5), (2, 20)):
        for row in range(ROWS):
            slot = slice(start, start + 12)
            length = int((attempt[row, slot] == number).sum())
            assert attempt[row, slot].tolist() == [number] * length + [PADDING] * (12 - length)
            assert EOS not in tokens[row, slot][: length - 1]
            assert (tokens[row, slot][length:] == PAD).all()
            assert not logp[row, slot][length:].any()
            if length < 12:
                assert tokens[row, slot][length - 1] == EOS
            full += length == 12 and tokens[row, slot][-1] != EOS
    assert full > 0  # some ran out of their slot
    assert not logp[attempt <= CONTEXT].any()


def test_slots():
    slots = Slots(prompt=5, attempt=10, instruction=(2, 3, 4), attempts=3)
    assert slots.length == 5 + 10 + 3 + 10 + 3 + 10
    assert [slots.start(number) for number in (1, 2, 3)] == [5, 18, 31]


def test_slots_with_critiques():
    """[prompt 5 | attempt 10 | feedback 2 | critique 6 | instruction 3 | attempt 10 | ...]."""
    slots = Slots(prompt=5, attempt=10, instruction=(2, 3, 4), attempts=3, critique=6, feedback=(8, 9))
    assert slots.length == 5 + 10 + (2 + 6 + 3) + 10 + (2 + 6 + 3) + 10
    assert [slots.start(number) for number in (1, 2, 3)] == [5, 26, 47]
    found = [dataclasses.astuple(segment) for segment in slots.segments]
    assert found == [
        ((), 5, 15, 1, False),
        ((8, 9), 17, 23, 2, True),
        ((2, 3, 4), 26, 36, 2, False),
        ((8, 9), 38, 44, 3, True),
        ((2, 3, 4), 47, 57, 3, False),
    ]


@pytest.mark.parametrize(("critique", "feedback"), [(6, ()), (0, (8, 9))])
def test_a_critique_needs_tokens_and_an_instruction(critique, feedback):
    with pytest.raises(ValueError, match=f"Slots.critique = {critique} .* {len(feedback)} tokens .* neither"):
        Slots(5, 10, (2, 3, 4), 2, critique, feedback)


def test_layout_with_a_critique():
    tokens, attempt, logp = (
        np.asarray(x) for x in jax.tree.leaves(sample(prompts(), keys(), slots=CRITIQUED))
    )
    np.testing.assert_array_equal(tokens[:, 17:19], np.tile((4, 2), (ROWS, 1)))
    np.testing.assert_array_equal(tokens[:, 26:29], np.tile((2, 3, 4), (ROWS, 1)))
    assert (attempt[:, 17:19] == CONTEXT).all() and (attempt[:, 26:29] == CONTEXT).all()
    assert not logp[:, 17:19].any() and not logp[:, 26:29].any()
    lengths = [(attempt[:, start:stop] == 2).sum(axis=1) for start, stop in ((19, 26), (29, 41))]
    assert min(lengths[0]) < max(lengths[0]) == 7  # some end by themselves, some with their slot
    assert (attempt == 2).sum() == sum(map(sum, lengths))
    np.testing.assert_array_equal(tokens[:, :17], sample(prompts(), keys()).tokens[:, :17])  # turn 1 as ever


def test_another_temperature_compiles_nothing():
    sample(prompts(), keys(), 1.0)
    before = sampling.sample._cache_size()
    warm, cold = (sample(prompts(), keys(), temperature) for temperature in (1.3, 0.2))
    assert sampling.sample._cache_size() == before
    assert np.any(warm.tokens != cold.tokens)


def test_a_row_depends_on_its_own_prompt_and_key_alone():
    tokens, row_keys = prompts(), keys()
    expected = sample(tokens, row_keys)
    order = np.random.default_rng(0).permutation(ROWS)
    moved = sample(tokens[order], row_keys[order])
    np.testing.assert_array_equal(moved.tokens, expected.tokens[order])
    np.testing.assert_array_equal(moved.attempt, expected.attempt[order])
    others = sample(
        np.where(np.arange(ROWS)[:, None] == 3, tokens, prompts(5)),
        jnp.where(jnp.arange(ROWS) == 3, row_keys, keys(5)),
    )
    np.testing.assert_array_equal(others.tokens[3], expected.tokens[3])
    assert np.any(others.tokens != expected.tokens)


@pytest.mark.parametrize("sizes", tiny.SPLIT.values(), ids=tiny.SPLIT)
def test_eight_devices_sample_what_one_does(sizes):
    tokens, row_keys, devices = prompts(), keys(), tiny.mesh(*sizes)
    one = sample(tokens, row_keys)
    spread = sample(*jax.device_put((tokens, row_keys), mesh.by_row(devices)), devices=devices)
    assert len(spread.tokens.sharding.device_set) == 8
    np.testing.assert_array_equal(spread.tokens, one.tokens)
    np.testing.assert_array_equal(spread.attempt, one.attempt)
    np.testing.assert_allclose(spread.logp, one.logp, atol=1e-5)


@pytest.mark.parametrize("slots", [SLOTS, CRITIQUED])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_prompt_is_computed_once_for_its_samples_and_they_are_the_same(count, slots):
    tokens, row_keys = prompts()[:count], keys()
    each = np.repeat(tokens, ROWS // count, axis=0)
    together, apart = (sample(asked, row_keys, slots=slots) for asked in (tokens, each))
    np.testing.assert_array_equal(together.tokens, apart.tokens)
    np.testing.assert_array_equal(together.attempt, apart.attempt)
    np.testing.assert_allclose(together.logp, apart.logp, atol=1e-5)


def test_prompts_on_eight_devices_are_computed_once_each():
    devices = tiny.mesh(2, 2, 2)
    tokens, row_keys = prompts()[:4], keys()
    spread = sample(*jax.device_put((tokens, row_keys), mesh.by_row(devices)), devices=devices)
    np.testing.assert_array_equal(spread.tokens, sample(tokens, row_keys).tokens)
    assert len(spread.tokens.sharding.device_set) == 8


@pytest.mark.parametrize("size", [7, 1000, 50_000])
def test_the_number_drawn_is_always_within_the_tokens_that_are_possible(size, monkeypatch):
    """Also where it is the least or the greatest that there is."""
    rng = np.random.default_rng(size)
    p = rng.exponential(size=(16, size)).astype(np.float32)
    p[:, [0, size // 2, size - 1]] = 0
    p /= p.sum(axis=-1, keepdims=True) * rng.uniform(0.999, 1.001, (16, 1)).astype(np.float32)
    greatest = np.nextafter(np.float32(1), np.float32(0)) - np.finfo(np.float32).epsneg  # 23 bits are drawn
    row_keys = jax.random.split(jax.random.key(0), 16)
    for number, token in ((0.0, 1), (greatest, size - 2)):
        monkeypatch.setattr(jax.random, "uniform", lambda key, number=number: jnp.float32(number))
        drawn = np.asarray(decoding._inverse_transform(jnp.asarray(p), row_keys))
        assert np.all(p[np.arange(16), drawn] > 0)
        assert np.all(np.abs(drawn - token) <= max(2, size // 1000))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_draw_follows_the_softmax(temperature):
    draws = 20_000
    logits = np.random.default_rng(0).normal(size=VOCAB).astype(np.float32)
    logp = tiny.log_softmax(logits, temperature)
    token, drawn_logp = decoding.draw(
        jnp.tile(logits, (draws, 1)), jax.random.split(jax.random.key(0), draws), temperature
    )
    counts = np.bincount(token, minlength=VOCAB)
    assert scipy.stats.chisquare(counts, draws * np.exp(logp)).pvalue > 0.01
    np.testing.assert_allclose(drawn_logp, logp[np.asarray(token)], atol=1e-5)
