"""The base model of a run: a released Gemma or a small one pre-trained here, with adapters or without."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import ml_collections
from etils import epath

from score_jax import model, pretrain
from score_jax.config import SMALL
from score_jax.mesh import data_mesh, everywhere
from score_jax.released import load_released
from score_jax.rollout import Actor
from score_jax.task import Task


def make_base(
    config: ml_collections.ConfigDict, workdir: epath.Path, task: Task, say: Callable[[str], None] = print
) -> tuple[Actor, dict]:
    """The base model; a small one is pre-trained now unless an earlier run left it.

    Returns:
      The actor (with config.evaluate.attempts attempts and config.lora_rank adapters), and the base's
      parameters, without adapters, on every device.

    Raises:
      FileNotFoundError, ValueError: see `load_released` and `pretrain.load_base`.
    """
    if config.model.name == SMALL:
        return _adapted(config, *pretrain.make_base(config, workdir, task, say))
    return _adapted(config, *load_released(config, task))


def load_base(
    config: ml_collections.ConfigDict, workdir: epath.Path, task: Task, say: Callable[[str], None] = print
) -> tuple[Actor, dict]:
    """As `make_base`, except that a missing small base model is an error."""
    if config.model.name == SMALL:
        return _adapted(config, *pretrain.load_base(config, workdir, task, say))
    return _adapted(config, *load_released(config, task))


def _adapted(config: ml_collections.ConfigDict, actor: Actor, params: dict) -> tuple[Actor, dict]:
    actor = dataclasses.replace(actor, model=model.with_adapters(actor.model, config.lora_rank))
    return actor, jax.device_put(params, everywhere(data_mesh()))
