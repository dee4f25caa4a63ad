"""Offline first attempts (section 5.3): sampled from the base model once, then given as part of prompts."""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Key

from score_jax import hosts, interruption, rollout
from score_jax.log import Progress
from score_jax.mesh import mesh_of
from score_jax.records import Draft, read_jsonl, write_jsonl
from score_jax.rollout import Actor, Graded
from score_jax.types import Experience, Problem

FILE = "first_attempts.jsonl"  # in the work directory


@dataclasses.dataclass(frozen=True)
class First:
    """A first attempt of the base model's.

    Attributes:
      text: the attempt.
      reward: r̂.
      finished: whether it ended by itself, and not with its slot.
      notes: what else the checker said of it.
    """

    text: str
    reward: float
    finished: bool
    notes: Mapping[str, float]


Bank = Mapping[str, Sequence[First]]  # by the problem's id


def first_attempts(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    actor: Actor,
    base: dict,
    problems: Sequence[Problem],
    say: Callable[[str], None],
) -> Bank:
    """First attempts of the base at every problem: those that a run has already, else sampled now.

    Left out, and counted in what is said, are those that no longer fit as part of a prompt: an attempt that
    ran out of its slot gets an end token, and its text may have more tokens than it was sampled in.

    Args:
      config: config.offline_attempts says how many at each problem, config.temperature how they are sampled.
      workdir: keeps them in first_attempts.jsonl.
      actor: the policy's; its number of attempts does not matter.
      base: all parameters of the base model.
      problems: the run's training problems.
      say: takes a line of text.

    Raises:
      ValueError: the file is of other problems, or none of a problem's attempts can be given.
    """
    given = [problem.id for problem in problems if problem.first is not None]
    if given:
        raise ValueError(
            f"config.task: problem {given[0]!r} comes with a first attempt already; set the stages' offline "
            "to 0 with this task"
        )
    path = workdir / FILE
    if not path.exists():
        draft = _sample(config, workdir, actor.with_critique(False).with_attempts(1), base, problems)
        write_jsonl(path, draft.rows)
        draft.delete()
    hosts.wait("first attempts")
    rows = read_jsonl(path)
    if Counter(row["id"] for row in rows) != Counter({p.id: config.offline_attempts for p in problems}):
        raise ValueError(
            f"{path} does not hold {config.offline_attempts} attempts at each of the {len(problems)} "
            "training problems; delete it, and they are sampled again"
        )
    return _bank(actor, problems, rows, say)


def first_giver(config: ml_collections.ConfigDict) -> str:
    """The name of the first stage that gives first attempts, '' if none does."""
    giving = [config[key].name for key in config.stages if config[key].get("offline")]
    return giving[0] if giving else ""


def _sample(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    actor: Actor,
    base: dict,
    problems: Sequence[Problem],
) -> Draft:
    """The rows of first_attempts.jsonl: a function of config.seed; stopped, the same call goes on."""
    asked = [problem for problem in problems for _ in range(config.offline_attempts)]
    keys = rollout.row_keys(config.seed, "offline", 0, len(asked))
    size = config.problems_per_step * config.samples_per_problem // config.rollout_parts
    stamp = {"seed": config.seed, "problems": zlib.crc32(repr(asked).encode())}
    draft = Draft(workdir / "drafts" / FILE, stamp, total=len(asked), multiple=size)
    batches, done = -(-len(asked) // size), -(-len(draft.rows) // size)
    with Progress("first attempts", batches, every=config.log.every, done=done) as progress:
        for cut in range(done * size, len(asked), size):
            # The last batch is filled up with its last row, and cut.
            places = np.minimum(np.arange(cut, cut + size), len(asked) - 1)
            _, graded = rollout.roll_out(
                actor,
                base,
                [asked[place] for place in places],
                keys[places],
                temperature=config.temperature,
                mesh=mesh_of(config),
            )
            draft.extend(_rows(graded.head(len(asked) - cut)))
            progress.advance({"reward": graded.rewards.mean()})
            if interruption.asked():
                raise interruption.Interrupted("the batches so far are kept")
    return draft


def _rows(graded: Graded) -> list[dict[str, Any]]:
    return [
        {
            "id": problem.id,
            "text": graded.texts[row][0],
            "reward": float(graded.rewards[row, 0]),
            "finished": bool(graded.finished[row, 0]),
            "notes": dict(graded.notes[row][0]),
        }
        for row, problem in enumerate(graded.problems)
    ]


def _bank(
    actor: Actor, problems: Sequence[Problem], rows: Sequence[Mapping[str, Any]], say: Callable[[str], None]
) -> Bank:
    """Those of the rows that can be given, by problem."""
    slots = corrector(actor.with_critique(False)).slots
    room = slots.prompt - len(slots.instruction)
    bank: dict[str, list[First]] = {problem.id: [] for problem in problems}
    known = {problem.id: problem for problem in problems}
    shortest: dict[str, int] = {}
    for row in rows:
        id_ = row["id"]
        length = len(actor.format.prompt(known[id_].prompt)) + len(actor.format.attempt(row["text"]))
        shortest[id_] = min(shortest.get(id_, length), length)
        if length <= room:
            bank[id_].append(First(row["text"], row["reward"], row["finished"], row["notes"]))
    left_out = len(rows) - sum(map(len, bank.values()))
    right = np.mean([row["reward"] == 1 for row in rows])
    say(
        f"First attempts of the base: {len(rows)} at {len(bank)} problems, {100 * right:.1f}% right; "
        f"{left_out} are too long to be part of a prompt and left out."
    )
    for id_, firsts in bank.items():
        if not firsts:
            raise ValueError(
                f"config.slots.prompt = {actor.slots.prompt}: none of the {FILE} at problem {id_!r} can be "
                f"part of a prompt; raise it to {actor.slots.prompt + shortest[id_] - room} or more, or set "
                "the stages' offline to 0"
            )
    return bank


def pick(bank: Bank, problem: Problem, *, seed: int, step: int) -> First:
    """The first attempt that a problem is given in a step: a function of (seed, step, problem)."""
    firsts = bank[problem.id]
    rng = np.random.default_rng([seed, step, zlib.crc32(problem.id.encode())])
    return firsts[int(rng.integers(len(firsts)))]


def corrector(actor: Actor) -> Actor:
    """The actor whose prompts hold a first attempt and its instruction, and whose one attempt corrects it.

        the actor      |--- P ---|---- T ----|- F -|---- T ----|
        its corrector  |------------- P -----------|---- T ----|

    The transcripts are of one length, and what is sampled stands in one place: the attempt, and before it
    its critique, where the actor writes such.
    """
    slots = actor.with_attempts(2).slots
    asked = bool(slots.critique)
    slots = dataclasses.replace(slots, prompt=slots.segments[1].start, attempts=1, critique_first=asked)
    return dataclasses.replace(actor, slots=slots)


def correct(
    actor: Actor,
    params: dict,
    problems: Sequence[Problem],
    firsts: Sequence[First],
    keys: Key[jax.Array, "E"],
    *,
    temperature: float,
    mesh: Mesh | None = None,
    parts: int = 1,
    samples: int = 1,
) -> tuple[Experience, Graded]:
    """Samples a second attempt after each given first one.

    The first attempt is context, and so is neither paid nor penalised. Its reward stands where it would in an
    episode of two attempts: with γ = 0 it is the bonus' r̂_1 and no more.

    Args:
      actor: the policy's, of two attempts.
      params: all of the policy's parameters.
      problems: the problem of each row.
      firsts: what each row is given; the same for all rows of a problem that stand together, so that its
        reward is part of their baseline.
      keys, temperature, mesh, parts, samples: see `rollout.roll_out`.

    Returns:
      Experience in the layout of the actor's own episodes, and what the host read out of it.
    """
    actor = corrector(actor)
    shown = [dataclasses.replace(p, first=first.text) for p, first in zip(problems, firsts, strict=True)]
    episodes, graded = rollout.roll_out(
        actor, params, shown, keys, temperature=temperature, mesh=mesh, parts=parts, samples=samples
    )
    decisive = rollout.experience_of(actor, episodes, graded).decisive
    graded = _with_firsts(actor, graded, firsts)
    # What the corrector calls its first attempt is the second.
    later = jnp.where(episodes.attempt == 1, 2, episodes.attempt)
    episodes = dataclasses.replace(episodes, attempt=later)
    return Experience(episodes, rewards=graded.rewards, decisive=decisive), graded


def _with_firsts(actor: Actor, graded: Graded, firsts: Sequence[First]) -> Graded:
    """The corrections' rows with the given attempts before them; none of their tokens is decisive."""
    answers = [actor.task.answer(first.text) for first in firsts]
    before = lambda column, x: np.column_stack([np.array(column, x.dtype), x])
    return dataclasses.replace(
        graded,
        texts=[[first.text, *row] for first, row in zip(firsts, graded.texts, strict=True)],
        answers=[[a.value if a else None, *row] for a, row in zip(answers, graded.answers, strict=True)],
        rewards=before([first.reward for first in firsts], graded.rewards),
        finished=before([first.finished for first in firsts], graded.finished),
        decisive=before([0] * len(firsts), graded.decisive),
        notes=[[first.notes, *row] for first, row in zip(firsts, graded.notes, strict=True)],
        sampled=before([False] * len(firsts), graded.sampled),
    )


def join(one: tuple[Experience, Graded], other: tuple[Experience, Graded]) -> tuple[Experience, Graded]:
    """The rows of one, then those of the other."""
    joined = lambda x, y: (np if isinstance(x, np.ndarray) else jnp).concatenate([x, y])
    experience = jax.tree.map(joined, one[0], other[0])
    return experience, one[1].followed_by(other[1])
