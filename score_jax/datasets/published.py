"""Published benchmark files: read and checked row by row, prepared by TensorFlow Datasets, served as a task.

A benchmark is a `Builder`, which says how its files' rows become examples, and a `PublishedTask`, which says
what words stand around an example and how an attempt at it is graded.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import gzip
import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from score_jax.task import Task
from score_jax.types import Problem


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


_TEXTS = ("id", "text", "gold", "subject", "tests", "first")


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
    except (OSError, EOFError, ValueError) as error:
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


class Builder(tfds.core.GeneratorBasedBuilder):
    """TensorFlow Datasets builder over files that the user has.

    What is prepared is named after the files' content, so that a changed file is prepared anew and an old
    one is found again.

    Args:
      files: paths by their names in config.files.
      check_gold: as `check_examples` takes it.
      data_dir: where prepared data sets lie; None is TensorFlow Datasets' own default.
    """

    VERSION = tfds.core.Version("1.0.0")  # to be raised with every change of what `read` yields

    def __init__(
        self, files: Mapping[str, str], check_gold: Callable[[str], object], data_dir: str | None = None
    ):
        self.files, self.check_gold = dict(files), check_gold
        config = tfds.core.BuilderConfig(name=digest(files), version=self.VERSION)
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    @abc.abstractmethod
    def read(self, files: Mapping[str, str]) -> dict[str, list[Example]]:
        """The examples of each split, read from the files.

        Raises:
          ValueError: a row is not as it should be; names the row.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: tfds.features.Text() for name in _TEXTS}
        features["level"] = tfds.features.Scalar(np.int32)
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        splits = {split: examples for split, examples in self.read(self.files).items() if examples}
        check_examples(splits, self.check_gold)  # all of it before anything is written
        return {split: self._generate_examples(examples) for split, examples in splits.items()}

    def _generate_examples(self, examples: Sequence[Example]) -> Iterator[tuple[int, dict]]:
        for index, example in enumerate(examples):
            values = dataclasses.asdict(example)
            del values["place"]
            yield index, values


def digest(files: Mapping[str, str]) -> str:
    """A name for the files' content: the same wherever they lie."""
    hash_of = lambda path: hashlib.sha256(epath.Path(path).read_bytes()).hexdigest()
    parts = [f"{name} {hash_of(path)}" for name, path in sorted(files.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


class PublishedTask(Task):
    """A task whose problems stand in published files."""

    #: Reads the files' rows.
    builder: ClassVar[type[Builder]]
    #: Files without which there is nothing; of those not named here one at least is to be given.
    needs: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def problem(self, example: Example) -> Problem:
        """An example with the words around it."""

    @abc.abstractmethod
    def check_gold(self, gold: str) -> None:
        """ValueError if the grader cannot read this gold answer."""

    @functools.cache  # noqa: B019 - one task lives as long as the process
    def problems(self, split: str) -> Sequence[Problem]:
        return [self.problem(example) for example in self.examples(split)]

    @functools.cache  # noqa: B019
    def examples(self, split: str) -> Sequence[Example]:
        """The bare rows of `split`.

        Raises:
          ValueError: the files are not there, hold no such split, or a row of theirs is refused.
        """
        prepared = self._prepared
        if split not in prepared.info.splits:
            self._refuse_split(split, list(prepared.info.splits))
        rows = prepared.as_data_source(split=split)
        return [
            Example(**{name: row[name].decode() for name in _TEXTS}, level=int(row["level"])) for row in rows
        ]

    @functools.cached_property
    def _prepared(self) -> Builder:
        self._check_files()
        tfds.disable_progress_bar()
        builder = self.builder(self.files, self.check_gold, self.data_dir)
        builder.download_and_prepare()
        return builder

    def _check_files(self) -> None:
        for name in self.needs or (() if self.files else self.wants):
            if name not in self.files:
                raise ValueError(f"config.files.{name} = '': {self._mend(name)}")
        for name, path in self.files.items():
            if not epath.Path(path).is_file():
                raise ValueError(f"config.files.{name} = {path!r}: there is no such file; {self._mend(name)}")

    def _mend(self, name: str) -> str:
        return f"give the path of {self.wants[name]}"

    def _refuse_split(self, split: str, found: Sequence[str]) -> None:
        here = f"{type(self).__name__} has no {split} split"
        if split in self.wants and split not in self.files:
            raise ValueError(f"config.files.{split} = '': {here}; {self._mend(split)}")
        name, path = next(iter(self.files.items()))
        mend = f"the splits there are {', '.join(found)}" if found else "it holds no rows"
        raise ValueError(f"config.files.{name} = {path!r}: {here}; {mend}")
