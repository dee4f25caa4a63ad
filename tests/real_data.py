"""Benchmarks as they are published, for tests that want real rows. They are no part of this project."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("SCORE_JAX_DATA", ROOT.parent / "shared" / "data"))


def real_file(name: str) -> Path:
    """The file `name` below SCORE_JAX_DATA (default: ../shared/data); skips the test where there is none."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; SCORE_JAX_DATA names the folder of the benchmarks")
    return path
