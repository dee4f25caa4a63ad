"""The programs of an RL step as a run compiles them, traced for devices that need not be there."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from etils import epath
from jax.sharding import Mesh

from score_jax import chat, prompts
from score_jax import model as models
from score_jax.config import shows_critiques
from score_jax.config_check import SMALL
from score_jax.learner import blank_state
from score_jax.mesh import by_row, check_rows, placed, prompt_rows, shares
from score_jax.places import as_it_stands
from score_jax.released import load_tokenizer
from score_jax.rl import learner_of
from score_jax.sampling import sample
from score_jax.schedule import objective_at
from score_jax.slots import Slots
from score_jax.step import train_step
from score_jax.task import Task
from score_jax.tokenizer import train_tokenizer
from score_jax.types import Episodes, Experience, TrainState

_CHAT = 10  # tokens that a chat's marks put around an instruction, where there is no tokenizer to ask


@dataclasses.dataclass(frozen=True)
class Traced:
    """A program, ready to be compiled.

    Attributes:
      name: rollout | update.
      lowered: for the devices of a mesh.
      times: how often it runs in a step.
      stays: bytes that lie on each device before it runs, its arguments among them.
    """

    name: str
    lowered: jax.stages.Lowered
    times: int
    stays: float


def trace(
    config: ml_collections.ConfigDict,
    stage: ml_collections.ConfigDict,
    model: nn.Module,
    slots: Slots,
    mesh: Mesh,
) -> list[Traced]:
    """The rollout and the update of a stage.

    Args:
      config: the run's.
      stage: one of its stages of reinforcement learning.
      model: the policy's architecture, with its adapters.
      slots: the layout of the stage's transcripts.
      mesh: the devices.

    Raises:
      ValueError: the mesh cannot share out the batch evenly; names the config field.
    """
    learner = learner_of(config, stage, model, mesh)
    episodes = config.problems_per_step * learner.samples
    part = episodes // config.rollout_parts
    check_rows(part, mesh, "config.rollout_parts")
    check_rows(episodes // config.micro_batches, mesh, "config.micro_batches")

    on_mesh = lambda tree: placed(tree, mesh)
    # They stand for arrays while a program is traced.
    rows = lambda shape, dtype: cast(jax.Array, jax.ShapeDtypeStruct(shape, dtype, sharding=by_row(mesh)))
    base = models.shapes_of(models.without_adapters(model))
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = TrainState(**blank_state(model, base, learner.optimizer, config.train_dtype, mesh))
    frozen = models.frozen_of(model, base)
    params = jax.eval_shape(lambda f, t: models.join(model, f, t), frozen, state.params)
    base, frozen, params = on_mesh(base), on_mesh(frozen), on_mesh(params)
    reference = base if stage.reference == "base" else params

    prompts = part // prompt_rows(part, learner.samples, shares(mesh))
    prompted = rows((prompts, slots.prompt), jnp.int32), rows((part,), key.dtype)
    sampled = sample.lower(
        models.for_params(model, params),
        params,
        *prompted,
        slots=slots,
        temperature=config.temperature,
        pad=0,  # which token pads or ends makes no difference
        end=1,
        mesh=mesh,
    )
    shape = (episodes, slots.length)
    experience = Experience(
        Episodes(rows(shape, jnp.int32), rows(shape, jnp.int32), rows(shape, jnp.float32)),
        rewards=rows((episodes, slots.attempts), jnp.float32),
        decisive=rows(shape, jnp.float32),
    )
    objective = objective_at(config, stage, 0, stage.beta_2)
    arrangement = as_it_stands(*shape, learner.grid)
    updated = train_step.lower(
        state, frozen, reference, experience, objective, jnp.float32(0), arrangement, learner=learner
    )
    # An array that is given twice lies there once: beside adapters that of the base, and without them what
    # is trained in the dtype that it runs in.
    trained = _bytes(params) - _bytes(frozen)
    copied = 0 if config.train_dtype == models.without_adapters(model).dtype else trained
    stays = _bytes(state) + _bytes(base) + (0 if reference is base else trained)
    # The compiler spreads the places' rows.
    spread = sum(x.nbytes for x in jax.tree.leaves(arrangement.places))
    arranged = arrangement.parts.nbytes + spread / shares(mesh)
    return [
        Traced("rollout", sampled, config.rollout_parts, stays + copied + _bytes(prompted)),
        Traced("update", updated, 1, stays + _bytes(experience) + arranged),
    ]


def _bytes(tree: Any) -> float:
    """Of placed arrays, on each device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def model_of(config: ml_collections.ConfigDict) -> nn.Module:
    """The policy's architecture, with its adapters."""
    if config.model.name == SMALL:
        model = models.small_gemma(config.model, config.tokenizer.vocab_size)
    else:
        model = models.named_gemma(config.model.name, config.model.dtype)
    return models.with_adapters(model, config.lora_rank)


def slots_of(
    config: ml_collections.ConfigDict, stage: ml_collections.ConfigDict, model: nn.Module, task: Task
) -> tuple[Slots, bool]:
    """The layout of a stage's transcripts; and whether its instructions' lengths had to be guessed.

    Without its tokenizer's file a released model's instructions count a token for four characters.
    """
    sizes = {"prompt": config.slots.prompt, "attempt": config.slots.attempt, "attempts": stage.attempts}
    critique = config.slots.critique if stage.critique else 0
    with tempfile.TemporaryDirectory() as folder:
        format = _format(config, models.without_adapters(model), task, epath.Path(folder))
        if format is not None:
            return prompts.make_slots(format, task, **sizes, critique=critique), False
    guess = lambda text: tuple(range(len(text) // 4 + _CHAT * config.model.chat))
    if not critique:
        return Slots(**sizes, instruction=guess(task.instruction)), True
    instruction, feedback = guess(task.refine), guess(task.feedback)
    return Slots(**sizes, critique=critique, instruction=instruction, feedback=feedback), True


def _format(
    config: ml_collections.ConfigDict, model: nn.Module, task: Task, folder: epath.Path
) -> chat.Format | None:
    """With a small model's tokenizer, made in `folder`, or a released one's; None where that is not given."""
    if config.model.name == SMALL:
        texts = task.corpus(config.tokenizer.texts, critiques=shows_critiques(config))
        path = folder / "tokenizer.model"
        return chat.plain(train_tokenizer(texts, path, vocab_size=config.tokenizer.vocab_size))
    if not config.model.tokenizer:
        return None
    return (chat.turns if config.model.chat else chat.plain)(load_tokenizer(config.model.tokenizer, model))
