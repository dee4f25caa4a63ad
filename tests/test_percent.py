"""Shares as text."""

import pytest

from score_jax.percent import DASH, MINUS, direction, from_to, percent, with_interval


@pytest.mark.parametrize(
    ("share", "signed", "text"),
    [
        (0.044, True, "+4.4"),
        (-0.112, True, f"{MINUS}11.2"),
        (-0.0001, True, "0.0"),
        (0.6, False, "60.0"),
    ],
)
def test_percent(share, signed, text):
    assert percent(share, signed) == text


def test_an_interval_stands_in_brackets():
    assert with_interval(0.712, 0.68, 0.741) == "71.2 [68.0, 74.1]"
    assert with_interval(0.001, -0.002, 0.014, signed=True) == f"+0.1 [{MINUS}0.2, +1.4]"


def test_no_dash_stands_beside_a_minus():
    assert from_to(0.68, 0.741) == f"68.0{DASH}74.1"
    assert from_to(-0.002, 0.014, signed=True) == f"{MINUS}0.2 to +1.4"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.01, 0.02, "up"), (-0.02, -0.01, "down"), (-0.01, 0.01, ""), (0.0, 0.02, ""), (-0.02, 0.0, "")],
)
def test_direction_is_that_of_the_whole_interval(low, high, word):
    assert direction(low, high) == word
