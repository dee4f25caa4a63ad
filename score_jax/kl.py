"""The KL penalty Σ_i β_i KL(π(·|x_i) ‖ π_ref(·|x_i)) of Eq. 2 to 4, by four estimators.

With ρ = log π − log π_ref at a sampled token, what each estimator is and what its gradient is:

    k1    Σ_t ρ_t as a (negative) reward.            The exact gradient of the attempt's KL.
    k2    ½ ρ_t² per token, as a loss.               That of the KL at each state, the states held fixed:
                                                     its expectation is each state's ∇KL, exactly.
    k3    e^{−ρ_t} − 1 + ρ_t per token, as a loss.   In expectation ∇KL(π_ref ‖ π) at each state: another
                                                     divergence's, close to it while π is close to π_ref.
    full  Σ_v π(v) log(π(v)/π_ref(v)), as a loss.    ∇KL at each state without sampling noise; states fixed.

Holding the states fixed leaves out that an early token changes which states the later ones meet. k1 as a
*loss* has gradient 0 in expectation and is not offered; k2 over the whole attempt, ½ (Σ_t ρ_t)², has k1's
gradient without its baseline.
"""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from score_jax.attempts import per_attempt

ESTIMATORS = ("k1", "k2", "k3", "full")


@flax.struct.dataclass
class KLPenalty:
    """β-weighted KL of each attempt.

    Attributes:
      coef: β_i.
      estimator: one of `ESTIMATORS`.
    """

    coef: Float[Array, "N"]
    estimator: str = flax.struct.field(pytree_node=False, default="k1")

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"kl_estimator = {self.estimator!r}: choose one of {', '.join(ESTIMATORS)}")

    @property
    def in_reward(self) -> bool:
        """Whether the penalty is taken off the reward (True) or added to the loss (False)."""
        return self.estimator == "k1"

    def __call__(
        self,
        logp: Float[Array, "E L"],
        ref_logp: Float[Array, "E L"],
        full: Float[Array, "E L"],
        attempt: Int[Array | np.ndarray, "E L"],
    ) -> Float[Array, "E N"]:
        """β_i times the estimate of each attempt's KL, in nats.

        Args:
          logp: log π of each sampled token.
          ref_logp: log π_ref of the same.
          full: exact KL at each sampled token's state (read by 'full' alone).
          attempt: which attempt a token belongs to.
        """
        rho = logp - ref_logp
        match self.estimator:
            case "k1":
                tokens = rho
            case "k2":
                tokens = 0.5 * rho**2
            case "k3":
                tokens = jnp.expm1(-rho) + rho
            case "full":
                tokens = full
        return self.coef * per_attempt(tokens, attempt, len(self.coef))
