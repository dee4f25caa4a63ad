"""Problems to graded episodes: keys, grading, and what of it an update sees."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from score_jax import prompts, rollout, sampling
from score_jax.chat import plain
from score_jax.evaluate import attempt_rows
from score_jax.rl import step_metrics
from score_jax.rollout import Actor, row_keys
from score_jax.task import Grade
from score_jax.types import CONTEXT, PADDING, Episodes, Problem

TASK = tiny.Riddles()


@pytest.fixture(scope="module")
def actor(tmp_path_factory):
    tokenizer = tiny.tokenizer(tmp_path_factory.mktemp("tokenizer"))
    slots = prompts.make_slots(plain(tokenizer), TASK, prompt=80, attempt=30, attempts=2)
    return Actor(tiny.model(tokenizer.vocab_size), plain(tokenizer), TASK, slots)


def data(keys) -> list[tuple]:
    return [tuple(row) for row in np.asarray(jax.random.key_data(keys)).tolist()]


def test_every_row_of_every_step_has_its_own_key():
    grid = itertools.product((0, 1), ("stage1", "stage2"), (0, 1, 2))
    seen = [key for seed, name, step in grid for key in data(row_keys(seed, name, step, 16))]
    assert len(set(seen)) == len(seen) == 2 * 2 * 3 * 16


def test_a_rows_key_does_not_depend_on_how_many_rows_there_are():
    assert data(row_keys(3, "evaluate", 5, 4)) == data(row_keys(3, "evaluate", 5, 64))[:4]


# Each attempt: its text, whether it ends by itself, and what the host should make of it.
ANSWERED = "Final Answer: The final answer is $"
ATTEMPTS = [
    [(f"{ANSWERED}12$. Check: too small.", True), (f"{ANSWERED}13$. ", True)],
    [(f"{ANSWERED}1", False), ("", True)],
    [(f"{ANSWERED}13$. {ANSWERED}12$.", True), ("Check: as it should be.", False)],
]
ANSWERS = [["12", "13"], [None, None], ["13", None]]
REWARDS = [[0, 1], [0, 0], [1, 0]]


def written(actor) -> tuple[list[Problem], Episodes]:
    """Transcripts of `ATTEMPTS`, made by hand."""
    problems = [
        Problem(id=str(row), prompt="What is my number?\n", gold="13") for row in range(len(ATTEMPTS))
    ]
    tokens = np.full((len(ATTEMPTS), actor.slots.length), actor.format.tokenizer.special_tokens.PAD, np.int32)
    attempt = np.full_like(tokens, PADDING)
    attempt[:, actor.slots.prompt - 3 : actor.slots.prompt] = CONTEXT
    for row, texts in enumerate(ATTEMPTS):
        for number, (text, ended) in enumerate(texts, start=1):
            ids = actor.format.tokenizer.encode(text, add_eos=ended)
            place = slice(actor.slots.start(number), actor.slots.start(number) + len(ids))
            tokens[row, place], attempt[row, place] = ids, number
    return problems, Episodes(*map(jnp.array, (tokens, attempt, np.zeros(tokens.shape, np.float32))))


def read(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(episodes.tokens), np.asarray(episodes.attempt)


def test_grade(actor):
    problems, episodes = written(actor)
    graded = rollout.grade(actor, problems, *read(episodes))
    assert graded.problems == problems
    assert graded.texts == [[text for text, _ in texts] for texts in ATTEMPTS]
    assert graded.answers == ANSWERS
    assert graded.rewards.tolist() == REWARDS
    assert graded.finished.tolist() == [[ended for _, ended in texts] for texts in ATTEMPTS]
    for row, column in itertools.product(range(len(ATTEMPTS)), range(2)):
        text, ended = ATTEMPTS[row][column]
        ids = actor.format.tokenizer.encode(text, add_eos=ended)
        count = graded.decisive[row, column]
        if ANSWERS[row][column] is None:
            assert count == len(ids)
        else:
            assert TASK.answer(actor.format.text(ids[:count])) is not None
            assert TASK.answer(actor.format.text(ids[: count - 1])) is None
    assert graded.decisive[0, 0] < len(actor.format.attempt(ATTEMPTS[0][0][0])) - 1  # the check is left out


class Noted(tiny.Riddles):
    """Notes how long an attempt is, and how often it was asked."""

    calls = 0

    def grade(self, problems, texts):
        self.calls += 1
        grades = super().grade(problems, texts)
        return [Grade(g.reward, {"letters": float(len(t))}) for g, t in zip(grades, texts, strict=True)]


def test_the_checker_is_asked_once_and_its_notes_are_kept(actor):
    problems, episodes = written(actor)
    assert rollout.grade(actor, problems, *read(episodes)).notes == [[{}, {}]] * 3
    task = Noted()
    graded = rollout.grade(actor.with_task(task), problems, *read(episodes))
    assert task.calls == 1
    assert graded.rewards.tolist() == REWARDS
    letters = [[float(len(text)) for text, _ in texts] for texts in ATTEMPTS]
    assert graded.notes == [[{"letters": count} for count in row] for row in letters]
    assert graded.head(1).notes == graded.notes[:1]
    rows = attempt_rows(graded, checkpoint="base", step=0, split="test", temperature=1.0)
    assert [row["notes"] for row in rows] == graded.notes
    plain = rollout.grade(actor, problems, *read(episodes))
    assert "notes" not in attempt_rows(plain, checkpoint="base", step=0, split="test", temperature=1.0)[0]
    numbers = {key: 0.0 for key in ("loss", "grad_norm", "sampler_gap", "skipped")}
    numbers |= {key: np.zeros(2) for key in ("kl", "entropy", "length", "policy")}
    assert step_metrics(graded, numbers)["letters_t2"] == pytest.approx(np.mean(letters, axis=0)[1])


@pytest.mark.parametrize("name", ["length", "kl", "reward"])
def test_a_note_does_not_take_the_place_of_a_metric(actor, name):
    class Clashing(tiny.Riddles):
        def grade(self, problems, texts):
            return [Grade(1.0, {name: 7.0}) for _ in texts]

    problems, episodes = written(actor)
    graded = rollout.grade(actor.with_task(Clashing()), problems, *read(episodes))
    numbers = {key: 0.0 for key in ("loss", "grad_norm", "sampler_gap", "skipped")}
    numbers |= {key: np.zeros(2) for key in ("kl", "entropy", "length", "policy")}
    with pytest.raises(ValueError, match=f"notes: '{name}_t1' is the name of another metric"):
        step_metrics(graded, numbers)


def test_with_task_takes_the_tasks_instruction_along(actor):
    class Terse(tiny.Riddles):
        instruction = "Again.\n"

    other = actor.with_task(Terse())
    assert other.slots.instruction == tuple(actor.format.instruction("Again.\n")) != actor.slots.instruction
    assert (other.slots.prompt, other.slots.attempt, other.slots.attempts) == (80, 30, 2)


def test_a_given_first_attempt_stands_in_the_prompt_as_in_an_episode(actor):
    first = "Final Answer: The final answer is $12$."
    plain = Problem(id="x", prompt="What is my number?\n", gold="13")
    given = dataclasses.replace(plain, first=first)
    row = prompts.encode_prompts(actor.format, [given], actor.slots)[0]
    tokens = actor.format.prompt(plain.prompt) + actor.format.attempt(first)
    tokens += actor.slots.instruction
    assert row[-len(tokens) :].tolist() == tokens
    assert not row[: -len(tokens)].any()  # padding
    slots = dataclasses.replace(actor.slots, prompt=len(tokens) - 1)
    with pytest.raises(ValueError, match=f"config.slots.prompt = {len(tokens)}"):
        prompts.encode_prompts(actor.format, [given], slots)


def test_experience_marks_the_leading_tokens_of_each_attempt(actor):
    problems, episodes = written(actor)
    graded = rollout.grade(actor, problems, *read(episodes))
    experience = rollout.experience_of(actor, episodes, graded)
    np.testing.assert_array_equal(experience.rewards, REWARDS)
    np.testing.assert_array_equal(experience.episodes.tokens, episodes.tokens)
    for row in range(len(problems)):
        expected = np.zeros(actor.slots.length)
        for number in (1, 2):
            sampled = np.flatnonzero(episodes.attempt[row] == number)
            expected[sampled[: graded.decisive[row, number - 1]]] = 1
        np.testing.assert_array_equal(experience.decisive[row], expected)


def test_head_takes_the_first_rows(actor):
    problems, episodes = written(actor)
    whole = rollout.grade(actor, problems, *read(episodes))
    first = whole.head(2)
    assert (first.problems, first.texts, first.answers) == (problems[:2], whole.texts[:2], ANSWERS[:2])
    for name in ("rewards", "finished", "decisive"):
        np.testing.assert_array_equal(getattr(first, name), getattr(whole, name)[:2])


def test_with_attempts_changes_the_number_of_attempts_alone(actor):
    more = actor.with_attempts(5)
    assert (more.slots.attempts, more.slots.prompt, more.slots.attempt) == (5, 80, 30)
    assert more.slots.instruction == actor.slots.instruction
    assert (more.model, more.format, more.task) == (actor.model, actor.format, actor.task)


def test_roll_out_samples_each_problem_and_grades_what_was_sampled(actor):
    params = tiny.params(actor.format.tokenizer.vocab_size)
    problems = [problem for problem in TASK.problems("test")[:4] for _ in range(2)]  # K = 2
    keys = row_keys(0, "stage1", 7, len(problems))
    episodes, graded = rollout.roll_out(actor, params, problems, keys, temperature=1.0)
    tokens, attempt = read(episodes)
    np.testing.assert_array_equal(tokens[:, :80], prompts.encode_prompts(actor.format, problems, actor.slots))
    again = rollout.grade(actor, problems, tokens, attempt)
    assert (graded.problems, graded.texts, graded.answers) == (problems, again.texts, again.answers)
    for name in ("rewards", "finished", "decisive"):
        np.testing.assert_array_equal(getattr(graded, name), getattr(again, name))
    assert all(one[0] != other[0] for one, other in zip(graded.texts[::2], graded.texts[1::2], strict=True))

    parts, in_parts = rollout.roll_out(actor, params, problems, keys, temperature=1.0, parts=4)
    np.testing.assert_array_equal(parts.tokens, tokens)
    np.testing.assert_allclose(parts.logp, episodes.logp, atol=1e-5)
    assert in_parts.problems == problems and in_parts.rows() == graded.rows()

    spread, _ = rollout.roll_out(actor, params, problems, keys, temperature=1.0, mesh=tiny.mesh(2, 4))
    assert len(spread.tokens.sharding.device_set) == 8
    np.testing.assert_array_equal(spread.tokens, tokens)


def test_a_part_is_graded_while_later_ones_are_sampled(actor, monkeypatch):
    """All parts are asked for before the first is read, and each is graded by itself."""
    seen = []

    class Seen(tiny.Riddles):
        def grade(self, problems, texts):
            seen.append(("graded", [problem.id for problem in problems[::2]]))
            return super().grade(problems, texts)

    sample = sampling.sample

    def seen_sample(*args, **kwargs):
        seen.append(("asked for", len(args[2])))
        return sample(*args, **kwargs)

    monkeypatch.setattr(sampling, "sample", seen_sample)
    problems = TASK.problems("test")[:4]
    keys = row_keys(0, "stage1", 7, 4)
    params = tiny.params(actor.format.tokenizer.vocab_size)
    rollout.roll_out(actor.with_task(Seen()), params, problems, keys, temperature=1.0, parts=2)
    parts = [[problem.id for problem in problems[start : start + 2]] for start in (0, 2)]
    assert seen == [("asked for", 2)] * 2 + [("graded", part) for part in parts]
