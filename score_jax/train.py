"""Training: the stages of a config, one after the other, resumed wherever a run was left."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
from etils import epath

from score_jax import examples, hosts, lock, offline, prompts
from score_jax import model as models
from score_jax.base import make_base, remember_base
from score_jax.checkpoint import Checkpoints, absolute
from score_jax.config import check_place, check_workdir, claim_workdir, deciding
from score_jax.config_check import SUPERVISED
from score_jax.learner import blank_state, optimizer_of
from score_jax.log import say
from score_jax.mesh import check_rows, mesh_of, place
from score_jax.origin import claim_problems, origin_of
from score_jax.records import read_jsonl
from score_jax.repair import mend
from score_jax.rl import rl_updater
from score_jax.rollout import Actor
from score_jax.sft import sft_updater
from score_jax.task import evaluated, first_of, training_task
from score_jax.types import Problem
from score_jax.updates import run_stage


def train(config: ml_collections.ConfigDict, workdir: epath.Path, sandbox: str = "strict") -> None:
    """Runs what is left of a config's stages; the same call again resumes with the same numbers.

    `sandbox` is for tasks whose attempts are programs, see `Task.prepare`.
    """
    check_place(workdir, "--workdir")
    check_place(config.base_dir or workdir, "config.base_dir")
    if config.data_dir:
        check_place(config.data_dir, "config.data_dir")
    check_workdir(workdir, config)
    devices = mesh_of(config)
    rows = config.problems_per_step * config.samples_per_problem
    check_rows(rows, devices, "config.problems_per_step")
    for field in ("rollout_parts", "micro_batches"):
        check_rows(rows // config[field], devices, f"config.{field}")
    task = training_task(config)
    pool = first_of(task.problems("train"), config.train_problems, "config.train_problems")
    measured, tested = evaluated(config, task)
    hosts.assert_alike([deciding(config), [problem.id for problem in pool]], "configs or problems")
    task.prepare(sandbox, say)
    if measured is not task:
        measured.prepare(sandbox, say)
    check_offline(config, devices)

    def check(actor: Actor) -> None:
        """A prompt that is too long is to be known now."""
        for one, problems in ((task, pool), (measured, tested)):
            prompts.encode_prompts(actor.format, problems, actor.with_task(one).for_problems(problems).slots)

    with lock.hold(workdir, "train"):
        actor, base = make_base(config, workdir, task, say, check)
        claim_workdir(workdir, config)
        claim_problems(workdir, pool)
        remember_base(config, workdir, base)
        bank: offline.Bank = {}
        if offline.first_giver(config):
            bank = offline.first_attempts(config, workdir, actor, base, pool, say)
        newest = mend(absolute(workdir / "checkpoints"))
        if not newest:
            check_log(config, workdir)
        origin = origin_of(config, actor.format.tokenizer)
        keep = {"keep_newest": config.keep_newest, "keep_best": config.keep_best}
        with Checkpoints(workdir / "checkpoints", origin=origin, **keep) as checkpoints:
            _stages(config, actor, pool, bank, base, checkpoints, workdir, newest=newest)


def _stages(
    config: ml_collections.ConfigDict,
    actor: Actor,
    pool: Sequence[Problem],
    bank: offline.Bank,
    base: dict,
    checkpoints: Checkpoints,
    workdir: epath.Path,
    *,
    newest: int,
) -> None:
    """What is left of the stages; `newest` is the checkpoint to go on from, 0 for none."""
    devices, origin = mesh_of(config), origin_of(config, actor.format.tokenizer)
    adapters_key = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(b"adapters"))
    untrained = lambda: place(
        models.init_trainable(actor.model, base, adapters_key, config.train_dtype), devices
    )
    optimizer = optimizer_of(config)
    # A stage starts with a fresh optimiser; anywhere later it goes on from a checkpoint.
    counted = lambda state, step: dataclasses.replace(state, step=jnp.int32(step))
    fresh = lambda params, step: place(counted(optimizer.init(params), step), devices)
    blank = blank_state(actor.model, base, optimizer, config.train_dtype, devices)
    saved = lambda step: checkpoints.restore(step, blank, origin=origin)
    trained = lambda step: checkpoints.restore_params(step, blank, origin=origin)
    joined = lambda params: models.join(actor.model, models.frozen_of(actor.model, base), params)
    before, begin = untrained, 0  # the parameters that a stage finds, asked for where they are needed
    for key in config.stages:
        stage = config[key]
        end = begin + stage.steps
        if newest < end:
            resumed = newest > begin
            if resumed:
                say(f"Resuming {stage.name} after step {newest}.")
            supervised = stage.objective in SUPERVISED
            if supervised:
                # Now, as the first update takes the memory of the parameters that sample.
                policy = functools.partial(lambda params: joined(params()), before)
                found = examples.find(config, stage, actor, pool, policy, workdir, begin=begin)
                del policy
            start = untrained if stage.start == "base" else before
            state = saved(newest) if resumed else fresh(start(), begin)
            del start, before  # the updates take the memory
            if supervised:
                updater = sft_updater(config, stage, actor, found, base, begin=begin)
            else:
                reference = base
                if stage.reference != "base":
                    reference = joined(trained(end_of(config, stage.reference)))
                updater = rl_updater(config, stage, actor, pool, bank, base, reference, begin=begin)
                del reference  # the next stage has no room for that of this one
            state = run_stage(config, stage, state, updater, checkpoints, workdir, begin=begin)
            del updater
            before = functools.partial(lambda params: params, state.params)
        else:
            before = functools.partial(trained, end)
        begin = end
    say(f"Done: {begin} updates; checkpoints lie in {workdir / 'checkpoints'}.")


def end_of(config: ml_collections.ConfigDict, name: str) -> int:
    """The updates that are done when the stage of a name ends."""
    names = [config[key].name for key in config.stages]
    return sum(config[key].steps for key in config.stages[: names.index(name) + 1])


def check_log(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Refuses to start over where checkpoints must have been: they may be on a disk that is not there.

    Raises:
      ValueError: there is no checkpoint to go on from, and metrics.jsonl tells of updates after a second one.
    """
    logged = max((row["step"] for row in read_jsonl(workdir / "metrics.jsonl")), default=0)
    if logged > 2 * config.checkpoint_every:  # the first was on disk before the second was begun
        raise ValueError(
            f"{workdir / 'metrics.jsonl'} tells of {logged} updates, and {workdir / 'checkpoints'} has no "
            "checkpoint; put that folder back, or move metrics.jsonl away to start anew"
        )


def check_offline(config: ml_collections.ConfigDict, devices: jax.sharding.Mesh) -> None:
    """Refuses stages whose given and own first attempts the devices cannot share out evenly."""
    for key in config.stages:
        given = round(config[key].get("offline", 0) * config.problems_per_step)
        for problems in (given, config.problems_per_step - given):
            rows = problems * config.samples_per_problem * config[key].samples_factor
            check_rows(rows // config.rollout_parts, devices, f"config.{key}.offline")
