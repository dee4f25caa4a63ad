"""A Gemma's attention and feed-forward layers over whole transcripts, arranged for the speed of an update.

They compute what the gemma package's own modules do, with these modules' parameters, in another order:

- several transcripts may share a row and what they begin with, which is then computed once;
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

from score_jax import model as models
from score_jax.gemma import gm

# Four blocks leave out three eighths of all logits, endlessly many would a half; each is more to compile,
# which a short one does not pay for.
_BLOCKS, _SHORTEST = 4, 96
_KERNELS = {"gating_einsum", "linear"}
_ADAPTERS = {f"_LoRAEinsum_{kernel}" for kernel in _KERNELS}
_UNSEEN = -2.3819763e38  # the gemma package's logit of what is not seen


def over_transcripts(prompt: int = 0) -> Callable:
    """An interceptor (`flax.linen.intercept_methods`) under which a Gemma's layers run as here.

    Only for forward passes without a cache in which no token sees a later one, nor one of a higher position.
    Layers of other classes, as Gemma 4's, run as they are; of these classes no other interceptor sees the
    feed-forward layer's inside.

    Args:
      prompt: see `attention`; not 0 only for models that `share_prompts`.
    """

    def intercept(next_fun: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if context.method_name == "__call__" and not kwargs:
            if type(module) is gm.nn.Attention:
                x, positions, _, seen = args
                return None, attention(module, x, positions, seen, prompt)
            if (
                type(module) is gm.nn.FeedForward
                and not set(module.variables["params"]) - _KERNELS - _ADAPTERS
            ):
                return feed_forward(module, *args)
        return next_fun(*args, **kwargs)

    return intercept


def share_prompts(model: nn.Module) -> bool:
    """Whether all of the model's attention is of the class that runs as here; not so in Gemma 4."""
    bare = models.without_adapters(model)
    return isinstance(bare, gm.nn.Transformer) and type(bare).setup is gm.nn.Transformer.setup


def attention(
    module: gm.nn.Attention,
    x: Float[Array, "Q U D"],
    positions: Int[Array, "Q U"],
    seen: Bool[Array, "Q U L"],
    prompt: int = 0,
) -> Float[Array, "Q U D"]:
    """Multi-head attention over groups as `places` has them: S tokens, which see each other alone, then rows
    that go on after them.

    Shapes, beside those of `places`: N query heads of width H.

    Args:
      module: has the parameters.
      x: the layer's input.
      positions: of the tokens.
      seen: of which keys, False for all after their query: the S, and those of the query's own row.
      prompt: S.
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

    before = lambda x: x[:, :prompt]
    own = lambda x: x[:, prompt:].reshape(-1, seen.shape[-1] - prompt, *x.shape[2:])
    both = lambda x: jnp.concatenate([jnp.repeat(before(x), len(own(x)) // len(x), axis=0), own(x)], axis=1)
    queries, keys = (own(query), own(positions)), (both(key), both(value), both(positions))
    out = _attend(module, queries, keys, own(seen))
    out = out.reshape(len(x), -1, *out.shape[2:])
    if prompt:
        queries, keys = (before(query), before(positions)), (before(key), before(value), before(positions))
        out = jnp.concatenate([_attend(module, queries, keys, before(seen)[..., :prompt]), out], axis=1)
    return module.attn_vec_einsum("BTNH,NHD->BTD", out)


def _attend(
    module: gm.nn.Attention,
    queries: tuple[Float[Array, "E T N H"], Int[Array, "E T"]],
    keys: tuple[Float[Array, "E S K H"], Float[Array, "E S K H"], Int[Array, "E S"]],
    seen: Bool[Array, "E T S"],
) -> Float[Array, "E T N H"]:
    """What queries, at the last T of S places, read from the keys that they see.

    Shapes: N query heads in K groups, one to each key's head, of width H.

    Args:
      module: says how.
      queries: with their positions.
      keys: with their values and positions.
      seen: of which keys, False for all after their query.
    """
    (query, at), (key, value, to) = queries, keys
    if module.attn_type == gm.nn.AttentionType.LOCAL_SLIDING:
        seen &= at[:, :, None] - to[:, None, :] < module.sliding_window_size
    rows, length, groups, width = query.shape[0], query.shape[1], key.shape[2], key.shape[3]
    # [E, K, T, G, H]: each key's head, and the query heads G of its group.
    query = query.reshape(rows, length, groups, -1, width).swapaxes(1, 2)
    key, value = key.swapaxes(1, 2), value.swapaxes(1, 2)
    before = key.shape[2] - length

    def block(start: int, stop: int) -> Float[Array, "E K t G H"]:
        """Of the queries [start, stop)."""
        logits = jnp.einsum("EKTGH,EKSH->EKTGS", query[:, :, start:stop], key[:, :, : before + stop])
        if module.attn_logits_soft_cap is not None:
            logits = jnp.tanh(logits / module.attn_logits_soft_cap) * module.attn_logits_soft_cap
        here = seen[:, None, start:stop, None, : before + stop]
        p = jax.nn.softmax(jnp.where(here, logits, _UNSEEN)).astype(key.dtype)
        return jnp.einsum("EKTGS,EKSH->EKTGH", p, value[:, :, : before + stop])

    count = min(_BLOCKS, -(-length // _SHORTEST))
    edges = [length * number // count for number in range(count + 1)]
    out = jnp.concatenate([block(*edge) for edge in itertools.pairwise(edges)], axis=2)
    return out.swapaxes(1, 2).reshape(rows, length, -1, width)


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
