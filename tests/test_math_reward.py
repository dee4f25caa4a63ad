"""Answers against gold answers: what is right, what is not, and what nobody can tell within a second."""

import collections
import json
import random
import re
import threading
import time
from fractions import Fraction

import math_pairs
import pytest
from pace import cpu_seconds
from real_data import real_file

from score_jax.rewards import math_form, math_notation, math_reward
from score_jax.rewards.math_answer import SEVERAL, final_answer
from score_jax.rewards.math_reward import MathGrader, Verdict

OPEN_GOLD = "2^{100}-2"  # its own form allows powers, so that what is compared with it is worked out


@pytest.fixture(scope="module")
def grader():
    # Twenty times the time: what these tests are about does not depend on how busy the machine is.
    with MathGrader(workers=2, limit_s=20.0) as made:
        yield made


def pairs_of(groups: dict) -> list:
    return [pytest.param(*pair, id=f"{name}:{i}") for name in groups for i, pair in enumerate(groups[name])]


def grade(grader: MathGrader, gold: str, answer: str | None) -> Verdict:
    return grader.grade([gold], [answer])[0]


def test_the_table_is_large_enough():
    right, wrong = (sum(map(len, groups.values())) for groups in (math_pairs.RIGHT, math_pairs.WRONG))
    assert right >= 60
    assert wrong >= 60
    assert len(math_pairs.FALSE_NEGATIVES) <= 2


@pytest.mark.parametrize(("gold", "answer"), pairs_of(math_pairs.RIGHT))
def test_right_answers_are_paid(grader, gold, answer):
    assert grade(grader, gold, answer) is Verdict.RIGHT


@pytest.mark.parametrize(("gold", "answer"), pairs_of(math_pairs.WRONG))
def test_wrong_answers_are_not(grader, gold, answer):
    assert grade(grader, gold, answer) in (Verdict.WRONG, Verdict.REFUSED)


@pytest.mark.parametrize(("gold", "answer"), math_pairs.FALSE_NEGATIVES)
def test_what_the_policies_cost(grader, gold, answer):
    """Kept as a test, so that the list stays true."""
    assert grade(grader, gold, answer) is Verdict.WRONG


def test_every_gold_answer_of_the_table_can_be_graded(grader):
    for groups in (math_pairs.RIGHT, math_pairs.WRONG):
        for gold, _ in [pair for pairs in groups.values() for pair in pairs]:
            grader.check_gold(gold)
            assert grade(grader, gold, gold) is Verdict.RIGHT


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (None, Verdict.MISSING),
        ("", Verdict.REFUSED),
        (" ", Verdict.REFUSED),
        ("5" + SEVERAL + "5", Verdict.REFUSED),
        ("5" + " " * math_form.MAX_LENGTH, Verdict.REFUSED),
        ("(" * 20 + "5" + ")" * 20, Verdict.REFUSED),
        ("5)", Verdict.REFUSED),
        ("4", Verdict.WRONG),
        ("5", Verdict.RIGHT),
    ],
)
def test_what_became_of_an_answer_can_be_counted(grader, answer, verdict):
    assert grade(grader, "5", answer) is verdict
    assert verdict.reward == (1.0 if verdict is Verdict.RIGHT else 0.0)


def test_several_answers_are_never_right(grader):
    """Not even where the gold answer is the list of both."""
    answer = final_answer(r"\boxed{6} or \boxed{7}").value
    assert [grade(grader, gold, answer) for gold in ("6", "7", "6,7")] == [Verdict.REFUSED] * 3


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ("", "is empty"),
        ("x" * 501, "has 501 characters; at most 500"),
        ("{" * 13 + "}" * 13, "nests 13 brackets; at most 12"),
        ("(1,2", "unbalanced brackets"),
        ("1,,2", "is not well formed"),
        ("1 2", "is not well formed"),
        (r"3 \frac{x", "unbalanced"),
        (r"x + \foo + ?", "cannot be parsed"),
        ("x +", "cannot be parsed"),
        ("6\n7", "several lines"),
    ],
)
def test_gold_answers_that_cannot_be_graded_are_named(grader, gold, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        grader.check_gold(gold)
    assert "\n" not in str(error.value)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="workers = 0"):
        MathGrader(workers=0)
    with pytest.raises(ValueError, match=r"limit_s = -1"):
        MathGrader(limit_s=-1.0)
    with MathGrader() as grader, pytest.raises(ValueError, match="2 golds and 1 answers"):
        grader.grade(["1", "2"], ["1"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-3", -3),
        ("+3", 3),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("10 080", 10080),
        (r"-\frac{1}{2}", Fraction(-1, 2)),
        (r"\frac{-1}{-2}", Fraction(1, 2)),
        (r"-1\frac{1}{2}", Fraction(-3, 2)),
        ("1 1/2", Fraction(3, 2)),
        (r"0.1\overline{6}", Fraction(1, 6)),
        (r"1.\overline{3}", Fraction(4, 3)),
        (r"2.5 \times 10^{-3}", Fraction(1, 400)),
        (r"2\frac{3}{2}", None),  # a sum or a product
        (r"\frac{1}{0}", None),
        ("1,23", None),
        ("0,123", None),
        ("1e5", None),
        ("--3", None),
        ("٣", None),
        ("3²", None),
        ("", None),
        ("-", None),
    ],
)
def test_literal_numbers(text, value):
    found = math_notation.number(math_notation.clean(text))
    assert (found and found[0]) == value


def test_cheap_pairs_need_no_worker():
    with MathGrader() as grader:
        verdicts = grader.grade(
            ["5", "1,2", "90^\\circ", r"\text{A}", "5"], ["5", "2,1", "90", "A", r"\sum n"]
        )
        assert verdicts == [Verdict.RIGHT] * 4 + [Verdict.WRONG]
        assert not grader._pool.workers


# --- MATH500 -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def math500():
    path = real_file("math500/test.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_math500_gold_answers_equal_themselves_and_their_solutions(grader, math500):
    golds = [row["answer"] for row in math500]
    boxed = [final_answer(row["solution"]).value for row in math500]
    assert len(golds) == 500
    assert set(grader.grade(golds, golds)) == {Verdict.RIGHT}
    assert set(grader.grade(golds, boxed)) == {Verdict.RIGHT}


def test_math500_gold_answers_can_be_graded(grader, math500):
    for row in math500:
        grader.check_gold(row["answer"])


def plain_value(text: str) -> str | Fraction:
    """An independent, crude reading: without type, units and separators; a number where it is one."""
    text = re.sub(
        r"\\(text|mbox) *\{[^}]*\}|\^\\circ|\\\$|\\!|\\left|\\right|(?<=\d), ?(?=\d{3})| ", "", text
    )
    text = re.sub(r"^[a-z]=", "", text.replace("dfrac", "frac"))
    text = re.sub(r"\\frac\{?(-?\d+)\}?\{?(\d+)\}?$", r"\1/\2", re.sub(r"\\frac(\d)(\d)$", r"\1/\2", text))
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return text


def test_math500_shuffled_gold_answers_differ(grader, math500):
    golds = [row["answer"] for row in math500]
    order = random.Random(0).sample(range(len(golds)), len(golds))
    # Each gold against that of the next problem in a random order: none against itself.
    pairs = [(golds[i], golds[j]) for i, j in zip(order, order[1:] + order[:1], strict=True)]
    pairs = [(gold, other) for gold, other in pairs if plain_value(gold) != plain_value(other)]
    assert len(pairs) > 450
    paid = [
        pair
        for pair, verdict in zip(pairs, grader.grade(*zip(*pairs, strict=True)), strict=True)
        if verdict.reward
    ]
    assert not paid


# --- Denial of service -------------------------------------------------------------------------------

HOSTILE = [
    (OPEN_GOLD, "9^{9^{9^{9^{9}}}}"),
    (OPEN_GOLD, "2^{2^{2^{2^{2^{2}}}}}-2"),
    (OPEN_GOLD, "9^{9999999999}"),
    ("x^2", "x^{9^{9^{9^9}}}"),
    ("(x+1)^2", "(x+1)^{99999999}"),
    ("(x+y)(x-y)", "(x+y+1)^{5000}(x-y)^{5000}"),
    ("xyz", "x^{y^{z^{x^{y^{z^{x^{y^{z}}}}}}}}"),
    ("10!", "9999999999!"),
    ("10!", "(10!)!"),
    ("10!", "((((9!)!)!)!)!"),
    ("10!", r"10!\cdot 10^{10^{10}}!"),
    (r"\binom{10}{3}", r"\binom{9999999999}{4999999999}"),
    (r"\binom{10}{3}", r"\binom{10^{10}}{10^9}"),
    (r"\binom{n}{k}", r"\binom{\binom{999999}{99999}}{99}"),
    (r"\sum_{k=1}^{n} k^{2}", r"\sum_{k=1}^{99999999} k^{k}"),
    (r"\prod_{k=1}^{n} k", r"\prod_{k=1}^{99999999} (k^k+1)"),
    (r"\int_0^1 e^{-x^2} dx", r"\int_0^1 e^{e^{e^{-x^2}}} dx"),
    (r"\gcd(12,x)", r"\gcd(10^{10^{10}},x)"),
    (r"\sqrt{2}", r"\sqrt{2+" * 2000 + "2" + "}" * 2000),
    (r"\sqrt{2}", r"\sqrt{" * 11 + "2" + "}" * 11),
    ("x", "(" * 4000 + "x" + ")" * 4000),
    ("x", r"\frac{1}{" * 4000 + "x" + "}" * 4000),
    ("x", "{" * 4000),
    ("7", "9" * 1_000_000),
    ("7", r"\frac{" + "9" * 240 + "}{" + "7" * 240 + "}"),
    ("x+1", "9" * 490 + "x"),
    (r"\log 2", r"\log " * 60 + "2"),
    (r"\sin x", r"\sin " * 80 + "x"),
    ("x+1", "+".join(f"x_{{{i}}}" for i in range(60))),
    ("x+1", "(" + "x+1)(" * 70 + "x)"),
    ("x^{100000000}+1", "(x^{50000000}+1)^{2}-2x^{50000000}"),
    (r"\frac{1}{x}", "+".join(rf"\frac{{1}}{{x+{i}}}" for i in range(1, 35))),
]


def attack(grader: MathGrader, seconds: list[float], verdicts: list[Verdict], healthy: list[Verdict]) -> None:
    for gold, answer in HOSTILE:
        start = time.monotonic()
        verdicts.append(grade(grader, gold, answer))
        seconds.append(time.monotonic() - start)
        healthy.append(grade(grader, r"1+\pi", r"\pi+1"))


@pytest.mark.parametrize("threaded", [False, True])
def test_hostile_answers_end_soon_and_leave_the_pool_healthy(threaded):
    seconds, verdicts, healthy = [], [], []
    with MathGrader(workers=1) as grader:
        grade(grader, r"1+\pi", r"\pi+1")  # the worker has started
        if threaded:
            thread = threading.Thread(target=attack, args=(grader, seconds, verdicts, healthy))
            thread.start()
            thread.join()
        else:
            attack(grader, seconds, verdicts, healthy)
    assert len(seconds) == len(HOSTILE) >= 25
    assert max(seconds) < 2.0
    assert Verdict.RIGHT not in verdicts
    assert set(healthy) == {Verdict.RIGHT}
    # The table is hostile: much of it is stopped only by the clock, some by the caps.
    counts = collections.Counter(verdicts)
    assert counts[Verdict.TIMEOUT] >= 8
    assert counts[Verdict.REFUSED] >= 4


def test_running_out_of_memory_is_counted(grader):
    assert grade(grader, r"\gcd(12,x)", r"\gcd(10^{10^{10}},x)") is Verdict.CRASHED


def test_a_hostile_answer_occupies_its_own_worker_alone():
    golds = [OPEN_GOLD] + [rf"{i}\pi+1" for i in range(40)]
    answers = ["9^{9999999999}"] + [rf"1+{i}\pi" for i in range(40)]
    with MathGrader(workers=2, limit_s=5.0) as grader:
        grader.grade(golds[1:5], answers[1:5])
        start = time.monotonic()
        verdicts = grader.grade(golds, answers)
        assert time.monotonic() - start < 15.0  # 5 s of the hostile one, beside which the others are done
    assert verdicts == [Verdict.TIMEOUT] + [Verdict.RIGHT] * 40


# --- Cost --------------------------------------------------------------------------------------------


def test_integer_checks_are_cheap():
    golds = [str(i) for i in range(4000)]
    answers = [str(i + i % 2) for i in range(4000)]

    def verdicts() -> list[Verdict | None]:
        return list(map(math_reward.quick, golds, answers))

    assert verdicts() == [Verdict.RIGHT, Verdict.WRONG] * 2000
    assert cpu_seconds(verdicts) < 2.0  # at least 2,000 a second
