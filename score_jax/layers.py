"""A Gemma's attention and feed-forward layers over whole transcripts, arranged for the speed of an update.

They compute what the gemma package's own modules do, with these modules' parameters, and round it elsewhere:

- attention goes through the transcript in blocks, and computes no logits for what stands after a block;
- the angles' sines and cosines are computed once for all heads;
- the feed-forward layer makes its two halves apart, each as one product of matrices.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from score_jax.gemma import apply_rope, gm

# Four blocks leave out three eighths of all logits, endlessly many would a half; each is more to compile.
_BLOCKS, _SHORTEST = 4, 32
_KERNELS = {"gating_einsum", "linear"}  # of a feed-forward layer without adapters
_NEVER = -2.3819763e38  # the gemma package's logit of what is not seen


def over_transcripts(next_fun: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
    """An interceptor (`flax.linen.intercept_methods`) under which a Gemma's layers run as here.

    Only for forward passes without a cache in which no token sees a later one. Layers of other kinds, as
    Gemma 4's, and feed-forward layers with adapters beside their kernels run as they are.
    """
    module = context.module
    if context.method_name == "__call__":
        if type(module) is gm.nn.Attention:
            x, positions, _, seen = args
            return None, attention(module, x, positions, seen)
        if type(module) is gm.nn.FeedForward and set(module.variables["params"]) == {
            "gating_einsum",
            "linear",
        }:
            return feed_forward(module, *args)
    return next_fun(*args, **kwargs)


def attention(
    module: gm.nn.Attention,
    x: Float[Array, "E T D"],
    positions: Int[Array, "E T"],
    seen: Bool[Array, "E T T"],
) -> Float[Array, "E T D"]:
    """Multi-head attention whose `seen` [episode, query, key] is False for all keys after their query.

    Shapes: N query heads in K groups, one to each key's head, of width H.
    """
    if module.use_qkv_einsum:
        query, key, value = module.qkv_einsum("BTD,SNDH->SBTNH", x)
    else:
        query = module.q_einsum("BTD,NDH->BTNH", x)
        key, value = module.kv_einsum("BSD,CKDH->CBSKH", x)
    if module.use_qk_norm:
        query, key = module._query_norm(query), module._key_norm(key)
    cos, sin = rotation(module, positions)
    query, key = rotate(query, cos, sin) * module.query_pre_attn_scalar, rotate(key, cos, sin)
    if module.attn_type == gm.nn.AttentionType.LOCAL_SLIDING:
        seen &= positions[:, :, None] - positions[:, None, :] < module.sliding_window_size

    rows, length, groups, width = key.shape
    heads = module.num_heads // groups  # G, of a group
    # [E, K, T x G, H]: one product makes the logits of all heads of a group.
    query = query.reshape(rows, length, groups, heads, width).swapaxes(1, 2).reshape(rows, groups, -1, width)
    key, value = key.swapaxes(1, 2), value.swapaxes(1, 2)

    def block(start: int, stop: int) -> Float[Array, "E K t H"]:
        """Of the queries [start, stop)."""
        logits = query[:, :, start * heads : stop * heads] @ key[:, :, :stop].swapaxes(2, 3)
        if module.attn_logits_soft_cap is not None:
            logits = jnp.tanh(logits / module.attn_logits_soft_cap) * module.attn_logits_soft_cap
        here = jnp.repeat(seen[:, None, start:stop, :stop], heads, axis=2)
        return jax.nn.softmax(jnp.where(here, logits, _NEVER)).astype(value.dtype) @ value[:, :, :stop]

    count = min(_BLOCKS, -(-length // _SHORTEST))
    edges = [length * number // count for number in range(count + 1)]
    out = jnp.concatenate([block(*edge) for edge in itertools.pairwise(edges)], axis=2)
    out = out.reshape(rows, groups, length, heads, width).swapaxes(1, 2)
    return module.attn_vec_einsum("BTNH,NHD->BTD", out.reshape(rows, length, -1, width))


def rotation(
    module: gm.nn.Attention, positions: Int[Array, "E T"]
) -> tuple[Float[Array, "E T 1 h"], Float[Array, "E T 1 h"]]:
    """Cosines and sines of the angles of rotary position embeddings, for half a head's width."""
    half = (*positions.shape, 1, module.head_dim // 2)
    east = jnp.concatenate([jnp.ones(half), jnp.zeros(half)], axis=-1)
    turned = apply_rope(
        east, positions, base_frequency=module.rope_base_frequency, scale_factor=module.rope_scale_factor
    )
    # subtle: without the barrier XLA on CPUs computes them anew wherever they are read, for every head.
    cos, sin = jnp.split(jax.lax.optimization_barrier(turned), 2, axis=-1)
    return cos, sin


def rotate(
    x: Float[Array, "E T N H"], cos: Float[Array, "E T 1 h"], sin: Float[Array, "E T 1 h"]
) -> Float[Array, "E T N H"]:
    """Heads turned by their position's angles."""
    east, north = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([east * cos - north * sin, north * cos + east * sin], axis=-1)
    return turned.astype(x.dtype)


def feed_forward(module: gm.nn.FeedForward, x: Float[Array, "E T D"]) -> Float[Array, "E T D"]:
    """The gated feed-forward layer without adapters."""
    params = module.variables["params"]
    tokens = x.reshape(-1, x.shape[-1])
    product = "td,fd->tf" if module.transpose_gating_einsum else "td,df->tf"
    gate, up = (jnp.einsum(product, tokens, kernel) for kernel in params["gating_einsum"])
    return (nn.gelu(gate) * up @ params["linear"]).reshape(x.shape)
