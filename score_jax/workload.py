"""A config's RL step with made-up data: the programs that a run compiles, at its shapes, on one device."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from score_jax import model as models
from score_jax import policy
from score_jax.config_check import SUPERVISED
from score_jax.mesh import make_mesh, place, prompt_rows, shares, spread
from score_jax.objectives import Objective
from score_jax.packing import packed
from score_jax.programs import model_of
from score_jax.rl import learner_of
from score_jax.rollout import row_keys
from score_jax.sampling import sample_in_parts
from score_jax.schedule import objective_at
from score_jax.slots import Slots
from score_jax.step import PolicyLearner, train_step
from score_jax.types import Episodes, Experience, TrainState

_PAD, _END, _NEVER = 0, 1, -1  # an end that is no token: all slots are filled


@dataclasses.dataclass
class Workload:
    """A step's programs and what they are given. `state` changes with every update.

    Attributes:
      model: the policy's architecture, with its adapters.
      slots: the transcripts' layout.
      learner: the update's.
      objective: the stage's.
      parts: in which the episodes are sampled, one after the other.
      base: the reference's parameters.
      state: the policy's.
      prompts: random tokens that fill their slot.
      together: how many episodes stand together that share a prompt.
      end: the token that ends an attempt.
      rate: the learning rate.
    """

    model: nn.Module
    slots: Slots
    learner: PolicyLearner
    objective: Objective
    parts: int
    base: dict
    state: TrainState
    prompts: Int[np.ndarray, "Q P"]
    together: int
    end: int = _NEVER
    rate: float = 1e-6

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.prompts) * self.together

    def params(self) -> dict:
        """All parameters of the policy."""
        frozen = models.frozen_of(self.model, self.base)
        return models.join(self.model, frozen, self.state.params)

    def rollout(self, params: dict) -> Episodes:
        """Samples all attempts of all episodes."""
        sampled = sample_in_parts(
            self.model,
            params,
            self.prompts,
            row_keys(0, "train", 0, self.episodes),
            parts=self.parts,
            mesh=self.learner.mesh,
            slots=self.slots,
            temperature=self.learner.temperature,
            pad=_PAD,
            end=self.end,
        )
        return jax.tree.map(lambda *x: jnp.concatenate(x), *sampled) if self.parts > 1 else sampled[0]

    def score(self, episodes: Episodes) -> list[jax.Array]:
        """The reference's log-probabilities of what was sampled, a micro-batch after the other."""
        size = self.episodes // self.learner.micro_batches
        return [
            policy.score_episodes(
                models.for_params(self.model, self.base),
                self.base,
                jax.tree.map(lambda x: x[start : start + size], episodes),  # noqa: B023
                temperature=self.learner.temperature,
                chunk=self.learner.chunk,
            ).logp
            for start in range(0, self.episodes, size)
        ]

    def update(self, experience: Experience) -> dict[str, Any]:
        """One update of `state`; returns its metrics."""
        tokens, attempt = np.asarray(experience.episodes.tokens), np.asarray(experience.episodes.attempt)
        self.state, metrics = train_step(
            self.state,
            models.frozen_of(self.model, self.base),
            self.base,
            experience,
            self.objective,
            jnp.float32(self.rate),
            packed(tokens, attempt, self.learner.grid),
            learner=self.learner,
        )
        return metrics

    def experience_of(self, episodes: Episodes) -> Experience:
        """Episodes with rewards that are made up on the host, as no task is asked: of the last tokens."""
        tokens = np.asarray(episodes.tokens)
        last = [tokens[:, s.stop - 1] for s in self.slots.segments if not s.critique]
        rewards = np.stack(last, axis=1).astype(np.float32) % 2
        return spread(Experience(episodes, rewards, np.ones(tokens.shape, np.float32)), self.learner.mesh)

    def step(self) -> dict[str, Any]:
        """Rollout, the way to the host and back, update; returns its metrics."""
        return self.update(self.experience_of(self.rollout(self.params())))


def workload_of(
    config: ml_collections.ConfigDict, instruction: int, attempts: int = 0, mean_length: float = 0.0
) -> Workload:
    """What a config's last stage of reinforcement learning does, with random parameters and prompts.

    Args:
      config: the run's; its mesh, task and files are not read.
      instruction: F, tokens of the instruction before each later attempt.
      attempts: N, in place of the stage's; 0 for that.
      mean_length: of the attempts, before they are cut at their slot, as a share of it; their lengths are
        geometrically distributed. 0: all slots are filled.

    Raises:
      ValueError: there is no such stage, or no such length.
    """
    stage, model = stage_of(config).copy_and_resolve_references(), model_of(config)
    stage.attempts = attempts or stage.attempts
    mesh = make_mesh((1, 1, 1), (jax.devices()[0],))
    learner = learner_of(config, stage, model, mesh)
    slots = layout_of(config, stage, instruction)
    ending = ending_of(mean_length, slots) if mean_length else 0.0
    base, state = _parameters(model, learner, config.train_dtype, mesh, ending)
    episodes = config.problems_per_step * learner.samples
    together = prompt_rows(episodes // config.rollout_parts, learner.samples, shares(mesh))
    shape = (episodes // together, slots.prompt)
    prompts = np.random.default_rng(0).integers(1, model.config.num_embed, shape, np.int32)
    objective = objective_at(config, stage, 0, stage.beta_2)
    return Workload(
        model,
        slots,
        learner,
        objective,
        config.rollout_parts,
        base,
        state,
        prompts,
        together,
        _END if mean_length else _NEVER,
    )


def stage_of(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The last stage of reinforcement learning.

    Raises:
      ValueError: there is none.
    """
    found = [config[key] for key in config.stages if config[key].objective not in SUPERVISED]
    if not found:
        raise ValueError(f"config.stages = {config.stages}: no stage of reinforcement learning among them")
    return found[-1]


def ending_of(mean_length: float, slots: Slots) -> float:
    """The probability of an end at each token that gives attempts this mean length, a share of their slot.

    Raises:
      ValueError: it is not above one token, or not finite.
    """
    if not 1 < mean_length * slots.attempt < math.inf:
        raise ValueError(
            f"--mean-length={mean_length}: of a slot of {slots.attempt} tokens that is not above one token; "
            "0.25 is usual"
        )
    return 1 / (mean_length * slots.attempt)


def layout_of(config: ml_collections.ConfigDict, stage: ml_collections.ConfigDict, instruction: int) -> Slots:
    """The layout of a stage's transcripts with instructions of `instruction` tokens."""
    asked, critique = tuple(range(1, 1 + instruction)), config.slots.critique if stage.critique else 0
    return Slots(
        prompt=config.slots.prompt,
        attempt=config.slots.attempt,
        instruction=asked,
        attempts=stage.attempts,
        critique=critique,
        feedback=asked if critique else (),
    )


def _parameters(
    model: nn.Module, learner: PolicyLearner, dtype: str, mesh: Mesh, ending: float
) -> tuple[dict, TrainState]:
    """Random parameters of the reference, and a policy that starts at them; see `_ending` for `ending`."""
    bare = models.without_adapters(model)
    cast = lambda x: x.astype(bare.dtype)
    random = models.init_params(bare, jax.random.key(0))
    base = place(jax.tree.map(cast, _ending(random, ending) if ending else random), mesh)
    trainable = place(models.init_trainable(model, base, jax.random.key(1), dtype), mesh)
    return base, place(learner.optimizer.init(trainable), mesh)


def _ending(params: dict, p: float) -> dict:
    """`params` with which `_END` has the probability `p` wherever it may stand, to within a percent, and all
    other tokens are alike.

    The first of the D numbers of a hidden state is made to outweigh all others, and the only one that the
    output layer sees: its size after the last norm, and so each token's logit, is then known beforehand.
    """
    table, scale = params["embedder"]["input_embedding"], params["final_norm"]["scale"]
    logit = jnp.log(p / (1 - p) * (len(table) - 1))
    small, large = 0.01, 100.0
    table = table.at[:, 0].set(large).at[_END, 0].add(logit / small)
    # A norm multiplies by 1 + scale.
    scale = jnp.full_like(scale, -1.0).at[0].set(small / len(scale) ** 0.5 - 1)
    return params | {"embedder": {"input_embedding": table}, "final_norm": {"scale": scale}}
