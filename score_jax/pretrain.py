"""The base model: pre-trained here from a task's demonstrations, and kept for later runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from etils import epath

from score_jax import chat, checkpoint, diagnosis, hosts, interruption, lock, mesh, model, prompts, tokenizer
from score_jax.config import shows_critiques
from score_jax.imitation import Examples, sft_step
from score_jax.learner import Learner, Optimizer
from score_jax.log import Progress
from score_jax.manifest import FILE, fault_of, write_manifest
from score_jax.records import append_jsonl, read_json, write_json, write_jsonl, writes, writing
from score_jax.rollout import Actor, actor_of
from score_jax.task import Task
from score_jax.types import Problem

_FINGERPRINT = 100  # demonstrations that are enough to tell whether the task's code has changed
_LOOSE = ("metrics.jsonl", "base.lock", "_CHECKPOINT_METADATA")  # may change, or go, without harm
# The sections of a config that the base model depends on.
SECTIONS = ("seed", "task", "tokenizer", "model", "slots", "pretrain")


def base_dir(config: ml_collections.ConfigDict, workdir: epath.Path) -> epath.Path:
    """Where the base model lies: config.base_dir, or inside the work directory."""
    return epath.Path(config.base_dir) if config.base_dir else workdir / "base"


def make_base(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    task: Task,
    say: Callable[[str], None] = print,
    check: Callable[[Actor], object] = lambda actor: None,
) -> tuple[Actor, dict]:
    """The base model, pre-trained now unless an earlier run with the same settings left it.

    Returns, Raises:
      As `load_base`, except that a missing base model is made. `check` is asked before, see `base.make_base`.
    """
    directory = base_dir(config, workdir)
    if (directory / "settings.json").exists():
        actor, params = load_base(config, workdir, task, say)
        check(actor)
        return actor, params
    with contextlib.ExitStack() as held:
        with nothing_left(directory):
            held.enter_context(lock.hold(directory, "base"))  # other runs may share it
            if (directory / "settings.json").exists():  # one of them has just made it
                held.close()
                return make_base(config, workdir, task, say, check)
            actor = _untrained(config, task, directory)
            check(actor)
            _check_demonstrations(config, actor)
        say(
            f"Base model: {directory} holds none yet; one is pre-trained there on the task's demonstrations "
            "(kept for later runs) ..."
        )
        params = pretrain(config, actor, directory)
        checkpoint.save_params(params, directory / "params")
        if writes():
            write_manifest(directory, without=_LOOSE)
        write_json(directory / "settings.json", _settings(config, task))  # last: it says that all is there
    return actor, params


@contextlib.contextmanager
def nothing_left(directory: epath.Path) -> Iterator[None]:
    """Makes a folder for what follows; if that is refused, what was made here goes again."""
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except ValueError:
        if made and writes():
            directory.rmtree()
            for folder in made[1:]:
                if not list(folder.iterdir()):
                    folder.rmdir()
        raise


def _untrained(config: ml_collections.ConfigDict, task: Task, directory: epath.Path) -> Actor:
    """The actor of a base model that is to be trained, with a tokenizer of its own."""
    corpus = task.corpus(config.tokenizer.texts, critiques=shows_critiques(config))
    vocabulary = tokenizer.train_tokenizer(
        corpus, directory / "tokenizer.model", vocab_size=config.tokenizer.vocab_size
    )
    hosts.wait("tokenizer")
    return _actor(config, task, vocabulary)


def _check_demonstrations(config: ml_collections.ConfigDict, actor: Actor) -> None:
    """Refuses slots that the demonstrations of each phase's first batch do not fit, and an uneven batch."""
    mesh.check_rows(config.pretrain.batch, mesh.mesh_of(config), "config.pretrain.batch")
    problems = actor.task.problems("train")
    for name in config.pretrain.phases:
        phase = config.pretrain[name]
        shown = actor.with_attempts(phase.attempts).with_critique(phase.critiques > 0)
        how = {"unlearned": phase.unlearned, "critiques": phase.critiques}
        demonstrations(shown, problems, seed=config.seed, step=0, batch=config.pretrain.batch, **how)


def load_base(
    config: ml_collections.ConfigDict, workdir: epath.Path, task: Task, say: Callable[[str], None] = print
) -> tuple[Actor, dict]:
    """The base model that `make_base` left.

    Returns:
      The actor (with config.evaluate.attempts attempts), and the base's parameters.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it was made with other settings.
    """
    directory = base_dir(config, workdir)
    found, settings = read_json(directory / "settings.json"), _settings(config, task)
    if not found:
        raise FileNotFoundError(
            f"{directory} holds no base model; put it back there, or make it again with the same "
            "`python -m score_jax train` command"
        )
    if found != settings:
        differ = ", ".join(key for key in settings if found.get(key) != settings[key])
        raise ValueError(
            f"config.base_dir: {directory} holds a base model made with other settings ({differ}); "
            "undo the change, or name another --workdir and base_dir"
        )
    _check_whole(directory, say)
    actor = _actor(config, task, tokenizer.SmallTokenizer(path=str(directory / "tokenizer.model")))
    like = mesh.placed(model.shapes_of(actor.model), mesh.mesh_of(config))
    say(f"Base model: reused from {directory} (its settings are unchanged).")
    return actor, checkpoint.load_params(directory / "params", like)


def _check_whole(directory: epath.Path, say: Callable[[str], None]) -> None:
    """Refuses a base model that is not as it was written."""
    if not (directory / FILE).exists():
        say(f"WARNING: the base model in {directory} has no {FILE}, and cannot be checked for damage.")
    elif fault := fault_of(directory, thorough=True):
        raise ValueError(
            f"{directory}: the base model is damaged: {fault}; put it back, or move the folder away, and "
            "`python -m score_jax train` makes it again"
        )


def _settings(config: ml_collections.ConfigDict, task: Task) -> dict[str, Any]:
    """What a base model depends on: sections of the config, and what the task's code demonstrates.

    What belongs to critiques is left out where none are shown: so it was before there were any.
    """
    critiques = shows_critiques(config)
    texts = "".join(task.corpus(_FINGERPRINT, critiques=critiques))
    plain = json.loads(config.to_json())
    if not critiques:
        del plain["slots"]["critique"]
        for name in plain["pretrain"]["phases"]:
            del plain["pretrain"][name]["critiques"]
    return {key: plain[key] for key in SECTIONS} | {"demonstrations": zlib.crc32(texts.encode())}


def _actor(config: ml_collections.ConfigDict, task: Task, vocabulary: tokenizer.SmallTokenizer) -> Actor:
    small = model.small_gemma(config.model, vocabulary.vocab_size)
    return actor_of(config, small, chat.plain(vocabulary), task)


def demonstrations(
    actor: Actor,
    problems: Sequence[Problem],
    *,
    seed: int,
    step: int,
    batch: int,
    unlearned: float,
    critiques: float = 0.0,
) -> Examples:
    """The batch of one pre-training step: a function of (seed, step).

    Args:
      actor: its slots say how many attempts of each demonstration are shown.
      problems: to demonstrate.
      seed: of the run.
      step: of pre-training.
      batch: how many demonstrations.
      unlearned: share of the demonstrations whose unimitated answers carry no loss.
      critiques: share of the demonstrations that show a critique before each later attempt. The attempts stay
        as they were drawn, whatever it says: a base model learns to criticise, not to heed it.
    """
    chosen, rng = drawn(problems, batch, seed, step)
    shown = [actor.task.demonstration(problem, rng) for problem in chosen]
    for row in np.flatnonzero(rng.random(batch) >= unlearned):
        learned = (True,) * len(shown[row].attempts)
        shown[row] = dataclasses.replace(shown[row], imitate_answer=learned)
    for row in np.flatnonzero(rng.random(batch) < critiques):
        before = shown[row].attempts[: actor.slots.attempts - 1]
        written = tuple(actor.task.critique(chosen[row], attempt) for attempt in before)
        shown[row] = dataclasses.replace(shown[row], critiques=written)
    return Examples(*prompts.encode_demonstrations(actor.format, actor.task, chosen, shown, actor.slots))


def drawn(
    problems: Sequence[Problem], count: int, seed: int, step: int
) -> tuple[list[Problem], np.random.Generator]:
    """The problems of one pre-training step, and the generator with which the rest of it is drawn."""
    rng = np.random.default_rng([seed, step])
    return [problems[index] for index in rng.integers(len(problems), size=count)], rng


def pretrain(config: ml_collections.ConfigDict, actor: Actor, directory: epath.Path) -> dict:
    """Imitates demonstrations, phase by phase; each phase starts where the one before ended."""
    settings = config.pretrain
    phases = [settings[name] for name in settings.phases]
    devices = mesh.mesh_of(config)
    optimizer = Optimizer(clip_norm=settings.clip_norm, b2=settings.b2, weight_decay=settings.weight_decay)
    params = model.init_params(actor.model, jax.random.key(config.seed))
    params = mesh.place(params, devices)
    learner = Learner(actor.model, optimizer, mesh=devices)
    problems = actor.task.problems("train")
    step, marks, in_a_row = 0, [], 0
    write_jsonl(directory / "metrics.jsonl", [])
    with Progress("base model", sum(phase.steps for phase in phases), every=config.log.every) as progress:
        for phase in phases:
            state = mesh.place(optimizer.init(params), devices)
            shown = actor.with_attempts(phase.attempts).with_critique(phase.critiques > 0)
            peak = phase.learning_rate
            schedule = optax.warmup_cosine_decay_schedule(
                0.0, peak, round(settings.warmup * phase.steps), phase.steps, 0.05 * peak
            )
            for phase_step in range(phase.steps):
                batch = demonstrations(
                    shown,
                    problems,
                    seed=config.seed,
                    step=step,
                    batch=settings.batch,
                    unlearned=phase.unlearned,
                    critiques=phase.critiques,
                )
                batch = mesh.spread(batch, devices)
                rate = jnp.float32(schedule(phase_step))
                state, metrics = sft_step(state, {}, batch, rate, learner=learner)
                step += 1
                progress.advance({"loss": metrics["loss"]})
                marks.append(metrics["skipped"])
                if step % config.log.every and phase_step + 1 < phase.steps:
                    continue  # only now is the device waited for
                skipped, marks = [bool(mark) for mark in marks], []
                in_a_row = len(skipped) + in_a_row if all(skipped) else skipped[::-1].index(False)
                if step % config.log.every == 0:
                    row = {"step": step, "loss": float(metrics["loss"]), "skipped": sum(skipped)}
                    append_jsonl(directory / "metrics.jsonl", row)
                if in_a_row >= config.max_skipped:
                    diagnosis.give_up(
                        directory,
                        state.params,
                        diagnosis.of_examples(state, {}, batch, learner),
                        [problem.id for problem in drawn(problems, settings.batch, config.seed, step - 1)[0]],
                        step=step,
                        times=in_a_row,
                        stage="pre-training",
                    )
                if interruption.asked():
                    raise interruption.Interrupted("pre-training is not kept and begins anew")
            params = state.params
    return params
