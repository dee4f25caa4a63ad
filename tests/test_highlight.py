"""Tokens on colours: every character of a transcript is there once, escaped, under its own number."""

import re

import numpy as np
import pytest

from score_jax.chat import plain
from score_jax.highlight import highlighted, pieces
from score_jax.percent import MINUS
from score_jax.tokenizer import train_tokenizer
from score_jax.types import CONTEXT, PADDING

TEXTS = ["What is 1 + 1?\n", "It is <b>$3$</b> & no more.", "Look again.\n", "It is 2."]


@pytest.fixture(scope="module")
def format(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return plain(train_tokenizer(TEXTS * 3, path, vocab_size=60))


@pytest.fixture(scope="module")
def row(format):
    """The tokens of an episode and who wrote them, padding before and between."""
    prompt, first, again, second = TEXTS
    parts = [
        ([format.pad] * 2, PADDING),
        (format.prompt(prompt), CONTEXT),
        (format.attempt(first), 1),
        ([format.pad], PADDING),
        (format.instruction(again), CONTEXT),
        (format.attempt(second), 2),
    ]
    tokens = np.array([token for ids, _ in parts for token in ids])
    return tokens, np.array([author for ids, author in parts for _ in ids])


def test_the_pieces_are_the_text(format, row):
    tokens, attempt = row
    found = pieces(format, tokens, attempt)
    assert len(found) == len(tokens)
    end = "\N{BLACK SQUARE}"
    assert "".join(found) == f"{TEXTS[0]}{TEXTS[1]}{end}{TEXTS[2]}{TEXTS[3]}{end}"
    assert all(piece == "" for piece, by in zip(found, attempt, strict=True) if by == PADDING)


def test_each_sampled_token_stands_under_its_number(format, row):
    tokens, attempt = row
    texts = pieces(format, tokens, attempt)
    values = np.linspace(-3, 1, len(tokens))
    page = highlighted("A <title>", texts, attempt, values)
    assert "A &lt;title&gt;" in page and "<b>$" not in page
    assert "$" in page and "$" not in page.replace("<span>$</span>", "")
    numbers = [float(number) for number in re.findall(r"<rt[^>]*>(.*?)</rt>", page.replace(MINUS, "-"))]
    np.testing.assert_allclose(numbers, values[attempt > CONTEXT], atol=0.0051)
    colours = re.findall(r"background:rgba\(([\d,]+),([\d.]+)\)", page)
    assert len({hue for hue, _ in colours}) == 2
    shares = np.array([float(opacity) for _, opacity in colours])
    wanted = np.abs(values[attempt > CONTEXT]) / np.abs(values[attempt > CONTEXT]).max()
    np.testing.assert_allclose(shares / shares.max(), wanted, atol=0.02)


def test_a_common_scale_makes_transcripts_comparable(format, row):
    tokens, attempt = row
    texts = pieces(format, tokens, attempt)
    faint = highlighted("", texts, attempt, np.full(len(tokens), 1.0), deepest=10.0)
    assert {float(x) for x in re.findall(r"background:rgba\([\d,]+,([\d.]+)\)", faint)} == {0.06}
    assert "<ruby" not in highlighted("", texts, attempt)
    assert "\N{MINUS SIGN}0" not in highlighted("", texts, attempt, np.full(len(tokens), -1e-9))
