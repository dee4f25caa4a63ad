"""What the tests of the sandbox share: where it can run, and who is left of it."""

import ctypes
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from score_jax.rewards.sandbox.job import Job

# Asked of the kernel directly, so that a fault of the sandbox's own does not skip its tests.
_HAS_LANDLOCK = sys.platform == "linux" and ctypes.CDLL(None).syscall(444, None, 0, 1) >= 1
needs_layers = pytest.mark.skipif(not _HAS_LANDLOCK, reason="this kernel has no Landlock")

ADD = "assert add(2, 3) == 5\nassert add(10, -4) == 6"
HONEST = "def add(a, b): return a + b"


def job(program: str = HONEST, tests: str = ADD, timeout_s: float = 5.0, **fields) -> Job:
    return Job(
        **{
            "program": program,
            "groups": {"tests": tests},
            "entry": ("add",),
            "timeout_s": timeout_s,
            **fields,
        }
    )


def sessions(leaders: Iterable[int]) -> list[int]:
    """The living processes of the sessions that workers lead, workers included; a zombie is not alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it ended while we looked
            continue
        if int(session) in leaders and state not in "ZX":
            found.append(int(stat.parent.name))
    return found
