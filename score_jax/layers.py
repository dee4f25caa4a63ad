"""A Gemma's attention and feed-forward layers over whole transcripts, arranged for the speed of an update.

They compute what the gemma package's own modules do, with these modules' parameters, in another order:

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

from score_jax.gemma import gm

# Four blocks leave out three eighths of all logits, endlessly many would a half; each is more to compile.
_BLOCKS, _SHORTEST = 4, 32
_KERNELS = {"gating_einsum", "linear"}
_ADAPTERS = {f"_LoRAEinsum_{kernel}" for kernel in _KERNELS}
_UNSEEN = -2.3819763e38  # the gemma package's logit of what is not seen


def over_transcripts(next_fun: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
    """An interceptor (`flax.linen.intercept_methods`) under which a Gemma's layers run as here.

    Only for forward passes without a cache in which no token sees a later one, nor one of a higher position.
    Layers of other classes, as Gemma 4's, run as they are; of these classes no other interceptor sees the
    feed-forward layer's inside.
    """
    module = context.module
    if context.method_name == "__call__" and not kwargs:
        if type(module) is gm.nn.Attention:
            x, positions, _, seen = args
            return None, attention(module, x, positions, seen)
        if type(module) is gm.nn.FeedForward and not set(module.variables["params"]) - _KERNELS - _ADAPTERS:
            return feed_forward(module, *args)
    return next_fun(*args, **kwargs)


def attention(
    module: gm.nn.Attention,
    x: Float[Array, "E T D"],
    positions: Int[Array, "E T"],
    seen: Bool[Array, "E T T"],
) -> Float[Array, "E T D"]:
    """Multi-head attention whose `seen` [row, query, key] is False for all keys after their query.

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
    # [E, K, T, G, H]: each key's head, and the query heads G of its group.
    query = query.reshape(rows, length, groups, -1, width).swapaxes(1, 2)
    key, value = key.swapaxes(1, 2), value.swapaxes(1, 2)

    def block(start: int, stop: int) -> Float[Array, "E K t G H"]:
        """Of the queries [start, stop)."""
        logits = jnp.einsum("EKTGH,EKSH->EKTGS", query[:, :, start:stop], key[:, :, :stop])
        if module.attn_logits_soft_cap is not None:
            logits = jnp.tanh(logits / module.attn_logits_soft_cap) * module.attn_logits_soft_cap
        here = seen[:, None, start:stop, None, :stop]
        p = jax.nn.softmax(jnp.where(here, logits, _UNSEEN)).astype(key.dtype)
        return jnp.einsum("EKTGS,EKSH->EKTGH", p, value[:, :, :stop])

    count = min(_BLOCKS, -(-length // _SHORTEST))
    edges = [length * number // count for number in range(count + 1)]
    out = jnp.concatenate([block(*edge) for edge in itertools.pairwise(edges)], axis=2)
    return module.attn_vec_einsum("BTNH,NHD->BTD", out.swapaxes(1, 2).reshape(rows, length, -1, width))


def rotation(
    module: gm.nn.Attention, positions: Int[Array, "E T"]
) -> tuple[Float[Array, "E T 1 h"], Float[Array, "E T 1 h"]]:
    """Cosines and sines of the angles of rotary position embeddings, for half a head's width."""
    half = (*positions.shape, 1, module.head_dim // 2)
    east = jnp.concatenate([jnp.ones(half), jnp.zeros(half)], axis=-1)
    turned = gm.math.apply_rope(
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
    """The gated feed-forward layer, with its adapters where it has some."""
    params = module.variables["params"]
    adapter = lambda name: params.get(f"_LoRAEinsum_{name}", {}).get("lora")
    tokens = x.reshape(-1, x.shape[-1])
    product = "td,fd->tf" if module.transpose_gating_einsum else "td,df->tf"
    gate, up = (jnp.einsum(product, tokens, kernel) for kernel in params["gating_einsum"])
    if lora := adapter("gating_einsum"):
        low = tokens @ lora["a"]
        gate, up = gate + low @ lora["b"][:, 0], up + low @ lora["b"][:, 1]
    hidden = nn.gelu(gate) * up
    out = hidden @ params["linear"]
    if lora := adapter("linear"):
        out += hidden @ lora["a"] @ lora["b"]
    return out.reshape(x.shape)
