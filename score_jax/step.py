"""The jitted update of reinforcement learning (Eq. 2 to 4)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from score_jax import model as models
from score_jax import objectives, policy
from score_jax.attempts import per_attempt
from score_jax.kl import KLPenalty
from score_jax.learner import Learner
from score_jax.losses import PolicyGradientLoss
from score_jax.mesh import PARTS, keep_layout, keep_rows, keep_whole, over_rows
from score_jax.objectives import Objective, RewardShaping
from score_jax.places import Arrangement, Grid, Places, as_it_stands
from score_jax.types import CONTEXT, PADDING, Episodes, Experience, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyLearner(Learner):
    """What of an update of reinforcement learning is fixed at compile time.

    Of `micro_batches` problems stay whole; on a `mesh` the paper's modules run on each device's rows.

    Attributes:
      samples: K, samples per problem.
      kl_estimator: one of `kl.ESTIMATORS`.
      decisive_only: see `PolicyGradientLoss`.
      temperature: of the sampler, so that the same distribution is scored.
      reference: whether the reference is run; without it no KL is penalised, nor reported.
      prompt: S of `places`, with which all samples of a problem begin; 0: nothing stands before the rows.
      group: G of `places`, how many samples share those.
    """

    samples: int
    kl_estimator: str = "k1"
    decisive_only: bool = False
    temperature: float = 1.0
    reference: bool = True
    prompt: int = 0
    group: int = 1

    @property
    def grid(self) -> Grid:
        """How a batch is cut."""
        return Grid(self.samples, self.micro_batches, self.prompt, self.group)


def rl_loss(
    trainable: dict,
    frozen: dict,
    ref_params: dict,
    experience: Experience,
    objective: Objective,
    learner: PolicyLearner,
    places: Places | None = None,
) -> tuple[Float[Array, ""], policy.TokenScores]:
    """The summed loss of some whole problems' episodes, and what was scored (the KL of 'k1' token by token).

    `places` says which episodes those are; None: all, each in a row of its own.
    """
    scores, ref_logp, attempt = _score(trainable, frozen, ref_params, experience.episodes, learner, places)
    on_rows = functools.partial(over_rows, mesh=learner.mesh)
    advantages = advantages_of(experience, objective, learner)
    penalty = KLPenalty(jnp.asarray(objective.kl_coef), learner.kl_estimator)
    kl = on_rows(penalty)(scores.logp, jax.lax.stop_gradient(ref_logp), scores.kl, attempt)
    kl_advantages = jnp.zeros_like(kl)
    if penalty.in_reward:
        kl_advantages = objectives.leave_one_out(-jax.lax.stop_gradient(kl), learner.samples)
    pg = on_rows(PolicyGradientLoss(learner.decisive_only))(
        scores.logp, advantages, kl_advantages, attempt, experience.decisive
    )
    loss = jnp.sum(pg) + (0.0 if penalty.in_reward else jnp.sum(kl))
    exact = learner.reference and learner.kl_estimator == "full"
    return loss, scores if exact else dataclasses.replace(scores, kl=scores.logp - ref_logp)


def _score(
    trainable: dict,
    frozen: dict,
    ref_params: dict,
    episodes: Episodes,
    learner: PolicyLearner,
    places: Places | None,
) -> tuple[policy.TokenScores, Float[Array | np.ndarray, "E L"], Int[Array, "E L"]]:
    """The policy's scores of the episodes in `places`, the reference's log-probabilities of their tokens, and
    whose tokens they are; those of all other episodes count for nothing.

    Without a reference the sampler's log-probabilities stand for its: every weight of a KL is 0 then.
    """
    if places is None:
        count, length = episodes.tokens.shape
        places = as_it_stands(count, length, Grid(learner.samples)).places.part(0)
    taken = places.take(episodes.tokens, 0), places.take(episodes.attempt, PADDING)
    tokens, attempt = keep_rows(taken, learner.mesh)
    rows = Episodes(*map(places.rows, (tokens, attempt, jnp.zeros(tokens.shape, jnp.float32))))
    put_back = lambda x: places.put_back(x, len(episodes.tokens))
    head = lambda params: policy.head_of(learner.model, params, learner.temperature, mesh=learner.mesh)
    hidden = lambda params: places.rows(
        policy.hidden_states(
            models.for_params(learner.model, params),
            params,
            tokens,
            attempt,
            places=places,
            remat=learner.remat,
            mesh=learner.mesh,
        )
    )
    score = lambda params, **reference: jax.tree.map(
        put_back,
        policy.score_tokens(head(params), hidden(params), rows, chunk=learner.chunk, **reference),
    )
    reference, ref_logp = None, episodes.logp
    with jax.named_scope("reference"):
        if learner.reference and learner.kl_estimator == "full":
            reference = policy.Reference(hidden(ref_params), head(ref_params))
        elif learner.reference:
            ref_logp = score(ref_params).logp
    params = models.join(learner.model, frozen, trainable)
    scores = score(params, reference=jax.lax.stop_gradient(reference))
    here = put_back(jnp.ones(rows.tokens.shape, bool))
    return scores, ref_logp, jnp.where(here, episodes.attempt, PADDING)


def advantages_of(
    experience: Experience, objective: Objective, learner: PolicyLearner
) -> Float[Array, "E N"]:
    """A_i from the shaped rewards (Eq. 4), each problem's episodes the baseline of the others."""
    shaping = RewardShaping(jnp.asarray(objective.reward_weight), jnp.asarray(objective.bonus))
    shaped = over_rows(shaping, learner.mesh)(experience.rewards)
    return objectives.leave_one_out(objectives.returns(shaped, objective.discount), learner.samples)


@functools.partial(jax.jit, static_argnames="learner", donate_argnames="state")
def train_step(
    state: TrainState,
    frozen: dict,
    ref_params: dict,
    experience: Experience,
    objective: Objective,
    learning_rate: Float[Array, ""],
    arrangement: Arrangement | None = None,
    *,
    learner: PolicyLearner,
) -> tuple[TrainState, dict[str, Array]]:
    """One update of the policy towards `objective`; the loss is the mean over the batch's episodes.

    Objective and learning rate are arguments: both stages of SCoRe run the same compiled step.

    Args:
      state: its parameters are what is trained.
      frozen: the model's other parameters, {} where all are trained (`model.frozen_of`).
      ref_params: all parameters of the reference policy.
      experience: what the update learns from.
      objective: what it is to maximise.
      learning_rate: see `Optimizer`.
      arrangement: of the episodes in the parts of the batch; None: each has a row of its own.
      learner: what is fixed at compile time.

    Returns:
      The new state, and metrics: loss, grad_norm, skipped (see `Optimizer.apply_finite`), sampler_gap (the
      largest |log-prob of the sampler − of the scorer|), and per attempt: length (mean tokens), kl (mean
      nats; where the reference is run), entropy (mean nats per token), policy (|mean A_i log π(y_i)|, the
      size of its policy term).
    """
    episodes = experience.episodes
    count, length = episodes.tokens.shape
    if count % (learner.micro_batches * learner.samples):
        raise ValueError(
            f"micro_batches = {learner.micro_batches} does not divide the "
            f"{count // learner.samples} problems of a batch"
        )
    if arrangement is None:
        arrangement = as_it_stands(count, length, learner.grid)
    places = keep_rows(jax.tree.map(jnp.asarray, arrangement.places), learner.mesh, PARTS)
    nothing = jnp.zeros((count, length), jnp.float32)
    start = jax.tree.map(jnp.zeros_like, state.params), jnp.float32(0), policy.TokenScores(*[nothing] * 3)

    def accumulate(done: tuple[Array, Any]) -> tuple[Array, Any]:
        part, (grads, loss, scores) = done
        (more_loss, more_scores), more = jax.value_and_grad(rl_loss, has_aux=True)(
            state.params, frozen, ref_params, experience, objective, learner, places.part(part)
        )
        grads = keep_layout(jax.tree.map(jnp.add, grads, more), learner.mesh)
        scores = keep_rows(jax.tree.map(jnp.add, scores, more_scores), learner.mesh)
        return part + 1, (grads, loss + more_loss, scores)

    # `parts` alone ends the loop; micro_batches is a bound that `hlo_loops` can read in the compiled program.
    unfinished = lambda done: (done[0] < learner.micro_batches) & (done[0] < arrangement.parts)
    _, (grads, loss, scores) = jax.lax.while_loop(unfinished, accumulate, (jnp.int32(0), start))
    grads = jax.tree.map(lambda g: g / count, grads)
    state, metrics = learner.optimizer.apply_finite(state, grads, learning_rate, loss / count)
    metrics |= _metrics_of(scores, experience, objective, learner)
    return keep_layout(state, learner.mesh), keep_whole(metrics, learner.mesh)


def _metrics_of(
    scores: policy.TokenScores, experience: Experience, objective: Objective, learner: PolicyLearner
) -> dict[str, Array]:
    """The metrics of `train_step` that are read off what was scored."""
    episodes = experience.episodes
    by_attempt = lambda x: per_attempt(x, episodes.attempt, objective.attempts)
    mean = lambda x: x.sum(axis=0) / len(x)
    tokens = mean(by_attempt(jnp.asarray(episodes.attempt > CONTEXT, jnp.float32)))
    paid = experience.decisive if learner.decisive_only else 1.0
    pull = advantages_of(experience, objective, learner) * by_attempt(scores.logp * paid)
    return {
        "sampler_gap": jnp.max(jnp.abs(scores.logp - episodes.logp)),
        "length": tokens,
        "entropy": mean(by_attempt(scores.entropy)) / tokens,
        "policy": jnp.abs(mean(pull)),
    } | ({"kl": mean(by_attempt(scores.kl))} if learner.reference else {})
