"""The examples of a supervised stage: sampled before its first update, and kept beside the run.

As many episodes of two attempts are sampled as RL would sample for the same number of updates; those that
the stage's filter lets through lie in DIR/examples/STAGE.npz.
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

import ml_collections
import numpy as np
from etils import epath
from jaxtyping import Int

from score_jax import hosts, interruption, rollout
from score_jax.log import Progress, by_attempt, say
from score_jax.mesh import mesh_of
from score_jax.records import write_bytes
from score_jax.rollout import Actor
from score_jax.schedule import batch_of
from score_jax.traces import Trace, pair, remember_right, star, traces_of
from score_jax.types import Problem


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


def find(
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
