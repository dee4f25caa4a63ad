"""model: which Gemma, and adapters beside it: nothing at first, alone in training, and merged in the end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from gemma import gm

from score_jax import model as models
from score_jax import objectives, policy, rollout, sampling, step
from score_jax.learner import Optimizer
from score_jax.types import CONTEXT, Experience

RANK = 3


def shaped(**changes):
    """The tiny model with another layout of its kernels."""
    gemma = tiny.model()
    return gemma.clone(config=dataclasses.replace(gemma.config, **changes))


def random_params(model, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    draw = lambda x: jnp.array(rng.normal(scale=0.4, size=x.shape), x.dtype)
    return jax.tree.map(draw, models.shapes_of(model))


def hidden(model, params, episodes):
    return policy.hidden_states(model, params, episodes.tokens, episodes.attempt)


@pytest.mark.parametrize(
    "changes",
    [{}, {"transpose_gating_einsum": False}, {"num_kv_heads": 2}],
    ids=["q and kv", "gating not transposed", "qkv in one"],
)
def test_a_fused_model_computes_what_its_adapters_did(changes):
    adapted = models.with_adapters(shaped(**changes), RANK)
    params, episodes = random_params(adapted), tiny.transcripts(4)
    fused = models.fuse(adapted, params)
    plain = models.without_adapters(adapted)
    assert jax.tree.map(jnp.shape, fused) == jax.tree.map(jnp.shape, models.shapes_of(plain))
    here = episodes.attempt >= CONTEXT
    np.testing.assert_allclose(
        hidden(plain, fused, episodes)[here], hidden(adapted, params, episodes)[here], atol=2e-4
    )
    base = models.peft.split_params(params).original
    assert np.abs(hidden(plain, base, episodes) - hidden(plain, fused, episodes))[here].max() > 0.1


def test_new_adapters_do_nothing_and_are_all_that_is_trained():
    plain, base, episodes = tiny.model(), tiny.params(), tiny.transcripts(4)
    adapted = models.with_adapters(plain, RANK)
    fresh = models.init_trainable(adapted, base, jax.random.key(0), "float32")
    names = {path[-1].key for path, _ in jax.tree_util.tree_flatten_with_path(fresh)[0]}
    assert names == {"a", "b"}
    count = sum(x.size for x in jax.tree.leaves(fresh))
    assert 0 < count < sum(x.size for x in jax.tree.leaves(base))
    params = models.join(adapted, models.frozen_of(adapted, base), fresh)
    np.testing.assert_array_equal(hidden(adapted, params, episodes), hidden(plain, base, episodes))


def test_without_adapters_all_is_trained_in_a_dtype_of_its_own():
    model = tiny.model().clone(dtype=jnp.bfloat16)
    base = jax.tree.map(lambda x: jnp.array(x, jnp.bfloat16), tiny.params())
    assert models.with_adapters(model, 0) is model
    trainable = models.init_trainable(model, base, jax.random.key(0), "float32")
    assert {x.dtype for x in jax.tree.leaves(trainable)} == {jnp.dtype("float32")}
    assert models.frozen_of(model, base) == {}
    joined = models.join(model, {}, trainable)
    assert {x.dtype for x in jax.tree.leaves(joined)} == {jnp.dtype("bfloat16")}
    jax.tree.map(np.testing.assert_array_equal, joined, base)


def test_params_say_which_model_they_are_complete_for():
    plain, adapted = tiny.model(), models.with_adapters(tiny.model(), RANK)
    assert models.for_params(adapted, tiny.params()) == plain
    assert models.for_params(adapted, random_params(adapted)) is adapted
    assert models.for_params(plain, tiny.params()) is plain


@pytest.mark.parametrize("estimator", ["k1", "full"])
def test_an_update_of_adapters_equals_its_gradient_and_leaves_the_base(estimator):
    """Against the same update of a model in which the adapters' product is written into the kernels."""
    adapted = models.with_adapters(tiny.model(), RANK)
    params = random_params(adapted)
    base, adapters = models.peft.split_params(params)
    episodes = sampled(adapted, params, rows=4)
    experience = Experience(episodes, jnp.array(np.eye(4, 2), jnp.float32), jnp.ones(episodes.tokens.shape))
    objective = jax.tree.map(jnp.float32, objectives.stage_two(2, alpha=2.0, beta_1=0.1, beta_2=0.3))
    learner = step.PolicyLearner(adapted, Optimizer(1.0), samples=2, kl_estimator=estimator, chunk=5)
    state = learner.optimizer.init(tiny.copy(adapters))
    before = tiny.copy(base)
    new, numbers = step.train_step(
        state, base, base, experience, objective, jnp.float32(1e-2), learner=learner
    )
    jax.tree.map(np.testing.assert_array_equal, base, before)
    assert jax.tree.structure(new.params) == jax.tree.structure(adapters)
    assert float(numbers["sampler_gap"]) < 1e-4

    plain = step.PolicyLearner(tiny.model(), learner.optimizer, samples=2, kl_estimator=estimator, chunk=5)

    def loss(adapters):
        full = models.fuse(adapted, models.peft.merge_params(base, adapters))
        return step.rl_loss(full, {}, base, experience, objective, plain)[0] / 4

    grads = jax.jit(jax.grad(loss))(adapters)
    expected = learner.optimizer.apply(learner.optimizer.init(adapters), grads, jnp.float32(1e-2)).params
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=3e-4)
    jax.tree.map(close, new.params, expected)


def sampled(model, params, rows: int, slots=tiny.SLOTS):
    rng = np.random.default_rng(5)
    prompts = rng.integers(2, tiny.VOCAB, (rows, tiny.SLOTS.prompt)).astype(np.int32)
    prompts[0, :3] = tiny.PAD
    keys = rollout.row_keys(0, "test", 0, rows)
    return sampling.sample(
        model, params, prompts, keys, slots=slots, temperature=1.0, pad=tiny.PAD, end=tiny.EOS
    )


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_every_family_samples_what_it_scores(family):
    """The sampler's cache (shared between layers in Gemma 4) against one forward pass over the transcript."""
    model = tiny.FAMILIES[family]
    params = random_params(model)
    slots = dataclasses.replace(tiny.SLOTS, critique=5, feedback=(9, 10))
    episodes = sampled(model, params, rows=6, slots=slots)
    scores = policy.score_episodes(model, params, episodes, chunk=7)
    assert (episodes.attempt == 2).any(axis=1).all()
    np.testing.assert_allclose(scores.logp, episodes.logp, atol=2e-4)


def test_adapters_where_the_gemma_package_has_none_are_refused():
    with pytest.raises(ValueError, match=r"config\.lora_rank = 3: .* no adapters for .*; set it to 0"):
        models.with_adapters(tiny.FAMILIES["gemma4"], RANK)


@pytest.mark.parametrize("name", ["Gemma2_2B", "Gemma3_270M", "Gemma3_1B", "Gemma3_4B", "Gemma4_E2B"])
def test_a_named_gemma_is_the_packages_own_for_text_alone(name):
    model = models.named_gemma(name, "bfloat16")
    assert type(model) is getattr(gm.nn, name) and model.dtype == jnp.bfloat16
    assert model.config.vision_encoder is None


def test_a_model_of_ones_own_goes_by_its_module():
    assert type(models.named_gemma("tiny:TinyGemma3", "float32")) is tiny.TinyGemma3


@pytest.mark.parametrize("name", ["Gemma5_1B", "", "nowhere:Gemma", "tiny:Nothing"])
def test_a_model_that_does_not_exist_is_refused_with_those_that_do(name):
    with pytest.raises(ValueError, match=r"config\.model\.name = .*Gemma2_2B.*package\.module:Class"):
        models.named_gemma(name, "float32")


@pytest.mark.parametrize("family", [*sorted(tiny.FAMILIES), "adapters"])
def test_layers_computed_anew_change_nothing_but_memory(family):
    """After the plain pass has been traced, whose trace must not be used again."""
    model = tiny.FAMILIES.get(family) or models.with_adapters(tiny.FAMILIES["gemma3"], RANK)
    params, episodes = random_params(model), tiny.transcripts(4)

    def loss(params, remat):
        states = policy.hidden_states(model, params, episodes.tokens, episodes.attempt, remat=remat)
        return jnp.sum(states**2)

    step = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (plain, grads), (again, more_grads) = step(params, False), step(params, True)
    np.testing.assert_allclose(again, plain, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), grads, more_grads)
    memory = lambda remat: step.lower(params, remat).compile().memory_analysis().temp_size_in_bytes
    assert memory(True) < 0.7 * memory(False)
    assert str(jax.make_jaxpr(step, static_argnums=1)(params, False)).count("remat") == 0


def test_adapters_of_two_ranks_keep_apart():
    """Both trace the same model of the gemma package."""
    for rank in (5, 7):
        adapted = models.with_adapters(tiny.FAMILIES["gemma3"], rank)
        adapters = models.init_trainable(adapted, {}, jax.random.key(0), "float32")
        assert {5, 7} & {size for x in jax.tree.leaves(adapters) for size in x.shape} == {rank}
        assert set(models.shapes_of(models.without_adapters(adapted))["layer_0"]["attn"]["q_einsum"]) == {"w"}


def test_random_parameters_are_those_that_the_model_itself_draws():
    """Bit by bit, though they are compiled with fewer optimisations."""
    plain = jax.jit(lambda key: tiny.model().init(key, jnp.ones((1, 2), jnp.int32))["params"])
    key = jax.random.key(5)
    jax.tree.map(np.testing.assert_array_equal, models.init_params(tiny.model(), key), plain(key))
