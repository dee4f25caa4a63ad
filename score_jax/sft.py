"""An update of a supervised stage: cross-entropy of the second attempts that STaR or Pair-SFT imitates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections

from score_jax import diagnosis
from score_jax import model as models
from score_jax.examples import Found
from score_jax.imitation import sft_step
from score_jax.learner import Learner, optimizer_of
from score_jax.mesh import mesh_of, spread
from score_jax.rollout import Actor
from score_jax.schedule import batch_of
from score_jax.traces import lay_out
from score_jax.types import TrainState
from score_jax.updates import Update, Updater


def sft_updater(
    config: ml_collections.ConfigDict,
    stage: ml_collections.ConfigDict,
    actor: Actor,
    found: Found,
    base: dict,
    *,
    begin: int,
) -> Updater:
    """Makes a stage's updates on what was found for it; `begin` updates came before the stage."""
    actor = actor.with_attempts(stage.attempts).with_critique(False)
    frozen = models.frozen_of(actor.model, base)
    size, devices = config.problems_per_step * config.samples_per_problem, mesh_of(config)
    learner = Learner(
        model=actor.model,
        optimizer=optimizer_of(config),
        chunk=config.score_chunk,
        remat=config.remat,
        micro_batches=config.micro_batches,
        mesh=devices,
    )

    def update(state: TrainState, step: int, rate: float, last: Mapping[str, Any] | None) -> Update:
        del last
        traces = batch_of(found.traces, seed=config.seed, step=begin + step, size=size)
        examples = spread(lay_out(traces, actor.slots, actor.format.pad), devices)
        state, numbers = sft_step(state, frozen, examples, jnp.float32(rate), learner=learner)
        row = {key: float(numbers[key]) for key in ("loss", "grad_norm")}
        row |= {"skipped": int(numbers["skipped"]), "examples": len(found.traces), "sampled": 0}
        earlier = 0.0
        if step == 0:  # what was done before the first update counts there
            row |= found.composition | {"sampled": stage.attempts * found.tally["episodes"]}
            earlier = found.seconds
        return Update(
            state,
            row,
            problems=[trace.problem for trace in traces],
            batch=lambda: diagnosis.of_examples(state, frozen, examples, learner),
            shown={"loss": row["loss"]},
            seconds=earlier,
        )

    return update
