"""What the code benchmarks share: how a program is read out of an attempt, and how it is graded."""

from __future__ import annotations

import abc
import ast
import dataclasses
import functools
import json
import re
import warnings
from collections.abc import Callable, Sequence
from typing import ClassVar

from score_jax import instructions
from score_jax.datasets.published import PublishedTask
from score_jax.datasets.rows import Example
from score_jax.rewards.sandbox.check import sandbox_check
from score_jax.rewards.sandbox.job import STATUSES, Job, SandboxError, Verdict
from score_jax.rewards.sandbox.pool import Sandbox
from score_jax.task import Answer, Grade
from score_jax.types import Problem, Tests

# What becomes of a program that does not pass.
FAULTS = STATUSES[1:]
_OPEN = re.compile(r"```[^\n`]*\n")
_CLOSE = re.compile(r"\n?```")
_TIMEOUT_S = 5.0


def read_program(text: str) -> Answer | None:
    """The program that an attempt gives.

    The first of these that applies:
      the first ``` fence before [DONE]: what stands in it, to its end if it is not closed;
      [DONE]: what stands before it;
      neither: all of the text.
    A [BEGIN] that the attempt opens with is no part of it, nor are blank lines around it. Spaces before its
    first line are: they tell a function's body from a function. None if nothing is left.
    """
    done = text.find(instructions.DONE)
    start, stop = 0, done if done >= 0 else len(text)
    decided = stop + len(instructions.DONE) if done >= 0 else len(text) + 1  # going on would change it
    opening = re.match(r"\s*" + re.escape(instructions.BEGIN), text)
    if opening and opening.end() <= stop:
        start = opening.end()
    fence = _OPEN.search(text, start, stop)
    if fence:
        start = fence.end()
        closing = _CLOSE.search(text, start, stop)
        if closing:
            stop, decided = closing.start(), closing.end()
    program = text[start:stop].rstrip()
    blank = re.match(r"(?:[^\S\n]*\n)*", program)
    lead = blank.end() if blank else 0
    if lead == len(program):
        return None
    return Answer(program[lead:], start + lead, start + len(program), decided)


def parse(source: str, mode: str = "exec") -> ast.AST:
    """Python source as a tree.

    Raises:
      ValueError: it is no Python, or no expression where `mode` is 'eval'.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # published programs have invalid escapes
        try:
            return ast.parse(source, mode=mode)
        except SyntaxError as error:
            raise ValueError(f"no Python: {error}") from error


def definitions(source: str) -> list[ast.FunctionDef | ast.ClassDef]:
    """The functions and classes that `source` defines, not those inside others."""
    nodes = ast.iter_child_nodes(parse(source))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def tests_to_json(tests: Tests) -> str:
    """As `Example.tests` holds them."""
    return json.dumps(dataclasses.asdict(tests))


def tests_of(example: Example) -> Tests:
    """The tests of a code example."""
    fields = json.loads(example.tests)
    return Tests(entry=tuple(fields.pop("entry")), **fields)


def groups_of(tests: Tests) -> dict[str, str]:
    """The groups of tests that a problem has: source by name."""
    groups = {"shown": tests.shown, "hidden": tests.hidden}
    return {name: source for name, source in groups.items() if source}


class ProgramsTask(PublishedTask):
    """Problems whose attempts are programs, which a sandbox runs against tests."""

    instruction = instructions.CODE_CORRECTION
    feedback = instructions.CODE_FEEDBACK
    refine = instructions.CODE_REFINE

    #: The groups of tests that are to pass; the others are scored apart, for the metrics alone.
    #: They run first: what the others do to the program cannot matter.
    graded: ClassVar[tuple[str, ...]] = ("shown", "hidden")

    @functools.cached_property
    def sandbox(self) -> Sandbox:
        """Runs the programs; strict unless `prepare` was told otherwise."""
        return Sandbox()

    def prepare(self, sandbox: str, say: Callable[[str], object]) -> None:
        """Looks whether the sandbox holds on this machine, by attacking it, before any program is run.

        Raises:
          SandboxError: it does not, and `sandbox` is not 'unsafe'.
        """
        safe = sandbox_check(say, sandbox)
        if not safe and sandbox != "unsafe":
            raise SandboxError(
                "the sandbox for model-written programs does not hold here (what is missing stands above); "
                "mend that, or run them with the layers that there are: --sandbox=unsafe"
            )
        self.sandbox = Sandbox(mode=sandbox, say=say)

    @abc.abstractmethod
    def prompt(self, example: Example) -> str:
        """The text that the model is shown."""

    def program(self, problem: Problem, answer: str) -> str:
        """The program to run for an answer."""
        return answer

    def problem(self, example: Example) -> Problem:
        return Problem(
            id=example.id,
            prompt=self.prompt(example),
            gold=example.gold,
            level=example.level,
            tests=tests_of(example),
            first=example.first or None,
        )

    def ask(self, text: str) -> str:
        return instructions.definition_prompt(text)

    def check_gold(self, gold: str) -> None:
        parse(gold)

    def answer(self, text: str) -> Answer | None:
        """The program in `text`, by the rules of `read_program`."""
        return read_program(text)

    def reward(self, problem: Problem, text: str) -> float:
        return self.grade([problem], [text])[0].reward

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """All programs in one call of the sandbox; what is no program, or has no tests, earns nothing.

        The notes are the first fault that a program was found with, and "shown_only": it passes the tests
        that the prompt shows and not those held back.
        """
        answers = [self.answer(text) for text in texts]
        asked = [
            (index, problem, problem.tests, answer.value)
            for index, (problem, answer) in enumerate(zip(problems, answers, strict=True))
            if answer is not None and problem.tests is not None
        ]
        jobs = [self._job(problem, tests, answer) for _, problem, tests, answer in asked]
        verdicts = self.sandbox.run(jobs) if jobs else []
        grades = [Grade(0.0, dict.fromkeys((*FAULTS, "shown_only"), 0.0))] * len(texts)
        for (index, _, tests, _), verdict in zip(asked, verdicts, strict=True):
            grades[index] = self._grade(tests, verdict)
        return grades

    def _job(self, problem: Problem, tests: Tests, answer: str) -> Job:
        groups = groups_of(tests)
        return Job(
            program=self.program(problem, answer),
            groups={name: groups[name] for name in sorted(groups, key=lambda name: name not in self.graded)},
            entry=tests.entry,
            setup=tests.setup,
            timeout_s=_TIMEOUT_S,
        )

    def _grade(self, tests: Tests, verdict: Verdict) -> Grade:
        # A group that the sandbox says nothing of shares the fate of the whole, and never passes.
        unsaid = "harness_error" if verdict.status == "passed" else verdict.status
        statuses = {name: verdict.groups.get(name, unsaid) for name in groups_of(tests)}
        graded = [status for name, status in statuses.items() if name in self.graded]
        faults = [status for status in graded if status != "passed"]
        notes = {name: float(name in faults[:1]) for name in FAULTS}
        notes["shown_only"] = float(
            statuses.get("shown") == "passed" and statuses.get("hidden", "passed") != "passed"
        )
        return Grade(float(bool(graded) and not faults), notes)
