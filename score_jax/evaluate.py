"""Evaluation: greedy attempts at a split, into attempts.jsonl and results.json."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence

import ml_collections
import numpy as np
from etils import epath

from score_jax import interruption, lock, prompts, rollout
from score_jax import model as models
from score_jax.base import load_base
from score_jax.checkpoint import Checkpoints
from score_jax.config import check_workdir, config_of
from score_jax.learner import blank_state, optimizer_of
from score_jax.log import Progress, say
from score_jax.mesh import check_rows, mesh_of
from score_jax.metrics import result_of
from score_jax.origin import origin_of
from score_jax.records import Draft, read_json, read_jsonl, write_json, write_jsonl
from score_jax.rollout import Actor, Graded
from score_jax.task import evaluated, training_task
from score_jax.types import Problem


def evaluate(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    checkpoint: str = "stages",
    sandbox: str = "strict",
) -> dict:
    """Evaluates checkpoints greedily and writes what they did; stopped, the same call goes on.

    Args:
      config: the run's config; its `evaluate` section may differ from the run's.
      workdir: the run's work directory.
      checkpoint: 'base'; 'latest' or 'best' (by training reward) of the last stage trained so far; a step;
        or 'stages' for the base and the best of every stage.
      sandbox: for tasks whose attempts are programs, see `Task.prepare`.

    Returns:
      results.json as written: entries of checkpoints that were not evaluated now stay.
    """
    config_of(workdir)  # raises where there is no run
    check_workdir(workdir, config)
    check_rows(config.evaluate.batch, mesh_of(config), "config.evaluate.batch")
    with lock.hold(workdir, "evaluate"):
        return _evaluate(config, workdir, checkpoint, sandbox)


def _evaluate(config: ml_collections.ConfigDict, workdir: epath.Path, checkpoint: str, sandbox: str) -> dict:
    """The work itself."""
    results_path, attempts_path = workdir / "results.json", workdir / "attempts.jsonl"
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        chosen = choose(config, checkpoints, checkpoint)
        trained_on = training_task(config)
        task, problems = evaluated(config, trained_on)
        task.prepare(sandbox, say)
        actor, base = load_base(config, workdir, trained_on, say)
        actor = actor.with_task(task).for_problems(problems)
        prompts.encode_prompts(actor.format, problems, actor.slots)  # one that is too long is to be known now
        results, rows, drafts = read_json(results_path), read_jsonl(attempts_path), []
        split = split_of(config)
        for name, step in chosen.items():
            path = workdir / "drafts" / f"{name}.jsonl"  # until all evaluations are done
            drafts.append(draft_of(config, path, problems, name=name, step=step))
            params = {} if drafts[-1].complete else load_policy(config, checkpoints, step, actor, base)
            fresh = attempt_all(actor, params, problems, config, name=name, step=step, draft=drafts[-1])
            del params  # the next one's take their memory
            rows = [row for row in rows if row["checkpoint"] != name] + fresh
            earlier = results.get(name, {}).get("split", split)
            if earlier != split:
                say(f"{name}: its evaluation on the {earlier} split is replaced.")
            results[name] = result_of(fresh)
            say(summary_line(name, results[name]))
    trained = ["base", *(config[key].name for key in config.stages)]
    # In order of training, but the last stage stays last.
    order = lambda name, step: (name == trained[-1], step, name in trained)
    results = dict(sorted(results.items(), key=lambda item: order(item[0], item[1]["step"])))
    write_jsonl(attempts_path, sorted(rows, key=lambda row: order(row["checkpoint"], row["step"])))
    write_json(results_path, results)
    for draft in drafts:
        draft.delete()
    return results


def choose(config: ml_collections.ConfigDict, checkpoints: Checkpoints, checkpoint: str) -> dict[str, int]:
    """The checkpoints asked for: {name: step}, step 0 being the base.

    Raises:
      FileNotFoundError: there is no such checkpoint; the message names those there are.
    """
    # A checkpoint is read whole before it is called the last or the best: none is that was not asked for.
    if checkpoint == "base":
        return {"base": 0}
    names, steps = [config[key].name for key in config.stages], checkpoints.steps()
    if checkpoint.isdigit() and int(checkpoint) in steps:
        return {f"step_{checkpoint}": int(checkpoint)}
    if checkpoint == "stages":
        best = {name: best_of(checkpoints, name) for name in names}
        return {"base": 0} | {name: step for name, step in best.items() if step is not None}
    if find := {"latest": Checkpoints.last, "best": best_of}.get(checkpoint):
        for name in reversed(names):
            if (step := find(checkpoints, name)) is not None:
                return {checkpoint: step}
    raise FileNotFoundError(
        f"--checkpoint={checkpoint}: not in {checkpoints.directory}; there are base"
        + (f", latest, best and the steps {steps}" if steps else "; train first for more")
    )


def best_of(checkpoints: Checkpoints, stage: str) -> int | None:
    """The best step of a stage; where none has a training reward yet, its last; None where none is whole."""
    step = checkpoints.best(stage)
    if step is None and (step := checkpoints.last(stage)) is not None:
        say(f"WARNING: {stage} has no checkpoint with a training reward; its last stands for the best.")
    return step


def load_policy(
    config: ml_collections.ConfigDict, checkpoints: Checkpoints, step: int, actor: Actor, base: dict
) -> dict:
    """All parameters of the policy at a step, laid out on config.mesh; the base's for step 0."""
    if step == 0:
        return base
    like = blank_state(actor.model, base, optimizer_of(config), config.train_dtype, mesh_of(config))
    origin = origin_of(config, actor.format.tokenizer)
    trained = checkpoints.restore_params(step, like, origin=origin)
    return models.join(actor.model, models.frozen_of(actor.model, base), trained)


def load_one(
    config: ml_collections.ConfigDict, workdir: epath.Path, checkpoint: str, say: Callable[[str], None]
) -> tuple[str, Actor, dict]:
    """One checkpoint of a run: what it is called, the actor, and all of the policy's parameters.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      ValueError: 'stages', which means several.
    """
    if checkpoint == "stages":
        raise ValueError("--checkpoint=stages means several; name one of base, latest, best or a step")
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        ((name, step),) = choose(config, checkpoints, checkpoint).items()
        actor, base = load_base(config, workdir, training_task(config), say)
        return name, actor, load_policy(config, checkpoints, step, actor, base)


def split_of(config: ml_collections.ConfigDict) -> str:
    """What results call the problems: their split, and their task or files where those are others."""
    files = [epath.Path(path).stem for _, path in sorted(config.evaluate.files.items()) if path]
    other = config.evaluate.task.rpartition(":")[2] or ", ".join(files)
    return f"{other} {config.evaluate.split}" if other else config.evaluate.split


def draft_of(
    config: ml_collections.ConfigDict,
    path: epath.Path,
    problems: Sequence[Problem],
    *,
    name: str,
    step: int,
) -> Draft:
    """The file of a checkpoint's rows, as they are made; those of another evaluation are dropped."""
    stamp = {
        "checkpoint": name,
        "step": step,
        "seed": config.seed,
        "evaluate": json.loads(config.evaluate.to_json()),
        "critique": config.slots.critique,
        "problems": zlib.crc32(repr(list(problems)).encode()),
    }
    return Draft(path, stamp, total=len(problems), multiple=config.evaluate.batch)


def attempt_all(
    actor: Actor,
    params: dict,
    problems: Sequence[Problem],
    config: ml_collections.ConfigDict,
    *,
    name: str,
    step: int,
    draft: Draft,
) -> list[dict]:
    """The rows of attempts.jsonl for all problems, `evaluate.batch` at a time, on from where `draft` stands.

    The last batch is filled up and cut.
    """
    size = config.evaluate.batch
    how = {"split": split_of(config), "temperature": config.evaluate.temperature}
    batches, done = -(-len(problems) // size), -(-len(draft.rows) // size)
    with Progress(f"evaluate {name}", batches, every=config.log.every, done=done) as progress:
        for cut in range(done * size, len(problems), size):
            batch = problems[cut : cut + size]
            filled = [*batch] + [batch[-1]] * (size - len(batch))
            keys = rollout.row_keys(config.seed, f"evaluate {name}", cut, size)
            _, graded = rollout.roll_out(
                actor,
                params,
                filled,
                keys,
                temperature=config.evaluate.temperature,
                mesh=mesh_of(config),
            )
            graded = graded.head(len(batch))
            draft.extend(attempt_rows(graded, checkpoint=name, step=step, **how))
            last = np.mean([row["rewards"][-1] for row in draft.rows])
            progress.advance({f"acc_t{config.evaluate.attempts}": last})
            if interruption.asked():
                raise interruption.Interrupted("the batches so far are kept")
    return draft.rows


def attempt_rows(graded: Graded, *, checkpoint: str, step: int, split: str, temperature: float) -> list[dict]:
    """The rows of attempts.jsonl; `notes` stand in those of whose attempts the checker says more.

    So do `critiques`: the text of the one before each later attempt, and before the first of a given one.
    """
    return [
        {
            "checkpoint": checkpoint,
            "step": step,
            "split": split,
            "temperature": temperature,
            "id": problem.id,
            "prompt": problem.prompt,
            "gold": problem.gold,
            "level": problem.level,
            **({"subject": problem.subject} if problem.subject else {}),
            **({"first": problem.first} if problem.first else {}),
            "attempts": graded.texts[row],
            **({"critiques": graded.critiques[row]} if graded.critiques[row] else {}),
            "answers": graded.answers[row],
            "rewards": graded.rewards[row].tolist(),
            "finished": graded.finished[row].tolist(),
            **({"notes": [dict(notes) for notes in graded.notes[row]]} if any(graded.notes[row]) else {}),
        }
        for row, problem in enumerate(graded.problems)
    ]


def summary_line(name: str, result: dict) -> str:
    """One checkpoint's numbers on one line."""
    keys = [key for key in result if key.startswith("acc_")] + ["delta", "i_to_c", "c_to_i"]
    numbers = "  ".join(f"{key} {100 * result[key]:.1f}%" for key in keys if key in result)
    return f"{name:>12}  {numbers}  ({result['n']} problems)"
