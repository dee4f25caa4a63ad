"""The one final answer of an attempt, and texts that try to give several."""

import pytest
from pace import cpu_seconds

from score_jax.rewards import math_answer
from score_jax.rewards.math_answer import SEVERAL, final_answer
from score_jax.rewards.math_reward import quick

MARKER = "Final Answer: The final answer is ${}$. I hope it is correct."


def value(text: str) -> str | None:
    found = final_answer(text)
    return found and found.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"So $x = \boxed{5}$.", "5"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{7}", "7"),
        (r"\boxed {  7 }", "7"),
        ("\\boxed{(1,\n2)}", "(1, 2)"),
        (MARKER.format("5"), "5"),
        (MARKER.format(r"\boxed{5}"), "5"),
        (MARKER.format(r"\$18.90"), r"\$18.90"),
        # A box before the marker says the same.
        (r"Hence \boxed{12}. " + MARKER.format("12"), "12"),
        # Said twice, or in two notations, is one answer.
        (r"\boxed{5} OR \boxed{5}", "5"),
        (r"\boxed{15\frac{39}{40}} or \boxed{\frac{639}{40}}", r"\frac{639}{40}"),
        (MARKER.format(r"\frac12") + MARKER.format(r"\dfrac{1}{2}"), r"\dfrac{1}{2}"),
        (MARKER.format("5") + r" \boxed{5}", "5"),
        (r"\boxed{6 or 7}", "6 or 7"),  # for the grader to judge
        # Neither marker nor box.
        ("The answer is 5.", None),
        ("", None),
        ("The final answer is $5$.", None),
        (r"\boxed{5", None),
        (r"boxed{5}", None),
        (r"\boxed 5", None),
        ("Final Answer: The final answer is $5", None),
        ("Final Answer: The final answer is $5\n6$", None),
        (r"\boxed{5} and \boxed{6", "5"),
        (r"\boxed{6 and \boxed{5}", "5"),
    ],
)
def test_one_answer_is_read(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{6} or \boxed{7}",
        r"\boxed{7} or \boxed{6} or \boxed{7}",
        "".join(rf"\boxed{{{i}}}" for i in range(100)),
        MARKER.format("6") + MARKER.format("7"),
        MARKER.format("7") + MARKER.format("6") + MARKER.format("7"),
        MARKER.format("6") + r" But \boxed{7}.",
        r"First \boxed{7}. " + MARKER.format("6"),
        MARKER.format(r"\boxed{6}") + r" But \boxed{7}.",
        MARKER.format("6") + r" \boxed{6} \boxed{7}",
        MARKER.format(r"\boxed{6}\boxed{7}") + MARKER.format("6"),
        r"\boxed{6} \boxed{}",
    ],
)
def test_several_answers_have_a_value_that_no_grader_reads(text):
    assert SEVERAL in value(text)


def test_several_answers_can_be_told_apart():
    """Whether an answer changed between attempts is a metric, and 'both' is another answer than either."""
    assert value(r"\boxed{6}\boxed{7}") != value(r"\boxed{6}\boxed{8}")
    assert value(r"\boxed{6}\boxed{7}") == value(r"\boxed{6} \boxed{7}")


def test_an_honest_answer_never_holds_the_separator():
    assert SEVERAL not in value("\\boxed{6\n\n7}")


def test_the_span_is_that_of_the_answer():
    text = r"First \boxed{12}. " + MARKER.format("12")
    answer = final_answer(text)
    assert text[answer.start : answer.stop] == "12"
    assert answer.decided == len(text) + 1  # that it ended there counts, too


def test_what_follows_can_change_every_answer():
    """Why nothing is decided before the end."""
    for text in (r"\boxed{5}", MARKER.format("5")):
        assert value(text) == "5"
        assert value(text + r"\boxed{6}") != "5"


def test_boxes_are_outermost_and_balanced():
    text = r"\boxed{a\boxed{b}{c}} } { \boxed{\}} \\boxed{d}"
    assert [text[slice(*span)] for span in math_answer.boxes(text)] == [r"a\boxed{b}{c}", r"\}"]


@pytest.mark.parametrize("unit", ["\n", " $ ", "$, ", " or "])
def test_looking_for_a_second_value_takes_linear_time(unit):
    text = r"It is $\boxed{5}" + unit * 20_000
    assert final_answer(text).value == "5"
    assert cpu_seconds(lambda: final_answer(text)) < 1.0


@pytest.mark.parametrize(
    "unit",
    [
        r"\boxed{",
        "}",
        r"\boxed{1}",
        r"\boxed{\boxed{",
        "$",
        "Final Answer: The final answer is $",
        MARKER.format(r"\boxed{1}"),
    ],
)
def test_reading_takes_linear_time(unit):
    """A quarter of a megabyte of anything: a text four times as long takes about four times as long."""

    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        return cpu_seconds(lambda: final_answer(text))

    assert seconds(1 << 18) < 8 * seconds(1 << 16) + 0.2


@pytest.mark.parametrize(
    "text",
    [
        "Final Answer: The final answer is $6$ or $7$. I hope it is correct.",
        "Final Answer: The final answer is $6$, 7.",
        r"Final Answer: The final answer is $6$ and $\frac12$",
        r"It is \boxed{6} or 7.",
        r"It is $\boxed{6}$, or $x+1$.",
    ],
)
def test_a_value_joined_to_the_last_one_makes_several(text):
    answer = final_answer(text)
    assert SEVERAL in answer.value
    assert quick("6", answer.value).reward == 0


@pytest.mark.parametrize(
    "text",
    [
        "Final Answer: The final answer is $6$. I hope it is correct.",
        "Final Answer: The final answer is $6$, I hope.",
        r"It is \boxed{6} apples, or so.",
        r"It is \boxed{6}. And 7 was wrong.",
        r"It is \boxed{6}, or $6.0$.",
    ],
)
def test_other_words_after_it_do_not(text):
    assert final_answer(text).value == "6"
