"""Attempts at the published benchmarks: how an answer is read out of a text, and what it earns."""

import published_rows as rows
import pytest
from published_rows import write

from score_jax import instructions, types
from score_jax.datasets import programs
from score_jax.datasets.gsm8k import GSM8K
from score_jax.datasets.human_eval import HumanEval
from score_jax.datasets.mbpp import MBPP
from score_jax.task import Answer, Task
from score_jax.types import Problem


def test_maths_are_graded_in_one_call():
    task = GSM8K()
    task.grader = rows.MathGrader()
    task.answer = lambda text: Answer(text, 0, len(text), len(text)) if text else None
    problems = [Problem(id=str(n), prompt="?", gold=str(n)) for n in range(4)]
    grades = task.grade(problems, ["0", "2", "", "hard"])
    assert [grade.reward for grade in grades] == [1, 0, 0, 0]
    assert [grade.notes["timeout"] for grade in grades] == [0, 0, 0, 1]
    assert task.grader.calls == [[("0", "0"), ("1", "2"), ("2", None), ("3", "hard")]]
    assert task.reward(problems[0], "0") == 1.0


PROGRAM = "def f():\n    return 1"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (PROGRAM, PROGRAM),
        (f"\n  \n{PROGRAM}\n\n", PROGRAM),
        ("    return 1\n", "    return 1"),  # a body keeps its indent
        (f"{PROGRAM}\n[DONE]\nmore", PROGRAM),
        (f"[BEGIN]\n{PROGRAM}\n[DONE]", PROGRAM),
        (f"Here it is:\n```python\n{PROGRAM}\n```\nIt works.", PROGRAM),
        (f"```\n{PROGRAM}\n```\n```\nsecond\n```", PROGRAM),
        (f"```python\n{PROGRAM}", PROGRAM),  # cut off in the fence
        (f"```python\n{PROGRAM}\n[DONE]", PROGRAM),
        (f"{PROGRAM}\n[DONE]\n```\nother\n```", PROGRAM),
        ("", None), (" \n\n", None), ("[DONE]", None), ("[BEGIN]\n[DONE]", None), ("```\n```", None),
        ("[DONE]\n[BEGIN]\nlate", None),
    ],
)  # fmt: skip
def test_programs_are_read_out_of_attempts(text, program):
    answer = programs.read_program(text)
    assert (answer and answer.value) == program
    if answer:
        assert text[answer.start : answer.stop] == program
        if answer.decided < len(text):  # nothing from there on changes it
            for junk in ("", "\n[DONE]", "\n```\nx\n```", "[BEGIN]", "x"):
                assert programs.read_program(text[: answer.decided] + junk) == answer


def sandboxed(cls, fates, **tests):
    """A task whose sandbox knows the fates of programs, and a problem of it."""
    task = cls()
    task.sandbox = rows.Sandbox(fates)
    return task, Problem(id="p", prompt="?", gold="", tests=types.Tests(entry=("f",), **tests))


FATES = {
    "right": ["passed", "passed"],
    "seen": ["passed", "failed"],
    "slow": ["passed", "timeout"],
    "wrong": ["failed", "passed"],
    "torn": ["passed"],
    "broken": ["passed", "harness_error"],
}


def test_programs_are_graded_in_one_call_and_by_all_groups():
    task, problem = sandboxed(MBPP, FATES, shown="S", hidden="H", setup="U")
    names = list(FATES)
    grades = task.grade([problem] * (len(names) + 1), [*names, ""])
    assert [grade.reward for grade in grades] == [1, 0, 0, 0, 0, 0, 0]
    notes = {name: grade.notes for name, grade in zip([*names, ""], grades, strict=True)}
    assert {name: [key for key, on in note.items() if on] for name, note in notes.items()} == {
        "right": [], "seen": ["failed", "shown_only"], "slow": ["timeout", "shown_only"], "wrong": ["failed"],
        "torn": ["harness_error", "shown_only"], "broken": ["harness_error", "shown_only"], "": [],
    }  # fmt: skip
    assert len({frozenset(note) for note in notes.values()}) == 1  # every attempt has every note
    ((job, *_),) = task.sandbox.calls
    assert (job.program, job.groups, job.entry, job.setup) == (
        "right",
        {"shown": "S", "hidden": "H"},
        ("f",),
        "U",
    )
    assert len(task.sandbox.calls[0]) == len(names)


def test_without_hidden_tests_the_shown_ones_decide():
    task, problem = sandboxed(MBPP, FATES, shown="S")
    right, wrong = task.grade([problem] * 2, ["right", "wrong"])
    assert (right.reward, wrong.reward) == (1, 0)
    assert right.notes["shown_only"] == wrong.notes["shown_only"] == 0


def test_human_eval_is_decided_by_its_hidden_tests_alone():
    fates = {f"head\n{name}": fate for name, fate in FATES.items()}
    task, problem = sandboxed(HumanEval, fates, shown="S", hidden="H", setup="head")
    assert [task.reward(problem, name) for name in ("right", "seen", "wrong")] == [1, 0, 1]
    assert task.grade([problem], ["seen"])[0].notes["shown_only"] == 1


def test_what_has_no_tests_earns_nothing_and_starts_no_sandbox():
    task = MBPP()
    assert task.reward(Problem(id="given", prompt="?", gold=""), PROGRAM) == 0.0


@pytest.mark.parametrize("body", [True, False])
def test_human_eval_answers_may_be_bodies_or_functions(tmp_path, body):
    task = HumanEval(str(tmp_path), {"human_eval": write(tmp_path / "rows.jsonl", [rows.HUMAN_EVAL])})
    (problem,) = task.problems("test")
    text = "    return half(half(x))" if body else "def quarter(x):\n    return half(half(x))"
    names = {}
    exec(task.program(problem, task.answer(text).value), names)
    assert names["quarter"](12) == 3


def test_a_task_that_overrides_reward_alone_is_graded_by_it():
    class Even(Task):
        def problems(self, split):
            return []

        def reward(self, problem, text):
            return float(len(text) % 2 == 0)

    grades = Even().grade([Problem(id="x", prompt="?", gold="")] * 2, ["ab", "a"])
    assert [(grade.reward, dict(grade.notes)) for grade in grades] == [(1.0, {}), (0.0, {})]


@pytest.mark.parametrize(
    "instruction", [instructions.MATH_FEEDBACK, instructions.CODE_FEEDBACK, Task.feedback, Task.refine]
)
def test_nothing_around_a_critique_tells_whether_the_attempt_was_right(instruction):
    assert "if any" in instruction and instruction.endswith("\n")


@pytest.mark.parametrize(("task", "kind"), [(GSM8K, "MATH"), (MBPP, "CODE"), (HumanEval, "CODE")])
def test_benchmarks_have_the_words_of_their_kind(task, kind):
    assert task.instruction == getattr(instructions, f"{kind}_CORRECTION")
    assert task.feedback == getattr(instructions, f"{kind}_FEEDBACK")
    assert task.refine == getattr(instructions, f"{kind}_REFINE")


@pytest.mark.parametrize("refine", [instructions.MATH_REFINE, instructions.CODE_REFINE])
def test_what_follows_a_critique_asks_for_the_answer_in_its_form(refine):
    """As the correction instruction that it stands in for does, from its last demand on."""
    plain = instructions.MATH_CORRECTION if "Answer" in refine else instructions.CODE_CORRECTION
    assert "if any" in refine and refine.startswith("#") == plain.startswith("#")
    assert refine[refine.index("correct the error") :] == plain[plain.index("correct the error") :]


@pytest.mark.parametrize("instruction", [instructions.MATH_CORRECTION, instructions.CODE_CORRECTION])
def test_no_instruction_tells_whether_the_attempt_was_right(instruction):
    assert "might be an error" in instruction and "if any" in instruction
