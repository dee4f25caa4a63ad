"""What goes into the sandbox and what comes out."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import warnings
from collections.abc import Mapping, Sequence

#: From best to worst for the program; `harness_error` says nothing about the program at all.
STATUSES = ("passed", "failed", "error", "timeout", "crashed", "harness_error")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A program and the tests that judge it.

    Attributes:
      program: the text that a model wrote. Never trusted.
      groups: test texts by name, such as {"shown": ..., "hidden": ...}. Each runs in names of its own and
        gets a status of its own; they run in this order against the same run of the program.
      entry: the names that the tests use of the program: its functions, and classes whose objects the tests
        make. All other names in the tests are the tests' own, so that a program cannot redefine a helper.
      setup: trusted text that runs before each group, such as the helpers that a prompt defines.
      check: trusted text that runs after each group, such as HumanEval's "check(candidate)"; `candidate` is
        the first of `entry`.
      timeout_s: seconds by the clock for the program and all groups together.
    """

    program: str
    groups: Mapping[str, str]
    entry: tuple[str, ...]
    setup: str = ""
    check: str = ""
    timeout_s: float

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError(
                "Job.groups is empty: a program without tests would pass; give at least one group"
            )
        if not self.entry or not all(map(str.isidentifier, self.entry)):
            raise ValueError(f"Job.entry = {self.entry!r}: give a tuple of the names that the tests call")
        if not 0 < self.timeout_s <= 3600:
            raise ValueError(f"Job.timeout_s = {self.timeout_s!r}: give seconds above 0, at most 3600")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a program fared.

    Attributes:
      status: passed (all groups), failed (an assertion of the tests), error (an exception, in the program or
        in what the tests did with its values), timeout, crashed (the program's process died), harness_error
        (the tests or the sandbox are at fault: never a reward).
      groups: the status of each group, by name.
      seconds: by the clock, from the start of the program to the verdict.
      detail: what happened, in a few words that the program cannot choose.
    """

    status: str
    groups: Mapping[str, str]
    seconds: float
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of the sandbox, and whether it holds here.

    Attributes:
      name: such as "landlock".
      holds: as tried out in a confined process, not as a return code had it.
      required: without it, mode "strict" runs nothing.
      note: what was seen, or why it does not hold.
      mend: what to do about it.
    """

    name: str
    holds: bool
    required: bool
    note: str = ""
    mend: str = ""


class SandboxError(OSError):
    """The sandbox cannot run programs safely here; the message names what is missing and the mend.

    Attributes:
      layers: every layer, where they are known.
    """

    def __init__(self, message: str, layers: Sequence[Layer] = ()):
        super().__init__(message)
        self.layers = tuple(layers)


def verdict(groups: Mapping[str, str], seconds: float, detail: str = "") -> Verdict:
    """The whole from its groups: the first that did not pass decides, a fault of the harness before all."""
    statuses = list(groups.values())
    if "harness_error" in statuses:
        return Verdict("harness_error", dict(groups), seconds, detail)
    return Verdict(next((s for s in statuses if s != "passed"), "passed"), dict(groups), seconds, detail)


def entry_names(reference: str, *tests: str) -> tuple[str, ...]:
    """The names that `tests` use of a solution: what `reference` defines at its top, in its order.

    For benchmarks that do not say which function they test (MBPP). The reference solution is parsed, never
    run, and never the model's program: that one must not choose which names of the tests it answers for.

    Raises:
      ValueError: the tests use nothing that the reference defines.
    """
    defined: dict[str, None] = {}
    with warnings.catch_warnings():  # about escapes that benchmarks are full of
        warnings.simplefilter("ignore")
        solution, *trees = (ast.parse(text) for text in (reference, *tests))
    for node in solution.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = None
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            defined |= {target.id: None for target in node.targets if isinstance(target, ast.Name)}
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found = tuple(name for name in defined if name in used)
    if not found:
        unknown = sorted(name for name in used if not hasattr(builtins, name))
        raise ValueError(f"the tests use {unknown}, of which the reference solution defines nothing")
    return found
