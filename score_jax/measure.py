"""Further evaluations of a run, each checkpoint's in a file of its own: WORKDIR/measures/NAME/LABEL.jsonl."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import ml_collections
from etils import epath

from score_jax.base import load_base
from score_jax.checkpoint import Checkpoints
from score_jax.evaluate import attempt_all, draft_of, load_policy
from score_jax.log import say
from score_jax.offline import corrector
from score_jax.prompts import longest_prompt
from score_jax.task import evaluated, training_task
from score_jax.types import Problem


def measure(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    name: str,
    checkpoints: Mapping[str, int],
    *,
    samples: int = 1,
    firsts: Mapping[str, str] | None = None,
    sandbox: str = "strict",
) -> dict[str, list[dict]]:
    """Attempts a split as config.evaluate says, for each checkpoint; what was attempted before stays.

    Args:
      config: the run's, with the measurement's `evaluate` section.
      workdir: the run's work directory.
      name: of the measurement.
      checkpoints: what to measure: {label: step}, step 0 being the base.
      samples: episodes of each problem; their rows follow one another.
      firsts: {problem's id: a first attempt}. The model is given it and samples the second alone, after a
        critique where one is asked for, so that a row has one attempt, the correction (Fig. 4).
      sandbox: see `Task.prepare`.

    Returns:
      The rows of each label, as in attempts.jsonl.

    Raises:
      ValueError: a problem has no first attempt in `firsts`.
    """
    trained_on = training_task(config)
    task, problems = evaluated(config, trained_on)
    task.prepare(sandbox, say)
    actor, base = load_base(config, workdir, trained_on, lambda _: None)
    actor = actor.with_task(task).for_problems(problems)
    if firsts is not None:
        problems, actor = given(problems, firsts), corrector(actor)
        # An attempt that filled its slot gets an end token, and may come to more tokens than it was made of.
        room = max(actor.slots.prompt, longest_prompt(actor.format, problems, actor.slots))
        actor = dataclasses.replace(actor, slots=dataclasses.replace(actor.slots, prompt=room))
    problems = [problem for problem in problems for _ in range(samples)]
    measured = {}
    with Checkpoints(workdir / "checkpoints") as saved:
        for label, step in checkpoints.items():
            title, path = f"{name} {label}", workdir / "measures" / name / f"{label}.jsonl"
            draft = draft_of(config, path, problems, name=title, step=step)
            params = {} if draft.complete else load_policy(config, saved, step, actor, base)
            measured[label] = attempt_all(actor, params, problems, config, name=title, step=step, draft=draft)
            del params  # the next one's take their memory
    return measured


def given(problems: Sequence[Problem], firsts: Mapping[str, str]) -> list[Problem]:
    """The problems with a first attempt each.

    Raises:
      ValueError: one has none.
    """
    absent = [problem.id for problem in problems if problem.id not in firsts]
    if absent:
        raise ValueError(
            f"firsts: {len(absent)} of {len(problems)} problems have no first attempt ({absent[0]!r}, ...); "
            "give one for each"
        )
    return [dataclasses.replace(problem, first=firsts[problem.id]) for problem in problems]
