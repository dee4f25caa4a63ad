"""MATH (Hendrycks et al. 2021, arXiv 2103.03874) in the split of Lightman et al. 2023 (arXiv 2305.20050).

12,000 problems to train on, MATH500 to test on: the split of the SCoRe paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from score_jax.datasets import published
from score_jax.datasets.maths import MathsTask
from score_jax.datasets.rows import Example, Row, read_rows

_PUBLISHED = "published at github.com/openai/prm800k, folder prm800k/math_splits"

# Rows that are published without their answer, and the answer. For any n > 1 each k with 1 < k < n divides
# n! + k, so that no prime lies between n! + 1 and n! + n: choice (A), 0.
ERRATA = {"train/number_theory/7115.json": "0"}


class Builder(published.Builder):
    """Rows: problem, solution, answer, subject, level (1 to 5), unique_id."""

    name = "hendrycks_math"

    def read(self, files: Mapping[str, str]) -> dict[str, list[Example]]:
        return {split: [_example(row) for row in read_rows(path)] for split, path in files.items()}


def _example(row: Row) -> Example:
    id_, answer, level = row.get("unique_id"), row.get("answer"), row.get("level", int)
    if level not in range(1, 6):
        raise ValueError(f"{row.name}: level = {level}: must lie in 1 to 5")
    return Example(
        id=id_,
        text=row.get("problem"),
        gold=answer if answer.strip() else ERRATA.get(id_, ""),
        level=level,
        subject=row.get("subject"),
        place=row.place,
    )


class HendrycksMath(MathsTask):
    """MATH, zero-shot; levels 1 to 5, seven subjects."""

    builder = Builder
    wants: ClassVar = {
        "train": f"train.jsonl, {_PUBLISHED}",
        "validation": "a file of the same rows, kept apart from train.jsonl by yourself",
        "test": f"test.jsonl (MATH500), {_PUBLISHED}",
    }
