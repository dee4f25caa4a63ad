"""The process of the tests: runs trusted test texts against a program that is in another process.

The one place where a verdict is written. The texts are the benchmark's; hostile is only what the program
sends.
"""

from __future__ import annotations

import bisect
import builtins
import cmath
import collections
import copy
import datetime
import decimal
import fractions
import functools
import heapq
import itertools
import math
import operator
import random
import re
import statistics
import string
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from score_jax.rewards.sandbox.wire import Decoder, Encoder, WireError, receive, send

# Tests may name these without importing them, as they were written to stand below a solution's imports.
_MODULES = {
    module.__name__: module
    for module in (
        bisect, cmath, collections, copy, datetime, decimal, fractions, functools, heapq, itertools, math,
        operator, random, re, statistics, string, sys, typing,
    )
}  # fmt: skip

# subtle: a StopIteration from a call inside `all(map(candidate, cases))` would end the tests early and pass
# them; an exit would end them too. These arrive as RuntimeError.
_ENDING = (StopIteration, StopAsyncIteration)
_EXCEPTIONS = {
    name: cls
    for name, cls in vars(builtins).items()
    if isinstance(cls, type)
    and issubclass(cls, Exception)
    and not issubclass(cls, (*_ENDING, ExceptionGroup))
}

Report = Callable[[int, str, str], None]


class _Ended(BaseException):
    """The program's process has ended. No Exception, lest tests that expect one take it for theirs."""


class _Object:
    """Stands for an object of a program's class that the tests made by calling it; its attributes are asked
    for there.

    It can be handed back to the program and nothing else: it has no truth and equals nothing, so that no
    class of a program's making answers for the tests.
    """

    __slots__ = ("_number", "_program")

    def __init__(self, program: _Program, number: int):
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        return self._program.ask({"object": self._number, "name": name})

    def __setattr__(self, name: str, value: object) -> None:
        self._program.ask({"object": self._number, "name": name, "value": self._program.encode(value)})

    def __eq__(self, other: object) -> bool:
        raise TypeError("an object of the program's cannot be compared")

    def __bool__(self) -> bool:
        raise TypeError("an object of the program's is neither true nor false")

    __hash__ = None  # type: ignore[assignment] # how Python says that it has none


class _Program:
    """The program as the tests see it: names to call."""

    def __init__(self, fd: int):
        self._fd = fd
        self.calls = 0
        self.ended = False
        self.encode = Encoder(lambda value: value._number if type(value) is _Object else None)
        self._decode = Decoder(lambda number: _Object(self, number))

    def wait(self) -> str | None:
        """Waits until the program has defined its names; the exception that it raised instead, if any."""
        message = self._receive()
        return None if message == {"ready": True} else _exception_of(message).__name__

    def ask(self, request: dict[str, object]) -> Any:
        self.calls += 1
        try:
            send(self._fd, request)
        except OSError as error:
            self.ended = True
            raise _Ended from error
        reply = self._receive()
        if type(reply) is dict and reply.keys() == {"value"}:
            return self._decode(reply["value"])
        raised = _exception_of(reply)("raised by the program")
        raised.from_program = True  # type: ignore[attr-defined] # a mark of our own
        raise raised

    def name(self, name: str) -> Callable[..., Any]:
        def entry(*args: Any, **kwargs: Any) -> Any:
            return self.ask({"call": name, "args": self.encode(args), "kwargs": self.encode(kwargs)})

        return entry

    def _receive(self) -> Any:
        try:
            return receive(self._fd)
        except (EOFError, OSError) as error:
            self.ended = True
            raise _Ended from error


def _exception_of(reply: object) -> type[Exception]:
    if type(reply) is dict and reply.keys() == {"unsendable"}:
        return TypeError
    name = reply.get("raised") if type(reply) is dict else None
    return _EXCEPTIONS.get(name, RuntimeError) if type(name) is str else RuntimeError


def judge(fd: int, tests: Mapping[str, Any], started: Callable[[], None], report: Report) -> None:
    """Runs every group of tests against the program at the other end of `fd`.

    Args:
      tests: the texts: groups (in order), entry, setup, check.
      started: called when the tests stand ready; what goes wrong before is the harness's fault.
      report: called with each group's index, status and detail as soon as it is judged.
    """
    groups = tests["groups"]
    try:
        setup, check, *codes = (
            compile(text, "<tests>", "exec", dont_inherit=True)
            for text in (tests["setup"], tests["check"], *groups)
        )
    except (SyntaxError, ValueError) as error:
        for index in range(len(groups)):
            report(index, "harness_error", f"{type(error).__name__} in the tests' text")
        return
    started()
    program = _Program(fd)
    fault = _start(program)
    for index, code in enumerate(codes):
        program.calls = 0
        report(index, *(fault or _run(program, [setup, code, check], tests["entry"])))
        fault = fault or (("crashed", "the program's process ended") if program.ended else None)


def _start(program: _Program) -> tuple[str, str] | None:
    try:
        raised = program.wait()
    except _Ended:
        return "crashed", "the program's process ended before its names were defined"
    except WireError as error:
        return "error", str(error)
    return ("error", f"{raised} while the program's names were defined") if raised else None


def _run(program: _Program, codes: list[types.CodeType], entry: list[str]) -> tuple[str, str]:
    """The status of one group, and what happened."""
    bound = {"candidate": program.name(entry[0])} | {name: program.name(name) for name in entry}
    setup, code, check = codes
    try:
        # Before the set-up, which may make objects of the program's, and again after it, which may hold a
        # stub of the function that is tested.
        names = {**_MODULES, "__name__": "tests", **bound}
        exec(setup, names)
        names |= bound
        exec(code, names)
        exec(check, names)
    except AssertionError as error:
        return ("error" if hasattr(error, "from_program") else "failed"), "AssertionError"
    except _Ended:
        return "crashed", "the program's process ended"
    except BaseException as error:
        if not program.calls:
            return "harness_error", f"{type(error).__name__} in the tests before they called the program"
        return "error", type(error).__name__
    if program.ended:
        return "crashed", "the program's process ended"
    # Tests that ask nothing of the program would pass anything.
    return ("passed", "") if program.calls else ("harness_error", "the tests never called the program")
