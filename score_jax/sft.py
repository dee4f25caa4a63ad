"""Supervised stages: STaR and Pair-SFT, the baselines of section 4 that imitate what was sampled.

A stage first samples as many episodes of two attempts as RL would for the same number of updates, keeps
those that its filter lets through, and then fine-tunes on them:

                      attempt 1   attempt 2
    STaR      D       wrong       right: what the model wrote after this very attempt
              D⁺      right too   right
    Pair-SFT  D       wrong       right: any right attempt at the same problem, put in its place
              D⁺      right too   right

The loss is the cross-entropy of attempt 2's tokens alone: attempt 1 is what is to be corrected, and imitating
the wrong ones would teach mistakes (in Table 1, STaR's Acc@t1 does not fall below the base's).
"""

from __future__ import annotations

import dataclasses
import io
import json
import time
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from jaxtyping import Float, Int

from score_jax import diagnosis, hosts, interruption, rollout
from score_jax import model as models
from score_jax.checkpoint import Checkpoints
from score_jax.log import Metrics, Progress, by_attempt, say
from score_jax.mesh import mesh_of, spread
from score_jax.records import write_bytes
from score_jax.retention import note_of
from score_jax.rollout import Actor
from score_jax.sampling import Slots
from score_jax.schedule import batch_of, learning_rate_at
from score_jax.step import Examples, Optimizer, sft_step
from score_jax.types import CONTEXT, PADDING, Problem, TrainState


@dataclasses.dataclass(frozen=True)
class Trace:
    """An episode of two attempts as token ids, as they were sampled; padding and instruction left out.

    Attributes:
      problem: the id of its problem.
      prompt: the prompt.
      attempts: both attempts, with their end token where they have one.
      right: whether each attempt is.
    """

    problem: str
    prompt: Int[np.ndarray, "_"]
    attempts: tuple[Int[np.ndarray, "_"], Int[np.ndarray, "_"]]
    right: tuple[bool, bool]


def traces_of(
    tokens: Int[np.ndarray, "E L"],
    attempt: Int[np.ndarray, "E L"],
    rewards: Float[np.ndarray, "E 2"],
    problems: Sequence[Problem],
    slots: Slots,
) -> list[Trace]:
    """Episodes as traces, row by row."""
    return [
        Trace(
            problem=problem.id,
            prompt=row[: slots.prompt][who[: slots.prompt] == CONTEXT],
            attempts=(row[who == 1], row[who == 2]),
            right=(bool(reward[0] == 1), bool(reward[1] == 1)),
        )
        for row, who, reward, problem in zip(tokens, attempt, rewards, problems, strict=True)
    ]


def star(traces: Sequence[Trace], *, keep_right: bool) -> list[Trace]:
    """STaR's filter (Zelikman et al. 2022): traces that correct a wrong first attempt, D_STaR.

    Args:
      traces: to choose from.
      keep_right: those that are right twice, too: D⁺_STaR.
    """
    return [trace for trace in traces if trace.right[1] and (keep_right or not trace.right[0])]


def remember_right(solutions: defaultdict[str, list[Int[np.ndarray, "_"]]], traces: Sequence[Trace]) -> None:
    """Adds the right attempts of `traces`, first or second, to those of their problem."""
    for trace in traces:
        for ids, right in zip(trace.attempts, trace.right, strict=True):
            if right:
                solutions[trace.problem].append(ids)


def pair(
    traces: Sequence[Trace],
    solutions: Mapping[str, Sequence[Int[np.ndarray, "_"]]],
    *,
    seed: int,
    first_row: int,
    keep_right: bool,
) -> list[Trace]:
    """Pair-SFT's examples: each wrong first attempt, then a right attempt at the same problem, D_SFT.

    A first attempt whose problem nobody has solved yet makes no pair.

    Args:
      traces: whose first attempts are to be paired.
      solutions: right attempts by problem; one of them is drawn, a function of (seed, row).
      seed: of the run.
      first_row: how many traces came before these in the run.
      keep_right: right first attempts are paired likewise, maybe with themselves: D⁺_SFT.
    """
    pairs = []
    for row, trace in enumerate(traces, start=first_row):
        known = solutions.get(trace.problem, ())
        if known and (keep_right or not trace.right[0]):
            rng = np.random.default_rng([seed, zlib.crc32(b"pair"), row])
            attempts = (trace.attempts[0], known[int(rng.integers(len(known)))])
            pairs.append(dataclasses.replace(trace, attempts=attempts, right=(trace.right[0], True)))
    return pairs


def lay_out(traces: Sequence[Trace], slots: Slots, pad: int) -> Examples:
    """Traces in the slots of a transcript, where sampled tokens stand as they stood; learned: attempt 2."""
    shape = (len(traces), slots.length)
    tokens = np.full(shape, pad, np.int32)
    attempt = np.full(shape, PADDING, np.int32)

    def write(row: int, start: int, ids: Sequence[int] | Int[np.ndarray, "_"], who: int) -> None:
        tokens[row, start : start + len(ids)] = ids
        attempt[row, start : start + len(ids)] = who

    for row, trace in enumerate(traces):
        write(row, slots.prompt - len(trace.prompt), trace.prompt, CONTEXT)
        write(row, slots.start(1), trace.attempts[0], 1)
        write(row, slots.start(2) - len(slots.instruction), slots.instruction, CONTEXT)
        write(row, slots.start(2), trace.attempts[1], 2)
    return Examples(tokens, attempt, (attempt == 2).astype(np.float32))


@dataclasses.dataclass(frozen=True)
class Found:
    """The examples of a stage, and what they were found among.

    Attributes:
      traces: the examples.
      tally: counts over all episodes sampled: episodes; wrong_first; right, attempts that are; and the
        episodes that go i_to_c (wrong, then right) and c_to_c (right twice).
      seconds: what sampling and grading took.
    """

    traces: list[Trace]
    tally: dict[str, int]
    seconds: float

    @property
    def composition(self) -> dict[str, int]:
        """Counts over the examples, by their names in metrics.jsonl."""
        c_to_c = sum(trace.right[0] for trace in self.traces)
        return {
            "examples_i_to_c": len(self.traces) - c_to_c,
            "examples_c_to_c": c_to_c,
            "examples_problems": len({trace.problem for trace in self.traces}),
        }


def tally_of(traces: Sequence[Trace]) -> Counter[str]:
    """The counts of `Found.tally`."""
    rights = [trace.right for trace in traces]
    return Counter(
        episodes=len(rights),
        wrong_first=sum(not first for first, _ in rights),
        right=sum(map(sum, rights)),
        i_to_c=rights.count((False, True)),
        c_to_c=rights.count((True, True)),
    )


def gather(
    config: ml_collections.ConfigDict,
    stage: ml_collections.ConfigDict,
    actor: Actor,
    pool: Sequence[Problem],
    policy: Callable[[], dict],
    workdir: epath.Path,
    *,
    begin: int,
) -> Found:
    """The examples of a stage: those that an earlier try at it left, else they are sampled now.

    Args:
      config: the run's.
      stage: the stage's part of it.
      actor: samples.
      pool: the training problems.
      policy: all parameters of the policy that samples, the one with which the stage begins; asked for if
        there is something to sample.
      workdir: keeps them in examples/STAGE.npz, which is written when all are there.
      begin: updates that came before the stage.

    Raises:
      ValueError: there are none; says what was sampled.
    """
    path = workdir / "examples" / f"{stage.name}.npz"
    stamp = {"seed": config.seed, "begin": begin, "stage": json.loads(stage.to_json())}
    found = read_found(path, stamp)
    if found is None:
        found = collect(config, stage, actor, pool, policy(), begin=begin)
        check_found(stage, found)
        write_found(path, stamp, found)
    numbers = found.composition
    say(
        f"{stage.name}: {len(found.traces)} examples from {found.tally['episodes']} episodes: "
        f"{numbers['examples_i_to_c']} wrong -> right, {numbers['examples_c_to_c']} right -> right, "
        f"of {numbers['examples_problems']} problems."
    )
    return found


def check_found(stage: ml_collections.ConfigDict, found: Found) -> None:
    """Refuses a stage that found nothing to imitate."""
    if found.traces:
        return
    tally = found.tally
    raise ValueError(
        f"stage {stage.name!r}: no example for objective = {stage.objective!r} in {tally['episodes']} "
        f"episodes, of which {tally['wrong_first']} began wrong, {tally['i_to_c']} went wrong -> right "
        f"and {tally['c_to_c']} right -> right ({tally['right']} right attempts in all); give the stage more "
        "steps or samples_factor, or a base model that solves more of the problems"
        + ("" if stage.keep_right else ", or keep right -> right with keep_right=True")
    )


def collect(
    config: ml_collections.ConfigDict,
    stage: ml_collections.ConfigDict,
    actor: Actor,
    pool: Sequence[Problem],
    params: dict,
    *,
    begin: int,
) -> Found:
    """Samples and filters: the batches of problems that RL would see, as often as RL would."""
    start = time.monotonic()
    actor = actor.with_attempts(stage.attempts).with_critique(False)
    samples = config.samples_per_problem * stage.samples_factor
    found: list[Trace] = []
    tally: Counter[str] = Counter()
    solutions: defaultdict[str, list[Int[np.ndarray, "_"]]] = defaultdict(list)
    with Progress(f"{stage.name} sampling", stage.steps, every=config.log.every) as progress:
        for step in range(begin, begin + stage.steps):
            problems = batch_of(pool, seed=config.seed, step=step, size=config.problems_per_step)
            problems = [problem for problem in problems for _ in range(samples)]
            episodes, graded = rollout.roll_out(
                actor,
                params,
                problems,
                rollout.row_keys(config.seed, "examples", step, len(problems)),
                temperature=config.temperature,
                mesh=mesh_of(config),
                parts=config.rollout_parts,
                samples=samples,
            )
            tokens, attempt = hosts.fetch(episodes.tokens), hosts.fetch(episodes.attempt)
            traces = traces_of(tokens, attempt, graded.rewards, problems, actor.slots)
            tally += tally_of(traces)
            if stage.objective == "star":
                kept = star(traces, keep_right=stage.keep_right)
            else:
                remember_right(solutions, traces)
                row = step * len(traces)
                kept = pair(traces, solutions, seed=config.seed, first_row=row, keep_right=stage.keep_right)
            found += kept
            shown = by_attempt("reward", graded.rewards.mean(axis=0))
            progress.advance(shown | {"kept": len(kept) / len(traces)})
            if interruption.asked():
                raise interruption.Interrupted("the stage's sampling is not kept and begins anew")
    counts = {key: int(tally[key]) for key in tally_of([])}
    return Found(found, counts, time.monotonic() - start)


def write_found(path: epath.Path, stamp: Mapping[str, object], found: Found) -> None:
    """Writes examples all at once: a reader sees the whole file or none."""
    segments = [(trace.prompt, *trace.attempts) for trace in found.traces]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        stamp=np.array(json.dumps(stamp)),
        tally=np.array(json.dumps(found.tally)),
        seconds=np.array(found.seconds),
        tokens=np.concatenate([ids for row in segments for ids in row]).astype(np.int32),
        lengths=np.array([[len(ids) for ids in row] for row in segments], np.int32),
        right=np.array([trace.right for trace in found.traces]),
        problem=np.array([trace.problem for trace in found.traces]),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


def read_found(path: epath.Path, stamp: Mapping[str, object]) -> Found | None:
    """What `write_found` left; None if there is nothing, or what there is was made by other settings.

    Raises:
      ValueError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        if json.loads(str(data["stamp"])) != stamp:
            return None
        ends = np.cumsum(data["lengths"])[:-1]
        segments = iter(np.split(data["tokens"], ends))
        rows = zip(data["problem"], segments, segments, segments, data["right"], strict=True)
        traces = [
            Trace(str(problem), prompt, (first, second), (bool(right[0]), bool(right[1])))
            for problem, prompt, first, second, right in rows
        ]
        return Found(traces, json.loads(str(data["tally"])), float(data["seconds"]))
    except (ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged ({error}); delete it, and the stage samples anew") from error


def sft_stage(
    config: ml_collections.ConfigDict,
    stage: ml_collections.ConfigDict,
    actor: Actor,
    found: Found,
    state: TrainState,
    base: dict,
    checkpoints: Checkpoints,
    workdir: epath.Path,
    *,
    begin: int,
) -> TrainState:
    """Fine-tunes on `found` from where `state` stands to the stage's end; `begin` updates came before it."""
    actor = actor.with_attempts(stage.attempts).with_critique(False)
    frozen = models.frozen_of(actor.model, base)
    optimizer = Optimizer(**config.optimizer.to_dict())
    size, devices = config.problems_per_step * config.samples_per_problem, mesh_of(config)
    done = int(state.step) - begin
    with (
        Metrics(workdir, int(state.step), config) as metrics,
        Progress(f"{stage.name} updates", stage.steps, every=config.log.every, done=done) as progress,
    ):
        for step in range(done, stage.steps):
            start = time.monotonic()
            traces = batch_of(found.traces, seed=config.seed, step=begin + step, size=size)
            examples = spread(lay_out(traces, actor.slots, actor.format.pad), devices)
            rate = learning_rate_at(stage, step)
            state, numbers = sft_step(
                state,
                frozen,
                examples,
                jnp.float32(rate),
                model=actor.model,
                optimizer=optimizer,
                chunk=config.score_chunk,
                remat=config.remat,
                micro_batches=config.micro_batches,
                mesh=devices,
            )
            row = {"step": begin + step + 1, "stage": stage.name, "learning_rate": rate}
            row |= {key: float(numbers[key]) for key in ("loss", "grad_norm")}
            row["skipped"] = int(numbers["skipped"])
            row |= {"examples": len(found.traces), "sampled": 0, "seconds": time.monotonic() - start}
            if step == 0:  # what was done before the first update counts there
                row |= found.composition | {"sampled": stage.attempts * found.tally["episodes"]}
                row["seconds"] += found.seconds
            metrics.write(row)
            if metrics.skipped >= config.max_skipped:
                diagnosis.give_up(
                    workdir,
                    state.params,
                    diagnosis.of_examples(
                        state,
                        frozen,
                        examples,
                        model=actor.model,
                        chunk=config.score_chunk,
                        mesh=devices,
                        micro_batches=config.micro_batches,
                    ),
                    [trace.problem for trace in traces],
                    step=row["step"],
                    times=metrics.skipped,
                    stage=stage.name,
                )
            progress.advance({"loss": row["loss"]})
            due = (step + 1) % config.checkpoint_every == 0 or step + 1 == stage.steps
            told = interruption.asked()
            if due or told:
                # Without a training reward all are equally good, and the newest is the best.
                metrics.flush()  # first: a checkpoint never has an update that the log has lost
                checkpoints.save(state, note_of(stage.name, [0.0], due=due))
            if told:
                checkpoints.wait()
                raise interruption.Interrupted(f"update {row['step']} is saved")
        checkpoints.wait()
    return state
