"""Being told to stop: SIGTERM (a preemption, a scheduler) and Ctrl-C, heard now, heeded between updates.

Loops ask `asked()` after each piece of work; where it is true they save, and raise `Interrupted`. Ctrl-C for
the second time ends the process where it stands, which costs what was done since the last checkpoint.

Python runs a signal's handler between two instructions of the main thread, which may be minutes away while a
program compiles. A thread of its own, woken by the signal itself, makes that wait visible and the second
Ctrl-C immediate.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

from score_jax import hosts
from score_jax.exit_codes import STOPPED, Resume
from score_jax.log import console, say

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_heard: list[str] = []


class Interrupted(Resume):
    """The run was told to stop and has done so; the same command goes on."""

    def __init__(self, what: str):
        """Says what is kept, as in 'update 7 is saved'."""
        teller = _heard[0] if _heard else "another host"
        super().__init__(f"stopped by {teller}: {what}; the same command goes on")


def asked() -> bool:
    """Whether this run has been told to stop; of several hosts, whether any has.

    All hosts are to ask at the same point of their work, so that all stop after the same update.
    """
    return hosts.any_host(bool(_heard))


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Hears the signals; outside of the main thread, where Python has none, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _heard.clear()
    here, there = socket.socketpair()
    there.setblocking(False)
    # subtle: jax.distributed has handlers of its own, in C++; they are replaced as this comes after.
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    woken = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(here,), name="interruption", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        there.close()
        thread.join()
        here.close()
        _heard.clear()


def _listen(source: socket.socket) -> None:
    while numbers := source.recv(64):
        for number in numbers:
            if number in SIGNALS:
                _hear(signal.Signals(number))


def _hear(number: signal.Signals) -> None:
    if number == signal.SIGINT and _heard:
        console.show_cursor()
        say("Stopped at once; the same command goes on from the last checkpoint.")
        os._exit(STOPPED)
    if not _heard:
        name = "Ctrl-C" if number == signal.SIGINT else number.name
        _heard.append(name)
        say(f"{name}: stops when what has begun is done and saved; Ctrl-C (again) stops at once.")
