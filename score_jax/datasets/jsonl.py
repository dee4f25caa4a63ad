"""Maths problems in JSONL files: Functional MATH, MathOdyssey (App. A.1 of the SCoRe paper), your own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from score_jax.datasets import published
from score_jax.datasets.maths import MathsTask
from score_jax.datasets.rows import Example, Row, read_rows

_ROWS = "one JSON object per line, with problem and answer (and id, level, subject where you have them)"


class Builder(published.Builder):
    """Rows: problem, answer; optional id ('split/line' where absent), level (from 1), subject."""

    name = "jsonl"

    def read(self, files: Mapping[str, str]) -> dict[str, list[Example]]:
        return {split: [_example(split, row) for row in read_rows(path)] for split, path in files.items()}


def _example(split: str, row: Row) -> Example:
    level = row.get("level", int) if "level" in row.values else 1
    if level < 1:
        raise ValueError(f"{row.name}: level = {level}: 1 is the easiest")
    return Example(
        id=row.get("id") if "id" in row.values else f"{split}/{row.line}",
        text=row.get("problem"),
        gold=row.get("answer"),
        level=level,
        subject=row.get("subject") if "subject" in row.values else "",
        place=row.place,
    )


class Jsonl(MathsTask):
    """Any maths problems, zero-shot, answered and graded as MATH is."""

    builder = Builder
    wants: ClassVar = {
        split: f"a file of {split} problems: {_ROWS}" for split in ("train", "validation", "test")
    }
