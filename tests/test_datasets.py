"""The published benchmarks: rows that are refused, and what becomes of the others."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import published_rows as rows
import pytest
from published_rows import write

from score_jax import instructions, types
from score_jax.datasets import gsm8k, hendrycks_math, maths
from score_jax.datasets.gsm8k import GSM8K
from score_jax.datasets.hendrycks_math import HendrycksMath
from score_jax.datasets.human_eval import HumanEval
from score_jax.datasets.jsonl import Jsonl
from score_jax.datasets.mbpp import MBPP
from score_jax.datasets.mbpp_r import MBPPR
from score_jax.datasets.number_riddles import NumberRiddles
from score_jax.records import Unwritable
from score_jax.task import Answer, load_task

ROOT = Path(__file__).resolve().parents[1]
SHOTS = [rows.mbpp(number) for number in (2, 3, 4)]


def without(row: dict, field: str) -> dict:
    return {name: value for name, value in row.items() if name != field}


def with_grader(task):
    """The task, its grader and its reader of answers replaced."""
    task.grader = rows.MathGrader()
    task.answer = lambda text: Answer(text, 0, len(text), len(text)) if text else None
    return task


@pytest.fixture
def task_of(tmp_path):
    """A task over rows: task_of(GSM8K, train=[...], test=[...])."""

    def make(cls, **files):
        paths = {name: write(tmp_path / f"{name}.jsonl", given) for name, given in files.items()}
        task = cls(str(tmp_path / "prepared"), paths)
        return with_grader(task) if isinstance(task, maths.MathsTask) else task

    return make


def refusal(task, split="train") -> str:
    with pytest.raises(ValueError) as refused:
        task.problems(split)
    return str(refused.value)


def prepared(tmp_path) -> list[Path]:
    return list((tmp_path / "prepared").rglob("dataset_info.json"))


# What becomes of a row.


def test_math(task_of):
    other = rows.MATH | {"unique_id": "test/geometry/7.json", "problem": "$3+3=$", "answer": "6", "level": 4}
    task = task_of(HendrycksMath, train=[rows.MATH], test=[other])
    (train,), (test,) = task.problems("train"), task.problems("test")
    assert (train.id, train.gold, train.level, train.subject) == ("train/algebra/1.json", "2", 1, "Algebra")
    assert (test.id, test.gold, test.level) == ("test/geometry/7.json", "6", 4)
    assert train.prompt == instructions.math_prompt("What is $1+1$?")
    assert task.instruction == instructions.MATH_CORRECTION


def test_maths_rows_that_are_published_without_their_answer_get_it(task_of):
    (id_,) = hendrycks_math.ERRATA
    task = task_of(HendrycksMath, train=[rows.MATH | {"unique_id": id_, "answer": ""}])
    assert task.problems("train")[0].gold == "0"
    given = task_of(HendrycksMath, train=[rows.MATH | {"unique_id": id_, "answer": "7"}])
    assert given.problems("train")[0].gold == "7"  # an answer in the file stands


def test_gsm8k(task_of):
    task = task_of(
        GSM8K, test=[rows.GSM8K, rows.GSM8K | {"question": "And if 1,000?", "answer": "#### 1,002"}]
    )
    assert [(p.id, p.gold) for p in task.problems("test")] == [("test/1", "5"), ("test/2", "1,002")]


def test_jsonl(task_of):
    full = {"problem": "P", "answer": "3", "id": "mine", "level": 2, "subject": "S"}
    bare, given = task_of(Jsonl, train=[rows.JSONL, full]).problems("train")
    assert (bare.id, bare.gold, bare.level, bare.subject) == ("train/1", r"\frac12", 1, "")
    assert (given.id, given.gold, given.level, given.subject) == ("mine", "3", 2, "S")


def test_mbpp(task_of):
    hard = rows.mbpp(11, challenge_test_list=["assert add_11(5) == 16"], test_setup_code="five = 5")
    numbers = [1, 10, 510, 511, 600, 601, 974]
    task = task_of(MBPP, mbpp=[*SHOTS, hard, *map(rows.mbpp, numbers)])
    found = {
        split: [p.id for p in task.problems(split)] for split in ("prompt", "test", "validation", "train")
    }
    assert found == {
        "prompt": ["2", "3", "4", "1", "10"],
        "test": ["11", "510"],
        "validation": ["511", "600"],
        "train": ["601", "974"],
    }
    problem = task.problems("test")[0]
    assert problem.gold == "def add_11(x):\n    return x + 11"
    assert problem.tests == types.Tests(
        entry=("add_11",),
        shown="assert add_11(0) == 11\nassert add_11(1) == 12",
        hidden="assert add_11(5) == 16",
        setup="five = 5",
    )
    assert problem.first is None


def test_the_three_shots_stand_before_every_mbpp_problem(task_of):
    task = task_of(MBPP, mbpp=[rows.mbpp(5), *reversed(SHOTS), rows.mbpp(601)])
    frame = (
        "You are an expert Python programmer, and here is your task: Write a function to add {0}. "
        "Your code should pass these tests:\n\nassert add_{0}(0) == {0}\nassert add_{0}(1) == {1}\n[BEGIN]\n"
    )
    solved = "def add_{0}(x):\n    return x + {0}\n[DONE]\n\n"
    expected = "".join((frame + solved).format(n, n + 1) for n in (2, 3, 4)) + frame.format(601, 602)
    assert task.problems("train")[0].prompt == expected


def test_the_tests_may_use_several_names_of_a_program(task_of):
    row = rows.mbpp(
        601,
        code="class Node:\n    pass\n\ndef unused():\n    pass\n\ndef is_node(x):\n    return True",
        test_setup_code="root = Node()",
        test_list=["assert is_node(root)"],
    )
    assert task_of(MBPP, mbpp=[*SHOTS, row]).problems("train")[0].tests.entry == ("Node", "is_node")


def test_mbpp_r_gives_the_first_attempt(task_of):
    wrong = [
        {"task_id": 601, "program": "def add_601(x):\r\n    return x\r\n"},
        {"task_id": 601, "program": "?"},
    ]
    task = task_of(MBPPR, mbpp=[*SHOTS, rows.mbpp(601)], programs=wrong)
    first, second = task.problems("train")
    assert (first.id, second.id) == ("601/1", "601/2")
    assert first.first == "def add_601(x):\n    return x\n[DONE]"
    plain = task_of(MBPP, mbpp=[*SHOTS, rows.mbpp(601)]).problems("train")[0]
    assert (first.prompt, first.gold, first.tests) == (plain.prompt, plain.gold, plain.tests)


def test_human_eval(task_of, tmp_path):
    (problem,) = task_of(HumanEval, human_eval=[rows.HUMAN_EVAL]).problems("test")
    source = rows.HUMAN_EVAL["prompt"]
    assert problem.prompt == instructions.definition_prompt(source)
    assert source.strip() in problem.prompt
    assert problem.tests.entry == ("quarter",)
    names = {}
    exec(problem.gold, names)  # the reference program of this file's row
    exec(problem.tests.shown, names)
    exec(problem.tests.hidden, names)
    assert problem.tests.shown.count("assert") == 1  # what prints says nothing of a value
    names["quarter"] = lambda x: x / 4 + 1
    for tests in (problem.tests.shown, problem.tests.hidden):
        with pytest.raises(AssertionError):
            exec(tests, names)
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(rows.HUMAN_EVAL).encode()))
    assert list(HumanEval(str(tmp_path), {"human_eval": str(packed)}).problems("test")) == [problem]


# What is refused. Each message names the row by its line and its id.


@pytest.mark.parametrize(
    ("cls", "given", "said"),
    [
        (HendrycksMath, ["{"], ["train.jsonl:1", "not JSON"]),
        (HendrycksMath, [rows.MATH, "[1]"], ["train.jsonl:2", "no JSON object"]),
        (HendrycksMath, ["", without(rows.MATH, "answer")],
         ["train.jsonl:2", "train/algebra/1.json", "no field 'answer'"]),
        (HendrycksMath, [rows.MATH | {"level": "Level 1"}], ["algebra/1", "level = 'Level 1'", "int"]),
        (HendrycksMath, [rows.MATH | {"level": 6}], ["train/algebra/1.json", "level = 6", "1 to 5"]),
        (HendrycksMath, [rows.MATH | {"level": True}], ["level = True", "int"]),
        (HendrycksMath, [rows.MATH | {"answer": " "}], ["train.jsonl:1", "algebra/1", "answer is empty"]),
        (HendrycksMath, [rows.MATH | {"problem": ""}], ["train.jsonl:1", "algebra/1", "problem is empty"]),
        (HendrycksMath, [rows.MATH | {"unique_id": ""}], ["train.jsonl:1", "id is empty"]),
        (HendrycksMath, [rows.MATH | {"answer": "?"}], ["train.jsonl:1", "algebra/1", "'?'", "unreadable"]),
        (HendrycksMath, [rows.MATH, rows.MATH | {"problem": "Another"}],
         ["train.jsonl:2", "train/algebra/1.json", "train.jsonl:1 has the same id"]),
        (GSM8K, [rows.GSM8K | {"answer": "It is 5."}], ["train.jsonl:1", "0 times '####'"]),
        (GSM8K, [rows.GSM8K | {"answer": "#### 5 #### 6"}], ["train.jsonl:1", "2 times '####'"]),
        (GSM8K, [rows.GSM8K | {"answer": "None. ####"}], ["train.jsonl:1", "train/1", "answer is empty"]),
        (Jsonl, [rows.JSONL | {"answer": 18}], ["train.jsonl:1", "answer = 18", "type str"]),
        (Jsonl, [rows.JSONL | {"id": "a"}, {"problem": "P", "answer": "1", "id": "a"}],
         ["train.jsonl:2", "'a'", "same id"]),
        (Jsonl, [rows.JSONL | {"level": 0, "id": "a"}], ["train.jsonl:1", "'a'", "level = 0"]),
    ],
)  # fmt: skip
def test_maths_rows_that_are_refused(task_of, tmp_path, cls, given, said):
    message = refusal(task_of(cls, train=given))
    assert [part for part in said if part not in message] == []
    assert not prepared(tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (rows.mbpp(975), ["mbpp.jsonl:4", "975", "1 to 974"]),
        (rows.mbpp(2), ["mbpp.jsonl:4", "'2'", "mbpp.jsonl:1 has the same id"]),
        (rows.mbpp(601, code="def add_601(x:"), ["mbpp.jsonl:4", "601", "no Python"]),
        (rows.mbpp(601, test_list=["assert add_601(0) = 1"]), ["mbpp.jsonl:4", "601", "no Python"]),
        (rows.mbpp(601, test_list=[]), ["mbpp.jsonl:4", "601", "test_list is empty"]),
        (rows.mbpp(601, test_list=[1]), ["mbpp.jsonl:4", "601", "list of texts"]),
        (rows.mbpp(601, test_list=["assert True"]), ["mbpp.jsonl:4", "601", "solution defines nothing"]),
        (without(rows.mbpp(601), "test_setup_code"), ["mbpp.jsonl:4", "601", "no field 'test_setup_code'"]),
        (rows.mbpp(601) | {"task_id": "601"}, ["mbpp.jsonl:4", "type int"]),
    ],
)  # fmt: skip
def test_mbpp_rows_that_are_refused(task_of, tmp_path, row, said):
    message = refusal(task_of(MBPP, mbpp=[*SHOTS, row]))
    assert [part for part in said if part not in message] == []
    assert not prepared(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task_id": 602, "program": "x"}, ["programs.jsonl:2", "602"]),
        ({"task_id": 2, "program": "x"}, ["programs.jsonl:2", "task_id = 2 is no problem to solve"]),
        ({"task_id": 601, "program": " \n"}, ["programs.jsonl:2", "601", "program is empty"]),
        ({"task_id": 601, "program": "old"}, ["programs.jsonl:2", "601", "programs.jsonl:1 is the same"]),
        ({"task_id": 601}, ["programs.jsonl:2", "601", "no field 'program'"]),
    ],
)
def test_mbpp_r_rows_that_are_refused(task_of, given, said):
    programs = [{"task_id": 601, "program": "old"}, given]
    message = refusal(task_of(MBPPR, mbpp=[*SHOTS, rows.mbpp(601)], programs=programs))
    assert [part for part in said if part not in message] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "def quarter(x)\n"}, ["its prompt is no Python"]),
        ({"entry_point": "third"}, ["its prompt does not define 'third'"]),
        ({"test": "assert True"}, ["its test does not define 'check'"]),
        ({"canonical_solution": "    return (\n"}, ["cannot be graded", "no Python"]),
    ],
)
def test_human_eval_rows_that_are_refused(task_of, changes, said):
    message = refusal(task_of(HumanEval, human_eval=[rows.HUMAN_EVAL | changes]), "test")
    assert [part for part in ("human_eval.jsonl:1", "HumanEval/0", *said) if part not in message] == []


@pytest.mark.parametrize("again", ["What is $1+1$?", "what is\n 1 + 1?", "What is １+１?"])
@pytest.mark.parametrize("other", ["validation", "test"])
def test_a_training_problem_that_is_also_in_another_split_is_refused(task_of, tmp_path, again, other):
    copy = rows.MATH | {"unique_id": "test/algebra/5.json", "problem": again}
    message = refusal(task_of(HendrycksMath, train=[rows.MATH], **{other: [copy]}))
    for part in ("train.jsonl:1", "train/algebra/1.json", f"{other}.jsonl:1", "test/algebra/5.json"):
        assert part in message
    assert not prepared(tmp_path)


def test_problems_that_differ_are_not_taken_for_one(task_of):
    near = rows.MATH | {"unique_id": "test/algebra/5.json", "problem": "What is $1-1$?"}
    task = task_of(HendrycksMath, train=[rows.MATH, rows.MATH | {"unique_id": "twin"}], test=[near])
    assert len(task.problems("train")) == 2  # within a split a problem may stand twice
    assert len(task.problems("test")) == 1


def test_mbpp_problems_of_one_text_are_told_apart_by_their_tests(task_of):
    train, test = rows.mbpp(601), rows.mbpp(11, text=rows.mbpp(601)["text"])
    assert len(task_of(MBPP, mbpp=[*SHOTS, train, test]).problems("test")) == 1
    same = train | {"task_id": 11}
    message = refusal(task_of(MBPP, mbpp=[*SHOTS, train, same]))
    assert "'11'" in message and "'601'" in message


# Files.


@pytest.mark.parametrize(
    ("cls", "files", "split", "said"),
    [
        (HendrycksMath, {}, "train", ["config.files.train = ''", "github.com/openai/prm800k"]),
        (HendrycksMath, {"train": "none.jsonl"}, "train", ["config.files.train = 'none.jsonl'", "prm800k"]),
        (GSM8K, {}, "test", ["config.files.train = ''", "github.com/openai/grade-school-math"]),
        (MBPP, {}, "train", ["config.files.mbpp = ''", "github.com/google-research"]),
        (MBPPR, {"mbpp": "x"}, "train", ["config.files.programs = ''", "task_id, program"]),
        (
            HumanEval,
            {"human_eval": "."},
            "test",
            ["config.files.human_eval = '.'", "github.com/openai/human-eval"],
        ),
        (Jsonl, {}, "train", ["config.files.train = ''", "problem and answer"]),
    ],
)
def test_a_file_that_is_not_there_is_named(tmp_path, cls, files, split, said):
    message = refusal(cls(str(tmp_path), files), split)
    assert [part for part in said if part not in message] == []


def test_a_file_that_the_task_does_not_read_is_refused():
    with pytest.raises(ValueError, match=r"config.files.tset = 'a'.*GSM8K reads train, validation, test"):
        load_task("score_jax.datasets.gsm8k:GSM8K", None, {"tset": "a"})
    with pytest.raises(ValueError, match=r"config.files.train = 'a'.*NumberRiddles reads no files"):
        load_task("score_jax.datasets.number_riddles:NumberRiddles", None, {"train": "a"})
    with pytest.raises(ValueError, match=r"config.evaluate.files.tset = 'a'"):
        load_task("score_jax.datasets.gsm8k:GSM8K", None, {"tset": "a"}, field="config.evaluate.task")
    assert NumberRiddles(None, {"train": ""}).files == {}


def test_a_split_that_is_not_there_is_named(task_of):
    message = refusal(task_of(GSM8K, test=[rows.GSM8K]))
    assert message.startswith("config.files.train = ''") and "GSM8K has no train split" in message
    message = refusal(task_of(HumanEval, human_eval=[rows.HUMAN_EVAL]))
    assert "config.files.human_eval" in message and "the splits there are test" in message
    assert "it holds no rows" in refusal(task_of(GSM8K, train=[]))


def test_mbpp_without_its_shots_is_refused(task_of):
    assert "lacks task_id 3" in refusal(task_of(MBPP, mbpp=[SHOTS[0], SHOTS[2], rows.mbpp(601)]))


def test_a_broken_archive_is_named(tmp_path):
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}')[:-4])
    assert str(path) in refusal(HumanEval(str(tmp_path), {"human_eval": str(path)}), "test")


def test_prepared_data_go_by_the_files_content(task_of, tmp_path, monkeypatch):
    reads, read = [], gsm8k.read_rows
    monkeypatch.setattr("score_jax.datasets.gsm8k.read_rows", lambda path: reads.append(path) or read(path))
    first = list(task_of(GSM8K, train=[rows.GSM8K]).problems("train"))
    assert list(task_of(GSM8K, train=[rows.GSM8K]).problems("train")) == first
    assert len(reads) == 1
    changed = task_of(GSM8K, train=[rows.GSM8K | {"answer": "#### 6"}]).problems("train")
    assert [problem.gold for problem in changed] == ["6"]
    (tmp_path / "moved").mkdir()
    moved = {"train": write(tmp_path / "moved" / "any.jsonl", [rows.GSM8K])}
    assert list(with_grader(GSM8K(str(tmp_path / "prepared"), moved)).problems("train")) == first
    assert len(reads) == len(prepared(tmp_path)) == 2
    as_test = task_of(GSM8K, test=[rows.GSM8K])
    assert as_test.problems("test")[0].id == "test/1"  # the same content as another file is other data


def test_two_processes_may_prepare_the_same_data_at_once(task_of, monkeypatch):
    read, others = gsm8k.read_rows, []

    def meanwhile(path):
        monkeypatch.setattr("score_jax.datasets.gsm8k.read_rows", read)
        others.append(task_of(GSM8K, train=[rows.GSM8K]).problems("train"))  # is done before we are
        return read(path)

    monkeypatch.setattr("score_jax.datasets.gsm8k.read_rows", meanwhile)
    assert list(task_of(GSM8K, train=[rows.GSM8K]).problems("train")) == list(others[0])


def test_a_builder_from_before_the_data_were_prepared_knows_of_them(task_of, monkeypatch):
    """Another process prepares them between two moments of ours: when we look, and when we begin."""
    init, builders = gsm8k.Builder.__init__, []

    def meanwhile(self, *args):
        init(self, *args)
        builders.append(self)
        if len(builders) == 1:
            task_of(GSM8K, train=[rows.GSM8K]).problems("train")

    monkeypatch.setattr(gsm8k.Builder, "__init__", meanwhile)
    assert len(task_of(GSM8K, train=[rows.GSM8K]).problems("train")) == 1
    assert len(builders) == 3


def test_data_that_cannot_be_written_name_their_field(task_of, tmp_path):
    (tmp_path / "prepared").write_text("a file where the folder should be")
    with pytest.raises(Unwritable, match=r"config\.data_dir: cannot be written"):
        task_of(GSM8K, train=[rows.GSM8K]).problems("train")


def test_published_data_need_no_tensorflow(tmp_path):
    path = write(tmp_path / "mbpp.jsonl", [*SHOTS, rows.mbpp(601)])
    code = """if True:
        import sys
        from score_jax.datasets.mbpp import MBPP
        print(len(MBPP(sys.argv[1], {"mbpp": sys.argv[2]}).problems("train")), "tensorflow" in sys.modules)
    """
    command = [sys.executable, "-c", code, str(tmp_path / "prepared"), path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["1", "False"]
