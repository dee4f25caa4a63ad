"""Losses: the REINFORCE loss of Eq. 2 to 4 and the supervised one."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from score_jax.attempts import per_token


@flax.struct.dataclass
class PolicyGradientLoss:
    """REINFORCE over attempts: −Σ_i A_i Σ_{t in attempt i} log π(y_t | ...), summed over the tokens.

    Its gradient is −Σ_i A_i ∇log π(y_i | x_i): the policy gradient of Σ_i E[pay_i] when A_i is attempt
    i's pay less a baseline that does not depend on y_i. Episodes are on-policy (one update per batch),
    so there is no importance ratio and nothing is clipped.

    Attributes:
      decisive_only: leave out tokens that can no longer change their attempt's reward (those after its
        answer). With γ = 0 their gradient is 0 in expectation: leaving them out takes away noise and
        nothing else. Only the reward's advantage is left out there; the KL's stays.
    """

    decisive_only: bool = flax.struct.field(pytree_node=False, default=False)

    def __call__(
        self,
        logp: Float[Array, "E L"],
        advantages: Float[Array, "E N"],
        kl_advantages: Float[Array, "E N"],
        attempt: Int[Array, "E L"],
        decisive: Float[Array, "E L"],
    ) -> Float[Array, "E"]:
        """The loss of each episode.

        Args:
          logp: log π of each sampled token; the one argument through which the gradient flows.
          advantages: A_i from the rewards.
          kl_advantages: A_i from a KL penalty in the reward (zeros if it stands in the loss).
          attempt: which attempt a token belongs to.
          decisive: 1 where a token could still change the reward.
        """
        weight = per_token(advantages, attempt)
        if self.decisive_only:
            weight = weight * decisive
        weight = weight + per_token(kl_advantages, attempt)
        return -jnp.sum(jax.lax.stop_gradient(weight) * logp, axis=-1)


def sft_loss(logp: Float[Array, "E L"], weight: Float[Array | np.ndarray, "E L"]) -> Float[Array, "E"]:
    """−Σ_t w_t log π(y_t | ...) of each example; its gradient is that of the weighted cross-entropy."""
    return -jnp.sum(weight * logp, axis=-1)
