"""Which Gemma: a small one of any size, or one of the gemma package by name; with or without adapters."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from score_jax.gemma import gm, peft

# Where the input axes of a kernel stand in its adapters' product, and where they stand in the kernel:
# A [..., r] · B [r, ...] has the input axes first. `gating_einsum` has both layouts, by the model's config.
_MOVES = {
    "attn_vec_einsum": None,
    "linear": None,
    "q_einsum": (0, 1),
    "kv_einsum": (0, 2),
    "qkv_einsum": (0, 2),
}


def small_gemma(config: ml_collections.ConfigDict, vocab_size: int) -> nn.Module:
    """A Gemma-3-shaped model of any size: local sliding layers, the last one global, query-key norm."""
    kinds = gm.nn.config.AttentionType
    attention_types = (kinds.LOCAL_SLIDING,) * (config.layers - 1) + (kinds.GLOBAL,)
    return gm.nn.Transformer(
        config=gm.nn.config.TransformerConfig(
            num_embed=vocab_size,
            embed_dim=config.width,
            hidden_dim=config.hidden_width,
            num_heads=config.heads,
            head_dim=config.head_width,
            num_kv_heads=config.kv_heads,
            attention_types=attention_types,
            sliding_window_size=config.sliding_window,
            final_logit_softcap=None,
            use_post_attn_norm=True,
            use_post_ffw_norm=True,
            use_qk_norm=True,
            transpose_gating_einsum=True,
            local_base_frequency=10_000,
            global_base_frequency=1_000_000,
        ),
        dtype=jnp.dtype(config.dtype),
    )


def named_gemma(name: str, dtype: str) -> nn.Module:
    """A text model of the gemma package by its class's name, or 'package.module:Class' of your own.

    Raises:
      ValueError: there is no such model; names those there are.
    """
    module, _, cls = name.rpartition(":")
    try:
        model = getattr(importlib.import_module(module) if module else gm.nn, cls)
    except (ImportError, AttributeError) as error:
        known = ", ".join(sorted(n for n in dir(gm.nn) if n.startswith(("Gemma2", "Gemma3_", "Gemma4"))))
        raise ValueError(
            f"config.model.name = {name!r} is no model of the gemma package: name one of {known}, "
            "or your own as 'package.module:Class'"
        ) from error
    if not (isinstance(model, type) and issubclass(model, nn.Module) and hasattr(model, "config")):
        raise ValueError(f"config.model.name = {name!r} is no Gemma of some size; name one as Gemma3_1B is")
    text_only: dict[str, Any] = {"text_only": True} if "text_only" in model.__dataclass_fields__ else {}
    return model(dtype=jnp.dtype(dtype), **text_only)


def init_params(model: nn.Module, key: jax.Array) -> dict:
    """Random parameters."""
    init = lambda key: model.init(key, jnp.ones((1, 2), jnp.int32))["params"]
    # It runs once: on CPUs, to compile it with all optimisations takes seconds more, and gives the same bits.
    quickly = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    return jax.jit(init, compiler_options=quickly)(key)


def shapes_of(model: nn.Module) -> dict:
    """Shapes and dtypes of the model's parameters; nothing is computed."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.ones((1, 2), jnp.int32))["params"])


def with_adapters(model: nn.Module, rank: int) -> nn.Module:
    """The model with low-rank adapters (Hu et al. 2021) beside every kernel of its layers; rank 0 is none.

    Raises:
      ValueError: the gemma package has no adapters for this architecture.
    """
    if not rank:
        return model
    adapted = gm.nn.LoRA(rank=rank, model=called(model, f"rank {rank}"), dtype=jnp.float32)
    if not peft.split_params(shapes_of(adapted)).lora:
        raise ValueError(
            f"config.lora_rank = {rank}: the gemma package has no adapters for "
            f"{type(model).__name__}; set it to 0 and train all parameters"
        )
    return adapted


def without_adapters(model: nn.Module) -> nn.Module:
    """The model that the adapters were put beside."""
    return called(model.model, None) if isinstance(model, gm.nn.LoRA) else model


def called(model: nn.Module, name: str | None) -> nn.Module:
    """The same model, but not equal to those of other names; None is the name that it came with.

    # subtle: the gemma package jits its models, and flax keeps one trace for all equal ones: under an
    # interceptor (adapters of some rank, layers run otherwise) a model must not equal one without. The name
    # stands in a field that nothing here reads.
    """
    if isinstance(model, gm.nn.LoRA):
        return model.clone(model=called(model.model, f"{model.model.tokens}, {name}"))
    return model.clone(tokens=name or type(model).__dataclass_fields__["tokens"].default)


def for_params(model: nn.Module, params: dict) -> nn.Module:
    """The model that `params` are complete for: without its adapters where they have none."""
    return model if peft.split_params(params).lora else without_adapters(model)


def init_trainable(model: nn.Module, base: dict, key: jax.Array, dtype: str) -> dict:
    """What training changes, at its start: new adapters, which do nothing yet, or a copy of all of `base`.

    Adam's small updates vanish in bfloat16's 8 bits, so what is trained has a `dtype` of its own.
    """
    if not isinstance(model, gm.nn.LoRA):
        return jax.tree.map(lambda x: jnp.array(x, dtype=dtype, copy=True), base)
    adapters = lambda key: peft.split_params(model.init(key, jnp.ones((1, 2), jnp.int32))["params"]).lora
    return jax.tree.map(lambda x: x.astype(dtype), jax.jit(adapters)(key))


def frozen_of(model: nn.Module, base: dict) -> dict:
    """What training does not change: `base` beside adapters, and nothing where all of it is trained."""
    return base if isinstance(model, gm.nn.LoRA) else {}


def join(model: nn.Module, frozen: dict, trainable: dict) -> dict:
    """The parameters that `model` runs with, in its own dtype."""
    dtype = without_adapters(model).dtype
    return peft.merge_params(frozen, jax.tree.map(lambda x: x.astype(dtype), trainable))


def fuse(model: nn.Module, params: dict) -> dict:
    """The parameters of the model without adapters that computes the same: each A · B added to its kernel."""
    if not isinstance(model, gm.nn.LoRA):
        return params
    moves = _moves(model)

    def walk(tree: dict, name: str) -> dict:
        adapters = {
            key: value["lora"] for key, value in tree.items() if isinstance(value, dict) and "lora" in value
        }
        plain = {key: value for key, value in tree.items() if key not in adapters}
        for key, adapter in adapters.items():
            # An adapter stands in its kernel's module, or beside it where a module has two kernels.
            kernel = key.removeprefix("_LoRAEinsum_")
            place, kind = (kernel, kernel) if kernel in plain else ("w", name)
            plain[place] = _add(plain[place], adapter, moves[kind])
        return {key: walk(value, key) if isinstance(value, dict) else value for key, value in plain.items()}

    return walk(params, "")


def inputs_first(model: nn.Module, params: dict) -> dict:
    """`params` with the axes that a product sums over in front, of every kernel of the layers.

    XLA's products on CPUs read them in this order. `as_stored` gives them back to the model.
    """
    return _moved(model, params, lambda kernel, move: jnp.moveaxis(kernel, *reversed(move)))


def as_stored(model: nn.Module, params: dict) -> dict:
    """What `inputs_first` was given."""
    return _moved(model, params, lambda kernel, move: jnp.moveaxis(kernel, *move))


def _moved(model: nn.Module, params: dict, turn: Callable[[jax.Array, tuple[int, int]], jax.Array]) -> dict:
    """`params` with `turn(kernel, move)` in place of each kernel whose input axes do not stand first."""
    moves = _moves(model)

    def moved(path: Sequence[jax.tree_util.DictKey], leaf: jax.Array) -> jax.Array:
        names = [key.key for key in path]
        move = next((moves[name] for name in names if name in moves), None)
        return leaf if move is None or "lora" in names else turn(leaf, move)

    return jax.tree_util.tree_map_with_path(moved, params)


def _moves(model: nn.Module) -> dict[str, tuple[int, int] | None]:
    """`_MOVES`, with the layout of the gating kernel that the model's config says."""
    turned = getattr(model.config, "transpose_gating_einsum", False)
    return _MOVES | {"gating_einsum": (0, 2) if turned else (0, 1)}


def _add(kernel: jax.Array, adapter: dict, move: tuple[int, int] | None) -> jax.Array:
    """The kernel and its adapter's product."""
    delta = jnp.tensordot(adapter["a"].astype(jnp.float32), adapter["b"].astype(jnp.float32), axes=1)
    if move is not None:
        delta = jnp.moveaxis(delta, *move)
    return (kernel.astype(jnp.float32) + delta).astype(kernel.dtype)
