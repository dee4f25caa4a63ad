"""Layers that a process puts on itself, each for good: no right given up here can be had back.

Guest side: standard library only, Linux system calls by ctypes. Every function raises OSError where the
kernel does not take it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

#: Whom a worker that was started by root becomes: nobody.
NOBODY = 65534

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 2, 4
_PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 38, 39
_SIGKILL = 9

# The same numbers on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3

_PACKAGES = ("site-packages", "dist-packages")

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _syscall(*arguments: object) -> int:
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    _libc.syscall.restype = ctypes.c_long
    result = _libc.syscall(*wide)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def leave_root() -> None:
    """Root becomes nobody, without groups or capabilities: files of others, and others' processes, are
    closed.

    Done by the process itself, after its imports: an interpreter under /root can be started by root alone.
    """
    if os.geteuid() == 0 or os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    if 0 in (*os.getresuid(), *os.getresgid()):
        raise OSError("still root")


def die_with_parent(parent: int | None) -> None:
    """The kernel kills this process when its parent ends, however it ends. After `leave_root`, which resets
    it.

    Args:
      parent: its id, to notice that it has ended already; None inside a process namespace, where it has no
        id.
    """
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    kept = ctypes.c_int()
    if _libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(kept), 0, 0, 0) or kept.value != _SIGKILL:
        raise OSError("not kept")
    if parent is not None and os.getppid() != parent:
        os._exit(0)


def no_new_privs() -> None:
    """No program that is started from here gains rights (setuid bits), which the next layers ask for."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if _libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        raise OSError("not kept")


def unreadable() -> None:
    """Other processes of the same user can neither trace this one nor read its memory or environment."""
    _prctl(_PR_SET_DUMPABLE, 0)


def prefer_for_oom() -> None:
    """When memory runs out the kernel ends a sandbox rather than the trainer. A courtesy, not a layer."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


def limits(memory: int, cpu_seconds: int) -> None:
    """Resources of a program's process: stops memory and disk bombs, forks, core dumps, and endless loops.

    Args:
      memory: bytes of address space.
      cpu_seconds: after which the kernel kills, even where nobody is left to watch.
    """
    values = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_STACK: 8 << 20,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for name, value in values.items():
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def readable_paths() -> list[tuple[str, bool]]:
    """What a confined process may read: (path, whether its files may be read, or its names listed only).

    The standard library, entry by entry so as to leave site-packages out: an installed benchmark could hold
    the answers. Python lists the folder to import from it.
    """
    folders = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    folders |= {os.path.realpath(path) for path in sys.path if path.endswith("lib-dynload")}
    found = []
    for folder in sorted(folders):
        found.append((folder, False))
        entries = sorted(os.listdir(folder))
        found += [(os.path.join(folder, name), True) for name in entries if name not in _PACKAGES]
    return [*found, ("/dev/null", True), ("/dev/urandom", True), ("/usr/share/zoneinfo", True)]


def interpreter_is_open() -> bool:
    """Whether others than its owner can reach the standard library; not where it lies under /root."""
    folder = Path(sysconfig.get_path("stdlib"))
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def landlock_version() -> int:
    """The kernel's Landlock ABI; raises OSError where there is none."""
    return _syscall(_LANDLOCK_CREATE, None, 0, _VERSION)


def landlock(paths: Iterable[tuple[str, bool]]) -> None:
    """No file but `paths` (see `readable_paths`) can be opened, and none be written, run, made, moved or
    removed.

    Stops what seccomp cannot see, as it looks at numbers and not at path names: /etc, /proc/PID/environ and
    /proc/PID/mem, the trainer's checkpoints, keys in home folders. From ABI 4 on also TCP, from 6 on also
    signals to and abstract sockets of processes outside.
    """
    abi = landlock_version()
    files = (1 << (13 + (abi >= 2) + (abi >= 3) + (abi >= 5))) - 1
    attributes = struct.pack("=QQQ", files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _syscall(_LANDLOCK_CREATE, ctypes.c_char_p(attributes[:size]), size, 0)
    for path, contents in paths:
        _allow_reading(ruleset, path, contents)
    _syscall(_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _allow_reading(ruleset: int, path: str, contents: bool) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    rights = _READ_FILE if contents else 0
    rights |= _READ_DIR if os.path.isdir(path) else 0
    rule = struct.pack("=Qi", rights, fd)
    _syscall(_LANDLOCK_ADD, ruleset, _PATH_BENEATH, ctypes.c_char_p(rule), 0)
    os.close(fd)
