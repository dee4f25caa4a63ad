"""The examples in docstrings give what they say."""

import doctest
import importlib

import pytest
from test_imports import MODULES

WITH_EXAMPLES = sorted(
    name for name, path in MODULES.items() if "    >>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_give_what_they_say(name):
    ran = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert ran.attempted > 0 and ran.failed == 0


def test_the_paper_s_numbers_have_examples():
    assert "score_jax.objectives" in WITH_EXAMPLES and "score_jax.metrics" in WITH_EXAMPLES
