"""A worker process of the maths grader: `python -m score_jax.rewards.math_worker`.

The process that is started only loads the libraries (seconds) and keeps a forked child, which does the work
and can be killed and replaced in milliseconds:

    trainer --- pipes ---> keeper: imports, warms up, waits    (never forked: a fresh interpreter)
                             └── child: reads pairs, grades     (forked from the keeper, which has one thread)

    trainer -> child   [number, gold, answer]     one line of JSON each; answer null: only check the gold
    child -> trainer   [number, verdict]          verdict: true, false, or null for out of memory
    child -> trainer   [-1, "ready"]              a new child has started: whatever the last one had is lost
    trainer -> keeper  SIGUSR1                    kill the child

Neither JAX nor TensorFlow is imported. The texts are parsed, never evaluated as Python; what libraries print
goes to the null device, so that only this module can write to the trainer.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys

from score_jax.rewards import math_expressions, math_form

MEMORY = 2 << 30  # bytes of address space that a child may take
PR_SET_PDEATHSIG = 1
# The parser learns its grammar as it goes: children inherit what these have taught it.
WARM_UP = [
    (r"\frac{1+\sqrt{5}}{2}", r"\frac{\sqrt{5}+1}{2}"),
    ("(x+1)(y-2)", "(y-2)(x+1)"),
    (r"2\pi-3", r"3\pi"),
    ("x^{2}-3x+6-5i", "6-5i-3x+x^{2}"),
    (r"-\frac{3\sqrt[3]{2}}{4} + \sin 2x", r"\sin(2x) - \frac{3}{4}\sqrt[3]{2}"),
    ("5x - 7y + 4 = 0", "10x - 14y + 8 = 0"),
]


def verdict(gold: str, answer: str | None) -> bool | None:
    """Whether the answer is right (if None: whether the gold answer can be read); None if out of memory."""
    try:
        golden = math_form.read(gold)
        if answer is None:
            return golden is not None and readable(golden)
        given = math_form.read(answer)
        if golden is None or given is None:
            return False
        return math_form.equal(golden, given, math_expressions.equal)
    except (MemoryError, RecursionError):
        return None
    except Exception:
        return False


def readable(form: math_form.Form) -> bool:
    """Whether every expression in `form` can be parsed."""
    if form.kind == "expression":
        math_expressions.parse(form.body)
    return all(readable(item) for item in form.items)


def serve(requests: int, replies: int) -> None:
    """Answers lines from `requests` until it is closed. The end of a line whose head is lost is skipped."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    drain(requests)
    os.write(replies, b'[-1, "ready"]\n')
    buffer = b""
    while chunk := os.read(requests, 1 << 16):
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                number, gold, answer = json.loads(line)
                os.write(replies, json.dumps([number, verdict(gold, answer)]).encode() + b"\n")


def drain(requests: int) -> None:
    """Drops what the child before did not read: the trainer gives it anew when it hears "ready"."""
    os.set_blocking(requests, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(requests, 1 << 16):
            pass
    os.set_blocking(requests, True)


def die_with_parent() -> None:
    """The kernel kills this process when the thread that forked it ends. On Linux; elsewhere it lives on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_child(keeper: int, requests: int, replies: int) -> int:
    """Forks a child that serves; returns its process id."""
    if pid := os.fork():
        return pid
    try:
        signal.set_wakeup_fd(-1)
        die_with_parent()
        if os.getppid() == keeper:
            serve(requests, replies)
    finally:
        os._exit(0)


def keep(requests: int, replies: int) -> None:
    """Keeps one child serving until the trainer closes `requests` or is gone."""
    keeper, trainer = os.getpid(), os.getppid()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    # subtle: a handler that kills would meet a child that is gone, or one whose number it does not know yet,
    # when it comes right after a fork. So signals only wake the loop, which knows its child.
    for wakes in (signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(wakes, lambda *_: None)
    child = start_child(keeper, requests, replies)
    # subtle: the trainer's end is seen by the closed pipe, or, where another process holds the pipe, by a
    # new parent. Its death signal would come with the end of the *thread* that started this process.
    poll = select.poll()
    poll.register(requests, 0)
    poll.register(wake, select.POLLIN)
    while os.getppid() == trainer:
        events = poll.poll(500)
        if any(fd == requests for fd, _ in events):
            break
        if events and signal.SIGUSR1 in os.read(wake, 1 << 10):
            os.kill(child, signal.SIGKILL)
        if os.waitpid(child, os.WNOHANG)[0]:
            child = start_child(keeper, requests, replies)
    os.kill(child, signal.SIGKILL)


def main() -> None:
    requests, replies, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    # Of what the trainer's terminal sends, the trainer alone decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for pair in WARM_UP:
        math_expressions.equal(*pair)
    keep(requests, replies)


if __name__ == "__main__":
    main()
