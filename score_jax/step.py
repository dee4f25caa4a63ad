"""The jitted updates: one RL step (Eq. 2 to 4) and one supervised step."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from score_jax import attempts as attempts_lib
from score_jax import model as models
from score_jax import objectives, packing, policy
from score_jax.kl import KLPenalty
from score_jax.losses import PolicyGradientLoss, sft_loss
from score_jax.mesh import PARTS, keep_layout, keep_rows, keep_whole, over_rows, placed
from score_jax.objectives import Objective, RewardShaping
from score_jax.types import CONTEXT, PADDING, Episodes, Experience, TrainState


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
    """What of the update is fixed at compile time.

    Attributes:
      model: the policy's architecture, with its adapters.
      optimizer: see there.
      samples: K, samples per problem.
      kl_estimator: one of `kl.ESTIMATORS`.
      decisive_only: see `PolicyGradientLoss`.
      temperature: of the sampler, so that the same distribution is scored.
      micro_batches: the gradient is accumulated over so many parts of the batch; problems stay whole.
      chunk: positions whose vocabulary-wide scores are held at a time.
      remat: the backward pass computes each layer anew, see `policy.hidden_states`.
      reference: whether the reference is run; without it no KL is penalised, nor told.
      mesh: the state keeps its layout on it, and the paper's modules run on its rows; None: one device.
    """

    model: nn.Module
    optimizer: Optimizer
    samples: int
    kl_estimator: str = "k1"
    decisive_only: bool = False
    temperature: float = 1.0
    micro_batches: int = 1
    chunk: int = 64
    remat: bool = False
    reference: bool = True
    mesh: Mesh | None = None


def rl_loss(
    trainable: dict,
    frozen: dict,
    ref_params: dict,
    experience: Experience,
    objective: Objective,
    learner: Learner,
    places: Int[Array, "R L"] | None = None,
) -> tuple[Float[Array, ""], policy.TokenScores]:
    """The summed loss of some whole problems' episodes, and what was scored (the KL of 'k1' token by token).

    `places`, see `packing.Packing`, says which episodes those are; None: all, each in a row of its own.
    """
    episodes = experience.episodes
    if places is None:
        places = jnp.arange(episodes.tokens.size, dtype=jnp.int32).reshape(episodes.tokens.shape)
    tokens = packing.take(episodes.tokens, places, 0)
    attempt = packing.take(episodes.attempt, places, PADDING)
    rows = keep_rows(Episodes(tokens, attempt, jnp.zeros(tokens.shape, jnp.float32)), learner.mesh)
    put_back = lambda x: packing.put_back(x, places, len(episodes.tokens))
    params = models.join(learner.model, frozen, trainable)
    head = lambda params: policy.head_of(learner.model, params, learner.temperature, mesh=learner.mesh)
    hidden = lambda params: policy.hidden_states(
        models.for_params(learner.model, params),
        params,
        rows.tokens,
        rows.attempt,
        episode=packing.episode_of(places),
        remat=learner.remat,
        mesh=learner.mesh,
    )
    score = lambda params, **reference: jax.tree.map(
        put_back,
        policy.score_tokens(head(params), hidden(params), rows, chunk=learner.chunk, **reference),
    )
    # From here on each array has all episodes again; those that stand elsewhere count for nothing.
    attempt = jnp.where(put_back(jnp.ones(places.shape, bool)), episodes.attempt, PADDING)
    reference, ref_logp = None, episodes.logp
    with jax.named_scope("reference"):
        if learner.reference and learner.kl_estimator == "full":
            reference = policy.Reference(hidden(ref_params), head(ref_params))
        elif learner.reference:
            ref_logp = score(ref_params).logp
    scores = score(params, reference=jax.lax.stop_gradient(reference))

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
    return loss, scores if reference is not None else scores.replace(kl=scores.logp - ref_logp)


def advantages_of(experience: Experience, objective: Objective, learner: Learner) -> Float[Array, "E N"]:
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
    arrangement: packing.Packing | None = None,
    *,
    learner: Learner,
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
        arrangement = packing.as_it_stands(count, length, learner.samples, learner.micro_batches)
    places = keep_rows(jnp.asarray(arrangement.places), learner.mesh, PARTS)
    nothing = jnp.zeros((count, length), jnp.float32)
    start = jax.tree.map(jnp.zeros_like, state.params), jnp.float32(0), policy.TokenScores(*[nothing] * 3)

    def accumulate(done: tuple[Array, Any]) -> tuple[Array, Any]:
        part, (grads, loss, scores) = done
        (more_loss, more_scores), more = jax.value_and_grad(rl_loss, has_aux=True)(
            state.params, frozen, ref_params, experience, objective, learner, places[part]
        )
        grads = keep_layout(jax.tree.map(jnp.add, grads, more), learner.mesh)
        scores = keep_rows(jax.tree.map(jnp.add, scores, more_scores), learner.mesh)
        return part + 1, (grads, loss + more_loss, scores)

    # `parts` alone ends the loop; micro_batches is a bound that `hlo_loops` can read in the compiled program.
    unfinished = lambda done: (done[0] < learner.micro_batches) & (done[0] < arrangement.parts)
    _, (grads, loss, scores) = jax.lax.while_loop(unfinished, accumulate, (jnp.int32(0), start))
    grads = jax.tree.map(lambda g: g / count, grads)
    state, metrics = learner.optimizer.apply_finite(state, grads, learning_rate, loss / count)
    metrics |= _told(scores, experience, objective, learner)
    return keep_layout(state, learner.mesh), keep_whole(metrics, learner.mesh)


def _told(
    scores: policy.TokenScores, experience: Experience, objective: Objective, learner: Learner
) -> dict[str, Array]:
    """The metrics of `train_step` that are read off what was scored."""
    episodes = experience.episodes
    by_attempt = lambda x: attempts_lib.per_attempt(x, episodes.attempt, objective.attempts)
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
    *,
    model: nn.Module,
    chunk: int = 64,
    remat: bool = False,
    mesh: Mesh | None = None,
) -> Float[Array, ""]:
    """The summed loss of some examples; see `sft_step`."""
    params = models.join(model, frozen, trainable)
    hidden = policy.hidden_states(model, params, examples.tokens, examples.attempt, remat=remat, mesh=mesh)
    episodes = Episodes(examples.tokens, examples.attempt, jnp.zeros_like(examples.weight))
    head = policy.head_of(model, params, mesh=mesh)
    logp = policy.score_tokens(head, hidden, episodes, chunk=chunk).logp
    return sft_loss(logp, examples.weight).sum()


@functools.partial(
    jax.jit,
    static_argnames=("model", "optimizer", "chunk", "remat", "micro_batches", "mesh"),
    donate_argnames="state",
)
def sft_step(
    state: TrainState,
    frozen: dict,
    examples: Examples,
    learning_rate: Float[Array, ""],
    *,
    model: nn.Module,
    optimizer: Optimizer,
    chunk: int = 64,
    remat: bool = False,
    micro_batches: int = 1,
    mesh: Mesh | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One supervised update; the loss is the mean over the batch's weighted tokens (nats).

    Args:
      state: its parameters are what is trained.
      frozen: the model's other parameters, {} where all are trained (`model.frozen_of`).
      examples: what to imitate.
      learning_rate: see `Optimizer`.
      model: the policy's architecture, with its adapters.
      optimizer: see there.
      chunk: positions whose vocabulary-wide scores are held at a time.
      remat: the backward pass computes each layer anew, see `policy.hidden_states`.
      micro_batches: the gradient is accumulated over so many parts of the batch.
      mesh: the state keeps its layout on it; None: one device.

    Returns:
      The new state, and metrics: loss, grad_norm, skipped (see `Optimizer.apply_finite`).
    """
    rows = examples.tokens.shape[0]
    if rows % micro_batches:
        raise ValueError(f"micro_batches = {micro_batches} does not divide the {rows} examples of a batch")
    total = jnp.maximum(examples.weight.sum(), 1.0)

    def loss_fn(trainable: dict, part: Examples) -> Float[Array, ""]:
        loss = imitation_loss(trainable, frozen, part, model=model, chunk=chunk, remat=remat, mesh=mesh)
        return loss / total

    def accumulate(grads: dict, part: list[Array]) -> tuple[dict, Array]:
        loss, more = jax.value_and_grad(loss_fn)(state.params, Examples(*part))
        return keep_layout(jax.tree.map(jnp.add, grads, more), mesh), loss

    # Dealt out row by row, so that each part has examples of every device.
    split = lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1)
    parts = [keep_rows(split(x), mesh, PARTS) for x in (examples.tokens, examples.attempt, examples.weight)]
    grads, losses = jax.lax.scan(accumulate, jax.tree.map(jnp.zeros_like, state.params), parts)
    state, metrics = optimizer.apply_finite(state, grads, learning_rate, losses.sum())
    return keep_layout(state, mesh), keep_whole(metrics, mesh)
