"""A worker: starts clean, imports once, puts its layers on, and then forks two processes for each program.

Guest side. It is never forked from the trainer, so that none of the trainer's memory, environment, threads
or devices are in it; and it never reads a program or a test: those are in files that only the processes
meant for them open, as what the zygote had read would be in the memory of every program after it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import time
from typing import Any, NoReturn

from score_jax.rewards.sandbox import lockdown, program_side, test_side
from score_jax.rewards.sandbox.layers import Layers
from score_jax.rewards.sandbox.wire import HEADER

# What programs for such tasks import, imported once so that it costs them nothing. No more than that: every
# page of memory here is dearer to fork than an import is to the few programs that want it ...
_COMMON = (
    "array bisect cmath collections.abc copy ctypes dataclasses datetime decimal enum fractions functools "
    "hashlib heapq itertools json math numbers operator queue random re statistics string textwrap time "
    "typing unicodedata"
)
# ... unless the interpreter's folder is closed to the user that the worker becomes, and they could not.
_RARE = (
    "abc argparse ast asyncio base64 binascii calendar colorsys csv difflib graphlib hmac html inspect io "
    "keyword logging pathlib pickle pprint secrets shutil struct subprocess sys tempfile threading timeit "
    "tokenize traceback types unittest uuid warnings weakref zlib zoneinfo"
)

_layers: Layers
_null: int


def main(arguments: str) -> None:
    """Serves the trainer on descriptor 0 until it closes it.

    Args:
      arguments: JSON: parent (the trainer's process id, or null inside a process namespace), without
        (layers).
    """
    global _layers, _null
    options = json.loads(arguments)
    os.environ.clear()
    names = _COMMON if os.geteuid() or lockdown.interpreter_is_open() else f"{_COMMON} {_RARE}"
    for name in names.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _null = os.open(os.devnull, os.O_RDWR)
    _layers = Layers(options["without"])
    _layers.put_on_worker(options["parent"])
    _layers.try_out()
    # Memory that no fork has to copy because the collector touched it.
    gc.collect()
    gc.freeze()
    trainer = socket.socket(fileno=0)
    trainer.sendall(json.dumps(_layers.faults).encode() + b"\n")
    while True:
        header, files, _, _ = socket.recv_fds(trainer, HEADER.size, 2)
        if len(header) < HEADER.size:
            return
        number, timeout = HEADER.unpack(header)
        program, tests = files
        trainer.sendall(json.dumps({"number": number, **run(program, tests, timeout)}).encode() + b"\n")


def run(program: int, tests: int, timeout: float) -> dict[str, Any]:
    """Runs one program against its tests: what the tests' process wrote, and how it ended."""
    begin = time.monotonic()
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    zygote = os.getpid()
    cpu_seconds = int(timeout) + 2
    children = []
    for side, own in ((_be_program, (theirs.fileno(), program)), (_be_tests, (ours.fileno(), tests, write))):
        child = os.fork()
        if child == 0:
            try:
                side(zygote, cpu_seconds, *own)
            finally:
                os._exit(1)
        children.append(child)
    ours.close()
    theirs.close()
    for fd in (program, tests, write):
        os.close(fd)
    try:
        lines, in_time = _collect(read, begin + timeout)
    finally:
        os.close(read)
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    return {"lines": lines, "in_time": in_time, "seconds": round(time.monotonic() - begin, 4)}


def _collect(fd: int, deadline: float) -> tuple[list[Any], bool]:
    """The lines that come from `fd` until it is closed (True) or time is up (False)."""
    text = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        more = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        piece = os.read(fd, 1 << 16) if more else b""
        text += piece
        if not piece:
            return [json.loads(line) for line in text.split(b"\n")[:-1]], bool(more)


def _be_program(zygote: int, cpu_seconds: int, calls: int, text: int) -> NoReturn:
    program = _read_all(text)
    _confine(zygote, cpu_seconds, {calls})
    program_side.serve(calls, program)


def _be_tests(zygote: int, cpu_seconds: int, calls: int, text: int, verdict: int) -> None:
    tests = json.loads(_read_all(text))
    _confine(zygote, cpu_seconds, {calls, verdict})

    def write(*line: object) -> None:
        os.write(verdict, json.dumps(line).encode() + b"\n")

    test_side.judge(calls, tests, lambda: write("started"), write)


def _read_all(fd: int) -> str:
    with open(fd, "rb", closefd=False) as file:
        return file.read().decode(errors="surrogatepass")


def _confine(zygote: int, cpu_seconds: int, keep: set[int]) -> None:
    """Closes all descriptors but `keep`, points the standard ones nowhere, and puts the layers on."""
    for fd in (0, 1, 2):
        os.dup2(_null, fd)
    above = 3
    for fd in sorted(keep):
        os.closerange(above, fd)
        above = fd + 1
    os.closerange(above, os.sysconf("SC_OPEN_MAX"))
    _layers.put_on_child(zygote, cpu_seconds)
