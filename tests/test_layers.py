"""layers: what the gemma package's own layers compute, and their gradients, with less work."""

import contextlib
import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from gemma import gm

from score_jax import layers, model, policy
from score_jax.packing import packed
from score_jax.places import Grid, Places, as_it_stands
from score_jax.slots import Slots
from score_jax.types import CONTEXT, PADDING, Episodes

GEMMA3 = tiny.FAMILIES["gemma3"]
SHAPES = {
    "one key head": {},
    "two groups": {"num_heads": 4, "num_kv_heads": 2},
    "qkv in one": {"num_kv_heads": 2},
    "gating not transposed": {"transpose_gating_einsum": False},
    "interpolated positions": {"local_scale_factor": 2.0, "global_scale_factor": 8.0},
}
MODELS = {name: GEMMA3.clone(config=dataclasses.replace(GEMMA3.config, **s)) for name, s in SHAPES.items()}
MODELS |= {"adapters": model.with_adapters(GEMMA3, 3)}
MODELS |= {name: tiny.FAMILIES[name] for name in ("gemma2", "gemma4")}


def random_params(gemma):
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.array(rng.normal(scale=0.4, size=x.shape), x.dtype)
    return jax.tree.map(draw, model.shapes_of(gemma))


def gemmas_own(gemma, params, episodes: Episodes, episode):
    """The same hidden states by the package's modules, the mask spelled out row by row."""
    attempt, episode = np.asarray(episodes.attempt), None if episode is None else np.asarray(episode)
    rows, length = attempt.shape
    mask = np.zeros((rows, length, length), bool)
    for row, query, key in np.ndindex(*mask.shape):
        same = episode is None or episode[row, query] == episode[row, key]
        mask[row, query, key] = key <= query and attempt[row, key] != PADDING and same
    out = gemma.apply(
        {"params": params},
        episodes.tokens,
        positions=jnp.array(np.maximum(mask.sum(axis=-1) - 1, 0)),
        attention_mask=jnp.array(mask),
        return_hidden_states=True,
    )
    return out.hidden_states


def value_and_grads(states, gemma, params, episodes, episode):
    """The states that count and the gradient of a cubic of them."""
    here = np.asarray(episodes.attempt) != PADDING

    def loss(params):
        found = states(gemma, params, episodes, episode)[here]
        return jnp.sum(found**3), found

    return jax.jit(jax.grad(loss, has_aux=True))(params)


def ours(gemma, params, episodes, episode):
    places, length = None, episodes.tokens.shape[1]
    if episode is not None:
        index = jnp.where(episode < 0, -1, episode * length + jnp.arange(length))
        places = Places(index, jnp.zeros(index.shape, bool), samples=1, length=length, prompt=0)
    return policy.hidden_states(gemma, params, episodes.tokens, episodes.attempt, places=places)


def assert_alike(gemma, episodes, episode=None):
    params = random_params(gemma)
    (grads, states), (more_grads, more_states) = (
        value_and_grads(each, gemma, params, episodes, episode) for each in (ours, gemmas_own)
    )
    np.testing.assert_allclose(states, more_states, atol=2e-5)
    for one, two in zip(*map(jax.tree.leaves, (grads, more_grads)), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5 * float(jnp.abs(two).max()) + 1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_states_and_gradients_are_those_of_the_packages_modules(name):
    """Over two blocks that are not of a length, with padding in the rows and a window within them."""
    slots = Slots(prompt=40, attempt=45, instruction=(7, 8, 9), attempts=2)
    assert_alike(MODELS[name], tiny.transcripts(2, slots))


@pytest.mark.parametrize("length", [1, 96, 97, 290])
def test_rows_of_any_length_and_of_several_episodes(length):
    rng = np.random.default_rng(length)
    episode = np.sort(rng.integers(-1, 3, (2, length)), axis=1)[:, ::-1]
    episode[:, 0] = 2
    attempt = np.where(episode < 0, PADDING, 1)
    tokens = rng.integers(2, tiny.VOCAB, (2, length))
    rows = Episodes(*map(jnp.array, (tokens, attempt, np.zeros((2, length), np.float32))))
    assert_alike(GEMMA3, rows, jnp.array(episode))


@pytest.mark.parametrize("how", ["as it stands", "packed", "in rows"])
@pytest.mark.parametrize("name", MODELS)
def test_samples_that_share_a_prompt_have_the_states_that_they_have_alone(name, how):
    """The states of what was sampled, and the gradient of a cubic of them: three samples of two problems."""
    gemma, slots = MODELS[name], Slots(prompt=40, attempt=30, instruction=(7, 8, 9), attempts=2)
    params, episodes = random_params(gemma), tiny.transcripts(6, slots)
    wide = lambda x, empty: jnp.pad(x, ((0, 0), (0, 60)), constant_values=empty)  # room for both in one part
    one = lambda x: x.at[:, :40].set(jnp.repeat(x[::3, :40], 3, axis=0))
    tokens, attempt = wide(one(episodes.tokens), tiny.PAD), wide(one(episodes.attempt), PADDING)
    written = np.asarray(tokens), np.asarray(attempt)
    if how != "in rows" and not layers.share_prompts(gemma):
        pytest.skip("its attention runs as it is")
    before = {} if how == "in rows" else {"prompt": 39, "group": 3}
    standing = as_it_stands(*tokens.shape, Grid(3, 1, **before))
    arrangement = standing if how == "as it stands" else packed(*written, Grid(3, 2, **before))
    assert arrangement.parts == 1
    places = arrangement.places.part(0)

    def states(params, alone):
        if alone:
            return gemmas_own(gemma, params, Episodes(tokens, attempt, wide(episodes.logp, 0.0)), None)
        there = places.take(attempt, PADDING)
        return policy.hidden_states(gemma, params, places.take(tokens, 0), there, places=places)

    sampled = written[1] > CONTEXT
    rows = np.asarray(places.rows(jnp.asarray(places.tokens)))
    at = {int(token): where for where, token in np.ndenumerate(rows)}
    where = tuple(zip(*(at[token] for token in np.flatnonzero(sampled)), strict=True))

    def loss(params, alone):
        found = states(params, alone)
        found = found[sampled] if alone else places.rows(found)[where]
        return jnp.sum(found**3), found

    both = (jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(params, alone) for alone in (True, False))
    (grads, expected), (more_grads, found) = both
    np.testing.assert_allclose(found, expected, atol=2e-5)
    for one, two in zip(*map(jax.tree.leaves, (grads, more_grads)), strict=True):
        rtol = 5e-3 if one.size == 1 else 0  # of one number: a sum of large ones
        np.testing.assert_allclose(one, two, rtol, atol=1e-5 * float(jnp.abs(two).max()) + 1e-6)


def test_all_but_gemma_4_share_prompts():
    assert [name for name in MODELS if not layers.share_prompts(MODELS[name])] == ["gemma4"]
    assert not layers.share_prompts(gm.nn.Gemma3n_E4B())


def test_in_bfloat16_they_are_rounded_alike():
    gemma = GEMMA3.clone(dtype=jnp.bfloat16)
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_params(gemma))
    episodes = tiny.transcripts(4)
    here = np.asarray(episodes.attempt) != PADDING
    exact = gemmas_own(GEMMA3, jax.tree.map(jnp.float32, params), episodes, None)[here]
    own, mine = (each(gemma, params, episodes, None) for each in (gemmas_own, ours))
    assert own.dtype == mine.dtype == jnp.bfloat16
    error = lambda states: np.sqrt(np.mean(np.square(np.float32(states)[here] - exact)))
    assert 0 < error(mine) < 1.1 * error(own)


def test_what_no_token_sees_is_not_computed():
    """Three eighths of the operations are saved, forward and backward."""
    module = gm.nn.Attention(
        num_heads=2, num_kv_heads=1, features=4, head_dim=64, query_pre_attn_scalar=0.1,
        attn_type=gm.nn.AttentionType.GLOBAL,
    )  # fmt: skip
    length = 1024
    x, positions = jnp.ones((1, length, 4)), jnp.arange(length)[None]
    seen = jnp.tril(jnp.ones((1, length, length), bool))
    params = module.init(jax.random.key(0), x, positions, None, seen)

    def loss(params, here):
        with nn.intercept_methods(layers.over_transcripts()) if here else contextlib.nullcontext():
            return jnp.sum(module.apply(params, x, positions, None, seen)[1])

    step = jax.jit(jax.grad(loss), static_argnums=1)
    operations = lambda here: step.lower(params, here).cost_analysis()["flops"]
    assert 0.6 < operations(True) / operations(False) < 0.65


@pytest.mark.parametrize("name", ["gemma3", "adapters"])
def test_a_layer_computes_its_angles_once_and_its_halves_apart(name):
    gemma = MODELS.get(name, GEMMA3)
    params, episodes = random_params(gemma), tiny.transcripts(3)
    rows, length = episodes.tokens.shape
    text = str(jax.make_jaxpr(lambda params: ours(gemma, params, episodes, None))(params))
    assert text.count(" cos ") == gemma.config.num_layers
    assert f"[{rows * length},{gemma.config.hidden_dim}]" in text
    assert f",2,{gemma.config.hidden_dim}]" not in re.sub(r"f32\[3,2,24\]", "", text)  # of an adapter


def test_angles_turn_a_head():
    module = gm.nn.Attention(
        num_heads=2, num_kv_heads=1, features=4, head_dim=6, query_pre_attn_scalar=1.0,
        attn_type=gm.nn.AttentionType.GLOBAL, rope_base_frequency=100, rope_scale_factor=2.0,
    )  # fmt: skip
    positions = np.array([[0, 1, 7], [3, 3, 40]])
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 6))
    cos, sin = layers.rotation(module, jnp.array(positions))
    angles = positions[..., None, None] / 2.0 / 100 ** (np.arange(3) / 3)
    np.testing.assert_allclose(cos, np.cos(angles), atol=1e-5)
    np.testing.assert_allclose(sin, np.sin(angles), atol=1e-5)
    turned = (x[..., :3] + 1j * x[..., 3:]) * np.exp(1j * angles)
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    np.testing.assert_allclose(layers.rotate(jnp.array(x), cos, sin), expected, atol=1e-5)
