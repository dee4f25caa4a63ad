"""What every command does before its work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCKS, MEGABYTES, PAGE = 20, 64, 4096
TAKE_AND_FREE = f"""
import resource
from score_jax.__main__ import _keep_memory

_keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range({BLOCKS}):
    block = bytearray(b"x") * ({MEGABYTES} << 20)
    del block
print(faults() - before)
"""


def page_faults(**environment: str) -> int:
    """Of a process that takes and frees large blocks, one after the other."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", TAKE_AND_FREE],
        env=kept | environment,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux" or not os.confstr("CS_GNU_LIBC_VERSION"), reason="needs glibc")
def test_freed_memory_is_taken_again_and_the_users_own_setting_stands():
    once = (MEGABYTES << 20) // PAGE
    assert page_faults() < 2 * once
    assert page_faults(MALLOC_MMAP_THRESHOLD_="65536") > once * BLOCKS / 2
