"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): grade-school word problems with whole-number answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from score_jax.datasets import published
from score_jax.datasets.maths import MathsTask
from score_jax.datasets.rows import Example, Row, read_rows

_PUBLISHED = "published at github.com/openai/grade-school-math, folder grade_school_math/data"
_MARK = "####"  # stands before the answer, behind the worked solution


class Builder(published.Builder):
    """Rows: question, answer ("worked solution #### 18"). The rows have no ids; they are 'split/line'."""

    name = "gsm8k"

    def read(self, files: Mapping[str, str]) -> dict[str, list[Example]]:
        return {split: [_example(split, row) for row in read_rows(path)] for split, path in files.items()}


def _example(split: str, row: Row) -> Example:
    solution = row.get("answer")
    if solution.count(_MARK) != 1:
        raise ValueError(f"{row.name}: its answer has {solution.count(_MARK)} times {_MARK!r}, not once")
    gold = solution.partition(_MARK)[2].strip()
    return Example(id=f"{split}/{row.line}", text=row.get("question"), gold=gold, place=row.place)


class GSM8K(MathsTask):
    """GSM8K, zero-shot, answered and graded as MATH is."""

    builder = Builder
    wants: ClassVar = {
        "train": f"train.jsonl, {_PUBLISHED}",
        "validation": "a file of the same rows, kept apart from train.jsonl by yourself",
        "test": f"test.jsonl, {_PUBLISHED}",
    }
