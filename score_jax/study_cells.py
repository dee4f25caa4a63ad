"""The files of a study's finished cells, DIR/ROW/SEED, read back."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np
from jaxtyping import Float

from score_jax.config import config_of
from score_jax.records import read_json, read_jsonl


@dataclasses.dataclass(frozen=True, eq=False)  # so that methods can keep what they have read
class Cells:
    """Which cells are finished, and what their files say.

    A name is ROW, or ROW.CHECKPOINT for another checkpoint than that by which the row is judged.

    Attributes:
      config: the study's.
      workdir: where it lies.
      done: (row, seed) of the finished cells.
    """

    config: ml_collections.ConfigDict
    workdir: Path
    done: tuple[tuple[str, int], ...]

    def seeds(self, *rows: str) -> list[int]:
        """The seeds with which all of these rows are finished."""
        found = [{seed for row, seed in self.done if row == wanted} for wanted in rows]
        return sorted(set.intersection(*found)) if found else []

    def folder(self, row: str, seed: int) -> Path:
        """A cell's work directory."""
        return self.workdir / row / str(seed)

    def last(self, row: str) -> str:
        """The checkpoint by which a row is judged: its last stage's, the base where there is none."""
        config = config_of(self.folder(row, self.seeds(row)[0]))
        return config[config.stages[-1]].name if config.stages else "base"

    def attempts(self, name: str, seed: int) -> list[dict]:
        """The evaluated problems of ROW or ROW.CHECKPOINT, by id."""
        row, _, checkpoint = name.partition(".")
        return self._attempts(row, seed, checkpoint or self.last(row))

    @functools.cache  # noqa: B019 - one study is read at a time
    def _attempts(self, row: str, seed: int, checkpoint: str) -> list[dict]:
        rows = read_jsonl(self.folder(row, seed) / "attempts.jsonl")
        return sorted((r for r in rows if r["checkpoint"] == checkpoint), key=lambda r: r["id"])

    @functools.cache  # noqa: B019
    def measured(self, measure: str, row: str, seed: int) -> dict[str, list[dict]]:
        """The rows of a further evaluation by the label of the checkpoint, {} where there is none."""
        folder = self.folder(row, seed)
        labels = read_json(folder / "done.json").get("measures", {}).get(measure, ())
        # The first line is the draft's stamp.
        return {label: read_jsonl(folder / "measures" / measure / f"{label}.jsonl")[1:] for label in labels}

    @functools.cache  # noqa: B019
    def training(self, row: str, seed: int) -> list[dict]:
        """The updates of a cell."""
        return read_jsonl(self.folder(row, seed) / "metrics.jsonl")


def rewards(rows: Sequence[Mapping]) -> Float[np.ndarray, "n N"]:
    """The rewards of evaluated problems."""
    return np.array([row["rewards"] for row in rows], float)
