"""The seccomp filter: which system calls the kernel still takes from a confined process.

It stops what Landlock has no say in: sockets, signals to other processes, tracing, new processes, and the
many calls in which kernel holes are found. A filter is a program of the classic Berkeley packet filter that
the kernel runs on (number, architecture, arguments) of every call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from score_jax.rewards.sandbox.syscalls import Table

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Offsets into struct seccomp_data; both architectures are little-endian.
_NUMBER, _ARCH = 0, 4
_LOW = lambda argument: 16 + 8 * argument
_HIGH = lambda argument: 20 + 8 * argument

# The same values on both architectures: write, read-write, create, truncate, append, O_PATH, __O_TMPFILE.
_OPEN_REFUSED = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o10000000 | 0o20000000
# F_GETFD, F_SETFD, F_GETFL. subtle: F_SETOWN with F_SETSIG makes the kernel send any signal to any process of
# the same user, past a filter that refuses kill(2).
_FCNTL_ALLOWED = (1, 2, 3)
# TCGETS (what isatty asks), FIONCLEX, FIOCLEX.
_IOCTL_ALLOWED = (0x5401, 0x5450, 0x5451)

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

Program = list[tuple[int, int, int, int]]


def build(table: Table) -> bytes:
    """The filter for an architecture, as an array of struct sock_filter."""
    program: Program = [
        (_LOAD, 0, 0, _ARCH),
        # Another architecture's numbers (32-bit calls on a 64-bit kernel) mean other calls.
        (_EQUAL, 1, 0, table.audit),
        _give(KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if table.x32 is not None:
        program += [(_AT_LEAST, 0, 1, table.x32), _give(KILL)]
    for number in table.free.values():
        program += _on(number, [_give(ALLOW)])
    for number, flags in table.opens.items():
        body = [(_LOAD, 0, 0, _LOW(flags)), (_ANY_BIT, 0, 1, _OPEN_REFUSED)]
        program += _on(number, [*body, _give(ERRNO | errno.EACCES), _give(ALLOW)])
    program += _on(table.fcntl, _one_of(1, _FCNTL_ALLOWED, errno.EPERM))
    program += _on(table.ioctl, _one_of(1, _IOCTL_ALLOWED, errno.ENOTTY))
    program += _on(table.prlimit64, _reads_own_limits())
    program += _on(table.clone3, [_give(ERRNO | errno.ENOSYS)])
    program.append(_give(ERRNO | errno.EPERM))
    return b"".join(struct.pack("=HBBI", *statement) for statement in program)


def install(code: bytes) -> None:
    """Puts the filter on the calling thread, for good, and on all that it starts. Needs no_new_privs.

    Raises:
      OSError: the kernel does not take it.
    """

    class SockFprog(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    program = SockFprog(len(code) // 8, code)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _give(value: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, value)


def _on(number: int, body: Program) -> Program:
    """`body`, which must end in a return, for one call; what follows it for all others."""
    return [(_EQUAL, 0, len(body), number), *body]


def _one_of(argument: int, values: tuple[int, ...], refusal: int) -> Program:
    body: Program = [(_LOAD, 0, 0, _LOW(argument))]
    for value in values:
        body += [(_EQUAL, 0, 1, value), _give(ALLOW)]
    return [*body, _give(ERRNO | refusal)]


def _reads_own_limits() -> Program:
    """prlimit64(0, ..., NULL, ...): the process's own limits (pid 0), and no new value (a null pointer)."""
    return [
        (_LOAD, 0, 0, _LOW(0)),
        (_EQUAL, 0, 5, 0),
        (_LOAD, 0, 0, _LOW(2)),
        (_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, _HIGH(2)),
        (_EQUAL, 0, 1, 0),
        _give(ALLOW),
        _give(ERRNO | errno.EPERM),
    ]
