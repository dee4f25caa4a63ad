"""The base model of a run: a released Gemma or a small one pre-trained here, with adapters or without."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from etils import epath

from score_jax import hosts, model, pretrain
from score_jax.config_check import SMALL
from score_jax.mesh import mesh_of, place
from score_jax.records import read_json, write_json
from score_jax.released import load_released
from score_jax.rollout import Actor
from score_jax.task import Task

_NOTE = "base.json"


def make_base(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    task: Task,
    say: Callable[[str], None] = print,
    check: Callable[[Actor], object] = lambda actor: None,
) -> tuple[Actor, dict]:
    """The base model; a small one is pre-trained now unless an earlier run left it.

    `check` raises ValueError where the actor cannot do what it is to do; it is asked before any compute.

    Returns:
      The actor (with config.evaluate.attempts attempts and config.lora_rank adapters), and the base's
      parameters, without adapters, laid out on config.mesh.

    Raises:
      FileNotFoundError, ValueError: see `load_released` and `pretrain.load_base`.
    """
    if config.model.name == SMALL:
        return _adapted(config, *pretrain.make_base(config, workdir, task, say, check))
    actor, params = _released(config, workdir, task)
    check(actor)
    return _adapted(config, actor, params)


def load_base(
    config: ml_collections.ConfigDict, workdir: epath.Path, task: Task, say: Callable[[str], None] = print
) -> tuple[Actor, dict]:
    """As `make_base`, except that a missing small base model is an error."""
    if config.model.name == SMALL:
        return _adapted(config, *pretrain.load_base(config, workdir, task, say))
    return _adapted(config, *_released(config, workdir, task))


def remember_base(config: ml_collections.ConfigDict, workdir: epath.Path, params: dict) -> None:
    """Notes in a new work directory which released weights its run starts from."""
    if config.model.name != SMALL and not (workdir / _NOTE).exists():
        write_json(workdir / _NOTE, {"fingerprint": fingerprint(params)})


def fingerprint(params: dict) -> int:
    """Of parameters, from a few numbers of each: enough to tell two models apart."""
    first = lambda x: np.atleast_1d(hosts.fetch(x[(0,) * max(x.ndim - 1, 0)]))[:16]
    return zlib.crc32(b"".join(first(x).tobytes() for x in jax.tree.leaves(params)))


def _released(config: ml_collections.ConfigDict, workdir: epath.Path, task: Task) -> tuple[Actor, dict]:
    actor, params = load_released(config, task)
    note = read_json(workdir / _NOTE)
    if note and note["fingerprint"] != fingerprint(params):
        raise ValueError(
            f"config.model.checkpoint = {config.model.checkpoint!r} holds other weights than those that the "
            f"run in {workdir} started from; give that checkpoint, or another --workdir"
        )
    return actor, params


def _adapted(config: ml_collections.ConfigDict, actor: Actor, params: dict) -> tuple[Actor, dict]:
    actor = dataclasses.replace(actor, model=model.with_adapters(actor.model, config.lora_rank))
    return actor, place(params, mesh_of(config))
