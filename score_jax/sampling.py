"""The sampler: all attempts of an episode in one jitted call, on one growing KV cache."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from score_jax.decoding import decode
from score_jax.mesh import gathered, keep_cache, keep_rows, spread
from score_jax.policy import head_of, positions_of
from score_jax.slots import Segment, Slots
from score_jax.types import CONTEXT, PADDING, Episodes


@functools.partial(jax.jit, static_argnames=("model", "slots", "pad", "end", "mesh"))
def sample(
    model: nn.Module,
    params: dict,
    prompts: Int[Array, "Q P"],
    row_keys: Key[Array, "E"],
    *,
    slots: Slots,
    temperature: float | Float[Array, ""],
    pad: int,
    end: int,
    mesh: Mesh | None = None,
) -> Episodes:
    """Samples N attempts per row; attempt i + 1 reads attempt i from the cache, nothing is computed twice.

    A prompt is computed once, for all of its E / Q samples, which stand together.

    Where the layout has critiques, one is sampled before each later attempt.

    The temperature is an argument: another one compiles nothing anew.

    Args:
      model: a Gemma whose layers keep a KV cache.
      params: its parameters.
      prompts: token ids, left-padded with `pad`; Q divides E.
      row_keys: one key per row, made from the *global* row number: the same samples on any number of devices.
      slots: the transcript's layout.
      temperature: 0 takes the likeliest token.
      pad: fills empty places. Left-padding is told from the prompt by it.
      end: closes an attempt or a critique; it is part of it, so that stopping is learned.
      mesh: rows and cache are spread over it.

    Returns:
      Episodes. An attempt without `end` ran out of its slot.
    """
    params = gathered(params, mesh)  # once, and not for every token
    count, samples = prompts.shape[0], row_keys.shape[0] // prompts.shape[0]
    dtype = params["embedder"]["input_embedding"].dtype
    shape = (count, slots.length)
    episodes = Episodes(
        tokens=jnp.full(shape, pad, jnp.int32).at[:, : slots.prompt].set(prompts),
        attempt=jnp.full(shape, PADDING, jnp.int32)
        .at[:, : slots.prompt]
        .set(jnp.where(prompts == pad, PADDING, CONTEXT)),
        logp=jnp.zeros(shape, jnp.float32),
    )
    cache = model.config.init_cache(batch_size=count, dtype=dtype, cache_length=0)
    fed = 0  # transcript tokens that the cache holds
    for segment in slots.segments:
        if segment.before:
            episodes = _write_instruction(episodes, segment)
        # The cache grows here and not up front: the first attempt need not attend over the second's place.
        cache = keep_cache(_grow(cache, segment.stop - fed, fed), mesh)
        cache, logits = _feed(model, params, cache, episodes, fed, segment.start)
        if fed == 0:
            each = lambda x: jnp.repeat(x, samples, axis=0)
            cache, logits, episodes = jax.tree.map(each, (cache, logits, episodes))
            cache = keep_cache(cache, mesh)
        cache, episodes = decode(
            model,
            params,
            cache,
            logits,
            episodes,
            row_keys,
            segment=segment,
            temperature=temperature,
            end=end,
            mesh=mesh,
        )
        fed = segment.stop
    tokens = jnp.where(episodes.attempt == PADDING, pad, episodes.tokens)
    return keep_rows(dataclasses.replace(episodes, tokens=tokens), mesh)


def sample_in_parts(
    model: nn.Module,
    params: dict,
    prompts: Int[np.ndarray, "Q P"],
    row_keys: Key[Array, "E"],
    *,
    parts: int,
    mesh: Mesh | None,
    **how: Any,
) -> list[Episodes]:
    """`sample` of the episodes in `parts`, one after the other, so that the KV cache is that of one part."""

    def part(number: int) -> Episodes:
        share = lambda x: x[number * len(x) // parts : (number + 1) * len(x) // parts]
        return sample(model, params, *spread((share(prompts), share(row_keys)), mesh), mesh=mesh, **how)

    return [part(number) for number in range(parts)]


def _write_instruction(episodes: Episodes, segment: Segment) -> Episodes:
    """Puts its instruction before `segment`."""
    place = slice(segment.start - len(segment.before), segment.start)
    return dataclasses.replace(
        episodes,
        tokens=jnp.asarray(episodes.tokens).at[:, place].set(jnp.asarray(segment.before, jnp.int32)),
        attempt=jnp.asarray(episodes.attempt).at[:, place].set(CONTEXT),
    )


def _grow(cache: dict, by: int, end_index: int) -> dict:
    """Room for `by` more tokens after the cache's last place; writing goes on at `end_index`.

    # subtle: gemma's cache wraps around silently when full, and after an early exit its own end index
    # stands inside the slot that was left, so both are set here.
    """

    def grow_layer(layer: dict) -> dict:
        pad = lambda x: jnp.pad(x, ((0, 0), (0, by)) + ((0, 0),) * (x.ndim - 2))
        return {
            "k": pad(layer["k"]),
            "v": pad(layer["v"]),
            "positions": pad(layer["positions"]),
            "end_index": jnp.full_like(layer["end_index"], end_index),
        }

    return {name: grow_layer(layer) for name, layer in cache.items()}


def _feed(
    model: nn.Module, params: dict, cache: dict, episodes: Episodes, start: int, stop: int
) -> tuple[dict, Float[Array, "E V"]]:
    """Runs the transcript's tokens [start, stop) into the cache; logits for the token at `stop`."""
    size = cache["layer_0"]["k"].shape[1]
    valid = episodes.attempt != PADDING
    seen = jnp.arange(size)[None, :] <= jnp.arange(start, stop)[:, None]
    out: Any = model.apply(
        {"params": params},
        episodes.tokens[:, start:stop],
        positions=positions_of(valid)[:, start:stop],
        attention_mask=valid[:, None, :size] & seen[None],
        cache=cache,
        return_hidden_states=True,
    )
    # The head is applied to the last place alone.
    head = head_of(model, params)
    return out.cache, head.logits(out.hidden_states[:, -1])
