"""HumanEval (Chen et al. 2021, arXiv 2107.03374): functions to write from a signature and a docstring."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Mapping
from typing import ClassVar

from score_jax import instructions
from score_jax.datasets import published
from score_jax.datasets.programs import ProgramsTask, definitions, parse, tests_to_json
from score_jax.datasets.rows import Example, Row, read_rows, unix
from score_jax.types import Problem, Tests


def shown_examples(source: str, entry: str) -> str:
    """The examples in the docstring of `entry` as assertions.

    What an example expects is compared as a value. An example that expects nothing, or something that is no
    Python expression, is left out: it does not say what is right.
    """
    docstrings = [ast.get_docstring(node) or "" for node in definitions(source) if node.name == entry]
    try:
        examples = doctest.DocTestParser().get_examples(docstrings[-1])
    except ValueError:  # no doctest, for all its >>>
        return ""
    return "\n".join(
        f"assert ({example.source.strip()}\n) == ({example.want.strip()}\n)"
        for example in examples
        if _is_expression(example.source) and _is_expression(example.want)
    )


def _is_expression(source: str) -> bool:
    try:
        parse(source.strip(), mode="eval")
    except ValueError:
        return False
    return True


class Builder(published.Builder):
    """Rows: task_id, prompt, entry_point, canonical_solution, test (which defines `check(candidate)`)."""

    name = "human_eval"

    def read(self, files: Mapping[str, str]) -> dict[str, list[Example]]:
        return {"test": [_example(row) for row in read_rows(files["human_eval"])]}


def _example(row: Row) -> Example:
    source, entry, hidden = unix(row.get("prompt")), row.get("entry_point"), unix(row.get("test"))
    for name, text, function in (("prompt", source, entry), ("test", hidden, "check")):
        try:
            defined = [node.name for node in definitions(text)]
        except ValueError as error:
            raise ValueError(f"{row.name}: its {name} is {error}; mend the row") from error
        if function not in defined:
            raise ValueError(f"{row.name}: its {name} does not define {function!r}; mend the row")
    return Example(
        id=row.get("task_id"),
        text=source,
        gold=source + unix(row.get("canonical_solution")),
        tests=tests_to_json(
            Tests(
                entry=(entry,),
                shown=shown_examples(source, entry),
                hidden=f"{hidden.rstrip()}\n\ncheck({entry})\n",
                setup=source,
            )
        ),
        place=row.place,
    )


class HumanEval(ProgramsTask):
    """HumanEval, zero-shot: a test split alone.

    The benchmark's own tests are all held back and alone decide, so that the accuracy is the published
    measure. The docstrings' examples are scored apart: most problems have none that could be run, and that
    of HumanEval/47 does not hold for its own reference program.
    """

    builder = Builder
    wants: ClassVar = {
        "human_eval": "HumanEval.jsonl.gz, published at github.com/openai/human-eval, folder data"
    }
    needs = ("human_eval",)
    graded = ("hidden",)

    def prompt(self, example: Example) -> str:
        return instructions.definition_prompt(example.text)

    def program(self, problem: Problem, answer: str) -> str:
        """The published signature, imports and helpers, then the answer: a whole function or a body alone."""
        setup = problem.tests.setup if problem.tests else ""
        return f"{setup}\n{answer}"
