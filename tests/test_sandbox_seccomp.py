"""The filters of both architectures, run by an interpreter of the Berkeley packet filter of our own."""

import errno
import functools
import os
import re
import struct
from pathlib import Path

import attacks
import pytest

from score_jax.rewards.sandbox import seccomp
from score_jax.rewards.sandbox.syscalls import TABLES

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OPENAT = {"x86_64": 257, "aarch64": 56}
FCNTL = {"x86_64": 72, "aarch64": 25}
IOCTL = {"x86_64": 16, "aarch64": 29}
PRLIMIT = {"x86_64": 302, "aarch64": 261}
HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}
ARCH = pytest.mark.parametrize("arch", sorted(ARCHES))


@functools.cache
def statements(arch: str) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("<HBBI", seccomp.build(TABLES[arch])))


def decide(arch: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter of `arch` answers: classic BPF over struct seccomp_data."""
    arguments = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, audit or ARCHES[arch], 0, *(a & (2**64 - 1) for a in arguments))
    program = statements(arch)
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, k = program[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x06:  # BPF_RET | BPF_K
            return k
        else:  # BPF_JMP: JEQ, JGE, JSET
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: accumulator & k != 0}[code]
            at += if_true if holds else if_false


def refused(arch: str, number: int, *arguments: int) -> bool:
    answer = decide(arch, number, *arguments)
    return answer in (KILL, *(ERRNO | number for number in (errno.EPERM, errno.EACCES, errno.ENOSYS)))


@ARCH
def test_a_program_can_compute(arch):
    # read, write, mmap, munmap, brk, exit_group, clock_gettime
    ours = {"x86_64": (0, 1, 9, 11, 12, 231, 228), "aarch64": (63, 64, 222, 215, 214, 94, 113)}
    assert [number for number in ours[arch] if decide(arch, number) != ALLOW] == []


def attacked() -> dict[str, dict[str, int]]:
    """The system calls that the corpus attacks, with the numbers that it has for them."""
    found = {"x86_64": {}, "aarch64": {}}
    pattern = r'(?:syscall|\s)\(f?"(\w+)[^"]*",\s*(\d+|None),\s*(\d+|None)'
    for name, x86, arm in re.findall(pattern, attacks.ACCESS):
        for arch, number in (("x86_64", x86), ("aarch64", arm)):
            if number != "None":
                found[arch][name] = int(number)
    return found


@ARCH
def test_what_the_corpus_attacks_is_refused(arch):
    calls = attacked()[arch]
    assert len(calls) > 70
    assert [name for name, number in calls.items() if not refused(arch, number)] == []


@ARCH
def test_nothing_but_the_table_is_allowed(arch):
    table = TABLES[arch]
    known = {*table.free.values(), *table.opens, table.ioctl, table.fcntl, table.prlimit64}
    assert [n for n in range(1024) if n not in known and not refused(arch, n)] == []
    assert [n for n in table.free.values() if decide(arch, n, *[2**64 - 1] * 6) != ALLOW] == []


@ARCH
@pytest.mark.parametrize("which", ["table", "corpus"])
def test_numbers_are_the_kernels(arch, which):
    header = Path(HEADERS[arch])
    if not header.exists():
        pytest.skip(f"{header} is not here")
    defined = re.findall(r"#define\s+__NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    numbers = {name: int(number) for name, number in defined}
    numbers.setdefault("newfstatat", numbers.get("fstatat"))
    table = TABLES[arch]
    special = {
        "fcntl": table.fcntl,
        "ioctl": table.ioctl,
        "prlimit64": table.prlimit64,
        "clone3": table.clone3,
    }
    ours = {**table.free, **special} if which == "table" else attacked()[arch]
    ours = {
        {"umount": "umount2", "pidfd": "pidfd_open"}.get(name, name): number for name, number in ours.items()
    }
    assert {name: number for name, number in ours.items() if numbers.get(name, number) != number} == {}
    assert len(ours.keys() & numbers.keys()) > 0.9 * len(ours)


@ARCH
def test_files_are_opened_for_reading_alone(arch):
    at, path = OPENAT[arch], 0x7F0000000000
    for flags in (0, os.O_CLOEXEC, os.O_NONBLOCK, 0o200000, 0o40000):  # O_DIRECTORY of x86_64, of aarch64
        assert decide(arch, at, -100, path, flags) == ALLOW
    # Written out: O_TMPFILE and others hold bits that differ between the architectures.
    for flags in (0o1, 0o2, 0o100, 0o1000, 0o2000, 0o10000000, 0o20000000, 0o20200000, 0o20040000, 0o101):
        assert decide(arch, at, -100, path, flags) == ERRNO | errno.EACCES
    # The kernel looks at the low 32 bits of an int.
    assert decide(arch, at, -100, path, (7 << 32) | 0o1) == ERRNO | errno.EACCES


def test_the_older_open():
    assert decide("x86_64", 2, 0, 0) == ALLOW
    assert decide("x86_64", 2, 0, 0o101) == ERRNO | errno.EACCES


@ARCH
def test_descriptors_send_no_signals(arch):
    assert [c for c in range(1100) if decide(arch, FCNTL[arch], 3, c) == ALLOW] == [1, 2, 3]
    numbers = [*range(0x100), *range(0x5400, 0x5480), *range(0x8900, 0x8A00)]
    allowed = [c for c in numbers if decide(arch, IOCTL[arch], 0, c) == ALLOW]
    assert allowed == [0x5401, 0x5450, 0x5451]


@ARCH
def test_limits_are_read_and_not_set(arch):
    number = PRLIMIT[arch]
    assert decide(arch, number, 0, 7, 0, 0x7F0000000000) == ALLOW
    assert refused(arch, number, 0, 7, 0x7F0000000000, 0)
    assert refused(arch, number, 0, 7, 0x7F00 << 32, 0)  # a pointer whose low half is zero
    assert refused(arch, number, 1, 7, 0, 0)


@ARCH
def test_other_numberings_kill(arch):
    for audit in (0x40000003, 0x40000028, *(set(ARCHES.values()) - {ARCHES[arch]})):  # i386, 32-bit ARM
        assert decide(arch, 39, audit=audit) == KILL
    if arch == "x86_64":
        assert decide(arch, 0x40000000) == decide(arch, 0x40000000 | 39) == KILL


@ARCH
def test_threads_and_processes(arch):
    clone = {"x86_64": 56, "aarch64": 220}[arch]
    for flags in (17, 0x10D00, 0x3D0F00):
        assert decide(arch, clone, flags) == ERRNO | errno.EPERM
    # So that the C library falls back to clone and reports its error.
    assert decide(arch, 435) == ERRNO | errno.ENOSYS
