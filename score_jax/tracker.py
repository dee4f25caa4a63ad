"""Weights & Biases, beside TensorBoard, for those who ask for it: config.log.wandb names a project.

The wandb package is an extra ("score-jax[wandb]"). WANDB_MODE=offline keeps what it gets on this machine.
"""

from __future__ import annotations

import importlib
import importlib.util
import zlib
from collections.abc import Mapping
from typing import Any

from etils import epath

from score_jax.records import writes


def check_tracker(project: str) -> None:
    """Refuses a project where there is nothing to log to it with.

    Raises:
      ValueError: names the field.
    """
    if project and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"config.log.wandb = {project!r}: the wandb package is not installed; install it into .venv "
            "(uv pip install --python .venv/bin/python wandb), or leave the field empty"
        )


class Tracker:
    """One work directory's run in a project; of several hosts the first one has it."""

    def __init__(self, project: str, workdir: epath.Path, config: Mapping[str, Any]):
        """Opens it, or goes on with it: the same work directory is the same run."""
        self._run = None
        if project and writes():
            place = str(workdir.resolve()) if "://" not in str(workdir) else str(workdir)
            self._run = importlib.import_module("wandb").init(
                project=project,
                name=workdir.name,
                id=f"{workdir.name}-{zlib.crc32(place.encode()):08x}",
                resume="allow",
                config=dict(config),
            )

    def write(self, row: Mapping[str, Any]) -> None:
        """The numbers of one update."""
        if self._run:
            numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
            self._run.log(numbers, step=row["step"])

    def close(self) -> None:
        """No more numbers come."""
        if self._run:
            self._run.finish()
