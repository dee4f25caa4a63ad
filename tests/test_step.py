"""The updates, against a loss written anew over all logits at once, and against numpy's Adam."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from score_jax import mesh, objectives, step
from score_jax import model as models
from score_jax.imitation import Examples, sft_step
from score_jax.learner import Learner, Optimizer
from score_jax.step import PolicyLearner
from score_jax.types import CONTEXT, PADDING, Experience

ROWS, SAMPLES, TEMPERATURE = 8, 2, 0.8
ESTIMATORS = ("k1", "k2", "k3", "full")
GEMMA, PARAMS, REF_PARAMS = tiny.model(), tiny.params(), tiny.params(seed=1)
OPTIMIZER = Optimizer(clip_norm=0.5, b1=0.8, b2=0.9, weight_decay=0.1)
LEARNER = PolicyLearner(GEMMA, OPTIMIZER, samples=SAMPLES, temperature=TEMPERATURE, chunk=6)
OBJECTIVE = objectives.stage_two(2, alpha=1.5, beta_1=0.2, beta_2=0.1, discount=0.3)


def experience() -> Experience:
    """Random transcripts whose sampler was the policy, random rewards, random decisive tokens."""
    rng = np.random.default_rng(0)
    episodes = tiny.transcripts(ROWS, seed=4)
    log_p, attempt, tokens = tiny.distributions(GEMMA, PARAMS, episodes, TEMPERATURE)
    logp = np.zeros(tokens.shape, np.float32)
    drawn = np.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
    logp[np.asarray(episodes.attempt) > CONTEXT] = drawn[attempt > CONTEXT]
    rewards = rng.random((ROWS, 2)).astype(np.float32)
    decisive = np.float32((rng.random(tokens.shape) < 0.5) & np.asarray(episodes.attempt > CONTEXT))
    return Experience(episodes.replace(logp=jnp.array(logp)), jnp.array(rewards), jnp.array(decisive))


@functools.cache
def rl_grad(learner: Learner):
    """The gradient that `train_step` takes."""
    fn = jax.jit(jax.grad(step.rl_loss, has_aux=True), static_argnums=5)
    return lambda experience, objective: fn(PARAMS, {}, REF_PARAMS, experience, objective, learner)[0]


@jax.jit
def plain_losses(params, tokens, attempt, rewards, weight):
    """Eq. 4 over left-moved transcripts, for each estimator of the KL: [4]. Attempts are written out."""
    w, alpha, beta, gamma = (1.0, 1.0), (0.0, 1.5), (0.2 + 0.1, 0.2), 0.3
    log_p, log_q = (
        jax.nn.log_softmax(tiny.logits(GEMMA, p, tokens)[:, :-1] / TEMPERATURE) for p in (params, REF_PARAMS)
    )
    take = lambda x: jnp.take_along_axis(x, tokens[:, 1:, None], -1)[..., 0]
    rho = take(log_p) - take(log_q)
    in_attempt = [(attempt[:, 1:] == number).astype(float) for number in (1, 2)]
    tokenwise = {
        "k1": rho, "k2": rho**2 / 2, "k3": jnp.exp(-rho) - 1 + rho,
        "full": (jnp.exp(log_p) * (log_p - log_q)).sum(-1),
    }  # fmt: skip
    kl = {
        name: [b * (x * m).sum(1) for b, m in zip(beta, in_attempt, strict=True)]
        for name, x in tokenwise.items()
    }
    pay = [w[0] * rewards[:, 0], w[1] * rewards[:, 1] + alpha[1] * (rewards[:, 1] - rewards[:, 0])]
    pay = [pay[0] + gamma * pay[1], pay[1]]
    partner = np.arange(ROWS) ^ 1  # rows 2i and 2i + 1 are the samples of one problem
    losses = dict.fromkeys(ESTIMATORS, 0.0)
    for i in (0, 1):
        logp, learned = take(log_p) * in_attempt[i], weight[:, 1:]
        surprise = jax.lax.stop_gradient(kl["k1"][i])
        for name in ESTIMATORS:
            losses[name] -= ((pay[i] - pay[i][partner]) * (logp * learned).sum(1)).sum()
            if name == "k1":
                losses[name] -= (-(surprise - surprise[partner]) * logp.sum(1)).sum()
            else:
                losses[name] += kl[name][i].sum()
    return jnp.stack([losses[name] for name in ESTIMATORS])


@functools.cache
def plain_grads(decisive_only: bool) -> list[dict]:
    """The gradients of `plain_losses` on `experience()`, one for each estimator."""
    data = experience()
    weight = data.decisive if decisive_only else jnp.ones_like(data.decisive)
    attempt, tokens, weight = tiny.move_left(data.episodes.attempt, data.episodes.tokens, weight)
    jacobian = _jacobian(PARAMS, tokens, attempt, data.rewards, weight)
    return [jax.tree.map(lambda x, i=i: x[i], jacobian) for i in range(len(ESTIMATORS))]


_jacobian = jax.jit(jax.jacrev(plain_losses))


def assert_trees_close(found, expected, rtol: float = 1e-3):
    """Within `rtol` of each array's largest entry (sums of float32 in another order)."""

    def close(x, y):
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * max(np.abs(y).max(), 1e-3))

    jax.tree.map(close, found, expected)


@pytest.mark.parametrize(
    ("estimator", "decisive_only"),
    [("k1", False), ("k1", True), ("k2", False), ("k3", True), ("full", False)],
)
def test_the_gradient_equals_that_of_the_loss_over_all_logits(estimator, decisive_only):
    learner = dataclasses.replace(LEARNER, kl_estimator=estimator, decisive_only=decisive_only)
    expected = plain_grads(decisive_only)[ESTIMATORS.index(estimator)]
    assert optax.tree.norm(expected) > 0.1
    assert_trees_close(rl_grad(learner)(experience(), OBJECTIVE), expected)


def test_the_end_token_is_trained_and_nothing_after_it_is():
    learner = dataclasses.replace(LEARNER, decisive_only=True)
    reward_only = OBJECTIVE.replace(kl_coef=np.zeros(2))
    data = experience()
    tokens, attempt = data.episodes.tokens, data.episodes.attempt
    gradient = lambda where: rl_grad(learner)(data.replace(decisive=where.astype(jnp.float32)), reward_only)
    ends = (tokens == tiny.EOS) & (attempt > CONTEXT)
    assert ends.sum() > 4
    assert optax.tree.norm(gradient(ends)) > 0.01
    assert optax.tree.norm(gradient(attempt <= CONTEXT)) == 0.0


def test_what_stands_in_the_padding_changes_nothing():
    data = experience()
    junk = np.random.default_rng(1).integers(0, tiny.VOCAB, data.episodes.tokens.shape)
    tokens = jnp.where(data.episodes.attempt == PADDING, junk, data.episodes.tokens)
    assert (tokens != data.episodes.tokens).any()
    other = data.replace(episodes=data.episodes.replace(tokens=tokens))
    assert_trees_close(rl_grad(LEARNER)(other, OBJECTIVE), rl_grad(LEARNER)(data, OBJECTIVE), rtol=1e-5)


def train(learner=LEARNER, objective=OBJECTIVE, rate=1e-2, data=None, put=lambda state, data: (state, data)):
    """One `train_step` from the same start."""
    state, data = put(OPTIMIZER.init(tiny.copy(PARAMS)), data or experience())
    return step.train_step(state, {}, REF_PARAMS, data, objective, jnp.float32(rate), learner=learner)


def putting(devices):
    """Puts a state and a batch where they belong on a mesh."""
    return lambda state, data: (mesh.place(state, devices), jax.device_put(data, mesh.by_row(devices)))


def assert_same_update(found, expected, rtol=1e-4):
    (state, metrics), (other, other_metrics) = found, expected
    # subtle: Adam's first update is close to the gradient's sign, whatever its size: so the moments too, and
    # `rtol` for the parameters, as rounding alone may move those whose gradient is almost 0.
    assert_trees_close(state.opt_state, other.opt_state, rtol=1e-4)
    assert_trees_close(state.params, other.params, rtol=rtol)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), metrics, other_metrics)


@pytest.mark.parametrize("estimator", ["k1", "k3", "full"])
def test_where_no_kl_is_asked_for_the_reference_is_not_read(estimator):
    free = OBJECTIVE.replace(kl_coef=np.zeros(2))
    learner = dataclasses.replace(LEARNER, kl_estimator=estimator)
    state, metrics = train(learner, free)
    assert (np.abs(metrics.pop("kl")) > 1e-3).any()
    nowhere = jax.tree.map(lambda x: jnp.full_like(x, np.nan), REF_PARAMS)
    without = dataclasses.replace(learner, reference=False)
    found = step.train_step(
        OPTIMIZER.init(tiny.copy(PARAMS)), {}, nowhere, experience(), free, jnp.float32(1e-2), learner=without
    )
    assert found[1]["skipped"] == 0
    assert_same_update(found, (state, metrics))


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_accumulation_equals_the_big_batch(micro_batches):
    assert_same_update(train(dataclasses.replace(LEARNER, micro_batches=micro_batches)), train())


@pytest.mark.parametrize("sizes", tiny.SPLIT.values(), ids=tiny.SPLIT)
def test_eight_devices_update_as_one_does(sizes):
    devices = tiny.mesh(*sizes)
    spread = train(dataclasses.replace(LEARNER, mesh=devices), put=putting(devices))
    assert len(spread[0].params["final_norm"]["scale"].sharding.device_set) == 8
    assert_same_update(spread, train())


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_eight_devices_share_the_work_of_every_micro_batch(micro_batches):
    """By the compiler's account of one device's operations."""
    rows = 8 * SAMPLES * micro_batches
    few = experience()
    data = jax.tree.map(lambda x: jnp.tile(x, (rows // ROWS, *(1,) * (x.ndim - 1))), few)
    learner = dataclasses.replace(LEARNER, micro_batches=micro_batches)
    devices = tiny.mesh()

    def operations(rows, whole, devices=None):
        spread = dataclasses.replace(learner, mesh=devices)

        def update(params, reference, data):
            state, rate = OPTIMIZER.init(params), jnp.float32(1e-2)
            return step.train_step(state, {}, reference, data, OBJECTIVE, rate, learner=spread)[0].params

        args = jax.device_put((PARAMS, REF_PARAMS), whole)
        arrays = jax.tree.leaves(jax.device_put(data, rows))
        rebuilt = lambda params, reference, leaves: update(
            params, reference, jax.tree.unflatten(jax.tree.structure(data), leaves)
        )
        return jax.jit(rebuilt).lower(*args, arrays).compile().cost_analysis()["flops"]

    alone = operations(jax.devices()[0], jax.devices()[0])
    shared = operations(mesh.by_row(devices), jax.NamedSharding(devices, jax.P()), devices)
    assert shared < 0.2 * alone


def test_both_stages_run_the_same_compiled_step():
    train()
    before = step.train_step._cache_size()
    stage_one = objectives.stage_one(2, beta_1=0.01, beta_2=0.1)
    one, _ = train(objective=stage_one, rate=1e-2)
    two, _ = train(objective=OBJECTIVE, rate=3e-2)
    assert step.train_step._cache_size() == before
    assert optax.tree.norm(optax.tree.sub(one.params, two.params)) > 0.01


@pytest.mark.parametrize("sizes", tiny.SPLIT.values(), ids=tiny.SPLIT)
def test_later_updates_on_a_mesh_compile_nothing(sizes):
    devices = tiny.mesh(*sizes)
    learner = dataclasses.replace(LEARNER, mesh=devices)
    state, data = putting(devices)(OPTIMIZER.init(tiny.copy(PARAMS)), experience())
    reference = mesh.place(REF_PARAMS, devices)
    compiled = []
    for _ in range(3):
        state, _ = step.train_step(state, {}, reference, data, OBJECTIVE, jnp.float32(1e-2), learner=learner)
        compiled.append(step.train_step._cache_size())
    assert compiled[0] == compiled[2]


def test_the_update_is_adam_on_the_clipped_mean_gradient():
    state, metrics = train(rate=1e-2)
    gradient = jax.tree.map(lambda g: np.asarray(g) / ROWS, plain_grads(False)[0])
    norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
    assert norm > OPTIMIZER.clip_norm  # so that it is clipped
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    assert int(state.step) == 1
    moment = jax.tree.map(lambda g: (1 - 0.8) * g * 0.5 / norm, gradient)
    assert_trees_close(state.opt_state[1].mu, moment)


def bits(tree) -> list[bytes]:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def with_reward(value: float) -> Experience:
    data = experience()
    return data.replace(rewards=data.rewards.at[3, 1].set(value))


@pytest.mark.parametrize("sizes", [None, (2, 2, 2)], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_an_update_that_is_not_finite_is_skipped_bit_by_bit(value, sizes):
    """On a mesh, too, and without compiling anything anew; the next update is what it would have been."""
    devices = sizes and tiny.mesh(*sizes)
    put = putting(devices) if devices else lambda state, data: (state, data)
    learner = dataclasses.replace(LEARNER, mesh=devices)
    state, good = put(OPTIMIZER.init(tiny.copy(PARAMS)), experience())
    bad = put(state, with_reward(value))[1]
    reference = mesh.place(REF_PARAMS, devices) if devices else REF_PARAMS
    update = lambda state, data: step.train_step(
        state, {}, reference, data, OBJECTIVE, jnp.float32(1e-2), learner=learner
    )
    state, metrics = update(state, good)  # so that there are moments to spoil
    assert int(metrics["skipped"]) == 0
    before, compiled = bits((state.params, state.opt_state)), step.train_step._cache_size()
    state, metrics = update(state, bad)
    assert int(metrics["skipped"]) == 1 and not np.isfinite(metrics["loss"])
    assert bits((state.params, state.opt_state)) == before
    assert int(state.step) == 2
    state, metrics = update(state, good)
    assert int(metrics["skipped"]) == 0 and bits(state.params) != before[: len(bits(state.params))]
    assert int(state.step) == 3
    assert step.train_step._cache_size() == compiled


def test_a_gradient_that_overflows_is_skipped_where_the_loss_is_finite():
    state = OPTIMIZER.init({"w": jnp.ones(3)})
    for gradient in ([1.0, np.nan, 1.0], [1.0, np.inf, 1.0], [3e38, 3e38, 3e38]):
        update = jax.jit(OPTIMIZER.apply_finite)
        kept, metrics = update(state, {"w": jnp.array(gradient)}, jnp.float32(1e-2), jnp.float32(0.5))
        assert int(metrics["skipped"]) == 1
        assert bits((kept.params, kept.opt_state)) == bits((state.params, state.opt_state))


def test_a_supervised_update_that_is_not_finite_is_skipped():
    examples = examples_of()
    bad = examples.replace(weight=examples.weight.at[2, -1].set(jnp.inf))
    start = bits(OPTIMIZER.init(tiny.copy(PARAMS)))[1:]
    state, metrics = imitate(lambda state, data: (state, bad))
    assert int(metrics["skipped"]) == 1
    assert bits((state.params, state.opt_state)) == start
    assert int(state.step) == 1


def test_two_updates_equal_numpys_adam():
    rng = np.random.default_rng(0)
    param = rng.normal(size=5).astype(np.float32)
    state = OPTIMIZER.init({"w": jnp.array(param)})
    first, second = np.zeros(5), np.zeros(5)
    for count, scale in ((1, 3.0), (2, 0.01)):  # clipped, and not
        gradient = (rng.normal(size=5) * scale).astype(np.float32)
        state = OPTIMIZER.apply(state, {"w": jnp.array(gradient)}, jnp.float32(0.05))
        clipped = gradient * min(1.0, 0.5 / np.linalg.norm(gradient))
        first, second = 0.8 * first + 0.2 * clipped, 0.9 * second + 0.1 * clipped**2
        adam = (first / (1 - 0.8**count)) / (np.sqrt(second / (1 - 0.9**count)) + 1e-8)
        param = param - 0.05 * (adam + 0.1 * param)
        np.testing.assert_allclose(state.params["w"], param, rtol=1e-4)
    assert int(state.step) == 2


@pytest.mark.parametrize("decisive_only", [False, True])
def test_metrics_equal_numpy(decisive_only):
    data = experience()
    _, metrics = train(dataclasses.replace(LEARNER, decisive_only=decisive_only), data=data)
    log_p, attempt, tokens = tiny.distributions(GEMMA, PARAMS, data.episodes, TEMPERATURE)
    log_q, _, _ = tiny.distributions(GEMMA, REF_PARAMS, data.episodes, TEMPERATURE)
    rho = np.take_along_axis(log_p - log_q, tokens[..., None], -1)[..., 0]
    entropy = -(np.exp(log_p) * log_p).sum(-1)
    drawn = np.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
    weight = data.decisive if decisive_only else jnp.ones_like(data.decisive)
    _, weight = tiny.move_left(data.episodes.attempt, weight)
    paid = weight * drawn
    first, second = np.asarray(data.rewards, float).T
    second = second + 1.5 * (second - first)  # OBJECTIVE's alpha, then its discount
    for i, pay in enumerate((first + 0.3 * second, second)):
        mine = attempt == i + 1
        groups = pay.reshape(-1, SAMPLES)
        gain = groups - (groups.sum(1, keepdims=True) - groups) / (SAMPLES - 1)
        policy = np.abs((gain.reshape(-1) * np.where(mine, paid, 0).sum(-1)).mean())
        np.testing.assert_allclose(metrics["policy"][i], policy, rtol=1e-4)
        np.testing.assert_allclose(metrics["length"][i], mine.sum() / ROWS, rtol=1e-5)
        np.testing.assert_allclose(metrics["kl"][i], rho[mine].sum() / ROWS, rtol=1e-4)
        np.testing.assert_allclose(metrics["entropy"][i], entropy[mine].mean(), rtol=1e-4)
    loss = plain_losses(PARAMS, tokens, attempt, data.rewards, weight)[0] / ROWS
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)


def test_the_sampler_gap_shows_another_sampler():
    data = experience()
    assert train(data=data)[1]["sampler_gap"] < 1e-4
    row, at = np.argwhere(np.asarray(data.episodes.attempt) == 2)[0]
    wrong = data.episodes.replace(logp=data.episodes.logp.at[row, at].add(-0.5))
    gap = train(data=data.replace(episodes=wrong))[1]["sampler_gap"]
    np.testing.assert_allclose(gap, 0.5, atol=1e-4)


def test_micro_batches_must_divide_the_problems():
    with pytest.raises(ValueError, match="micro_batches = 3 does not divide the 4 problems of a batch"):
        train(dataclasses.replace(LEARNER, micro_batches=3))


def test_sft_step_is_adam_on_the_weighted_cross_entropy():
    episodes = tiny.transcripts(ROWS, seed=5)
    weight = np.random.default_rng(0).random(episodes.tokens.shape) * (np.asarray(episodes.attempt) > CONTEXT)
    examples = Examples(episodes.tokens, episodes.attempt, jnp.array(weight, jnp.float32))
    _, tokens, weight = tiny.move_left(episodes.attempt, episodes.tokens, weight)

    def cross_entropy(params):
        log_p = jax.nn.log_softmax(tiny.logits(GEMMA, params, tokens)[:, :-1])
        picked = (jax.nn.one_hot(tokens[:, 1:], tiny.VOCAB) * log_p).sum(-1)
        return -(weight[:, 1:] * picked).sum() / weight.sum()

    expected, gradient = jax.jit(jax.value_and_grad(cross_entropy))(PARAMS)
    update = functools.partial(sft_step, learner=Learner(GEMMA, OPTIMIZER, chunk=6))
    state, metrics = update(OPTIMIZER.init(tiny.copy(PARAMS)), {}, examples, jnp.float32(1e-2))
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    norm = optax.tree.norm(gradient)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    moment = jax.tree.map(lambda g: (1 - 0.8) * g * jnp.minimum(1.0, 0.5 / norm), gradient)
    assert_trees_close(state.opt_state[1].mu, moment)
    for _ in range(10):
        state, metrics = update(state, {}, examples, jnp.float32(1e-2))
    assert metrics["loss"] < expected - 0.2


def examples_of(seed: int = 5) -> Examples:
    """Random transcripts with random weights on what was sampled."""
    episodes = tiny.transcripts(ROWS, seed=seed)
    weight = np.random.default_rng(0).random(episodes.tokens.shape) * (np.asarray(episodes.attempt) > CONTEXT)
    return Examples(episodes.tokens, episodes.attempt, jnp.array(weight, jnp.float32))


def imitate(put=lambda state, data: (state, data), **settings):
    """One `sft_step` from the same start."""
    state, data = put(OPTIMIZER.init(tiny.copy(PARAMS)), examples_of())
    learner = Learner(GEMMA, OPTIMIZER, chunk=6, **settings)
    return sft_step(state, {}, data, jnp.float32(1e-2), learner=learner)


@pytest.mark.parametrize("settings", [{"micro_batches": 4}, {"remat": True}], ids=str)
def test_supervised_updates_that_save_memory_are_the_same(settings):
    assert_same_update(imitate(**settings), imitate())


@pytest.mark.parametrize("sizes", tiny.MESHES.values(), ids=tiny.MESHES)
def test_eight_devices_imitate_as_one_does(sizes):
    devices = tiny.mesh(*sizes)
    assert_same_update(imitate(putting(devices), mesh=devices), imitate())


def test_micro_batches_must_divide_the_examples():
    with pytest.raises(ValueError, match="micro_batches = 3 does not divide the 8 examples of a batch"):
        imitate(micro_batches=3)


def test_sft_step_trains_the_adapters_alone():
    """Against the plain forward pass of the model into whose kernels the adapters are added."""
    adapted = models.with_adapters(GEMMA, 2)
    rng = np.random.default_rng(3)
    draw = lambda x: jnp.array(rng.normal(scale=0.4, size=x.shape), x.dtype)
    trainable = models.peft.split_params(jax.tree.map(draw, models.shapes_of(adapted))).lora
    frozen, examples = tiny.copy(PARAMS), examples_of()
    _, tokens, weight = tiny.move_left(examples.attempt, examples.tokens, examples.weight)

    def cross_entropy(trainable):
        fused = models.fuse(adapted, models.join(adapted, frozen, trainable))
        log_p = jax.nn.log_softmax(tiny.logits(GEMMA, fused, tokens)[:, :-1])
        picked = (jax.nn.one_hot(tokens[:, 1:], tiny.VOCAB) * log_p).sum(-1)
        return -(weight[:, 1:] * picked).sum() / weight.sum()

    expected, gradient = jax.jit(jax.value_and_grad(cross_entropy))(trainable)
    start, learner = OPTIMIZER.init(tiny.copy(trainable)), Learner(adapted, OPTIMIZER, chunk=6)
    state, metrics = sft_step(start, frozen, examples, jnp.float32(1e-2), learner=learner)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)
    norm = optax.tree.norm(gradient)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-3)
    moment = jax.tree.map(lambda g: (1 - 0.8) * g * jnp.minimum(1.0, 0.5 / norm), gradient)
    assert_trees_close(state.opt_state[1].mu, moment)
