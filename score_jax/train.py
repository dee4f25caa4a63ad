"""Training: the stages of a config, one after the other, resumed wherever a run was left."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from score_jax import model as models
from score_jax import prompts, rollout
from score_jax.base import make_base, remember_base
from score_jax.checkpoint import Checkpoints, Note
from score_jax.config import check_workdir, claim_workdir
from score_jax.log import Metrics, Progress, by_attempt, say
from score_jax.mesh import by_row, check_rows, data_mesh, everywhere
from score_jax.metrics import summarize
from score_jax.rollout import Actor, Graded
from score_jax.schedule import beta_2_after, learning_rate_at, objective_at
from score_jax.step import Learner, Optimizer, train_step
from score_jax.task import evaluation_task, first_of, training_task
from score_jax.types import Problem, TrainState


def batch_of(problems: Sequence[Problem], *, seed: int, step: int, size: int) -> list[Problem]:
    """The problems of one step: each pass over them in an order of its own, a function of (seed, step)."""
    places = np.arange(step * size, (step + 1) * size)
    passes = {
        number: np.random.default_rng([seed, number]).permutation(len(problems))
        for number in set(places // len(problems))
    }
    return [problems[passes[place // len(problems)][place % len(problems)]] for place in places]


def train(config: ml_collections.ConfigDict, workdir: epath.Path, sandbox: str = "strict") -> None:
    """Runs what is left of a config's stages; the same call again resumes with the same numbers.

    `sandbox` is for tasks whose attempts are programs, see `Task.prepare`.
    """
    check_workdir(workdir, config)
    devices = data_mesh()
    rows = config.problems_per_step * config.samples_per_problem
    check_rows(rows, devices, "config.problems_per_step")
    check_rows(rows // config.rollout_parts, devices, "config.rollout_parts")
    task = training_task(config)
    measured = evaluation_task(config, task)
    pool = first_of(task.problems("train"), config.train_problems, "config.train_problems")
    tested = measured.problems(config.evaluate.split)
    tested = first_of(tested, config.evaluate.problems, "config.evaluate.problems")
    task.prepare(sandbox, say)
    if measured is not task:
        measured.prepare(sandbox, say)
    actor, base = make_base(config, workdir, task, say=say)
    for one, problems in ((task, pool), (measured, tested)):
        # A prompt that is too long is to be known now.
        prompts.encode_prompts(actor.format, problems, actor.with_task(one).slots)
    claim_workdir(workdir, config)
    remember_base(config, workdir, base)
    optimizer = Optimizer(**config.optimizer.to_dict())
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        adapters_key = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(b"adapters"))
        trainable = models.init_trainable(actor.model, base, adapters_key, config.train_dtype)
        trainable, begin = jax.device_put(trainable, everywhere(devices)), 0
        for key in config.stages:
            stage = config[key]
            end = begin + stage.steps
            # A stage starts with a fresh optimiser; anywhere later it goes on from a checkpoint.
            state = optimizer.init(trainable).replace(step=jnp.int32(begin))
            state = jax.device_put(state, everywhere(devices))
            saved = [step for step in checkpoints.steps() if begin < step <= end]
            if saved:
                state = checkpoints.restore(saved[-1], state)
            if not saved or saved[-1] < end:
                if saved:
                    say(f"Resuming {stage.name} after step {saved[-1]}.")
                reference = base
                if stage.reference != "base":
                    earlier = checkpoints.restore(checkpoints.last(stage.reference), state).params
                    reference = models.join(actor.model, models.frozen_of(actor.model, base), earlier)
                state = train_stage(
                    config, stage, actor, pool, state, base, reference, checkpoints, workdir, begin=begin
                )
            trainable, begin = state.params, end
    say(f"Done: {begin} updates; checkpoints lie in {workdir / 'checkpoints'}.")


def train_stage(
    config: ml_collections.ConfigDict,
    stage: ml_collections.ConfigDict,
    actor: Actor,
    pool: Sequence[Problem],
    state: TrainState,
    base: dict,
    reference: dict,
    checkpoints: Checkpoints,
    workdir: epath.Path,
    *,
    begin: int,
) -> TrainState:
    """Runs a stage on `pool` from where `state` stands to its end; `begin` updates came before it."""
    devices = data_mesh()
    actor = actor.with_attempts(stage.attempts)
    frozen = models.frozen_of(actor.model, base)
    samples = config.samples_per_problem * stage.samples_factor
    learner = Learner(
        model=actor.model,
        optimizer=Optimizer(**config.optimizer.to_dict()),
        samples=samples,
        kl_estimator=config.kl_estimator,
        decisive_only=config.decisive_only,
        temperature=config.temperature,
        micro_batches=config.micro_batches,
        chunk=config.score_chunk,
        remat=config.remat,
    )
    window = []
    done = int(state.step) - begin
    with (
        Metrics(workdir, int(state.step)) as metrics,
        Progress(stage.name, stage.steps, every=config.log.every, done=done) as progress,
    ):
        for step in range(done, stage.steps):
            start = time.monotonic()
            beta_2 = beta_2_after(stage, metrics.last)
            objective = objective_at(config, stage, step, beta_2)
            problems = batch_of(pool, seed=config.seed, step=begin + step, size=config.problems_per_step)
            problems = [problem for problem in problems for _ in range(samples)]
            keys = rollout.row_keys(config.seed, "train", begin + step, len(problems))
            episodes, graded = rollout.roll_out(
                actor,
                models.join(actor.model, frozen, state.params),
                problems,
                keys,
                temperature=config.temperature,
                sharding=by_row(devices),
                parts=config.rollout_parts,
            )
            experience = rollout.experience_of(actor, episodes, graded)
            experience = jax.device_put(experience, by_row(devices))
            rate = learning_rate_at(stage, step)
            state, numbers = train_step(
                state, frozen, reference, experience, objective, jnp.float32(rate), learner=learner
            )
            row = {"step": begin + step + 1, "stage": stage.name, "learning_rate": rate}
            row |= {"beta_2": beta_2} if stage.adapt_beta_2 else {}
            row |= step_metrics(graded, numbers) | {"seconds": time.monotonic() - start}
            metrics.write(row)
            window.append(float((objective.reward_weight * graded.rewards).sum(axis=1).mean()))
            progress.advance({k: v for k, v in row.items() if k.startswith(("reward", "delta"))})
            if row["step"] % config.log.transcript_every == 0:
                progress.say(transcript(graded, 0))
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == stage.steps:
                checkpoints.save(state, Note(stage.name, float(np.mean(window))))
                metrics.flush()
                window = []
        checkpoints.wait()
    return state


def step_metrics(graded: Graded, numbers: dict) -> dict[str, float]:
    """One row of metrics.jsonl: what the host saw and what the update measured."""
    row = {key: float(numbers[key]) for key in ("loss", "grad_norm", "sampler_gap")}
    row |= by_attempt("reward", graded.rewards.mean(axis=0))
    for name in ("kl", "entropy", "length", "policy"):
        row |= by_attempt(name, np.asarray(numbers[name]))
    columns = {name: getattr(graded, name) for name in ("answers", "finished", "notes")}
    seen = summarize(graded.rewards, **columns, resamples=0)
    return row | {key: value for key, value in seen.items() if key != "n" and not key.startswith("acc_")}


def transcript(graded: Graded, row: int) -> str:
    """One episode as text."""
    problem = graded.problems[row]
    lines = [f"  problem    {problem.prompt.strip()}  (answer: {problem.gold})"]
    for number, text in enumerate(graded.texts[row], start=1):
        mark = "right" if graded.rewards[row, number - 1] == 1 else "wrong"
        lines.append(f"  attempt {number}  {text.strip()}  [{mark}]")
    return "\n".join(lines)
