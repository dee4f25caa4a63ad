"""The published files themselves, where the machine has them: their sizes, splits and prompts."""

from collections import Counter

import pytest
from real_data import real_file

from score_jax.datasets.gsm8k import GSM8K
from score_jax.datasets.hendrycks_math import HendrycksMath
from score_jax.datasets.human_eval import HumanEval
from score_jax.datasets.mbpp import MBPP
from score_jax.datasets.mbpp_r import MBPPR
from score_jax.datasets.rows import read_rows

FILES = {
    HendrycksMath: {"train": "math500/train_sample_2000.jsonl", "test": "math500/test.jsonl"},
    GSM8K: {"train": "gsm8k/train.jsonl", "test": "gsm8k/test.jsonl"},
    MBPP: {"mbpp": "mbpp/mbpp.jsonl"},
    HumanEval: {"human_eval": "human_eval/HumanEval.jsonl.gz"},
}
SIZES = {
    HendrycksMath: {"train": 2000, "test": 500},
    GSM8K: {"train": 7473, "test": 1319},
    MBPP: {"prompt": 10, "test": 500, "validation": 90, "train": 374},
    HumanEval: {"test": 164},
}


class AnyGold:
    """Takes every gold answer; what the grader makes of them is tested with the grader."""

    def check_gold(self, gold):
        pass


@pytest.fixture(scope="module")
def task_of(tmp_path_factory):
    """A task over the real files, prepared once."""
    folder, made = tmp_path_factory.mktemp("real"), {}

    def make(cls):
        files = {name: str(real_file(path)) for name, path in FILES[cls].items()}
        if cls not in made:
            made[cls] = cls(str(folder), files)
            if cls in (HendrycksMath, GSM8K):
                made[cls].grader = AnyGold()
        return made[cls]

    return make


@pytest.mark.parametrize("cls", FILES)
def test_every_row_is_there_once(task_of, cls):
    task = task_of(cls)
    problems = {split: task.problems(split) for split in SIZES[cls]}
    assert {split: len(found) for split, found in problems.items()} == SIZES[cls]
    all_ = [problem for found in problems.values() for problem in found]
    assert len({problem.id for problem in all_}) == len(all_)
    assert all(problem.gold.strip() for problem in all_)


def test_math_has_levels_and_subjects(task_of):
    task = task_of(HendrycksMath)
    levels = Counter(problem.level for problem in task.problems("test"))
    assert levels == {1: 43, 2: 90, 3: 105, 4: 128, 5: 134}
    assert len({problem.subject for problem in task.problems("train")}) == 7


def test_golds_are_what_the_files_say(task_of):
    """Row by row; one row of MATH is published without its answer."""
    for split in ("train", "test"):
        answers = [row.get("answer") for row in read_rows(str(real_file(FILES[HendrycksMath][split])))]
        golds = [problem.gold for problem in task_of(HendrycksMath).problems(split)]
        differ = [(said, gold) for said, gold in zip(answers, golds, strict=True) if said != gold]
        assert differ == ([("", "0")] if split == "train" else [])
    rows = read_rows(str(real_file("gsm8k/test.jsonl")))
    for row, problem in zip(rows, task_of(GSM8K).problems("test"), strict=True):
        assert row.get("answer").endswith(f"#### {problem.gold}")
        assert row.get("question") in problem.prompt


def test_the_mbpp_prompt_shows_the_problems_2_3_and_4_solved(task_of):
    task = task_of(MBPP)
    shots = {problem.id: problem for problem in task.problems("prompt")}
    head = task.problems("test")[0].prompt.rpartition("You are an expert")[0]
    places = [head.index(f"[BEGIN]\n{shots[id_].gold}\n[DONE]") for id_ in ("2", "3", "4")]
    assert places == sorted(places)
    assert head.count("[BEGIN]") == head.count("[DONE]") == 3
    for split in ("train", "validation", "test"):
        for problem in task.problems(split):
            assert problem.prompt.startswith(head)
            assert problem.prompt.endswith(f"{problem.tests.shown}\n[BEGIN]\n")
            assert "\r" not in problem.prompt


def test_mbpp_splits_are_the_canonical_ones(task_of):
    ids = {split: [int(problem.id) for problem in task_of(MBPP).problems(split)] for split in SIZES[MBPP]}
    assert ids == {
        "prompt": [*range(1, 11)],
        "test": [*range(11, 511)],
        "validation": [*range(511, 601)],
        "train": [*range(601, 975)],
    }


def test_mbpp_holds_its_challenge_tests_back(task_of):
    hidden = [p for split in SIZES[MBPP] for p in task_of(MBPP).problems(split) if p.tests.hidden]
    assert len(hidden) == 11
    for problem in hidden:
        assert problem.tests.hidden not in problem.prompt


def test_mbpp_r_over_the_real_problems(task_of, tmp_path):
    task_of(MBPP)
    programs = tmp_path / "programs.jsonl"
    programs.write_text('{"task_id": 11, "program": "def remove_Occ(s, ch):\\n    return s"}\n')
    files = {"mbpp": str(real_file("mbpp/mbpp.jsonl")), "programs": str(programs)}
    (problem,) = MBPPR(str(tmp_path), files).problems("test")
    assert problem.prompt == task_of(MBPP).problems("test")[0].prompt
    assert problem.first.startswith("def remove_Occ") and problem.first.endswith("[DONE]")


def test_human_eval_golds_pass_what_is_made_of_the_rows(task_of):
    """The benchmark's own tests, and the docstrings' examples, on its reference programs."""
    problems = task_of(HumanEval).problems("test")
    assert sum(bool(problem.tests.shown) for problem in problems) == 69
    wrong = []
    for problem in problems:
        names = {}
        exec(problem.gold, names)
        exec(problem.tests.hidden, names)
        try:
            exec(problem.tests.shown, names)
        except AssertionError:
            wrong.append(problem.id)
        assert problem.prompt.endswith("[BEGIN]\n")
        assert problem.tests.hidden.strip() not in problem.prompt
    assert wrong == ["HumanEval/47"]  # its docstring has the median of 4, 6, 10 and others at 15
