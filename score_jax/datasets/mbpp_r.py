"""MBPP-R (Ni et al. 2024): offline repair of wrong first programs that another model wrote.

The first attempt is given, so that the only attempt that is sampled, and scored as the first one, is the
correction: evaluate with config.evaluate.attempts = 1.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

from score_jax import instructions
from score_jax.datasets import mbpp, published
from score_jax.datasets.rows import Example, read_rows, unix


class Builder(published.Builder):
    """Rows: task_id (of MBPP), program (wrong); several rows may have one task_id.

    A row's id is 'task_id/k' for the k-th program of its problem; it stands in its problem's split.
    """

    name = "mbpp_r"

    def read(self, files: Mapping[str, str]) -> dict[str, list[Example]]:
        problems = mbpp.read_splits(files["mbpp"])
        known = {example.id: example for examples in problems.values() for example in examples}
        splits: dict[str, list[Example]] = {split: [] for split in mbpp.SPLITS}
        splits["prompt"] = problems["prompt"]
        times: Counter[str] = Counter()
        met: dict[tuple[str, str], str] = {}
        for row in read_rows(files["programs"]):
            number, program = str(row.get("task_id", int)), unix(row.get("program"))
            split = mbpp.split_of(row)
            if number not in known or split == "prompt":
                raise ValueError(f"{row.name}: task_id = {number} is no problem to solve of MBPP")
            if not program.strip():
                raise ValueError(f"{row.name}: its program is empty; delete the row")
            if (number, program) in met:
                raise ValueError(f"{row.name}: {met[number, program]} is the same; delete one row")
            met[number, program] = row.place
            times[number] += 1
            splits[split].append(
                dataclasses.replace(
                    known[number],
                    id=f"{number}/{times[number]}",
                    first=instructions.code_attempt(program.rstrip()),
                    place=row.place,
                )
            )
        return splits


class MBPPR(mbpp.MBPP):
    """MBPP with a wrong first attempt given to each problem."""

    builder = Builder
    wants: ClassVar = {
        "mbpp": mbpp.PUBLISHED,
        "programs": "a JSONL file with the wrong programs, one {task_id, program} per line",
    }
    needs = ("mbpp", "programs")
