"""What changes from update to update: problems, learning rate, the objective's numbers, an adapted β₂."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from score_jax import objectives
from score_jax.objectives import Objective

ADAPT_RATE = 0.1  # of the way to the wanted β₂ that one update goes, on the scale of logarithms
ADAPT_SPAN = 10.0  # an adapted β₂ stays within this factor of the config's


def learning_rate_at(stage: ml_collections.ConfigDict, step: int) -> float:
    """Linear warm-up, a constant part (`hold` of the stage's steps), then linear decay to 0."""
    warmup = min(1.0, (step + 1) / max(stage.warmup_steps, 1))
    decay = min(1.0, (stage.steps - step) / max(stage.steps * (1 - stage.hold), 1))
    return stage.learning_rate * warmup * decay


def batch_of[T](items: Sequence[T], *, seed: int, step: int, size: int) -> list[T]:
    """The items of one step: each pass over them in an order of its own, a function of (seed, step).

    Args:
      items: problems, or examples to imitate.
      seed: of the run.
      step: updates done so far, over all stages.
      size: how many; more than there are begin the next pass.
    """
    places = range(step * size, (step + 1) * size)
    passes = {
        number: np.random.default_rng([seed, number]).permutation(len(items))
        for number in {place // len(items) for place in places}
    }
    return [items[passes[place // len(items)][place % len(items)]] for place in places]


def objective_of(stage: ml_collections.ConfigDict, beta_2: float | None = None) -> Objective:
    """The row of numbers that a stage's config asks for, maybe with another β₂."""
    beta_2 = stage.beta_2 if beta_2 is None else beta_2
    numbers = {"beta_1": stage.beta_1, "beta_2": beta_2, "discount": stage.discount}
    match stage.objective:
        case "stage_one":
            return objectives.stage_one(stage.attempts, **numbers)
        case "stage_two":
            return objectives.stage_two(stage.attempts, alpha=stage.alpha, scale_kl=stage.scale_kl, **numbers)
        case "multi_turn":
            return objectives.multi_turn(stage.attempts, **numbers)
    raise ValueError(f"objective = {stage.objective!r} is not known")


def objective_at(
    config: ml_collections.ConfigDict, stage: ml_collections.ConfigDict, step: int, beta_2: float
) -> Objective:
    """The objective of update `step` of a stage, as float32 on the device.

    Args:
      config: the run's, in whose sections a `unified` stage finds the two that it goes between.
      stage: the stage's.
      step: updates of this stage before this one.
      beta_2: β₂ of this update, see `beta_2_after`.
    """
    if stage.objective == "unified":
        begin, end = (objective_of(config[key]) for key in stage.between)
        objective = objectives.blend(begin, end, ramp_at(stage, step))
    else:
        objective = objective_of(stage, beta_2)
    return jax.tree.map(jnp.float32, objective)


def asks_for_kl(config: ml_collections.ConfigDict, stage: ml_collections.ConfigDict) -> bool:
    """Whether any update of a stage penalises the KL to the reference; if none does, it need not be run."""
    sections = [config[key] for key in stage.between] if stage.objective == "unified" else [stage]
    return any(section.beta_1 > 0 or section.beta_2 > 0 for section in sections)


def ramp_at(stage: ml_collections.ConfigDict, step: int) -> float:
    """How far a unified stage has gone from its first objective (0) to its second (1), linearly."""
    begin, end = (share * stage.steps for share in stage.ramp)
    if step >= end:
        return 1.0
    return max(step - begin, 0.0) / (end - begin)


def beta_2_after(stage: ml_collections.ConfigDict, row: Mapping[str, Any] | None) -> float:
    """β₂ for the update that follows the one whose row of metrics.jsonl is given; None: the stage's first.

    Section 5.3 adapts β₂ so that the KL term of the attempts that are held and the policy term of the
    last one stay of like size; how is not said. Here β₂ goes a tenth of the way, on the scale of logarithms,
    to that at which β₂ KL is `adapt_beta_2` times |mean A log π| of the last attempt. It stays within a
    factor of ten of the stage's beta_2, as the KL is almost 0 when the policy is still its reference. Being a
    function of the last row alone, it needs no state of its own to be resumed.
    """
    if not stage.adapt_beta_2 or row is None or row["stage"] != stage.name:
        return stage.beta_2
    terms = [row[f"kl_t{attempt}"] for attempt in range(1, stage.attempts)]
    policy = row[f"policy_t{stage.attempts}"]
    if None in (*terms, policy):  # not finite: that update was skipped
        return row["beta_2"]
    held = sum(terms)
    if held <= 0 or policy <= 0:  # nothing to balance: an estimate of the KL may be negative
        return row["beta_2"]
    wanted = stage.adapt_beta_2 * policy / held
    moved = row["beta_2"] ** (1 - ADAPT_RATE) * wanted**ADAPT_RATE
    return min(max(moved, stage.beta_2 / ADAPT_SPAN), stage.beta_2 * ADAPT_SPAN)
