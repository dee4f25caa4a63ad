"""What a task is: problems, a checker, and the words around them. Subclass `Task` to bring your own."""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import ml_collections
import numpy as np

from score_jax.types import Problem

# The answer marker of the paper's maths prompts (Kumar et al. 2025, App. B).
ANSWER = re.compile(r"Final Answer: The final answer is \$([^$\n]*)\$")


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer that an attempt gives.

    Attributes:
      value: as the grader compares it.
      start: index of its first character in the attempt's text.
      stop: index after its last character.
      decided: no character from here on can change the answer or its reward; beyond the text where even
        going on instead of ending would.
    """

    value: str
    start: int
    stop: int
    decided: int


@dataclasses.dataclass(frozen=True)
class Grade:
    """What the checker says of one attempt.

    Attributes:
      reward: r̂(y, y*): 1.0 if the attempt is right, else 0.0.
      notes: more numbers about it, for the metrics alone, such as {"timeout": 1.0}. Their means over
        attempts are reported by name; a name that is absent counts as 0.
    """

    reward: float
    notes: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """One episode to imitate in pre-training.

    Attributes:
      attempts: the text of each attempt.
      imitate_answer: per attempt, False where the answer is there for the sake of what follows it. Leaving
        a wrong answer's own tokens unlearned while its check is learned teaches to check a given answer
        honestly without teaching to give wrong ones.
      critiques: the critique before each later attempt; none where none is shown.
    """

    attempts: tuple[str, ...]
    imitate_answer: tuple[bool, ...]
    critiques: tuple[str, ...] = ()


class Task(abc.ABC):
    """A set of problems and the way to check answers to them.

    Args:
      data_dir: where prepared data sets lie; None is TensorFlow Datasets' own default.
      files: the published files that the task reads, by their names in `wants`; "" is not given.
    """

    #: The section of the config that names the files, for messages.
    section: str = "config.files"

    #: The files that the task can read: {name in config.files: what it is and where it is published}.
    wants: ClassVar[Mapping[str, str]] = {}

    #: Shown between two attempts; must not tell whether the attempt before was right (section 3).
    instruction: str = (
        "There might be an error in the solution above because of lack of understanding of the question. "
        "Please correct the error, if any, and rewrite the solution.\n"
    )

    #: Asks for a critique of the attempt before; must not tell whether it was right either.
    feedback: str = "Check the solution above. Say in a few words what is wrong with it, if anything.\n"

    #: Stands after a critique in place of `instruction`.
    refine: str = "Use this feedback: correct the error, if any, and rewrite the solution.\n"

    def __init__(self, data_dir: str | None = None, files: Mapping[str, str] | None = None):
        self.data_dir = data_dir
        self.files = {name: path for name, path in (files or {}).items() if path}
        # Read once. Kept with the task and not with its class, so that both can go.
        self.problems = functools.cache(self.problems)  # type: ignore[method-assign] # in front of the class's

    @abc.abstractmethod
    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of `split`: 'train', 'validation' or 'test', always in the same order."""

    def answer(self, text: str) -> Answer | None:
        """The answer that `text` gives, or None. The first marker counts: what follows cannot change it."""
        found = ANSWER.search(text)
        return Answer(found[1].strip(), *found.span(1), found.end()) if found else None

    def reward(self, problem: Problem, text: str) -> float:
        """r̂(y, y*): 1.0 if the answer in `text` is right, else 0.0."""
        answer = self.answer(text)
        return float(answer is not None and answer.value == problem.gold)

    def ask(self, text: str) -> str:
        """The prompt of a problem that a user typed: by default the text, ended as the task's prompts are."""
        end = "\n" if self.problems("train")[0].prompt.endswith("\n") else ""
        return text.rstrip("\n") + end

    def prepare(self, sandbox: str, say: Callable[[str], object]) -> None:  # noqa: B027 - most tasks need none
        """Called once before anything is graded. What runs a model's programs checks its sandbox here.

        Args:
          sandbox: 'strict', or 'unsafe' where the user lets programs run unconfined.
          say: takes a line of text.
        """

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """The grade of each text as an attempt at its problem; called once per batch of episodes."""
        return [Grade(self.reward(problem, text)) for problem, text in zip(problems, texts, strict=True)]

    def demonstration(self, problem: Problem, rng: np.random.Generator) -> Demonstration:
        """An imperfect episode for pre-training a small base model; random through `rng` alone."""
        raise ValueError(
            f"config.task: {type(self).__name__} has no demonstrations to pre-train a small model from; set "
            "config.model = quickstart.released(NAME)"
        )

    def critique(self, problem: Problem, attempt: str) -> str:
        """An honest critique of an attempt's text, for pre-training a small base model."""
        raise ValueError(f"{type(self).__name__} has no critiques to pre-train a base model with")

    def corpus(self, size: int, seed: int = 0, *, critiques: bool = False) -> Iterator[str]:
        """Texts to train a small tokenizer on: training prompts, demonstrations, the instruction.

        With `critiques` those of the demonstrations and the words around them, too.
        """
        problems = self.problems("train")
        rng = np.random.default_rng(seed)
        for index in rng.integers(len(problems), size=size):
            yield problems[index].prompt
            attempts = self.demonstration(problems[index], rng).attempts
            yield from attempts
            yield self.instruction
            if critiques:
                yield from (self.feedback, self.refine)
                yield from (self.critique(problems[index], attempt) for attempt in attempts[:-1])


def first_of(problems: Sequence[Problem], count: int, field: str) -> Sequence[Problem]:
    """The first `count` problems of a split, all of them for 0.

    Raises:
      ValueError: there are not so many; names the config field that asked for them.
    """
    if not problems:
        raise ValueError(f"{field} = {count}: the split has no problems; name a task or files that have some")
    if not 0 <= count <= len(problems):
        raise ValueError(f"{field} = {count}: the split has {len(problems)} problems; choose at most that")
    return problems[: count or len(problems)]


def evaluated(config: ml_collections.ConfigDict, training: Task) -> tuple[Task, Sequence[Problem]]:
    """The task that a config evaluates on, see `evaluation_task`, and those of its problems.

    Raises:
      ValueError: there are not so many, or no attempt that a critique which is asked for could be of.
    """
    task = evaluation_task(config, training)
    problems = first_of(
        task.problems(config.evaluate.split), config.evaluate.problems, "config.evaluate.problems"
    )
    if config.evaluate.critique:
        check_critique(problems, config.evaluate.attempts, "config.evaluate")
    return task, problems


def check_critique(problems: Sequence[Problem], attempts: int, section: str) -> None:
    """Refuses critiques of single attempts, unless these follow given ones.

    Args:
      problems: those attempted.
      attempts: at each.
      section: the config's that asks.

    Raises:
      ValueError: names the section.
    """
    if attempts == 1 and problems[0].first is None:
        raise ValueError(
            f"{section}.critique = True: {section}.attempts = 1: none follows; raise that, or leave this out"
        )


def training_task(config: ml_collections.ConfigDict) -> Task:
    """The task that a config trains on."""
    return load_task(config.task, config.data_dir or None, config.files.to_dict())


def evaluation_task(config: ml_collections.ConfigDict, training: Task) -> Task:
    """The task that a config evaluates on: config.evaluate.task, "" being the one that it trains on.

    Of the same task `evaluate.files` replaces single files; another task has all its files there.
    """
    files = {name: path for name, path in config.evaluate.files.items() if path}
    if not config.evaluate.task and not files:
        return training
    if not config.evaluate.task:
        return load_task(config.task, config.data_dir or None, config.files.to_dict() | files)
    return load_task(config.evaluate.task, config.data_dir or None, files, field="config.evaluate.task")


def load_task(
    name: str,
    data_dir: str | None = None,
    files: Mapping[str, str] | None = None,
    *,
    field: str = "config.task",
) -> Task:
    """The task that `name` = 'package.module:Class' names; errors name the config's `field`."""
    module, _, cls = name.partition(":")
    try:
        task = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{field} = {name!r}: {error}; write it as 'package.module:Class'") from error
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ValueError(f"{field} = {name!r} is not a subclass of score_jax.task.Task")
    task = task(data_dir, files)
    task.section = field.replace(".task", ".files")
    for name, path in task.files.items():
        if name not in task.wants:
            reads = f"{type(task).__name__} reads {', '.join(task.wants) or 'no files'}"
            raise ValueError(f"{task.section}.{name} = {path!r}: no such file is asked for; {reads}")
    return task
