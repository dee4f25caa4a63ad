"""A function with barriers behind its writes computes what it did. What that is for: see `test_sampling`."""

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.barriers import written_once

CACHE = (16, 128, 32)


def write_and_read(state: dict) -> dict:
    """Writes a row of a cache and reads all of it twice, as attention does; with calls of all sorts in it."""
    at, x = state["at"], state["x"]
    cache = jax.jit(jax.lax.dynamic_update_slice)(state["cache"], x[:, None], (0, at, 0))
    scores = jax.nn.softmax(jnp.einsum("bh,bsh->bs", jax.nn.silu(x), cache))  # jitted, custom_jvp
    read = jax.nn.relu(jnp.einsum("bs,bsh->bh", scores, cache))
    total, _ = jax.lax.scan(lambda sum, row: (sum + row, None), jnp.zeros_like(read[0]), read)
    return {"at": at + 1, "x": jnp.tanh(read + total), "cache": cache}


def start() -> dict:
    draw = np.random.default_rng(0).normal
    cache = np.asarray(draw(size=CACHE), np.float32)
    return {"at": jnp.int32(3), "x": jnp.asarray(draw(size=CACHE[::2]), jnp.float32), "cache": cache}


def test_it_computes_the_same():
    bare, found = write_and_read(start()), written_once(write_and_read)(start())
    assert jax.tree.structure(bare) == jax.tree.structure(found)
    jax.tree.map(np.testing.assert_array_equal, bare, found)


def test_what_a_function_closes_over_may_be_traced():
    outer = lambda factor: written_once(lambda x: jax.lax.dynamic_update_slice(x, x[:1] * factor, (1,)))
    np.testing.assert_array_equal(jax.jit(lambda factor: outer(factor)(jnp.arange(3.0) + 1))(5.0), [1, 5, 3])
