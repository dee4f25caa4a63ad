"""The files of a study's finished cells, DIR/ROW/SEED, read back."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import Float

from score_jax.config import config_of, judged_by
from score_jax.records import read_json, read_jsonl


@dataclasses.dataclass(frozen=True)
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
    _read: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def seeds(self, *rows: str) -> list[int]:
        """The seeds with which all of these rows are finished."""
        found = [{seed for row, seed in self.done if row == wanted} for wanted in rows]
        return sorted(set.intersection(*found)) if found else []

    def folder(self, row: str, seed: int) -> Path:
        """A cell's work directory."""
        return self.workdir / row / str(seed)

    def config_of(self, row: str) -> ml_collections.ConfigDict:
        """The config of a row's runs, which is that of all seeds but for them."""
        folder = self.folder(row, self.seeds(row)[0])
        return self._once(("config", row), lambda: config_of(folder))

    def last(self, row: str) -> str:
        """The checkpoint by which a row is judged."""
        return judged_by(self.config_of(row))

    def attempts(self, name: str, seed: int) -> list[dict]:
        """The evaluated problems of ROW or ROW.CHECKPOINT, by id.

        Raises:
          ValueError: the cell was evaluated otherwise since.
        """
        row, _, checkpoint = name.partition(".")
        checkpoint = checkpoint or self.last(row)

        def read() -> list[dict]:
            folder = self.folder(row, seed)
            every = read_jsonl(folder / "attempts.jsonl")
            # A cell that was made before its attempts had digests goes unchecked.
            left = read_json(folder / "done.json").get("attempts", {}).get(checkpoint)
            if left is not None and left != digests_of(every).get(checkpoint):
                raise ValueError(
                    f"{folder / 'attempts.jsonl'} is not as the study left it, but of an `evaluate` since; "
                    f"remove {folder / 'done.json'}, and the study evaluates the row anew"
                )
            return sorted((r for r in every if r["checkpoint"] == checkpoint), key=lambda r: r["id"])

        return self._once(("attempts", row, seed, checkpoint), read)

    def measured(self, measure: str, row: str, seed: int) -> dict[str, list[dict]]:
        """The rows of a further evaluation by the label of the checkpoint, {} where there is none."""
        folder = self.folder(row, seed)
        labels = read_json(folder / "done.json").get("measures", {}).get(measure, ())

        def read() -> dict[str, list[dict]]:
            # The first line is the draft's stamp.
            return {
                label: read_jsonl(folder / "measures" / measure / f"{label}.jsonl")[1:] for label in labels
            }

        return self._once((measure, row, seed), read)

    def training(self, row: str, seed: int) -> list[dict]:
        """The updates of a cell."""
        path = self.folder(row, seed) / "metrics.jsonl"
        return self._once(("training", row, seed), lambda: read_jsonl(path))

    def _once(self, what: Any, read: Callable[[], Any]) -> Any:
        """Reads and keeps it, for as long as these cells are looked at and no longer: it is much."""
        if what not in self._read:
            self._read[what] = read()
        return self._read[what]


def digests_of(rows: Sequence[Mapping]) -> dict[str, int]:
    """Of a cell's evaluated attempts, by their checkpoint: another one may be evaluated beside them."""
    found: dict[str, int] = {}
    for row in rows:
        line = json.dumps(row).encode()
        found[row["checkpoint"]] = zlib.crc32(line, found.get(row["checkpoint"], 0))
    return found


def rewards(rows: Sequence[Mapping]) -> Float[np.ndarray, "n N"]:
    """The rewards of evaluated problems."""
    return np.array([row["rewards"] for row in rows], float)
