"""Training: the stages of a config, one after the other, resumed wherever a run was left."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import ml_collections
from etils import epath

from score_jax import hosts, offline, prompts
from score_jax import model as models
from score_jax.base import make_base, remember_base
from score_jax.checkpoint import Checkpoints
from score_jax.config import check_place, check_workdir, claim_workdir, deciding
from score_jax.config_check import SUPERVISED
from score_jax.log import say
from score_jax.mesh import check_rows, mesh_of, place
from score_jax.rl import rl_stage
from score_jax.rollout import Actor
from score_jax.sft import gather, sft_stage
from score_jax.step import Optimizer
from score_jax.task import evaluation_task, first_of, training_task


def train(config: ml_collections.ConfigDict, workdir: epath.Path, sandbox: str = "strict") -> None:
    """Runs what is left of a config's stages; the same call again resumes with the same numbers.

    `sandbox` is for tasks whose attempts are programs, see `Task.prepare`.
    """
    check_place(workdir, "--workdir")
    check_place(config.base_dir or workdir, "config.base_dir")
    check_workdir(workdir, config)
    devices = mesh_of(config)
    rows = config.problems_per_step * config.samples_per_problem
    check_rows(rows, devices, "config.problems_per_step")
    for field in ("rollout_parts", "micro_batches"):
        check_rows(rows // config[field], devices, f"config.{field}")
    task = training_task(config)
    measured = evaluation_task(config, task)
    pool = first_of(task.problems("train"), config.train_problems, "config.train_problems")
    tested = measured.problems(config.evaluate.split)
    tested = first_of(tested, config.evaluate.problems, "config.evaluate.problems")
    hosts.assert_alike([deciding(config), [problem.id for problem in pool]], "configs or problems")
    task.prepare(sandbox, say)
    if measured is not task:
        measured.prepare(sandbox, say)
    check_offline(config, devices)

    def check(actor: Actor) -> None:
        """A prompt that is too long is to be known now."""
        for one, problems in ((task, pool), (measured, tested)):
            prompts.encode_prompts(actor.format, problems, actor.with_task(one).slots)

    actor, base = make_base(config, workdir, task, say, check)
    claim_workdir(workdir, config)
    remember_base(config, workdir, base)
    bank = {}
    if any(config[key].get("offline") for key in config.stages):
        bank = offline.first_attempts(config, workdir, actor, base, pool, say)
    optimizer = Optimizer(**config.optimizer.to_dict())
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        adapters_key = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(b"adapters"))
        untrained = lambda: place(
            models.init_trainable(actor.model, base, adapters_key, config.train_dtype), devices
        )
        trainable, begin = untrained(), 0
        for key in config.stages:
            stage = config[key]
            end = begin + stage.steps
            saved = [step for step in checkpoints.steps() if begin < step <= end]
            left = not saved or saved[-1] < end
            if left and saved:
                say(f"Resuming {stage.name} after step {saved[-1]}.")
            if left and stage.objective in SUPERVISED:
                # Now, as the first update takes the memory of the parameters that sample.
                policy = models.join(actor.model, models.frozen_of(actor.model, base), trainable)
                examples = gather(config, stage, actor, pool, policy, workdir, begin=begin)
                del policy
            if stage.start == "base":
                trainable = untrained()
            # A stage starts with a fresh optimiser; anywhere later it goes on from a checkpoint.
            state = optimizer.init(trainable).replace(step=jnp.int32(begin))
            state = place(state, devices)
            if saved:
                state = checkpoints.restore(saved[-1], state)
            if left and stage.objective in SUPERVISED:
                state = sft_stage(
                    config, stage, actor, examples, state, base, checkpoints, workdir, begin=begin
                )
            elif left:
                reference = base
                if stage.reference != "base":
                    earlier = checkpoints.restore(checkpoints.last(stage.reference), state).params
                    reference = models.join(actor.model, models.frozen_of(actor.model, base), earlier)
                state = rl_stage(
                    config,
                    stage,
                    actor,
                    pool,
                    bank,
                    state,
                    base,
                    reference,
                    checkpoints,
                    workdir,
                    begin=begin,
                )
            trainable, begin = state.params, end
    say(f"Done: {begin} updates; checkpoints lie in {workdir / 'checkpoints'}.")


def check_offline(config: ml_collections.ConfigDict, devices: jax.sharding.Mesh) -> None:
    """Refuses stages whose given and own first attempts the devices cannot share out evenly."""
    for key in config.stages:
        given = round(config[key].get("offline", 0) * config.problems_per_step)
        for problems in (given, config.problems_per_step - given):
            rows = problems * config.samples_per_problem * config[key].samples_factor
            check_rows(rows // config.rollout_parts, devices, f"config.{key}.offline")
