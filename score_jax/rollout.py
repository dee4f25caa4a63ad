"""Problems to graded episodes: the one border between host and device."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, Key

from score_jax import hosts, prompts, sampling
from score_jax import model as models
from score_jax.chat import Format
from score_jax.mesh import prompt_rows, shares
from score_jax.slots import Slots
from score_jax.task import Task
from score_jax.types import CONTEXT, Episodes, Experience, Problem


@dataclasses.dataclass(frozen=True)
class Graded:
    """What the host reads out of a batch of episodes.

    Attributes:
      problems: the problem of each episode.
      texts: [E][N], each attempt's text.
      answers: [E][N], the answer read from it, or None.
      rewards: r̂.
      finished: whether the attempt ended by itself, and not with its slot.
      decisive: how many leading tokens of each attempt could change its reward.
      notes: [E][N], what else the checker said of each attempt (`task.Grade.notes`); of an attempt after a
        critique also `unfinished_critique`: whether that ended with its slot.
      critiques: [E][N − 1], the text of the critique before each later attempt, or [E][N], before the first
        one, too (`Slots.critique_first`); [E][0] without critiques.
      sampled: False where the attempt was not sampled but given.
    """

    problems: Sequence[Problem]
    texts: list[list[str]]
    answers: list[list[str | None]]
    rewards: Float[np.ndarray, "E N"]
    finished: Bool[np.ndarray, "E N"]
    decisive: Int[np.ndarray, "E N"]
    notes: list[list[Mapping[str, float]]]
    critiques: list[list[str]]
    sampled: Bool[np.ndarray, "E N"]

    def rows(self) -> list[list[Any]]:
        """Each row's entries but its problem, of JSON's own types."""
        columns = [getattr(self, field.name) for field in dataclasses.fields(self)[1:]]
        plain = [x.tolist() if isinstance(x, np.ndarray) else x for x in columns]
        return [list(row) for row in zip(*plain, strict=True)]

    @classmethod
    def of_rows(cls, problems: Sequence[Problem], rows: Sequence[Sequence[Any]]) -> Graded:
        """The inverse of `rows`."""
        names = [field.name for field in dataclasses.fields(cls)[1:]]
        columns: dict[str, Any] = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        dtypes = {"rewards": np.float32, "finished": bool, "decisive": np.int32, "sampled": bool}
        arrays = {name: np.array(columns[name], dtype) for name, dtype in dtypes.items()}
        return cls(problems, **(columns | arrays))

    def head(self, rows: int) -> Graded:
        """The first rows alone."""
        return Graded(**{f.name: getattr(self, f.name)[:rows] for f in dataclasses.fields(self)})

    def followed_by(self, other: Graded) -> Graded:
        """These rows, then the other's."""
        joined = lambda x, y: np.concatenate([x, y]) if isinstance(x, np.ndarray) else [*x, *y]
        names = [field.name for field in dataclasses.fields(self)]
        columns: dict[str, Any] = {name: joined(getattr(self, name), getattr(other, name)) for name in names}
        return Graded(**columns)


@dataclasses.dataclass(frozen=True)
class Actor:
    """What does not change from rollout to rollout.

    Attributes:
      model: the policy's architecture, with its adapters.
      format: how the task's words become its tokens.
      task: gives the checker.
      slots: the transcript's layout.
      critique: tokens for a critique, where one is asked for.
    """

    model: nn.Module
    format: Format
    task: Task
    slots: Slots
    critique: int = 0

    def with_attempts(self, attempts: int) -> Actor:
        """The same actor with another number of attempts."""
        return dataclasses.replace(self, slots=dataclasses.replace(self.slots, attempts=attempts))

    def with_task(self, task: Task) -> Actor:
        """The same actor at another task, with that task's instructions."""
        return self._arranged(task, self.slots.critique)

    def with_critique(self, asked: bool) -> Actor:
        """The same actor with a critique before each later attempt, or without any.

        Raises:
          ValueError: one is asked for and there are no tokens for it.
        """
        if asked and not self.critique:
            raise ValueError("config.slots.critique = 0: a critique is asked for; give it some tokens")
        return self._arranged(self.task, self.critique if asked else 0)

    def for_problems(self, problems: Sequence[Problem]) -> Actor:
        """The same actor, laid out for problems all or none of which come with a first attempt: where they do
        and critiques are asked for, the model first writes one of that."""
        first = bool(self.slots.critique) and problems[0].first is not None
        return dataclasses.replace(self, slots=dataclasses.replace(self.slots, critique_first=first))

    def _arranged(self, task: Task, critique: int) -> Actor:
        slots = prompts.make_slots(
            self.format,
            task,
            prompt=self.slots.prompt,
            attempt=self.slots.attempt,
            attempts=self.slots.attempts,
            critique=critique,
        )
        return dataclasses.replace(self, task=task, slots=slots)


def actor_of(config: ml_collections.ConfigDict, model: nn.Module, format: Format, task: Task) -> Actor:
    """The actor that a config asks for, with the attempts and critiques of config.evaluate."""
    sizes = {"prompt": config.slots.prompt, "attempt": config.slots.attempt}
    slots = prompts.make_slots(format, task, **sizes, attempts=config.evaluate.attempts)
    actor = Actor(model, format, task, slots, config.slots.critique)
    return actor.with_critique(config.evaluate.critique)


def row_keys(seed: int, name: str, step: int, rows: int) -> Key[jax.Array, "E"]:
    """A key per global row: a function of (seed, name, step, row) and of nothing else."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    key = jax.random.fold_in(key, step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))


def roll_out(
    actor: Actor,
    params: dict,
    problems: Sequence[Problem],
    keys: Key[jax.Array, "E"],
    *,
    temperature: float,
    mesh: Mesh | None = None,
    parts: int = 1,
    samples: int = 1,
) -> tuple[Episodes, Graded]:
    """Samples an episode per problem and grades its attempts.

    Args:
      actor: see there.
      params: all of its model's parameters.
      problems: a row each; for K samples each stands there K times, one after the other.
      keys: of the rows.
      temperature: 0 takes the likeliest token.
      mesh: the rows of a part are spread over it.
      parts: in which the episodes are sampled, one after the other, so that the KV cache is that of one part,
        and a part is graded while later ones are sampled.
      samples: K. A prompt is computed once for its K rows, where the devices can share out the prompts.
    """
    together = prompt_rows(len(problems) // parts, samples, shares(mesh))
    prompt_ids = prompts.encode_prompts(actor.format, problems[::together], actor.slots)
    sampled = sampling.sample_in_parts(
        models.for_params(actor.model, params),
        params,
        prompt_ids,
        keys,
        parts=parts,
        mesh=mesh,
        slots=actor.slots,
        temperature=temperature,
        pad=actor.format.pad,
        end=actor.format.end,
    )
    rows = hosts.exchange(lambda: _grade_mine(actor, problems, sampled))
    episodes = jax.tree.map(lambda *x: jnp.concatenate(x), *sampled) if parts > 1 else sampled[0]
    return episodes, Graded.of_rows(problems, rows)


def _grade_mine(
    actor: Actor, problems: Sequence[Problem], sampled: Sequence[Episodes]
) -> dict[int, list[Any]]:
    """The rows of `Graded` of the episodes that lie with this host, which learns from the others of theirs.

    A part is graded while the devices sample those after it.
    """
    found: dict[int, Any] = {}
    size = len(problems) // len(sampled)
    for start, part in zip(range(0, len(problems), size), sampled, strict=True):
        mine = np.flatnonzero(hosts.is_mine(part.tokens))
        tokens, attempt = hosts.here(part.tokens)[mine], hosts.here(part.attempt)[mine]
        graded = grade(actor, [problems[start + row] for row in mine.tolist()], tokens, attempt)
        found |= zip((start + mine).tolist(), graded.rows(), strict=True)
    return found


def grade(
    actor: Actor,
    problems: Sequence[Problem],
    tokens: Int[np.ndarray, "E L"],
    attempt: Int[np.ndarray, "E L"],
) -> Graded:
    """Decodes every attempt and asks the task's checker, once for all of them."""
    slots = actor.slots
    shape = (len(problems), slots.attempts)
    texts: list[list[str]] = []
    answers: list[list[str | None]] = []
    finished, decisive = np.zeros(shape, bool), np.zeros(shape, np.int32)
    for row in range(len(problems)):
        texts.append([])
        answers.append([])
        for column in range(slots.attempts):
            # Told by its place: the critique before an attempt carries the attempt's number, too.
            start = slots.start(column + 1)
            ids = _sampled_ids(tokens[row], attempt[row], start, start + slots.attempt)
            text = actor.format.text(ids)
            answer = actor.task.answer(text)
            texts[-1].append(text)
            answers[-1].append(answer.value if answer else None)
            finished[row, column] = bool(ids) and ids[-1] == actor.format.end
            decisive[row, column] = prompts.decisive_tokens(actor.format, ids, answer)
    grades = actor.task.grade(
        [problem for problem in problems for _ in range(slots.attempts)],
        [text for row in texts for text in row],
    )
    rewards = np.array([grade.reward for grade in grades], np.float32).reshape(shape)
    indices = np.arange(len(grades)).reshape(shape)
    notes = [[grades[index].notes for index in row] for row in indices]
    critiques, notes = _read_critiques(actor, tokens, attempt, notes)
    sampled = np.ones(shape, bool)
    return Graded(problems, texts, answers, rewards, finished, decisive, notes, critiques, sampled)


def _read_critiques(
    actor: Actor,
    tokens: Int[np.ndarray, "E L"],
    attempt: Int[np.ndarray, "E L"],
    notes: list[list[Mapping[str, float]]],
) -> tuple[list[list[str]], list[list[Mapping[str, float]]]]:
    """The critiques' texts, and the notes with what they say of them."""
    places = [segment for segment in actor.slots.segments if segment.critique]
    critiques: list[list[str]] = [[] for _ in notes]
    notes = [list(row) for row in notes]
    for row, (texts, noted) in enumerate(zip(critiques, notes, strict=True)):
        for place in places:
            ids = _sampled_ids(tokens[row], attempt[row], place.start, place.stop)
            texts.append(actor.format.text(ids))
            unfinished = float(not ids or ids[-1] != actor.format.end)
            column = place.attempt - 1
            noted[column] = {**noted[column], "unfinished_critique": unfinished}
    return critiques, notes


def _sampled_ids(
    tokens: Int[np.ndarray, "L"], attempt: Int[np.ndarray, "L"], start: int, stop: int
) -> list[int]:
    """The token ids of a transcript that were sampled in [start, stop)."""
    return tokens[start:stop][attempt[start:stop] > CONTEXT].tolist()


def experience_of(actor: Actor, episodes: Episodes, graded: Graded) -> Experience:
    """Episodes with their rewards, ready for an update.

    All of a critique is decisive: each of its tokens may change the attempt that it prepares.
    """
    index = np.arange(actor.slots.length)
    decisive = np.zeros((len(graded.problems), actor.slots.length), np.float32)
    for column in range(actor.slots.attempts):
        start = actor.slots.start(column + 1)
        decisive += (index >= start) & (index < start + graded.decisive[:, column : column + 1])
    for segment in actor.slots.segments:
        if segment.critique:
            place = slice(segment.start, segment.stop)
            decisive[:, place] = hosts.fetch(episodes.attempt)[:, place] > CONTEXT
    return Experience(episodes, rewards=graded.rewards, decisive=decisive)
