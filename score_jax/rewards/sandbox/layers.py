"""Which layers a worker and its programs' processes put on, in which order, and whether they hold when tried.

Guest side. What each layer is for stands in `lockdown` and `seccomp`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import socket
import sys
from collections.abc import Callable, Iterable

from score_jax.rewards.sandbox import lockdown, seccomp
from score_jax.rewards.sandbox.syscalls import TABLES

#: All layers that a worker and its processes put on themselves.
NAMES = (
    "no_new_privs",
    "landlock",
    "seccomp",
    "resource limits",
    "parent-death signal",
    "non-root user",
)

#: Bytes of address space of a program's process, and of its tests'.
MEMORY = 512 << 20


class Layers:
    """The layers of one worker.

    Args:
      without: names of layers to leave off. The trainer's side lets this be only where the user asked for
        mode "unsafe".

    Attributes:
      faults: name -> why it does not hold, of those that do not.
    """

    def __init__(self, without: Iterable[str] = ()):
        self.faults: dict[str, str] = dict.fromkeys(without, "left off")
        if sys.platform != "linux":
            # Not tried: the numbers of Linux's system calls mean other things elsewhere.
            self.faults |= dict.fromkeys(NAMES, "needs Linux")
        self._filter = b""

    def put_on_worker(self, parent: int | None) -> None:
        """Once, before the first program: what can be inherited, as that then costs nothing per program."""
        lockdown.prefer_for_oom()
        # Listed before root is left: the interpreter's folder may be closed to others.
        paths = lockdown.readable_paths()
        self._put("no_new_privs", lockdown.no_new_privs)
        self._put("landlock", lambda: lockdown.landlock(paths))
        self._put("non-root user", lockdown.leave_root)
        # After root is left, which resets these two.
        self._put("parent-death signal", lambda: lockdown.die_with_parent(parent))
        with contextlib.suppress(OSError, AttributeError):  # Linux alone has the call
            lockdown.unreadable()
        self._put("seccomp", self._build_filter)

    def put_on_child(self, parent: int, cpu_seconds: int) -> None:
        """In each process of a program, before anything of it is run.

        Raises:
          OSError: a layer that held when it was tried does not hold now; nothing may run then.
        """
        before = len(self.faults)
        self._put("parent-death signal", lambda: lockdown.die_with_parent(parent))
        self._put("resource limits", lambda: lockdown.limits(MEMORY, cpu_seconds))
        # Last: it refuses what the others need.
        self._put("seccomp", lambda: seccomp.install(self._filter))
        if len(self.faults) != before:
            raise OSError(str(self.faults))

    def try_out(self) -> None:
        """Lets a process that is confined as a program's try what must not work; what did is a fault."""
        read, write = os.pipe()
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                with contextlib.suppress(OSError):
                    self.put_on_child(parent, 2)
                os.write(write, json.dumps(self.faults | self._what_works()).encode())
            finally:
                os._exit(0)
        os.close(write)
        with open(read, "rb") as file:
            answer = file.read()
        os.waitpid(child, 0)
        self.faults |= json.loads(answer) if answer else {"resource limits": "the process of the trial died"}

    def _what_works(self) -> dict[str, str]:
        """Faults of layers that say they are on. Where one is known to be off, its trial is not made."""
        works = {}
        for name, trial in (
            ("landlock", _lists_root),
            ("seccomp", _opens_socket),
            ("resource limits", _writes),
        ):
            if name not in self.faults:
                with contextlib.suppress(OSError):
                    works[name] = trial()
        return works

    def _put(self, name: str, act: Callable[[], object]) -> None:
        if name in self.faults:
            return
        try:
            act()
        except OSError as error:
            self.faults[name] = str(error)

    def _build_filter(self) -> None:
        if platform.machine() not in TABLES:
            raise OSError(f"no system-call table for {platform.machine()}; there are {', '.join(TABLES)}")
        self._filter = seccomp.build(TABLES[platform.machine()])


def _lists_root() -> str:
    os.listdir("/")
    return "the root folder could be listed"


def _opens_socket() -> str:
    socket.socket(socket.AF_UNIX).close()
    return "a socket could be opened"


def _writes() -> str:
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 0:
        raise OSError
    return "files may grow"
