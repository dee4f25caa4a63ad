"""Where the benchmarks' files lie; they are no part of the project."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def real_file(name: str) -> Path:
    """A benchmark's file, in SCORE_JAX_DATA or ../shared/data; skips the test where absent."""
    path = Path(os.environ.get("SCORE_JAX_DATA") or ROOT.parent / "shared" / "data") / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path
