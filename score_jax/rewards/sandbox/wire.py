"""The wire between a program's process and its tests': plain built-in values, and nothing else.

An object of the program's making never reaches the tests, so that its __eq__, __iter__ or __class__ cannot
answer for them; what arrives is rebuilt from JSON. The sender is not trusted: whatever bytes come, `decode`
gives a plain value or raises `WireError`.
"""

from __future__ import annotations

import array
import collections
import itertools
import json
import os
import struct
import types
from collections.abc import Callable, Iterator
from typing import Any

#: What the trainer sends a worker for each program: its number, and seconds. Two open files come along: the
#: program's text, and the tests as JSON.
HEADER = struct.Struct(">Qd")

#: Bytes of one message; values of one value; levels of nesting; values taken from an iterator; bits of an
#: int.
MAX_MESSAGE, MAX_VALUES, MAX_DEPTH, MAX_ITEMS, MAX_BITS = 4 << 20, 200_000, 60, 100_000, 100_000

_TYPES = {
    cls.__name__: cls
    for cls in (int, str, float, bool, complex, bytes, bytearray, list, tuple, set, frozenset, dict, object)
} | {"NoneType": type(None)}
_NAMES = {cls: name for name, cls in _TYPES.items()}
_ITERATORS = (types.GeneratorType, map, filter, zip, enumerate, reversed, itertools.chain, Iterator)
_EMPTY: dict[object, object] = {}
_VIEWS = (type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items()))
_SEQUENCES = {"t": tuple, "s": set, "z": frozenset, "q": collections.deque}
_TYPECODES = frozenset("bBhHiIlLqQfd")


class WireError(Exception):
    """A value that does not cross, or bytes that are no value."""


def send(fd: int, message: object) -> None:
    text = json.dumps(message).encode()
    if len(text) > MAX_MESSAGE:
        raise WireError("a message beyond the size limit")
    data = memoryview(struct.pack(">I", len(text)) + text)
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int) -> Any:
    """The next message; EOFError when the other process has ended."""
    (size,) = struct.unpack(">I", _read(fd, 4))
    if size > MAX_MESSAGE:
        raise WireError("a message beyond the size limit")
    try:
        return json.loads(_read(fd, size))
    except (ValueError, RecursionError) as error:
        raise WireError("a message that is no JSON") from error


def _read(fd: int, size: int) -> bytes:
    parts = []
    while size:
        parts.append(os.read(fd, min(size, 1 << 16)))
        if not parts[-1]:
            raise EOFError
        size -= len(parts[-1])
    return b"".join(parts)


class Encoder:
    """Plain values to JSON.

    Args:
      lend: the number under which the other side knows an object, or None for one that it may not have.
    """

    def __init__(self, lend: Callable[[object], int | None]):
        self._lend = lend

    def __call__(self, value: object) -> object:
        self._left = MAX_VALUES
        return self._encode(value, 0)

    def _encode(self, value: Any, depth: int) -> object:
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            raise WireError("a value too deep or too large")
        if value is None or value is True or value is False:
            return value
        if (number := self._lend(value)) is not None:
            return {"h": number}
        return self._scalar(value) if isinstance(value, _SCALARS) else self._container(value, depth + 1)

    def _scalar(self, value: Any) -> object:
        # A subclass crosses as the built-in it is made of.
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            if int.bit_length(value) > MAX_BITS:
                raise WireError("an int too large")
            return int(value) if -(1 << 53) < value < 1 << 53 else {"i": hex(value)}
        if isinstance(value, float):
            return {"f": float.hex(value)}
        if isinstance(value, complex):
            return {"c": [value.real.hex(), value.imag.hex()]}
        if isinstance(value, type):
            if value not in _NAMES:
                raise WireError("a class that is not built in")
            return {"T": _NAMES[value]}
        return {"b" if isinstance(value, bytes) else "B": bytes(value).hex()}

    def _container(self, value: Any, depth: int) -> object:
        if isinstance(value, dict):
            pairs = list(dict.items(value))
            return {"d": [[self._encode(k, depth), self._encode(v, depth)] for k, v in pairs]}
        if isinstance(value, list):
            return [self._encode(item, depth) for item in list.__iter__(value)]
        for tag, cls in _SEQUENCES.items():
            if isinstance(value, cls):
                return {tag: [self._encode(item, depth) for item in cls.__iter__(value)]}
        if isinstance(value, range):
            return {"r": [self._encode(n, depth) for n in (value.start, value.stop, value.step)]}
        if isinstance(value, array.array):
            return {"a": [value.typecode, [self._encode(item, depth) for item in value]]}
        if isinstance(value, _VIEWS):
            return {"v": [self._encode(item, depth) for item in value]}
        if isinstance(value, _ITERATORS):
            items = list(itertools.islice(value, MAX_ITEMS + 1))
            if len(items) > MAX_ITEMS:
                raise WireError("an iterator too long")
            return {"v": [self._encode(item, depth) for item in items]}
        raise WireError(f"not a plain value: {type(value).__name__}")


_SCALARS = (str, int, float, complex, bytes, bytearray, type)


class Decoder:
    """JSON back to plain values.

    Args:
      claim: the object behind a number of the other side; raises WireError where there is none.
    """

    def __init__(self, claim: Callable[[int], object]):
        self._claim = claim

    def __call__(self, data: object) -> Any:
        try:
            return self._decode(data, 0)
        except WireError:
            raise
        except Exception as error:  # whatever shape hostile bytes have
            raise WireError(f"no value: {type(error).__name__}") from error

    def _decode(self, data: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise WireError("a value too deep")
        if data is None or type(data) in (bool, int, str):
            return data
        if type(data) is list:
            return [self._decode(item, depth + 1) for item in data]
        if type(data) is not dict or len(data) != 1:
            raise WireError("no value")
        ((tag, body),) = data.items()
        if tag in _SEQUENCES:
            return _SEQUENCES[tag](self._decode(item, depth + 1) for item in body)
        if tag == "d":
            return {self._decode(k, depth + 1): self._decode(v, depth + 1) for k, v in body}
        if tag == "v":
            return iter([self._decode(item, depth + 1) for item in body])
        if tag == "r":
            return range(*(self._decode(n, depth + 1) for n in body))
        if tag == "a" and body[0] in _TYPECODES:
            return array.array(body[0], [self._decode(item, depth + 1) for item in body[1]])
        return self._decode_scalar(tag, body)

    def _decode_scalar(self, tag: str, body: Any) -> Any:
        if tag == "i" and len(body) <= MAX_BITS // 4 + 4:
            return int(body, 16)
        if tag == "f":
            return float.fromhex(body)
        if tag == "c":
            return complex(float.fromhex(body[0]), float.fromhex(body[1]))
        if tag == "b":
            return bytes.fromhex(body)
        if tag == "B":
            return bytearray.fromhex(body)
        if tag == "T":
            return _TYPES[body]
        if tag == "h" and type(body) is int:
            return self._claim(body)
        raise WireError("no value")
