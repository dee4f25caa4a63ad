"""The jitted supervised update, of pre-training, STaR and Pair-SFT: cross-entropy of weighted tokens."""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from score_jax import model as models
from score_jax import policy
from score_jax.learner import Learner
from score_jax.losses import sft_loss
from score_jax.mesh import PARTS, keep_layout, keep_rows, keep_whole
from score_jax.types import Episodes, TrainState


@flax.struct.dataclass
class Examples:
    """Transcripts to imitate.

    Attributes:
      tokens: token ids.
      attempt: as in Episodes.
      weight: of each token in the loss.
    """

    tokens: Int[Array | np.ndarray, "E L"]
    attempt: Int[Array | np.ndarray, "E L"]
    weight: Float[Array | np.ndarray, "E L"]


def imitation_loss(
    trainable: dict,
    frozen: dict,
    examples: Examples,
    learner: Learner,
) -> Float[Array, ""]:
    """The summed loss of some examples; see `sft_step`."""
    model, mesh = learner.model, learner.mesh
    params = models.join(model, frozen, trainable)
    hidden = policy.hidden_states(
        model, params, examples.tokens, examples.attempt, remat=learner.remat, mesh=mesh
    )
    episodes = Episodes(examples.tokens, examples.attempt, jnp.zeros_like(examples.weight))
    head = policy.head_of(model, params, mesh=mesh)
    logp = policy.score_tokens(head, hidden, episodes, chunk=learner.chunk).logp
    return sft_loss(logp, examples.weight).sum()


@functools.partial(jax.jit, static_argnames="learner", donate_argnames="state")
def sft_step(
    state: TrainState,
    frozen: dict,
    examples: Examples,
    learning_rate: Float[Array, ""],
    *,
    learner: Learner,
) -> tuple[TrainState, dict[str, Array]]:
    """One supervised update; the loss is the mean over the batch's weighted tokens (nats).

    Args:
      state: its parameters are what is trained.
      frozen: the model's other parameters, {} where all are trained (`model.frozen_of`).
      examples: what to imitate.
      learning_rate: see `Optimizer`.
      learner: what is fixed at compile time.

    Returns:
      The new state, and metrics: loss, grad_norm, skipped (see `Optimizer.apply_finite`).
    """
    rows, micro_batches, mesh = len(examples.tokens), learner.micro_batches, learner.mesh
    if rows % micro_batches:
        raise ValueError(f"micro_batches = {micro_batches} does not divide the {rows} examples of a batch")
    total = jnp.maximum(examples.weight.sum(), 1.0)

    def loss_fn(trainable: dict, part: Examples) -> Float[Array, ""]:
        loss = imitation_loss(trainable, frozen, part, learner)
        return loss / total

    def accumulate(grads: dict, part: list[Array]) -> tuple[dict, Array]:
        loss, more = jax.value_and_grad(loss_fn)(state.params, Examples(*part))
        return keep_layout(jax.tree.map(jnp.add, grads, more), mesh), loss

    # Dealt out row by row, so that each part has examples of every device.
    split = lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1)
    parts = [keep_rows(split(x), mesh, PARTS) for x in (examples.tokens, examples.attempt, examples.weight)]
    grads, losses = jax.lax.scan(accumulate, jax.tree.map(jnp.zeros_like, state.params), parts)
    state, metrics = learner.optimizer.apply_finite(state, grads, learning_rate, losses.sum())
    return keep_layout(state, mesh), keep_whole(metrics, mesh)
