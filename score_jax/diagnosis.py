"""Where a loss or a gradient went bad: in which attempts of which rows. Kept beside the run for inspection.

DIR/diagnosis/step_STEP.npz    the batch of the last skipped update, and what was scored on it
DIR/diagnosis/step_STEP.json   what of it is NaN or infinite, and the problem of each row
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Shaped

from score_jax import hosts, policy
from score_jax import model as models
from score_jax.imitation import Examples, imitation_loss
from score_jax.learner import Learner
from score_jax.mesh import keep_layout
from score_jax.objectives import Objective
from score_jax.records import write_bytes, write_json
from score_jax.step import PolicyLearner, rl_loss
from score_jax.types import Episodes, Experience, TrainState

_SHOWN = 5  # rows that a message names; the file has them all

Batch = Mapping[str, Shaped[np.ndarray, "..."]]


class Diverged(ValueError):
    """A run ended because too many updates in a row were skipped."""


def of_experience(
    state: TrainState,
    frozen: dict,
    ref_params: dict,
    experience: Experience,
    objective: Objective,
    learner: PolicyLearner,
) -> Batch:
    """The batch of an RL update, each token's scores, and each problem's own loss and gradient norm.

    Takes what `step.train_step` took; on several hosts all of them have to call it.
    """
    episodes = experience.episodes
    params = models.join(learner.model, frozen, state.params)
    score = lambda params: policy.score_episodes(
        models.for_params(learner.model, params),
        params,
        episodes,
        temperature=learner.temperature,
        chunk=learner.chunk,
        parts=learner.micro_batches,
    )
    scores, alone = score(params), dataclasses.replace(learner, mesh=None, micro_batches=1)
    loss, norm = _by_problem(state.params, frozen, ref_params, experience, objective, alone, learner.mesh)
    arrays = {
        "tokens": episodes.tokens,
        "attempt": episodes.attempt,
        "decisive": experience.decisive,
        "rewards": experience.rewards,
        "logp_sampler": episodes.logp,
        "logp": scores.logp,
        "entropy": scores.entropy,
        "logp_reference": score(ref_params).logp,
        "loss": np.repeat(hosts.fetch(loss), learner.samples),
        "grad_norm": np.repeat(hosts.fetch(norm), learner.samples),
    }
    return {name: hosts.fetch(x) for name, x in arrays.items()}


@functools.partial(jax.jit, static_argnames=("learner", "mesh"))
def _by_problem(
    trainable: dict,
    frozen: dict,
    ref_params: dict,
    experience: Experience,
    objective: Objective,
    learner: PolicyLearner,
    mesh: Mesh | None,
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Loss and gradient norm of each problem's K episodes, one problem at a time."""
    loss = lambda params, part: rl_loss(params, frozen, ref_params, part, objective, learner)[0]
    return _one_by_one(loss, trainable, experience, learner.samples, mesh)


def of_examples(state: TrainState, frozen: dict, examples: Examples, learner: Learner) -> Batch:
    """The batch of a supervised update, each token's log-probability, and each row's own loss and gradient
    norm."""
    params = models.join(learner.model, frozen, state.params)
    episodes = Episodes(examples.tokens, examples.attempt, np.zeros(examples.tokens.shape, np.float32))
    scores = policy.score_episodes(
        learner.model, params, episodes, chunk=learner.chunk, parts=learner.micro_batches
    )
    alone = dataclasses.replace(learner, mesh=None)
    loss, norm = _by_example(state.params, frozen, examples, alone, learner.mesh)
    arrays = {
        "tokens": examples.tokens,
        "attempt": examples.attempt,
        "weight": examples.weight,
        "logp": scores.logp,
        "loss": loss,
        "grad_norm": norm,
    }
    return {name: hosts.fetch(x) for name, x in arrays.items()}


@functools.partial(jax.jit, static_argnames=("learner", "mesh"))
def _by_example(
    trainable: dict, frozen: dict, examples: Examples, learner: Learner, mesh: Mesh | None
) -> tuple[Float[Array, "E"], Float[Array, "E"]]:
    """Loss and gradient norm of each example, one at a time."""
    loss = lambda params, part: imitation_loss(params, frozen, part, learner)
    return _one_by_one(loss, trainable, examples, 1, mesh)


def _one_by_one(
    loss: Callable, trainable: dict, rows: Any, size: int, mesh: Mesh | None
) -> tuple[Array, Array]:
    """Loss and gradient norm of each `size` rows that follow each other."""
    leaves, structure = jax.tree.flatten(rows)

    def one(part: list[Array]) -> tuple[Array, Array]:
        value, grads = jax.value_and_grad(loss)(trainable, jax.tree.unflatten(structure, part))
        return value, optax.tree.norm(keep_layout(grads, mesh))

    return jax.lax.map(one, [x.reshape(-1, size, *x.shape[1:]) for x in leaves])


def not_finite(batch: Batch) -> dict[str, list[int]]:
    """The rows in which something is NaN or infinite, by what it is: 'logp_t2' is logp in attempt 2.

    The loss and gradient norm of a row are those of its problem, whose samples are each other's baseline.
    """
    attempt = batch["attempt"]
    found: dict[str, Int[np.ndarray, "_"]] = {}
    for name, values in batch.items():
        bad = ~np.isfinite(values)
        if name == "rewards":
            found |= {f"{name}_t{t}": np.flatnonzero(column) for t, column in enumerate(bad.T, start=1)}
        elif bad.ndim == 1:
            found[name] = np.flatnonzero(bad)
        else:  # of context and padding, too: attempt 0
            places = {t: attempt == t if t else attempt < 1 for t in range(attempt.max() + 1)}
            found |= {f"{name}_t{t}": np.flatnonzero((bad & at).any(axis=1)) for t, at in places.items()}
    return {name: rows.tolist() for name, rows in found.items() if len(rows)}


def bad_parameters(params: dict) -> list[str]:
    """Names of the parameters that are NaN or infinite somewhere."""
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [name(path) for path, x in leaves if not bool(jnp.isfinite(x).all())]


def in_words(found: Mapping[str, Sequence[int]], parameters: Sequence[str]) -> str:
    """What is not finite, on one line."""
    parts = [f"{len(parameters)} parameters such as {parameters[0]}"] if parameters else []
    for name, rows in found.items():
        stem, _, attempt = name.rpartition("_t")
        what = f"{stem} of attempt {attempt}" if stem else name
        shown = ", ".join(map(str, rows[:_SHOWN]))
        more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        parts.append(f"{what} in row{'s' * (len(rows) > 1)} {shown}{more}")
    alone = "every row's own loss and gradient are finite, and only their sum is not: it is too large"
    return "; ".join(parts) or alone


def give_up(
    directory: epath.Path,
    params: dict,
    batch: Batch,
    problems: Sequence[str],
    *,
    stage: str,
    step: int,
    times: int,
) -> None:
    """Saves the batch and ends the run.

    Args:
      directory: in which diagnosis/ is to lie.
      params: those that are trained.
      batch: see `of_experience` and `of_examples`.
      problems: the id of each row's problem.
      stage: its name.
      step: the update that was skipped last.
      times: how many were, one after the other.

    Raises:
      Diverged: always; says what was not finite and where.
    """
    found, parameters = not_finite(batch), bad_parameters(params)
    path = directory / "diagnosis" / f"step_{step}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **batch)
    write_bytes(path, buffer.getvalue())
    said = {"stage": stage, "step": step, "skipped": times, "not_finite": found, "parameters": parameters}
    write_json(path.with_suffix(".json"), said | {"problems": list(problems)})
    raise Diverged(
        f"{stage}, update {step}: the loss or the gradient was NaN or infinite {times} times in a row, as "
        f"many as config.max_skipped allows. Not finite: {in_words(found, parameters)}. The batch lies in "
        f"{path}; checkpoints before it stay. Lower this stage's learning_rate in a new --workdir, or go on "
        "past these batches with a larger config.max_skipped"
    )
