"""Times as text."""

import pytest

from score_jax.duration import brief, hours_and_minutes


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12e-5, "0.12 ms"),
        (0.5, "500 ms"),
        (1.5, "1.5 s"),
        (90.0, "1.5 min"),
        (7200.0, "2 h"),
        (864e3, "10 days"),
    ],
)
def test_brief_times(seconds, text):
    assert brief(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3725.0, "1 h 2 min"), (130.0, "2 min"), (0.0, "0 min"), (7170.0, "2 h 0 min")]
)
def test_long_times(seconds, text):
    assert hours_and_minutes(seconds) == text
