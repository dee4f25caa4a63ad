"""The policy: a Gemma model of the gemma package, and the log-probabilities of what it wrote."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from score_jax import model as models
from score_jax.layers import over_transcripts
from score_jax.mesh import gathered, keep_rows
from score_jax.places import Places
from score_jax.types import CONTEXT, PADDING, Episodes


def positions_of(valid: Bool[Array | np.ndarray, "E L"]) -> Int[Array, "E L"]:
    """Positions that count only what stands there, so that padding anywhere in a row changes nothing."""
    return jnp.maximum(jnp.cumsum(valid, axis=-1) - 1, 0)


def hidden_states(
    model: nn.Module,
    params: dict,
    tokens: Int[Array | np.ndarray, "Q U"],
    attempt: Int[Array | np.ndarray, "Q U"],
    *,
    places: Places | None = None,
    remat: bool = False,
    mesh: Mesh | None = None,
) -> Float[Array, "Q U D"]:
    """The final hidden states of whole transcripts; every attempt in one forward pass, see `layers`.

    Without `places` each row is one transcript. With them several may share a row, or what they begin with;
    each counts its own positions.

    With `remat` the backward pass computes each layer anew and holds what is within one of them alone. On a
    mesh each layer gathers its parameters where it needs them, in the backward pass again.

    attention mask of one row · · p p 1 1 · f 2 2     (· = padding, anywhere)
    a query sees the non-padding tokens of its transcript up to itself
    """
    valid, prompt = jnp.asarray(attempt) != PADDING, 0
    if places is None:
        seen = valid[:, None, :] & jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool))
    else:
        seen, prompt = places.seen(valid), places.prompt
    inputs: dict[str, Any] = {
        "positions": jnp.maximum(jnp.sum(seen, axis=-1) - 1, 0),
        "attention_mask": seen,
        "return_hidden_states": True,  # the logits that the model makes beside them are dead code under jit
    }
    devices = mesh and (mesh.shape, mesh.device_ids.tolist())
    how = f"transcripts after {prompt}, remat {remat}, mesh {devices}"
    with nn.intercept_methods(around_layers(remat, mesh)), nn.intercept_methods(over_transcripts(prompt)):
        out: Any = models.called(model, how).apply({"params": params}, tokens, **inputs)
    return out.hidden_states


def around_layers(remat: bool, mesh: Mesh | None) -> Callable:
    """An interceptor of a Gemma's layers, layer_0, layer_1, ... of its parameters; see `hidden_states`."""
    inside: list[nn.Module] = []

    def intercept(next_fun: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        is_layer = context.method_name == "__call__" and re.fullmatch(r"layer_\d+", module.name or "")
        if inside or not is_layer:
            return next_fun(*args, **kwargs)

        def layer(module: nn.Module, x: Array, *args: Any, **kwargs: Any) -> Any:
            inside.append(module)  # this call is to reach the layer itself
            try:
                return module(keep_rows(x, mesh), *args, **kwargs)
            finally:
                inside.pop()

        run = nn.map_variables(layer, "params", lambda params: gathered(params, mesh)) if mesh else layer
        return (nn.remat(run) if remat else run)(module, *args, **kwargs)

    return intercept


@flax.struct.dataclass
class Head:
    """The output layer: hidden states to logits, with the temperature that the sampler used.

    Attributes:
      table: the tied embedding table, [V, D].
      softcap: Gemma 2's bound on the final logits, or None.
      temperature: logits are divided by it.
    """

    table: Float[Array, "V D"]
    softcap: float | None = flax.struct.field(pytree_node=False, default=None)
    temperature: float | Float[Array, ""] = 1.0

    def logits(self, hidden: Float[Array, "*S D"]) -> Float[Array, "*S V"]:
        """Logits at temperature 1, float32."""
        logits = jnp.dot(hidden, self.table.T, preferred_element_type=jnp.float32)
        return logits if self.softcap is None else jnp.tanh(logits / self.softcap) * self.softcap

    def log_softmax(self, hidden: Float[Array, "*S D"]) -> Float[Array, "*S V"]:
        """Log-probabilities of every token at the head's temperature, float32."""
        return jax.nn.log_softmax(self.logits(hidden) / self.temperature)


def head_of(
    model: nn.Module,
    params: dict,
    temperature: float | Float[Array, ""] = 1.0,
    *,
    mesh: Mesh | None = None,
) -> Head:
    """The model's output layer with `params`, on a mesh with all of the table's width on each device."""
    table = gathered({"input_embedding": params["embedder"]["input_embedding"]}, mesh)["input_embedding"]
    return Head(table, softcap=model.config.final_logit_softcap, temperature=temperature)


@flax.struct.dataclass
class TokenScores:
    """What the policy says about each sampled token (0 where `attempt` < 1), in nats.

    Attributes:
      logp: log π(token | what stands before it).
      entropy: of π(· | what stands before it).
      kl: exact KL(π(·|·) ‖ π_ref(·|·)) over the vocabulary; zeros where no reference states were given.
    """

    logp: Float[Array, "E L"]
    entropy: Float[Array, "E L"]
    kl: Float[Array, "E L"]


@flax.struct.dataclass
class Reference:
    """The frozen reference policy's hidden states and output layer: D numbers per token, not V."""

    hidden: Float[Array, "E L D"]
    head: Head


def score_tokens(
    head: Head,
    hidden: Float[Array, "E L D"],
    episodes: Episodes,
    *,
    reference: Reference | None = None,
    chunk: int = 64,
) -> TokenScores:
    """Log-probability, entropy and exact KL of each sampled token.

    Works through the transcript in pieces of a length, at most `chunk` positions, and recomputes each in the
    backward pass if there are several: no array of [E, L, V] ever exists, the largest is [E, chunk, V].
    """
    # The state at t speaks of token t + 1.
    rows = {
        "hidden": hidden[:, :-1],
        "target": jnp.asarray(episodes.tokens[:, 1:]),
        "attempt": jnp.asarray(episodes.attempt[:, 1:]),
    }
    if reference is not None:
        rows["reference"] = reference.hidden[:, :-1]

    def score(rows: dict[str, Array]) -> list[Array]:
        logp_all = head.log_softmax(rows["hidden"])
        p_all = jnp.exp(logp_all)
        logp = jnp.take_along_axis(logp_all, rows["target"][..., None], axis=-1)[..., 0]
        entropy = -jnp.sum(p_all * logp_all, axis=-1)
        kl = jnp.zeros_like(logp)
        if reference is not None:
            kl = jnp.sum(p_all * (logp_all - reference.head.log_softmax(rows["reference"])), axis=-1)
        sampled = rows["attempt"] > CONTEXT
        return [jnp.where(sampled, score, 0.0) for score in (logp, entropy, kl)]

    length = episodes.tokens.shape[1] - 1
    if chunk >= length:
        scores = score(rows)
    else:
        chunks = jax.tree.map(lambda x: _split_chunks(x, -(-length // chunk)), rows)
        scores = [_join_chunks(x)[:, :length] for x in jax.lax.map(jax.checkpoint(score), chunks)]
    return TokenScores(*(jnp.pad(x, ((0, 0), (1, 0))) for x in scores))


def _split_chunks(x: Array, count: int) -> Array:
    """[E, L, ...] to [count, E, chunk, ...], zeros after the end."""
    rows, length = x.shape[:2]
    chunk = -(-length // count)
    x = jnp.pad(x, ((0, 0), (0, count * chunk - length)) + ((0, 0),) * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(rows, count, chunk, *x.shape[2:]), 1, 0)


def _join_chunks(x: Array) -> Array:
    """The inverse of `_split_chunks`, the added zeros still there."""
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])


@functools.partial(jax.jit, static_argnames=("model", "chunk", "parts"))
def score_episodes(
    model: nn.Module,
    params: dict,
    episodes: Episodes,
    *,
    temperature: float | Float[Array, ""] = 1.0,
    chunk: int = 64,
    parts: int = 1,
) -> TokenScores:
    """Scores whole transcripts with `params`, outside of any update, in so many parts after each other."""
    head = head_of(model, params, temperature)

    def score(part: Sequence[Array | np.ndarray]) -> list[Array]:
        some = Episodes(*part)
        hidden = hidden_states(model, params, some.tokens, some.attempt)
        return jax.tree.leaves(score_tokens(head, hidden, some, chunk=chunk))

    # Dealt out row by row, so that each part has episodes of every device.
    split = lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
    joined = lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
    every = (episodes.tokens, episodes.attempt, episodes.logp)
    if parts == 1:
        return TokenScores(*score(every))
    return TokenScores(*map(joined, jax.lax.map(score, tuple(map(split, every)))))
