"""The published benchmark files, where the machine has them."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def real_file(name: str) -> Path:
    """A file of $SCORE_JAX_DATA, or of ../shared/data; the test is skipped where it is absent."""
    path = Path(os.environ.get("SCORE_JAX_DATA", ROOT.parent / "shared" / "data")) / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return path
