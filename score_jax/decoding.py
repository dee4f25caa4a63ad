"""Sampling one segment of a transcript, token by token, on a KV cache that holds all before it."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from score_jax.barriers import written_once
from score_jax.mesh import keep_cache
from score_jax.model import as_stored, inputs_first
from score_jax.policy import head_of
from score_jax.slots import Segment
from score_jax.types import PADDING, Episodes

# On a single CPU a token's time grows with the number of rows, so that the last quarter of them is decoded
# alone. Each number of rows is one more program to compile: so this is done once, and not for short slots.
_LONG, _LAST = 64, 4


@flax.struct.dataclass
class _Decoding:
    """What changes from token to token, and the rows' keys. `logits` speak of the token at index `at`."""

    at: Int[Array, ""]
    keys: Key[Array, "E"]
    cache: dict
    logits: Float[Array, "E V"]
    episodes: Episodes
    done: Bool[Array, "E"]


def decode(
    model: nn.Module,
    params: dict,
    cache: dict,
    logits: Float[Array, "E V"],
    episodes: Episodes,
    row_keys: Key[Array, "E"],
    *,
    segment: Segment,
    temperature: float | Float[Array, ""],
    end: int,
    mesh: Mesh | None,
) -> tuple[dict, Episodes]:
    """Samples the tokens of one segment, one by one, until every row has ended.

    Args:
      model, params, row_keys, temperature, end, mesh: see `sampling.sample`.
      cache: holds the transcript up to the segment, and has room for it.
      logits: of the segment's first token.
      episodes: the transcript so far.
      segment: what is to be written.

    Returns:
      The cache and the transcript with the segment; of a row that has ended, what follows is padding.
    """
    size = cache["layer_0"]["k"].shape[1]
    head = head_of(model, params)
    on_cpu = (jax.default_backend() if mesh is None else mesh.devices.flat[0].platform) == "cpu"
    turned = inputs_first(model, params) if on_cpu else params

    def next_token(state: _Decoding) -> _Decoding:
        keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, state.at)
        token, logp = draw(state.logits, keys, temperature)

        def write(x: Array | np.ndarray, value: Array | int, empty: int) -> Array:
            column = jnp.where(state.done, empty, value).astype(x.dtype)[:, None]
            return jax.lax.dynamic_update_slice_in_dim(x, column, state.at, axis=1)

        episodes = Episodes(
            tokens=write(state.episodes.tokens, token, 0),
            attempt=write(state.episodes.attempt, segment.attempt, PADDING),
            logp=write(state.episodes.logp, logp, 0),
        )
        valid = episodes.attempt[:, :size] != PADDING
        seen = valid & (jnp.arange(size) <= state.at)
        # subtle: without the barrier XLA takes this out of the loop, and turns kernels for every token.
        stored = as_stored(model, jax.lax.optimization_barrier(turned)) if on_cpu else params
        out: Any = model.apply(
            {"params": stored},
            token[:, None],
            positions=jnp.maximum(jnp.sum(seen, axis=-1, keepdims=True) - 1, 0),
            attention_mask=seen[:, None, :],
            cache=state.cache,
            return_hidden_states=True,
        )
        return dataclasses.replace(
            state,
            at=state.at + 1,
            cache=keep_cache(out.cache, mesh),
            logits=head.logits(out.hidden_states[:, 0]),
            episodes=episodes,
            done=state.done | (token == end),
        )

    def go_on(state: _Decoding, until: int) -> _Decoding:
        """Draws tokens until no more than so many rows have not ended."""
        unfinished = lambda state: (state.at < segment.stop) & (jnp.sum(~state.done) > until)
        return jax.lax.while_loop(unfinished, written_once(next_token) if on_cpu else next_token, state)

    rows = logits.shape[0]
    nobody = jnp.zeros(rows, bool)
    start = jnp.int32(segment.start)
    state = _Decoding(start, row_keys, cache=cache, logits=logits, episodes=episodes, done=nobody)
    alone = on_cpu and (mesh is None or mesh.size == 1) and segment.stop - segment.start >= _LONG
    few = rows // _LAST if alone else 0
    with jax.named_scope("draw_tokens"):
        state = go_on(state, few)
        if few:
            last = jnp.argsort(state.done)[:few]  # those that have not ended come first
            part = go_on(jax.tree.map(lambda x: x[last] if x.ndim else x, state), 0)
            state = jax.tree.map(lambda x, y: x.at[last].set(y) if x.ndim else y, state, part)
    return state.cache, state.episodes


def draw(
    logits: Float[Array, "E V"], keys: Key[Array, "E"], temperature: float | Float[Array, ""]
) -> tuple[Int[Array, "E"], Float[Array, "E"]]:
    """One token per row and its log-probability (nats) under the distribution it was drawn from.

    At temperature 0 the likeliest token is taken, and its log-probability at temperature 1 returned.
    """
    greedy = jnp.asarray(temperature == 0)
    logp_all = jax.nn.log_softmax(logits / jnp.where(greedy, 1.0, temperature))
    token = jax.lax.cond(
        greedy,
        lambda: jnp.argmax(logits, axis=-1),
        lambda: _inverse_transform(jnp.exp(logp_all), keys),
    )
    return token, jnp.take_along_axis(logp_all, token[:, None], axis=-1)[:, 0]


def _inverse_transform(p: Float[Array, "E V"], keys: Key[Array, "E"]) -> Int[Array, "E"]:
    """One token per row with the probabilities `p`, by one random number per row and not one per token.

    The token at which the cumulative probability passes a uniform number: never one beyond the last, since
    the number is below 1 by more than rounding. The probabilities are those of a float32 sum: each is off by
    its rounding, some 1e-7, which for a token of probability 0 may be all of it.
    """
    until = jnp.cumsum(p, axis=-1)
    point = jax.vmap(jax.random.uniform)(keys) * until[:, -1]
    return jnp.sum(until <= point[:, None], axis=-1)
