"""Published benchmark files: prepared by TensorFlow Datasets, served as a task.

A benchmark is a `Builder`, which says how its files' rows become examples, and a `PublishedTask`, which says
what words stand around an example and how an attempt at it is graded.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from score_jax.datasets.prepared import prepared
from score_jax.datasets.rows import Example, check_examples
from score_jax.task import Task
from score_jax.types import Problem

_TEXTS = ("id", "text", "gold", "subject", "tests", "first")


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

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
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

    def problems(self, split: str) -> Sequence[Problem]:
        return [self.problem(example) for example in self.examples(split)]

    def examples(self, split: str) -> Sequence[Example]:
        """The bare rows of `split`.

        Raises:
          ValueError: the files are not there, hold no such split, or a row of theirs is refused.
        """
        builder = self._builder
        if split not in builder.info.splits:
            self._refuse_split(split, list(builder.info.splits))
        rows = builder.as_data_source(split=split)
        return [
            Example(**{name: row[name].decode() for name in _TEXTS}, level=int(row["level"])) for row in rows
        ]

    @functools.cached_property
    def _builder(self) -> Builder:
        self._check_files()
        return prepared(lambda: self.builder(self.files, self.check_gold, self.data_dir))

    def _check_files(self) -> None:
        for name in self.needs or (() if self.files else self.wants):
            if name not in self.files:
                raise ValueError(f"{self.section}.{name} = '': {self._mend(name)}")
        for name, path in self.files.items():
            if not epath.Path(path).is_file():
                raise ValueError(
                    f"{self.section}.{name} = {path!r}: there is no such file; {self._mend(name)}"
                )

    def _mend(self, name: str) -> str:
        return f"give the path of {self.wants[name]}"

    def _refuse_split(self, split: str, found: Sequence[str]) -> None:
        here = f"{type(self).__name__} has no {split} split"
        if split in self.wants and split not in self.files:
            raise ValueError(f"{self.section}.{split} = '': {here}; {self._mend(split)}")
        name, path = next(iter(self.files.items()))
        mend = f"the splits there are {', '.join(found)}" if found else "it holds no rows"
        raise ValueError(f"{self.section}.{name} = {path!r}: {here}; {mend}")
