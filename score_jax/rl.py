"""An update of reinforcement learning: sample, grade, learn; and what its row of metrics.jsonl says."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from score_jax import diagnosis, hosts, offline, rollout
from score_jax import model as models
from score_jax.layers import share_prompts
from score_jax.learner import optimizer_of
from score_jax.log import by_attempt
from score_jax.mesh import mesh_of, prompt_rows, shares, spread
from score_jax.metrics import summarize
from score_jax.packing import packed
from score_jax.rollout import Actor, Graded
from score_jax.schedule import asks_for_kl, batch_of, beta_2_after, objective_at
from score_jax.step import PolicyLearner, train_step
from score_jax.types import Experience, Problem, TrainState
from score_jax.updates import Update, Updater


def rl_updater(
    config: ml_collections.ConfigDict,
    stage: ml_collections.ConfigDict,
    actor: Actor,
    pool: Sequence[Problem],
    bank: offline.Bank,
    base: dict,
    reference: dict,
    *,
    begin: int,
) -> Updater:
    """Makes a stage's updates on `pool`; `begin` updates came before the stage.

    `bank` has the first attempts to give, where the stage gives any; `reference` are all parameters of the
    policy that the KL holds to.
    """
    devices = mesh_of(config)
    actor = actor.with_attempts(stage.attempts).with_critique(stage.critique).for_problems(pool)
    frozen = models.frozen_of(actor.model, base)
    learner = learner_of(config, stage, actor.model, devices)

    def update(state: TrainState, step: int, rate: float, last: Mapping[str, Any] | None) -> Update:
        beta_2 = beta_2_after(stage, last)
        objective = objective_at(config, stage, step, beta_2)
        problems = batch_of(pool, seed=config.seed, step=begin + step, size=config.problems_per_step)
        experience, graded = gather(
            config,
            stage,
            actor,
            models.join(actor.model, frozen, state.params),  # maybe a copy, that the update has no room for
            problems,
            bank,
            step=begin + step,
        )
        written = hosts.fetch(experience.episodes.tokens), hosts.fetch(experience.episodes.attempt)
        arrangement = packed(*written, learner.grid)
        experience = spread(experience, devices)
        given = (frozen, reference, experience, objective)  # to the update, and to its diagnosis
        state, numbers = train_step(state, *given, jnp.float32(rate), arrangement, learner=learner)
        row = ({"beta_2": beta_2} if stage.adapt_beta_2 else {}) | step_metrics(graded, numbers)
        if step == 0 and stage.name == offline.first_giver(config):  # for all stages that give them
            row["sampled"] += config.offline_attempts * len(pool)
        # The pay of given attempts says nothing of the policy.
        pay = objective.reward_weight * graded.rewards * graded.sampled
        return Update(
            state,
            row,
            problems=[problem.id for problem in graded.problems],
            batch=lambda: diagnosis.of_experience(state, *given, learner),
            reward=float(pay.sum(axis=1).mean()),
            shown={k: v for k, v in row.items() if k.startswith(("reward", "delta"))},
            transcript=episode_text(graded, 0),
        )

    return update


def learner_of(
    config: ml_collections.ConfigDict, stage: ml_collections.ConfigDict, model: nn.Module, mesh: Mesh
) -> PolicyLearner:
    """What a stage's updates fix at compile time.

    What samples of a problem have in common is scored once for as many of them as the mesh allows, up to the
    slot of the prompts; but for its last token, which says what they begin with.
    """
    samples = config.samples_per_problem * stage.samples_factor
    group = prompt_rows(config.problems_per_step * samples // config.micro_batches, samples, shares(mesh))
    if not share_prompts(model):
        group = 1
    return PolicyLearner(
        model=model,
        optimizer=optimizer_of(config),
        samples=samples,
        prompt=config.slots.prompt - 1 if group > 1 else 0,
        group=group,
        kl_estimator=config.kl_estimator,
        decisive_only=config.decisive_only,
        temperature=config.temperature,
        micro_batches=config.micro_batches,
        chunk=config.score_chunk,
        remat=config.remat,
        reference=asks_for_kl(config, stage),
        mesh=mesh,
    )


def gather(
    config: ml_collections.ConfigDict,
    stage: ml_collections.ConfigDict,
    actor: Actor,
    params: dict,
    problems: Sequence[Problem],
    bank: offline.Bank,
    *,
    step: int,
) -> tuple[Experience, Graded]:
    """What the update of one step learns from: K graded episodes of each problem, those of one together.

    The last `stage.offline` of the problems are given a first attempt out of `bank`.
    """
    samples = config.samples_per_problem * stage.samples_factor
    online = samples * (len(problems) - round(stage.offline * len(problems)))
    rows = [problem for problem in problems for _ in range(samples)]
    keys = rollout.row_keys(config.seed, "train", step, len(rows))
    how = {
        "temperature": config.temperature,
        "mesh": mesh_of(config),
        "parts": config.rollout_parts,
        "samples": samples,
    }
    gathered = []
    if online:
        episodes, graded = rollout.roll_out(actor, params, rows[:online], keys[:online], **how)
        gathered.append((rollout.experience_of(actor, episodes, graded), graded))
    if rows[online:]:
        firsts = [offline.pick(bank, problem, seed=config.seed, step=step) for problem in rows[online:]]
        gathered.append(offline.correct(actor, params, rows[online:], firsts, keys[online:], **how))
    return functools.reduce(offline.join, gathered)


def step_metrics(graded: Graded, numbers: dict) -> dict[str, float]:
    """One row of metrics.jsonl: what the host saw and what the update measured.

    KL, entropy, length and policy term are those of the attempts that were sampled; where all of an attempt
    were given they are left out.
    """
    row = {key: float(numbers[key]) for key in ("loss", "grad_norm", "sampler_gap")}
    row["skipped"] = int(numbers["skipped"])
    row["sampled"] = int(graded.sampled.sum())
    row |= by_attempt("reward", graded.rewards.mean(axis=0))
    share = graded.sampled.mean(axis=0)
    sampled = np.flatnonzero(share)
    for name in (name for name in ("kl", "entropy", "length", "policy") if name in numbers):
        # `train_step` divides sums by all episodes, but those of entropy by the tokens.
        of = np.ones_like(share) if name == "entropy" else share
        row |= {f"{name}_t{i + 1}": float(numbers[name][i] / of[i]) for i in sampled}
    columns = {name: getattr(graded, name) for name in ("answers", "finished", "notes")}
    seen = summarize(graded.rewards, **columns, resamples=0)
    known = {"n", *by_attempt("acc", share)}  # the row has the mean reward in place of Acc@t
    told = {key: value for key, value in seen.items() if key not in known}
    if taken := sorted(row.keys() & told.keys()):
        raise ValueError(f"notes: {taken[0]!r} is the name of another metric; call the note something else")
    return row | told


def episode_text(graded: Graded, row: int) -> str:
    """One episode as text."""
    problem = graded.problems[row]
    lines = [f"  problem    {problem.prompt.strip()}  (answer: {problem.gold})"]
    texts, critiques = graded.texts[row], graded.critiques[row]
    critiques = [""] * (len(texts) - len(critiques)) + critiques  # the first attempt may have none
    for number, (critique, text) in enumerate(zip(critiques, texts, strict=True), start=1):
        if critique:
            lines.append(f"  critique   {critique.strip()}")
        mark = "right" if graded.rewards[row, number - 1] == 1 else "wrong"
        lines.append(f"  attempt {number}  {text.strip()}  [{mark}]")
    return "\n".join(lines)
