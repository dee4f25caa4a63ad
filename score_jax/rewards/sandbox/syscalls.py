"""The system calls that a confined process may make, by architecture.

Chosen by what a pure computation needs: memory, reading open files, the clock, timers and signals of its own.
Not in the list, and so refused: making processes *and threads* (so that killing one process ends a program),
sockets of every kind, signals to others, tracing, everything that changes files, namespaces, limits, keys,
BPF, io_uring ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Table:
    """System-call numbers of one architecture.

    Attributes:
      audit: AUDIT_ARCH_*, by which the kernel tells a filter whose numbers it is looking at.
      free: allowed with any arguments.
      opens: number of each call that opens files -> the index of its flags argument; reading only.
      ioctl, fcntl, prlimit64: allowed with some arguments.
      clone3: answered with "no such call", upon which the C library falls back to clone, which is refused.
      x32: calls from this number on belong to another numbering (x86_64 alone); they kill.
    """

    audit: int
    free: Mapping[str, int]
    opens: Mapping[int, int]
    ioctl: int
    fcntl: int
    prlimit64: int
    clone3: int = 435
    x32: int | None = None


X86_64 = Table(
    audit=0xC000003E,
    free={
        "read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
        "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
        "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20, "access": 21, "select": 23,
        "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getitimer": 36, "alarm": 37,
        "setitimer": 38, "getpid": 39, "exit": 60, "uname": 63, "getcwd": 79, "readlink": 89,
        "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102,
        "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110, "sigaltstack": 131, "gettid": 186,
        "time": 201, "futex": 202, "sched_getaffinity": 204, "getdents64": 217, "restart_syscall": 219,
        "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231,
        "newfstatat": 262, "readlinkat": 267, "faccessat": 269, "pselect6": 270, "ppoll": 271,
        "getrandom": 318, "statx": 332, "faccessat2": 439,
    },
    opens={2: 1, 257: 2},  # open, openat
    ioctl=16,
    fcntl=72,
    prlimit64=302,
    x32=0x40000000,
)  # fmt: skip

AARCH64 = Table(
    audit=0xC00000B7,
    free={
        "getcwd": 17, "faccessat": 48, "close": 57, "getdents64": 61, "lseek": 62, "read": 63, "write": 64,
        "readv": 65, "writev": 66, "pread64": 67, "pselect6": 72, "ppoll": 73, "readlinkat": 78,
        "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "nanosleep": 101,
        "getitimer": 102, "setitimer": 103, "clock_gettime": 113, "clock_getres": 114,
        "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128,
        "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "times": 153,
        "uname": 160, "getrlimit": 163, "getrusage": 165, "gettimeofday": 169, "getpid": 172, "getppid": 173,
        "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179,
        "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233,
        "getrandom": 278, "statx": 291, "faccessat2": 439,
    },
    opens={56: 2},  # openat
    ioctl=29,
    fcntl=25,
    prlimit64=261,
)  # fmt: skip

#: By `platform.machine()`.
TABLES = {"x86_64": X86_64, "aarch64": AARCH64}
