"""HumanEval's and MBPP's own solutions pass in the sandbox, and programs that solve nothing do not."""

import gzip
import json

import pytest
from boxes import needs_layers
from real_data import real_file

from score_jax.datasets.human_eval import HumanEval
from score_jax.datasets.mbpp import MBPP
from score_jax.rewards.sandbox.job import Job, entry_names
from score_jax.rewards.sandbox.pool import Sandbox

pytestmark = needs_layers

# MBPP 123 sums amicable numbers up to 10,000 by trial division: seconds of computing, on a slow machine many.
MBPP_SLOW = {123}


@pytest.fixture(scope="module")
def box():
    with Sandbox() as box:
        yield box


def human_eval() -> list[dict]:
    with gzip.open(real_file("human_eval/HumanEval.jsonl.gz"), "rt") as file:
        return [json.loads(line) for line in file]


def human_eval_job(row: dict, program: str, timeout_s: float = 20.0) -> Job:
    """The prompt, whose helpers the tests may use (HumanEval/32, 38, 50), is the tests' own set-up."""
    return Job(
        program=program,
        groups={"hidden": row["test"]},
        entry=(row["entry_point"],),
        setup=row["prompt"] + "\n    pass\n",
        check=f"check({row['entry_point']})",
        timeout_s=timeout_s,
    )


def mbpp_job(row: dict) -> Job:
    shown, hidden = "\n".join(row["test_list"]), "\n".join(row["challenge_test_list"])
    return Job(
        program=row["code"],
        groups={"shown": shown} | ({"hidden": hidden} if hidden else {}),
        entry=entry_names(row["code"], shown, hidden, row["test_setup_code"]),
        setup=row["test_setup_code"],
        timeout_s=5.0 if row["task_id"] in MBPP_SLOW else 20.0,
    )


def test_human_eval_solutions_pass(box):
    rows = human_eval()
    assert len(rows) == 164
    verdicts = box.run([human_eval_job(row, row["prompt"] + row["canonical_solution"]) for row in rows])
    assert [row["task_id"] for row, v in zip(rows, verdicts, strict=True) if v.status != "passed"] == []


def test_mbpp_solutions_pass(box):
    """All 974, also those that want more to cross than numbers and lists.

    126 redefines `sum`; 533 is given types; 596 names a module that only the solution imports; 601, 367 and
    927 are given objects of the solution's own classes.
    """
    with real_file("mbpp/mbpp.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == 974
    verdicts = box.run([mbpp_job(row) for row in rows])
    failed = {row["task_id"]: v for row, v in zip(rows, verdicts, strict=True) if v.status != "passed"}
    assert failed.keys() <= MBPP_SLOW
    assert all(v.status == "timeout" for v in failed.values())


STUBS = {
    "none": "def ENTRY(*a, **k): return None",
    "always equal": """
class Same:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __hash__(self): return 0
def ENTRY(*a, **k): return Same()
""",
    "always equal number": """
class Same(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __hash__ = int.__hash__
def ENTRY(*a, **k): return Same()
""",
    "always equal class": """
class ENTRY:
    def __init__(self, *a, **k): pass
    def __eq__(self, other): return True
    def __bool__(self): return True
""",
    "early exit": "import os\nos._exit(0)",
    "early exit in a call": "import sys\ndef ENTRY(*a, **k): sys.exit(0)",
}


@pytest.mark.parametrize("stub", STUBS)
def test_programs_that_solve_nothing_pass_nothing(box, stub):
    rows = human_eval()
    verdicts = box.run(
        [human_eval_job(row, STUBS[stub].replace("ENTRY", row["entry_point"])) for row in rows]
    )
    assert [row["task_id"] for row, v in zip(rows, verdicts, strict=True) if v.status == "passed"] == []
    assert "harness_error" not in {v.status for v in verdicts}


@pytest.mark.parametrize("split", ["test", "train"])
def test_the_tasks_own_grading_pays_the_reference_programs(split, tmp_path):
    """As training and evaluation do it: read from the attempt, put together, run, and paid."""
    files = {"mbpp": str(real_file("mbpp/mbpp.jsonl"))}
    task = MBPP(str(tmp_path), files)
    if split == "test":
        task = HumanEval(str(tmp_path), {"human_eval": str(real_file("human_eval/HumanEval.jsonl.gz"))})
    problems = task.problems(split)
    texts = [f"```python\n{problem.gold}\n```" for problem in problems]
    wrong = [p.id for p, g in zip(problems, task.grade(problems, texts), strict=True) if g.reward != 1]
    assert len(problems) == {"test": 164, "train": 374}[split] and wrong == []
    equal = "    class Any:\n        def __eq__(self, other): return True\n    return Any()"
    if split == "test":  # a body alone continues the published prompt
        for stub in ("    return None", equal):
            assert not any(grade.reward for grade in task.grade(problems, [stub] * len(problems)))
