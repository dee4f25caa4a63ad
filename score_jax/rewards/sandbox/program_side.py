"""The process of the model's program: runs it, then answers the calls of the tests.

It never holds the tests, the expected values or a way to the verdict; whatever the program finds or patches
in here is its own. What it sends is judged on the other side, so that nothing in this file needs to
withstand it.
"""

from __future__ import annotations

import builtins
import os
import sys
import types
from typing import Any, NoReturn

from score_jax.rewards.sandbox.wire import Decoder, Encoder, WireError, receive, send

# What crosses as a value even where a class of the program's was called to make it.
_PLAIN = (str, int, float, complex, bytes, bytearray, list, tuple, set, frozenset, dict, type, type(None))


class _Objects:
    """Objects of the program's own classes that the tests made: they stay here, the tests hold numbers."""

    def __init__(self) -> None:
        self._objects: list[object] = []
        self._numbers: dict[int, int] = {}

    def add(self, value: object) -> None:
        self._numbers[id(value)] = len(self._objects)
        self._objects.append(value)

    def lend(self, value: object) -> int | None:
        return self._numbers.get(id(value))

    def claim(self, number: int) -> object:
        return self._objects[number]


def serve(fd: int, program: str) -> NoReturn:
    """Runs `program` as a module, then answers calls on `fd` until the tests end."""
    # A real module, as dataclasses and pickle look names up in sys.modules. Not "__main__": a program's
    # demonstration of itself is not run.
    module = sys.modules["program"] = types.ModuleType("program")
    try:
        exec(compile(program, "<program>", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        send(fd, {"raised": _builtin_name(error)})
        os._exit(0)
    send(fd, {"ready": True})
    objects = _Objects()
    while True:
        try:
            request = receive(fd)
        except EOFError:
            os._exit(0)
        try:
            reply = {"value": _answer(request, module.__dict__, objects)}
        except WireError as error:
            reply = {"unsendable": str(error)[:80]}
        except BaseException as error:
            reply = {"raised": _builtin_name(error)}
        try:
            send(fd, reply)
        except WireError as error:
            send(fd, {"unsendable": str(error)[:80]})


def _answer(request: dict[str, Any], names: dict[str, Any], objects: _Objects) -> object:
    decode, encode = Decoder(objects.claim), Encoder(objects.lend)
    if "call" in request:
        called = names[request["call"]]
        value = called(*decode(request["args"]), **decode(request["kwargs"]))
        if isinstance(called, type) and not isinstance(value, _PLAIN):
            objects.add(value)
        return encode(value)
    target = objects.claim(request["object"])
    if "value" in request:
        setattr(target, request["name"], decode(request["value"]))
        return None
    return encode(getattr(target, request["name"]))


def _builtin_name(error: BaseException) -> str:
    """The nearest built-in class of an exception, as that is what tests can be waiting for."""
    return next((c.__name__ for c in type(error).__mro__ if vars(builtins).get(c.__name__) is c), "Exception")
