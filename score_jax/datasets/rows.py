"""The rows of published files: read from JSONL, checked before anything is made of them."""

from __future__ import annotations

import dataclasses
import gzip
import json
import unicodedata
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath


@dataclasses.dataclass(frozen=True)
class Example:
    """One row of a prepared data set.

    Attributes:
      id: unique over all splits.
      text: the bare problem, without the words around it.
      gold: the right answer, or the reference program.
      level: difficulty, 1 is the easiest.
      subject: "" if the benchmark has none.
      tests: of a code problem `types.Tests` as JSON, else "".
      first: a given first attempt, "" if there is none.
      place: 'file:line' of the row that it was read from; for errors, not kept.
    """

    id: str
    text: str
    gold: str
    level: int = 1
    subject: str = ""
    tests: str = ""
    first: str = ""
    place: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a JSONL file.

    Attributes:
      place: 'file:line'.
      line: its number, from 1.
      values: the JSON object.
    """

    place: str
    line: int
    values: Mapping[str, Any]

    def get(self, field: str, kind: type = str) -> Any:
        """A field of the row.

        Raises:
          ValueError: it is missing or of another kind; names the row.
        """
        if field not in self.values:
            raise ValueError(f"{self.name}: has no field {field!r}; it has {', '.join(self.values)}")
        value = self.values[field]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{self.name}: {field} = {value!r}: must be of type {kind.__name__}")
        return value

    def lines(self, field: str) -> list[str]:
        """A field that is a list of texts, with line ends as Python writes them."""
        value = self.get(field, list)
        if not all(isinstance(item, str) for item in value):
            raise ValueError(f"{self.name}: {field} = {value!r}: must be a list of texts")
        return [unix(item) for item in value]

    @property
    def name(self) -> str:
        """The row in words: its place, and its id where it has one."""
        ids = [self.values[field] for field in ("unique_id", "task_id", "id") if field in self.values]
        return f"{self.place} (id {ids[0]!r})" if ids else self.place


def unix(text: str) -> str:
    """Text with line ends as Python writes them; some published programs have others."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_rows(path: str) -> list[Row]:
    """The rows of a JSONL file, unpacked if its name ends in .gz.

    Raises:
      ValueError: a line is not a JSON object; names the file and the line.
    """
    data = epath.Path(path).read_bytes()
    try:
        lines = (gzip.decompress(data) if path.endswith(".gz") else data).decode().split("\n")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read ({error}); fetch the file again") from error
    rows = []
    for number, line in enumerate(lines, start=1):  # not splitlines: JSON may hold other line separators
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{place}: not JSON ({error}); mend the line or fetch the file again") from error
        if not isinstance(values, dict):
            raise ValueError(f"{place}: holds no JSON object but {line.strip()[:40]!r}; mend the line")
        rows.append(Row(place, number, values))
    return rows


def same(text: str) -> str:
    """What two statements of one problem have in common: no case, no spaces, no maths mode."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().replace("$", "").split())


def check_examples(splits: Mapping[str, Sequence[Example]], check_gold: Callable[[str], object]) -> None:
    """Refuses rows that would spoil training or its measurement. Nothing is dropped.

    Args:
      splits: the examples of each split.
      check_gold: raises ValueError for a gold answer that the grader cannot read.

    Raises:
      ValueError: a text or a gold answer is empty or unreadable, two rows have one id, or one problem
        stands in two splits; names the rows.
    """
    seen: dict[str, Example] = {}
    for example in (example for examples in splits.values() for example in examples):
        name = f"{example.place} (id {example.id!r})"
        for field, value in (("id", example.id), ("problem", example.text), ("gold answer", example.gold)):
            if not value.strip():
                raise ValueError(f"{name}: its {field} is empty; write it into the row, or delete the row")
        if example.id in seen:
            other = seen[example.id].place
            raise ValueError(f"{name}: {other} has the same id; give each problem one of its own")
        seen[example.id] = example
        try:
            check_gold(example.gold)
        except ValueError as error:
            raise ValueError(
                f"{name}: its gold answer {example.gold!r} cannot be graded ({error}); "
                "write it in another way, or delete the row"
            ) from error
    _check_apart(splits)


def _check_apart(splits: Mapping[str, Sequence[Example]]) -> None:
    """Two tests can make two problems of one text: they belong to what a problem is."""
    met: dict[str, tuple[str, Example]] = {}
    for split, examples in splits.items():
        for example in examples:
            problem = same(example.text + example.tests)
            before, other = met.setdefault(problem, (split, example))
            if before != split:
                raise ValueError(
                    f"{example.place} (id {example.id!r}): this {split} problem is also in the {before} "
                    f"split, {other.place} (id {other.id!r}); delete one of the two rows"
                )
