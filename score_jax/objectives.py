"""The paper: what each attempt is paid, and how the pay becomes an advantage.

An objective is a row of numbers per attempt. The two stages of SCoRe, its baselines and the stages of the
three-attempt variant differ in these numbers alone:

                        reward weight   bonus α    KL coefficient
    Eq. 1  multi-turn       1  1         0  0       β₁      β₁
    Eq. 2  single-turn      1            0          β₁
    Eq. 3  Stage I          0  1         0  0       β₁+β₂   β₁
    Eq. 4  Stage II         1  1         0  α       β₁      β₁
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@flax.struct.dataclass
class Objective:
    """What a stage maximises; every field has one number per attempt but the discount.

    Attributes:
      reward_weight: of r̂(y_i, y*).
      bonus: α_i of the bonus α_i (r̂_i − r̂_{i−1}), section 5.2; the first attempt's must be 0.
      kl_coef: β_i of KL(π(·|x_i) ‖ π_ref(·|x_i)).
      discount: γ, how much of the later attempts' pay an attempt gets. The paper's method has 0 (App. A.4):
        with more, the bonus pays the first attempt for being wrong.
    """

    reward_weight: Float[Array | np.ndarray, "N"]
    bonus: Float[Array | np.ndarray, "N"]
    kl_coef: Float[Array | np.ndarray, "N"]
    discount: float | Float[Array, ""] = 0.0

    @property
    def attempts(self) -> int:
        """N."""
        return len(self.reward_weight)


def multi_turn(attempts: int, *, beta_1: float, beta_2: float = 0.0, discount: float = 0.0) -> Objective:
    """Eq. 1 with the penalty of Eq. 2: every attempt is paid its own reward, β₂ more KL on all but the last.

    One attempt is single-turn RL, more are the naive multi-turn RL that the paper compares with.
    """
    last = np.eye(attempts)[-1]
    return Objective(np.ones(attempts), np.zeros(attempts), beta_1 + beta_2 * (1 - last), discount)


def stage_one(attempts: int, *, beta_1: float, beta_2: float, discount: float = 0.0) -> Objective:
    """Eq. 3: reward on the last attempt alone, a strong KL that holds the earlier ones at the reference.

    >>> eq_3 = stage_one(2, beta_1=0.25, beta_2=0.5)
    >>> eq_3.reward_weight.tolist(), eq_3.kl_coef.tolist()
    ([0.0, 1.0], [0.75, 0.25])

    Three attempts: I(a) is this with two, I(b) this with three and the I(a) model as reference (App. A.1).
    """
    last = np.eye(attempts)[-1]
    return Objective(last, np.zeros(attempts), beta_1 + beta_2 * (1 - last), discount)


def stage_two(
    attempts: int,
    *,
    alpha: float,
    beta_1: float,
    beta_2: float = 0.0,
    discount: float = 0.0,
    scale_kl: bool = False,
) -> Objective:
    """Eq. 4 with the shaped reward: all attempts are paid, and each later one for its progress.

    With γ = 0 the part −α r̂_{i−1} of the bonus is known before attempt i is written: a baseline. In
    expectation the bonus therefore multiplies attempt i's policy gradient by (1 + α), and so divides the
    weight of its KL. `scale_kl` multiplies β₁ of the attempts that have a bonus by (1 + α) too, which
    keeps the balance.

    Args:
      attempts: N.
      alpha: α, the paper has 10.
      beta_1: β₁.
      beta_2: more KL on all attempts but the last; 0 in Eq. 4.
      discount: γ.
      scale_kl: see above.
    """
    first, last = np.eye(attempts)[0], np.eye(attempts)[-1]
    bonus = alpha * (1 - first)
    kl_coef = beta_1 * (1 + bonus * scale_kl) + beta_2 * (1 - last)
    return Objective(np.ones(attempts), bonus, kl_coef, discount)


def blend(begin: Objective, end: Objective, share: float) -> Objective:
    """(1 − share) of `begin` and `share` of `end`, number by number: both stages in one run.

    The paper trains Stage I and II one after the other and names their unification as open.
    """
    return jax.tree.map(lambda a, b: (1 - share) * a + share * b, begin, end)


@flax.struct.dataclass
class RewardShaping:
    """Section 5.2: r̂_i is replaced by w_i r̂_i + α_i (r̂_i − r̂_{i−1}).

    A correction, a spoiled answer and one that was kept, at α = 10:

    >>> shaped = RewardShaping(reward_weight=jnp.array([1.0, 1.0]), bonus=jnp.array([0.0, 10.0]))
    >>> shaped(jnp.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])).tolist()
    [[0.0, 11.0], [1.0, -10.0], [1.0, 1.0]]

    Attributes:
      reward_weight: w.
      bonus: α.
    """

    reward_weight: Float[Array, "N"]
    bonus: Float[Array, "N"]

    def __call__(self, rewards: Float[Array, "E N"]) -> Float[Array, "E N"]:
        """Shaped rewards of each attempt."""
        before = jnp.pad(rewards, ((0, 0), (1, 0)))[:, :-1]
        return self.reward_weight * rewards + self.bonus * (rewards - before)


def returns(rewards: Float[Array, "E N"], discount: float | Float[Array, ""]) -> Float[Array, "E N"]:
    """Σ_{j ≥ i} γ^{j−i} r_j: what attempt i is credited with (App. A.4). γ = 0 gives the rewards back.

    >>> returns(jnp.array([[1.0, 4.0]]), 0.5).tolist()
    [[3.0, 4.0]]
    """
    attempts = jnp.arange(rewards.shape[1])
    ahead = attempts[None, :] - attempts[:, None]
    weight = jnp.triu(discount ** jnp.maximum(ahead, 0))  # 0 ** 0 is 1: without a discount it is the identity
    return rewards @ weight.T


def leave_one_out(values: Float[Array, "E N"], samples: int) -> Float[Array, "E N"]:
    """RLOO advantages (Ahmadian et al. 2024): each value less the mean of its problem's other samples.

    Nothing is normalised or clamped.

    >>> leave_one_out(jnp.array([[1.0], [0.0], [0.0], [0.0], [0.0]]), samples=5)[:, 0].tolist()
    [1.0, -0.25, -0.25, -0.25, -0.25]

    Args:
      values: rows of the same problem stand together, `samples` at a time.
      samples: K ≥ 2.

    Raises:
      ValueError: K is 1, or does not divide E.
    """
    episodes, attempts = values.shape
    if samples < 2 or episodes % samples:
        raise ValueError(
            f"samples_per_problem = {samples} with {episodes} episodes: "
            "the leave-one-out baseline needs at least 2 samples and complete groups"
        )
    groups = values.reshape(-1, samples, attempts)
    others = (groups.sum(axis=1, keepdims=True) - groups) / (samples - 1)
    return (groups - others).reshape(values.shape)
