"""MBPP (Austin et al. 2021, arXiv 2108.07732): short Python functions, three tests shown with each."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar

from score_jax import instructions
from score_jax.datasets import published
from score_jax.datasets.programs import ProgramsTask, parse, tests_of, tests_to_json
from score_jax.datasets.rows import Example, Row, read_rows, unix
from score_jax.rewards.sandbox.job import entry_names
from score_jax.types import Tests

PUBLISHED = "mbpp.jsonl, published at github.com/google-research/google-research, folder mbpp"

# The canonical split, by task_id.
SPLITS = {
    "prompt": range(1, 11),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}
SHOTS = (2, 3, 4)  # task_ids of the canonical 3-shot prompt


def split_of(row: Row) -> str:
    """The split that a row's task_id puts it into."""
    number = row.get("task_id", int)
    for split, numbers in SPLITS.items():
        if number in numbers:
            return split
    raise ValueError(f"{row.name}: task_id = {number}: the canonical splits hold 1 to 974")


def read_splits(path: str) -> dict[str, list[Example]]:
    """The examples of mbpp.jsonl by split."""
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for row in read_rows(path):
        splits[split_of(row)].append(_example(row))
    return splits


def _example(row: Row) -> Example:
    code, shown, hidden = unix(row.get("code")), row.lines("test_list"), row.lines("challenge_test_list")
    setup = unix(row.get("test_setup_code"))
    if not shown:
        raise ValueError(f"{row.name}: test_list is empty; a program cannot be graded without tests")
    try:
        for source in (setup, *shown, *hidden, code):
            parse(source)
    except ValueError as error:
        raise ValueError(f"{row.name}: {source!r} is {error}; mend the row") from error
    return Example(
        id=str(row.get("task_id", int)),
        text=row.get("text"),
        gold=code,
        tests=tests_to_json(
            Tests(
                entry=entry_of(row, code, [setup, *shown, *hidden]),
                shown="\n".join(shown),
                hidden="\n".join(hidden),
                setup=setup,
            )
        ),
        place=row.place,
    )


def entry_of(row: Row, code: str, tests: Sequence[str]) -> tuple[str, ...]:
    """The names that tests use of the reference program, in its order.

    Raises:
      ValueError: they use none; names the row.
    """
    try:
        return entry_names(code, *tests)
    except ValueError as error:
        raise ValueError(f"{row.name}: {error}; mend the row") from error


def few_shot(examples: Sequence[Example]) -> str:
    """Solved problems, one after the other, as they stand before the problem to solve."""
    return "".join(f"{question(shot)}{instructions.code_attempt(shot.gold)}\n\n" for shot in examples)


def question(example: Example) -> str:
    """One problem in the paper's frame, up to where its program begins."""
    return instructions.tests_prompt(example.text, tests_of(example).shown.split("\n"))


class Builder(published.Builder):
    """Rows: task_id, text, code, test_list, test_setup_code, challenge_test_list."""

    name = "mbpp"

    def read(self, files: Mapping[str, str]) -> dict[str, list[Example]]:
        return read_splits(files["mbpp"])


class MBPP(ProgramsTask):
    """MBPP with the canonical 3-shot prompt. The challenge tests, where a problem has some, are held back."""

    builder = Builder
    wants: ClassVar = {"mbpp": PUBLISHED}
    needs: ClassVar[tuple[str, ...]] = ("mbpp",)

    def prompt(self, example: Example) -> str:
        return few_shot(self.shots) + question(example)

    @functools.cached_property
    def shots(self) -> list[Example]:
        """The solved problems of the prompt.

        Raises:
          ValueError: the file lacks one.
        """
        by_id = {example.id: example for example in self.examples("prompt")}
        missing = [number for number in SHOTS if str(number) not in by_id]
        if missing:
            raise ValueError(
                f"{self.section}.mbpp = {self.files['mbpp']!r}: lacks task_id {missing[0]}, which the 3-shot "
                "prompt shows; give the whole file"
            )
        return [by_id[str(number)] for number in SHOTS]
