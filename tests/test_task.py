"""The default task: its splits, its gold answers, its checks; and how an answer is read."""

import re
import subprocess
import sys
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from etils import epath

from score_jax.config import check_workdir, claim_workdir, load_config
from score_jax.config_check import check_config
from score_jax.datasets import number_riddles
from score_jax.datasets.gsm8k import GSM8K
from score_jax.datasets.number_riddles import NumberRiddles
from score_jax.evaluate import split_of
from score_jax.task import Task, evaluation_task, load_task, training_task
from score_jax.types import Problem

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def task(data_dir):
    return NumberRiddles(data_dir)


def equation(prompt: str) -> tuple[int, int, int]:
    """Factor, addend and total, read from the words of a prompt."""
    factor, addend, total = map(int, re.findall(r"\$(\d+)\$", prompt))
    return factor, addend, total


def check(attempt: str) -> tuple[int, int, int, str]:
    """Guess, product, total and verdict of an attempt, read from its words."""
    guess, product, total, verdict = re.fullmatch(
        r"Final Answer: The final answer is \$(\d+)\$\. Check: multiplied it is \$(\d+)\$, "
        r"added up it is \$(\d+)\$, (too small|too large|as it should be)\.",
        attempt,
    ).groups()
    return int(guess), int(product), int(total), verdict


def test_two_preparations_give_the_same_splits(task, tmp_path):
    again = NumberRiddles(str(tmp_path))
    for split in SPLITS:
        assert list(again.problems(split)) == list(task.problems(split))


def test_the_test_split_is_large_enough_to_measure_with(task):
    test = task.problems("test")
    assert len({problem.prompt for problem in test}) == len(test) >= 1000


def test_ids_are_unique_over_all_splits(task):
    ids = [problem.id for split in SPLITS for problem in task.problems(split)]
    assert len(set(ids)) == len(ids)


def test_no_pair_of_numbers_stands_in_two_splits(task):
    pairs = {split: {equation(p.prompt)[:2] for p in task.problems(split)} for split in SPLITS}
    assert not pairs["train"] & (pairs["test"] | pairs["validation"])
    assert not pairs["test"] & pairs["validation"]


def test_gold_answers_solve_their_riddles(task):
    for split in SPLITS:
        for problem in task.problems(split):
            factor, addend, total = equation(problem.prompt)
            assert factor * int(problem.gold) + addend == total
            assert 1 <= int(problem.gold) <= 24


def test_every_level_stands_in_every_split_and_goes_up_with_the_number(task):
    for split in SPLITS:
        golds = {level: set() for level in (1, 2, 3)}
        for problem in task.problems(split):
            golds[problem.level].add(int(problem.gold))
        assert list(golds.values()) == [set(range(1, 9)), set(range(9, 17)), set(range(17, 25))]


@pytest.mark.parametrize("split", SPLITS)
def test_demonstrations_check_honestly(task, split):
    rng = np.random.default_rng(0)
    right, learned = [], []
    for problem in task.problems(split)[:500]:
        factor, addend, total = equation(problem.prompt)
        demonstration = task.demonstration(problem, rng)
        for attempt in demonstration.attempts:
            guess, product, sum_, verdict = check(attempt)
            assert (product, sum_) == (factor * guess, factor * guess + addend)
            expected = "too small" if sum_ < total else "too large" if sum_ > total else "as it should be"
            assert verdict == expected
        first = check(demonstration.attempts[0])[0]
        right.append([task.reward(problem, attempt) for attempt in demonstration.attempts])
        learned.append(demonstration.imitate_answer)
        assert learned[-1][0] or first != int(problem.gold)  # a right answer is always worth learning
    first_right = 1 - task.wrong_rate
    expected = [first_right, task.copy_rate * first_right + task.solve_rate]
    np.testing.assert_allclose(np.mean(right, axis=0), expected, atol=0.07)  # 3 standard errors of 500
    assert not np.all(learned)


def test_no_text_of_training_states_a_held_out_equation(task):
    held_out = {equation(p.prompt) for split in ("validation", "test") for p in task.problems(split)}
    rng = np.random.default_rng(0)
    train = task.problems("train")
    texts = [text for p in train for text in (p.prompt, *task.demonstration(p, rng).attempts)]
    texts += task.corpus(500, seed=1)
    stated = set()
    for text in texts:
        if text.startswith("I think"):
            stated.add(equation(text))
        elif text.startswith("Final"):
            guess, product, total, _ = check(text)
            stated.add((product // guess, total - product, total))
        else:
            assert text == task.instruction
    assert len(stated) >= len(train)
    assert not stated & held_out


def test_the_corpus_is_a_function_of_its_seed(task):
    first, again, other = (list(task.corpus(20, seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == 20 * 4
    assert first.count(task.instruction) == 20


def test_the_instruction_does_not_tell_whether_the_attempt_was_right(task):
    assert "might be" in task.instruction
    assert "if any" in task.instruction


MARKER = "Final Answer: The final answer is "


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"{MARKER}$12$.", "12"),
        (f"Some words.\n{MARKER}$ 12 $", "12"),
        (f"{MARKER}$12$ and then {MARKER}$13$", "12"),  # the first one counts
        (f"{MARKER}$\n$ then {MARKER}$13$", "13"),
        (f"{MARKER}$$", ""),
        (f"{MARKER}$12", None),
        ("The answer is $12$", None),
        ("", None),
    ],
)
def test_answers_are_read_from_the_first_marker(text, value):
    task = NumberRiddles()
    answer = task.answer(text)
    problem = Problem(id="x", prompt="?", gold="12")
    assert task.reward(problem, text) == (value == "12")
    if value is None:
        assert answer is None
        return
    assert answer.value == value == text[answer.start : answer.stop].strip()
    for junk in ("", "$", f" {MARKER}$99$", "\n"):  # no text after `decided` changes anything
        assert task.answer(text[: answer.decided] + junk) == answer
    assert task.answer(text[: answer.decided - 1]) != answer


def test_tasks_without_demonstrations_say_so():
    class Bare(Task):
        def problems(self, split):
            return [Problem(id="x", prompt="?", gold="1")]

    with pytest.raises(ValueError, match="Bare has no demonstrations to pre-train"):
        list(Bare().corpus(1))


def test_load_task(data_dir):
    task = load_task("score_jax.datasets.number_riddles:NumberRiddles", data_dir)
    assert type(task) is NumberRiddles
    assert task.data_dir == data_dir


def test_evaluation_has_the_task_of_training_unless_it_names_another():
    config = load_config("configs/quickstart.py").unlock()
    config.data_dir = "data"
    task = training_task(config)
    assert evaluation_task(config, task) is task
    config.task = "score_jax.datasets.gsm8k:GSM8K"
    config.files.train, config.files.test = "a", "b"
    task = training_task(config)
    assert (type(task), task.data_dir, task.files) == (GSM8K, "data", {"train": "a", "test": "b"})
    assert split_of(config) == "test"
    config.evaluate.files.test = "elsewhere/c.jsonl"
    assert evaluation_task(config, task).files == {"train": "a", "test": "elsewhere/c.jsonl"}
    assert split_of(config) == "c test"
    config.evaluate.task = "score_jax.datasets.number_riddles:NumberRiddles"
    config.evaluate.files = ml_collections.ConfigDict()
    other = evaluation_task(config, task)
    assert (type(other), other.data_dir, other.files) == (NumberRiddles, "data", {})
    assert split_of(config) == "NumberRiddles test"
    config.evaluate.task = "nothing"
    with pytest.raises(ValueError, match=r"config.evaluate.task = 'nothing'"):
        evaluation_task(config, task)


def test_files_are_paths_that_two_runs_of_one_config_may_differ_in(tmp_path):
    config = load_config("configs/quickstart.py").unlock()
    config.files.train = "here/train.jsonl"
    check_config(config)
    claim_workdir(epath.Path(tmp_path), config)
    config.files.train, config.files.test = "there/train.jsonl", ""
    config.evaluate.files.test = "elsewhere"
    check_workdir(epath.Path(tmp_path), config)
    config.task = "another"
    with pytest.raises(ValueError, match="task is"):
        check_workdir(epath.Path(tmp_path), config)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("files.train", 3, "config.files.train = 3: must be the path"),
        ("evaluate.files.x", 3, "config.evaluate.files.x = 3: must be the path"),
        ("files", "a.jsonl", "config.files = 'a.jsonl': must be a ConfigDict"),
        ("files", None, "config.files = None: must be a ConfigDict"),
        ("evaluate.files", None, "config.evaluate.files = None: must be a ConfigDict"),
        ("evaluate.task", 3, "config.evaluate.task = 3: must be a text"),
    ],
)
def test_files_that_are_no_paths_are_refused(field, value, said):
    config = load_config("configs/quickstart.py")
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=re.escape(said)):
        check_config(config)


@pytest.mark.parametrize(
    "name",
    ["no_such_module:Task", "score_jax.datasets.number_riddles:Riddle", "score_jax.task", ":Task", "",
     "score_jax.datasets.number_riddles:Builder", "score_jax.datasets.number_riddles:riddle"],
)  # fmt: skip
def test_load_task_names_what_it_cannot_load(name):
    with pytest.raises(ValueError) as refused:
        load_task(name)
    assert str(refused.value).startswith(f"config.task = {name!r}")
    assert "module:Class" in str(refused.value) or "not a subclass" in str(refused.value)


def test_the_data_set_needs_no_tensorflow(tmp_path):
    """Neither to be prepared nor to be read."""
    code = """if True:
        import sys
        from score_jax.datasets.number_riddles import NumberRiddles
        print(len(NumberRiddles(sys.argv[1]).problems("test")), "tensorflow" in sys.modules)
    """
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == [str(len(number_riddles.split_pairs("test")) * 24), "False"]
