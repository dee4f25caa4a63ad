"""The pure modules through `pmapped`: one device, eight devices and no mesh at all give the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from configs import quickstart
from score_jax.kl import ESTIMATORS, KLPenalty
from score_jax.learner import Optimizer
from score_jax.losses import PolicyGradientLoss
from score_jax.mesh import (
    BATCH,
    ROWS,
    by_row,
    check_rows,
    layout,
    make_mesh,
    mesh_of,
    over_rows,
    pmapped,
    prompt_rows,
    shares,
)
from score_jax.model import shapes_of
from score_jax.objectives import RewardShaping

E, L, N = 16, 6, 2
SIZES = {"1": (1, 1, 1)} | tiny.MESHES
on_meshes = pytest.mark.parametrize("mesh", [tiny.mesh(*sizes) for sizes in SIZES.values()], ids=SIZES)


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


ATTEMPT = jnp.tile(jnp.array([0, 1, 1, 0, 2, -1]), (E, 1))


def assert_same_on(mesh, module, *rows):
    """`module(*rows)` by itself, and with its rows spread over the mesh."""
    got = over_rows(module, mesh)(*jax.device_put(rows, by_row(mesh)))
    assert len(got.sharding.device_set) == mesh.size
    # Sums that cancel: absolute rounding of numbers of size 1 to 10, as compiled code adds in another order.
    np.testing.assert_allclose(got, module(*rows), rtol=1e-6, atol=1e-6)


@on_meshes
def test_reward_shaping(mesh):
    assert_same_on(mesh, RewardShaping(jnp.ones(N), jnp.array([0.0, 10.0])), normal(E, N))


@on_meshes
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_kl_penalty(mesh, estimator):
    rows = (normal(E, L, seed=seed) for seed in range(3))
    assert_same_on(mesh, KLPenalty(jnp.array([0.5, 2.0]), estimator), *rows, ATTEMPT)


@on_meshes
@pytest.mark.parametrize("decisive_only", [False, True])
def test_policy_gradient_loss(mesh, decisive_only):
    rows = normal(E, L), normal(E, N, seed=1), normal(E, N, seed=2), ATTEMPT
    assert_same_on(mesh, PolicyGradientLoss(decisive_only), *rows, jnp.ones((E, L)).at[:, 2].set(0.0))


# A replicated parameter and rows of data, some of whose losses outweigh the others.
PARAM, DATA_ROWS = normal(L, seed=3), normal(E, L, seed=4) * jnp.arange(1.0, E + 1)[:, None]


def row_losses(param, rows):
    return jnp.tanh(rows @ param) * rows[:, 0]


@on_meshes
@pytest.mark.parametrize(
    ("reduce", "across"), [(jnp.sum, jax.lax.psum), (jnp.mean, jax.lax.pmean)], ids=["psum", "pmean"]
)
def test_the_gradient_of_a_replicated_parameter_is_summed_once(mesh, reduce, across):
    single = jax.value_and_grad(lambda param: reduce(row_losses(param, DATA_ROWS)))(PARAM)
    loss = lambda param, rows: across(reduce(row_losses(param, rows)), ROWS)
    specs = {"mesh": mesh, "in_specs": (P(), BATCH)}
    args = jax.device_put(PARAM, NamedSharding(mesh, P())), jax.device_put(DATA_ROWS, by_row(mesh))

    outside = jax.value_and_grad(pmapped(loss, out_specs=P(), **specs))(*args)
    inside = pmapped(jax.value_and_grad(loss), out_specs=(P(), P()), **specs)(*args)
    for got in (outside, inside):
        for one, other in zip(got, single, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@on_meshes
def test_jax_itself_sums_the_gradient_of_a_loss_that_nobody_summed(mesh):
    """Why nothing in the package writes a psum of gradients: it would count them once per device."""
    local = lambda param, rows: jax.grad(lambda p: row_losses(p, rows).sum())(param)
    got = pmapped(local, mesh=mesh, in_specs=(P(), BATCH), out_specs=P())(PARAM, DATA_ROWS)
    single = jax.grad(lambda param: row_losses(param, DATA_ROWS).sum())(PARAM)
    np.testing.assert_allclose(got, single, rtol=1e-5, atol=1e-5)


@on_meshes
def test_donated_arguments_are_gone_and_the_others_stay(mesh):
    add = pmapped(lambda a, b: a + b, mesh=mesh, in_specs=(BATCH, BATCH), out_specs=BATCH, donate=(0,))
    given, kept = (jax.device_put(normal(E, N, seed=seed), by_row(mesh)) for seed in (5, 6))
    want = np.asarray(given) + np.asarray(kept)
    np.testing.assert_allclose(add(given, kept), want, rtol=1e-6)
    assert given.is_deleted()
    assert not kept.is_deleted()


def test_the_mesh_takes_all_devices_unless_told_otherwise():
    config = quickstart.get_config()
    assert dict(mesh_of(config).shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 2, -1, 2
    assert dict(mesh_of(config).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize("sizes", [(3, 1, -1), (2, 2, 1), (16, -1, 1), (2, 2, 4)])
def test_sizes_that_do_not_fit_the_devices_are_refused(sizes):
    message = f"config.mesh has data={sizes[0]}, fsdp={sizes[1]}, tensor={sizes[2]}, and there are 8 devices"
    with pytest.raises(ValueError, match=message):
        make_mesh(sizes, tuple(jax.devices()))


def test_rows_are_spread_and_copies_are_whole():
    rows = normal(E, L)
    shapes = lambda sharding: {s.data.shape for s in jax.device_put(rows, sharding).addressable_shards}
    assert shapes(by_row(tiny.mesh(8))) == shapes(by_row(tiny.mesh(2, 4))) == {(E // 8, L)}
    assert shapes(by_row(tiny.mesh(2, 2, 2))) == {(E // 4, L)}
    assert shapes(NamedSharding(tiny.mesh(8), P())) == {(E, L)}


# What is left of a parameter on one device of a mesh with data 1, fsdp 4, tensor 2: by hand.
CUT = {
    "embedder/input_embedding": lambda v, d: (v // 2, d // 4),
    "q_einsum/w": lambda h, d, k: (h // 2, d // 4, k),
    "kv_einsum/w": lambda two, h, d, k: (two, h, d // 4, k),  # of the one head of keys nothing can be cut
    "attn_vec_einsum/w": lambda h, k, d: (h // 2, k, d // 4),
    "mlp/gating_einsum": lambda two, a, b: (two, a // 2, b // 4),
    "mlp/linear": lambda f, d: (f // 2, d // 4),
}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_parameters_and_their_moments_are_cut_by_the_rules(family):
    mesh, shapes = tiny.mesh(1, 4, 2), shapes_of(tiny.FAMILIES[family])
    state = {"params": shapes, "moments": jax.eval_shape(Optimizer(clip_norm=1.0).transform.init, shapes)}
    cut = whole = 0
    leaves = jax.tree_util.tree_leaves_with_path(state)
    for (path, leaf), sharding in zip(leaves, layout(state, mesh), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        wanted = next((cut_of(*leaf.shape) for end, cut_of in CUT.items() if name.endswith(end)), leaf.shape)
        assert sharding.shard_shape(leaf.shape) == wanted, name
        cut, whole = cut + (wanted != leaf.shape) * leaf.size, whole + leaf.size
    assert cut > 0.8 * whole


def test_rows_that_do_not_share_out_are_refused_with_the_field():
    check_rows(16, tiny.mesh(2, 4), "config.evaluate.batch")
    check_rows(12, tiny.mesh(2, 2, 2), "config.evaluate.batch")
    message = "config.evaluate.batch gives 12 rows, which 8 shares .* make it a multiple of 8"
    with pytest.raises(ValueError, match=message):
        check_rows(12, tiny.mesh(2, 4), "config.evaluate.batch")


@pytest.mark.parametrize(
    ("rows", "samples", "sizes", "shared"),
    [
        (16, 4, None, 4),
        (16, 1, None, 1),
        (16, 4, (4, 1, 1), 4),
        (16, 4, (8, 1, 1), 2),
        (16, 4, (1, 8, 1), 2),
        (8, 4, (8, 1, 1), 1),
        (6, 4, None, 2),
        (6, 3, (4, 1, 1), 1),
    ],
)
def test_samples_share_a_prompt_where_it_can_be_shared_out(rows, samples, sizes, shared):
    assert prompt_rows(rows, samples, shares(sizes and tiny.mesh(*sizes))) == shared
