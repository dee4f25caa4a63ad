"""The embedded default task: "I think of a number ..." riddles, and a check by substitution.

Guessing the number is hard for a small model; checking a guess by putting it in is easier. So a model
that reads its own check has what it needs to correct itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds

from score_jax.datasets.prepared import prepared
from score_jax.task import Demonstration, Task
from score_jax.types import Problem

FACTORS = range(2, 13)
ADDENDS = range(1, 31)
NUMBERS = range(1, 25)
_SPLIT_PAIRS = {"test": 44, "validation": 22}  # of the 330 pairs; the others are for training
_LEVELS = 3


def split_pairs(split: str) -> list[tuple[int, int]]:
    """The (factor, addend) pairs of `split`.

    Whole pairs are held out, not single riddles: checking the wrong guess g of a riddle states the
    equation of the riddle whose number is g. With the pair held out no training text, right or wrong,
    states a held-out equation. (4 · 3 + 5 may be trained and 3 · 4 + 5 tested: another riddle, with
    another answer.)
    """
    pairs = list(itertools.product(FACTORS, ADDENDS))
    order = np.random.default_rng(0).permutation(len(pairs))
    test, validation = _SPLIT_PAIRS["test"], _SPLIT_PAIRS["validation"]
    chosen = {
        "test": order[:test],
        "validation": order[test : test + validation],
        "train": order[test + validation :],
    }[split]
    return [pairs[index] for index in chosen]


def riddle(factor: int, addend: int, number: int) -> dict[str, str | int]:
    """One row of the data set. Level 1, 2, 3: the number is among the lowest, middle, highest third."""
    return {
        "id": f"{factor}x{number}+{addend}",
        "prompt": (
            f"I think of a number, multiply it by ${factor}$ and add ${addend}$. "
            f"I get ${factor * number + addend}$. What is my number?\n"
        ),
        "gold": str(number),
        "level": 1 + (number - 1) * _LEVELS // len(NUMBERS),
    }


class Builder(tfds.core.GeneratorBasedBuilder):
    """TensorFlow Datasets builder: deterministic train / validation / test splits, no download."""

    name = "number_riddles"
    VERSION = tfds.core.Version("2.0.0")  # to be raised with every change of what it yields

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features = {
            "id": text,
            "prompt": text,
            "gold": text,
            "level": tfds.features.Scalar(np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(split) for split in ("train", "validation", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        rows = [riddle(*pair, number) for pair in split_pairs(split) for number in NUMBERS]
        np.random.default_rng(1).shuffle(rows)
        yield from enumerate(rows)


class NumberRiddles(Task):
    """Riddles answered first and checked after: the check says whether the number was too small."""

    # What pre-training shows. Honest checks are learned from wrong answers, so most first ones are wrong.
    wrong_rate = 0.6  # of first attempts
    near_rate = 0.5  # of wrong answers that miss by at most 3; the rest may be anything
    # Of second attempts, whatever the first was; the rest is wrong anew. Most repeat, as language models do.
    copy_rate, solve_rate = 0.7, 0.2

    def problems(self, split: str) -> Sequence[Problem]:
        builder = prepared(lambda: Builder(data_dir=self.data_dir, file_format="array_record"))
        rows = builder.as_data_source(split=split)
        text = ("id", "prompt", "gold")
        return [Problem(**{key: row[key].decode() for key in text}, level=int(row["level"])) for row in rows]

    def demonstration(self, problem: Problem, rng: np.random.Generator) -> Demonstration:
        factor, addend, number = _parse_id(problem.id)
        first = self._wrong(number, rng) if rng.random() < self.wrong_rate else number
        chance = rng.random()
        if chance < self.copy_rate:
            second = first
        elif chance < self.copy_rate + self.solve_rate:
            second = number
        else:
            second = self._wrong(number, rng)
        attempts = tuple(solution(factor, addend, number, guess) for guess in (first, second))
        return Demonstration(attempts, (first == number, True))

    def critique(self, problem: Problem, attempt: str) -> str:
        answer = self.answer(attempt)
        if answer is None or not answer.value.isdecimal():
            return "There is no number."
        guess, number = int(answer.value), int(problem.gold)
        verdict = "too small" if guess < number else "too large" if guess > number else "right"
        return f"The number ${answer.value}$ is {verdict}."

    def _wrong(self, number: int, rng: np.random.Generator) -> int:
        while True:
            if rng.random() < self.near_rate:
                guess = number + int(rng.choice([-3, -2, -1, 1, 2, 3]))
            else:
                guess = int(rng.choice(NUMBERS))
            if guess != number and guess in NUMBERS:
                return guess


def solution(factor: int, addend: int, number: int, guess: int) -> str:
    """An attempt that answers `guess` and checks it honestly."""
    product, total = factor * guess, factor * guess + addend
    verdict = "too small" if guess < number else "too large" if guess > number else "as it should be"
    return (
        f"Final Answer: The final answer is ${guess}$. "
        f"Check: multiplied it is ${product}$, added up it is ${total}$, {verdict}."
    )


def _parse_id(id_: str) -> tuple[int, int, int]:
    factor, _, rest = id_.partition("x")
    number, _, addend = rest.partition("+")
    return int(factor), int(addend), int(number)
