"""What an update is made with: Adam behind a clip of the gradient, and all that is fixed at compile time."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from score_jax import model as models
from score_jax.mesh import placed
from score_jax.types import TrainState


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Adam behind a clip of the global gradient norm. The learning rate is an argument of each step.

    Attributes:
      clip_norm: the gradient is scaled down to this norm where it is longer.
      b1: decay of the first moment.
      b2: decay of the second moment.
      weight_decay: decoupled, times the learning rate.
    """

    clip_norm: float
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 0.0

    @property
    def transform(self) -> optax.GradientTransformation:
        """As an optax transformation without the learning rate."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.scale_by_adam(b1=self.b1, b2=self.b2),
            optax.add_decayed_weights(self.weight_decay),
        )

    def init(self, params: dict) -> TrainState:
        """A fresh state at step 0."""
        return TrainState(jnp.int32(0), params, self.transform.init(params))

    def apply(self, state: TrainState, grads: dict, learning_rate: Float[Array, ""]) -> TrainState:
        """One update."""
        updates, opt_state = self.transform.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: (p - learning_rate * u).astype(p.dtype), state.params, updates)
        return TrainState(state.step + 1, params, opt_state)

    def apply_finite(
        self, state: TrainState, grads: dict, learning_rate: Float[Array, ""], loss: Float[Array, ""]
    ) -> tuple[TrainState, dict[str, Array]]:
        """One update, skipped where the loss or the gradient is NaN or infinite.

        A skipped update leaves parameters and moments what they were, bit by bit. The step advances, as
        batches are a function of it: the next update sees other problems.

        Returns:
          The new state, and metrics: loss, grad_norm, skipped (0 or 1).
        """
        norm = optax.tree.norm(grads)  # NaN or infinite where any entry of the gradient is
        good = jnp.isfinite(loss) & jnp.isfinite(norm)
        new = self.apply(state, grads, learning_rate)
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, state)
        return kept.replace(step=new.step), {"loss": loss, "grad_norm": norm, "skipped": 1 - good}


def blank_state(model: nn.Module, base: dict, optimizer: Optimizer, dtype: str, mesh: Mesh) -> dict[str, Any]:
    """The fields of a `TrainState` as shapes, dtypes and places, and no byte of it: to read checkpoints by.

    Args:
      model: the policy's architecture, with its adapters.
      base: the base model's parameters, or their shapes.
      optimizer: whose moments the state holds.
      dtype: of what is trained.
      mesh: over which it is laid out.
    """

    def fresh(base: dict, key: Array) -> dict[str, Any]:
        state = optimizer.init(models.init_trainable(model, base, key, dtype))
        return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}

    return placed(jax.eval_shape(fresh, base, jax.eval_shape(lambda: jax.random.key(0))), mesh)


@dataclasses.dataclass(frozen=True)
class Learner:
    """What of an update is fixed at compile time.

    Attributes:
      model: the policy's architecture, with its adapters.
      optimizer: see there.
      chunk: positions whose vocabulary-wide scores are held at a time.
      remat: the backward pass computes each layer anew, see `policy.hidden_states`.
      micro_batches: the gradient is accumulated over so many parts of the batch.
      mesh: the state keeps its layout on it; None: one device.
    """

    model: nn.Module
    optimizer: Optimizer
    chunk: int = 64
    remat: bool = False
    micro_batches: int = 1
    mesh: Mesh | None = None


def optimizer_of(config: ml_collections.ConfigDict) -> Optimizer:
    """That of a run's stages."""
    return Optimizer(**config.optimizer.to_dict())
