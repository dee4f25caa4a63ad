"""What a command ends with."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from score_jax.__main__ import code_of
from score_jax.exit_codes import BAD_INPUT, FAILED, IO_ERROR, RESUME, Resume
from score_jax.records import Unreadable, Unwritable

ROOT = Path(__file__).resolve().parents[1]


def system(number):
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("a field"), BAD_INPUT),
        (FileNotFoundError("a file"), BAD_INPUT),
        (system(errno.EACCES), BAD_INPUT),
        (system(errno.ENOSPC), IO_ERROR),
        (system(errno.EROFS), IO_ERROR),
        (system(errno.ESTALE), IO_ERROR),  # a share that was served anew
        (system(errno.ETIMEDOUT), IO_ERROR),
        (system(errno.EHOSTUNREACH), IO_ERROR),
        (ConnectionResetError(), IO_ERROR),
        (TimeoutError(), IO_ERROR),
        (Unwritable("x", "full"), IO_ERROR),
        (Unreadable("x", "silent"), IO_ERROR),
        (Resume("saved"), RESUME),
        (RuntimeError("a bug"), FAILED),
    ],
    ids=repr,
)
def test_what_passes_is_told_from_what_must_be_mended(error, code):
    """The launch scripts never try again what ends with 2."""
    assert code_of(error) == code


def test_a_run_does_not_end_because_nobody_listens(tmp_path):
    """As in `train | head -n 1`: the pipe is closed while the run still speaks."""
    code = """
import sys
from score_jax.log import console, say
for number in range(20000):
    say(f"line {number}")
    console.print("and this")
print("by the way", flush=True)
open(sys.argv[1], "w").write("to the end")
"""
    words = [sys.executable, "-c", code, str(tmp_path / "done")]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        assert process.wait(timeout=300) == 0, process.stderr.read()
    assert (tmp_path / "done").read_text() == "to the end"
