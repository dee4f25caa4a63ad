"""Rows in the formats of the published benchmarks, written for the tests, and stand-ins for the graders."""

import json

from score_jax.rewards.math_reward import Verdict as MathVerdict
from score_jax.rewards.sandbox.job import Verdict

MATH = {
    "problem": "What is $1+1$?",
    "solution": r"It is $\boxed{2}$.",
    "answer": "2",
    "subject": "Algebra",
    "level": 1,
    "unique_id": "train/algebra/1.json",
}
GSM8K = {"question": "Ann has 2 pears and gets 3. How many has she?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}
JSONL = {"problem": "What is half of $1$?", "answer": r"\frac12"}
HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": (
        "import math\n\n\ndef half(x):\n    return x / 2\n\n\n"
        'def quarter(x):\n    """A quarter of x.\n    >>> quarter(4)\n    1.0\n    >>> print("no value")\n'
        '    no value\n    """\n'
    ),
    "entry_point": "quarter",
    "canonical_solution": "    return half(half(x))\n",
    "test": "def check(candidate):\n    assert candidate(8) == half(4)\n",
}


def mbpp(task_id: int, **changes) -> dict:
    """A row of its own for every task_id."""
    return {
        "task_id": task_id,
        "text": f"Write a function to add {task_id}.",
        "code": f"def add_{task_id}(x):\r\n    return x + {task_id}",
        "test_list": [f"assert add_{task_id}(0) == {task_id}", f"assert add_{task_id}(1) == {task_id + 1}"],
        "test_setup_code": "",
        "challenge_test_list": [],
    } | changes


def write(path, rows) -> str:
    """A JSONL file of rows; a text stands as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


class MathGrader:
    """Exact comparison; 'hard' takes too long and '?' cannot be read. Keeps what it was asked."""

    def __init__(self):
        self.calls = []

    def check_gold(self, gold: str) -> None:
        if "?" in gold:
            raise ValueError("unreadable")

    def grade(self, golds, answers):
        self.calls.append(list(zip(golds, answers, strict=True)))
        return [self._one(*pair) for pair in self.calls[-1]]

    def _one(self, gold, answer):
        if answer is None:
            return MathVerdict.MISSING
        return (
            MathVerdict.TIMEOUT
            if answer == "hard"
            else MathVerdict.RIGHT
            if answer == gold
            else MathVerdict.WRONG
        )


class Sandbox:
    """Says of each job what `fates` says of its program. Keeps the jobs."""

    def __init__(self, fates):
        self.fates, self.calls = fates, []

    def run(self, jobs):
        self.calls.append(list(jobs))
        return [self._one(job) for job in jobs]

    def _one(self, job):
        names = [name for name in ("shown", "hidden") if name in job.groups]
        groups = dict(zip(names, self.fates[job.program], strict=False))
        status = next((status for status in groups.values() if status != "passed"), "passed")
        return Verdict(status, groups, seconds=0.0)
