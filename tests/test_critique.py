"""A critique between two attempts: demonstrated, sampled, read, paid with the attempt that it prepares."""

import dataclasses
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from etils import epath
from test_quickstart import options, rows_of

from score_jax import objectives, policy, pretrain, prompts, rollout, step
from score_jax.__main__ import main
from score_jax.chat import plain
from score_jax.config import check_workdir, claim_workdir, load_config
from score_jax.config_check import check_config
from score_jax.evaluate import attempt_rows
from score_jax.learner import Optimizer
from score_jax.metrics import result_of
from score_jax.rl import episode_text
from score_jax.rollout import Actor
from score_jax.slots import Slots
from score_jax.step import PolicyLearner
from score_jax.task import Demonstration, Task, evaluated
from score_jax.types import CONTEXT, PADDING, Episodes, Problem

TASK = tiny.EvenRiddles()
QUICKSTART = "configs/quickstart.py"
ON = {"slots__critique": 12, "pretrain__correct__critiques": 0.5, "stage1__critique": True}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny.tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def actor(tokenizer):
    """Three attempts; critiques of 9 tokens, where they are asked for."""
    slots = prompts.make_slots(plain(tokenizer), TASK, prompt=80, attempt=30, attempts=3)
    return Actor(tiny.model(tokenizer.vocab_size), plain(tokenizer), TASK, slots, critique=9)


def config_with(**changes):
    changed = [f"--config.{field.replace('__', '.')}={value}" for field, value in changes.items()]
    return load_config(QUICKSTART, changed)


# The layout that an actor asks for.


def test_an_actor_asks_for_critiques_or_does_not(actor):
    asking = actor.with_critique(True)
    assert asking.slots == Slots(
        80,
        30,
        tuple(actor.format.instruction(TASK.refine)),
        3,
        9,
        tuple(actor.format.instruction(TASK.feedback)),
    )
    assert asking.with_critique(False) == actor
    assert asking.with_attempts(2).slots.critique == 9

    class Terse(tiny.Riddles):
        feedback, refine = "What is wrong?\n", "Again.\n"

    other = asking.with_task(Terse()).slots
    assert other.feedback == tuple(actor.format.instruction("What is wrong?\n"))
    assert other.instruction == tuple(actor.format.instruction("Again.\n"))
    with pytest.raises(ValueError, match=r"config\.slots\.critique = 0: .* give it some tokens"):
        dataclasses.replace(actor, critique=0).with_critique(True)


GIVEN = Problem(id="x7", prompt="What is my number?\n", gold="13", first="12")
OWN = dataclasses.replace(GIVEN, id="x8", first=None)


def test_of_a_given_first_attempt_the_critique_is_written_first(actor):
    asking, encode = actor.with_critique(True), actor.format.tokenizer.encode
    assert asking.for_problems([OWN]) == asking and actor.for_problems([GIVEN]) == actor
    slots = asking.for_problems([GIVEN]).slots
    feedback, refine = encode(TASK.feedback), encode(TASK.refine)
    (row,) = prompts.encode_prompts(actor.format, [GIVEN], slots)
    shown = [*encode(GIVEN.prompt, add_bos=True), *encode("12", add_eos=True), *feedback]
    assert row.tolist() == [actor.format.pad] * (80 - len(shown)) + shown
    one, two, three, four, *_ = slots.segments
    start = 89 + len(refine)
    assert (one.before, one.start, one.stop, one.attempt, one.critique) == ((), 80, 89, 1, True)
    assert (two.before, two.start, two.attempt, two.critique) == (tuple(refine), start, 1, False)
    assert (slots.start(1), slots.start(2)) == (start, start + 30 + len(feedback) + 9 + len(refine))
    assert [(s.attempt, s.critique) for s in (three, four)] == [(2, True), (2, False)]
    assert three.before == tuple(feedback)
    assert slots.length == start + 3 * 30 + 2 * (len(feedback) + 9 + len(refine))
    assert asking.for_problems([GIVEN]).for_problems([OWN]) == asking


def test_a_layout_for_given_attempts_and_problems_without_them_do_not_go_together(actor):
    asking = actor.with_critique(True)
    with pytest.raises(ValueError, match=r"'x7' comes with a first attempt.* without one.*critique=False"):
        prompts.encode_prompts(actor.format, [OWN, GIVEN], asking.slots)
    with pytest.raises(ValueError, match=r"'x8' comes without a first attempt.* with one.*critique=False"):
        prompts.encode_prompts(actor.format, [GIVEN, OWN], asking.for_problems([GIVEN]).slots)
    with pytest.raises(ValueError, match=r"Slots\.critique_first = True: Slots\.critique = 0; give it"):
        Slots(4, 3, (1,), 2, critique_first=True)


def test_critiques_of_single_attempts_are_refused_unless_these_follow_given_ones():
    config = config_with(slots__critique=9, evaluate__critique=True, evaluate__attempts=1)
    told = "config.evaluate.critique = True: config.evaluate.attempts = 1: none follows"
    with pytest.raises(ValueError, match=re.escape(told)):
        evaluated(config, tiny.Riddles())

    class Offline(tiny.Riddles):
        def problems(self, split):
            return [dataclasses.replace(problem, first="12") for problem in super().problems(split)]

    assert evaluated(config, Offline())[1][0].first == "12"


# Demonstrations.

PROBLEM = Problem(id="2x9+1", prompt="I get $19$. What is my number?\n", gold="9")
ANSWER = "Final Answer: The final answer is $"
WITH = Demonstration((f"{ANSWER}8$.", f"{ANSWER}9$."), (False, True), ("The number $8$ is too small.",))
WITHOUT = dataclasses.replace(WITH, critiques=())


def demonstrated(tokenizer, *demonstrations, critique=30, task=TASK):
    slots = prompts.make_slots(plain(tokenizer), task, prompt=40, attempt=25, attempts=2, critique=critique)
    problems = [PROBLEM] * len(demonstrations)
    return slots, prompts.encode_demonstrations(plain(tokenizer), task, problems, demonstrations, slots)


def test_demonstrations_with_and_without_a_critique_stand_side_by_side(tokenizer):
    """Against a layout written out by hand; a token is (id, whose it is, its weight)."""
    slots, (tokens, attempt, weight) = demonstrated(tokenizer, WITH, WITHOUT)
    encode, end = tokenizer.encode, int(tokenizer.special_tokens.EOS)
    context = lambda ids: [(id_, CONTEXT, 0.0) for id_ in ids]
    written = lambda ids, number: [(id_, number, 1.0) for id_ in (*ids, end)]
    blank = lambda count: [(0, PADDING, 0.0)] * count

    def filled(items, size):
        return [*items, *blank(size - len(items))]

    prompt = context(encode(PROBLEM.prompt, add_bos=True))
    first = [
        *((id_, 1, 1.0) for id_ in encode(ANSWER)),
        *((id_, 1, 0.0) for id_ in encode("8")),  # given for the sake of what follows it
        *written(encode("$."), 1),
    ]
    start = [*blank(40 - len(prompt)), *prompt, *filled(first, 25)]
    second = filled(written(encode(f"{ANSWER}9$."), 2), 25)
    feedback, refine, again = (encode(words) for words in (TASK.feedback, TASK.refine, TASK.instruction))
    criticised = [
        *start,
        *context(feedback),
        *filled(written(encode("The number $8$ is too small."), 2), 30),
        *context(refine),
        *second,
    ]
    room = len(feedback) + 30 + len(refine)
    uncriticised = [*start, *blank(room - len(again)), *context(again), *second]
    assert slots.length == len(criticised) == len(uncriticised)
    for row, expected in enumerate((criticised, uncriticised)):
        found = zip(tokens[row].tolist(), attempt[row].tolist(), weight[row].tolist(), strict=True)
        assert list(found) == expected


def test_without_a_critique_its_empty_place_changes_nothing(tokenizer):
    gemma, params = tiny.model(tokenizer.vocab_size), tiny.params(tokenizer.vocab_size)

    def scores(critique):
        _, (tokens, attempt, _) = demonstrated(tokenizer, WITHOUT, critique=critique)
        episodes = Episodes(jnp.array(tokens), jnp.array(attempt), jnp.zeros(tokens.shape))
        return np.asarray(policy.score_episodes(gemma, params, episodes).logp)[attempt > CONTEXT]

    assert len(scores(0)) == 8
    np.testing.assert_allclose(scores(30), scores(0), atol=1e-5)


def test_demonstrations_that_do_not_fit_are_refused(tokenizer):
    needed = len(tokenizer.encode(WITH.critiques[0])) + 1
    demonstrated(tokenizer, WITH, critique=needed)
    with pytest.raises(
        ValueError, match=rf"slots\.critique = {needed - 1}: .*'2x9\+1'.* to {needed} or more"
    ):
        demonstrated(tokenizer, WITH, critique=needed - 1)
    with pytest.raises(ValueError, match=r"critiques of '2x9\+1': got 1, the layout has places for 0"):
        demonstrated(tokenizer, WITH, critique=0)
    twice = dataclasses.replace(WITH, critiques=WITH.critiques * 2)
    with pytest.raises(ValueError, match="got 2, the layout has places for 1"):
        demonstrated(tokenizer, twice)

    class Wordy(tiny.Riddles):
        feedback, refine, instruction = "a", "b", "Once more, with care.\n"

    room = len(tokenizer.encode(Wordy.instruction)) - 2
    demonstrated(tokenizer, WITHOUT, critique=room, task=Wordy())
    with pytest.raises(ValueError, match=rf"slots\.critique = {room - 1}: .* raise it to {room} or more"):
        demonstrated(tokenizer, WITHOUT, critique=room - 1, task=Wordy())


@pytest.mark.parametrize(
    ("text", "critique"),
    [
        (f"{ANSWER}8$. Check: nonsense.", "The number $8$ is too small."),
        (f"{ANSWER}10$.", "The number $10$ is too large."),
        (f"{ANSWER}9$.", "The number $9$ is right."),
        (f"{ANSWER}nine$.", "There is no number."),
        ("Nothing.", "There is no number."),
    ],
)
def test_riddles_are_criticised_honestly(text, critique):
    assert TASK.critique(PROBLEM, text) == critique


def test_a_task_without_critiques_says_so():
    class Bare(Task):
        def problems(self, split):
            return [PROBLEM]

    with pytest.raises(ValueError, match="Bare has no critiques to pre-train"):
        Bare().critique(PROBLEM, "8")


def test_a_share_of_the_demonstrations_shows_critiques_and_nothing_else_changes(actor):
    problems = TASK.problems("train")
    settings = {"seed": 3, "step": 5, "batch": 400, "unlearned": 0.5}
    two = dataclasses.replace(actor, critique=40).with_attempts(2)
    two = dataclasses.replace(two, slots=dataclasses.replace(two.slots, prompt=90, attempt=80))
    bare = pretrain.demonstrations(two, problems, **settings)
    shown = pretrain.demonstrations(two.with_critique(True), problems, **settings, critiques=0.3)
    slots = two.with_critique(True).slots
    critique, _ = (segment for segment in slots.segments if segment.attempt == 2)
    texts = {}
    for row in range(400):
        ids = shown.tokens[row, critique.start : critique.stop]
        ids = ids[shown.attempt[row, critique.start : critique.stop] == 2]
        if len(ids):
            texts[row] = two.format.text(ids.tolist())
    assert 0.3 * 400 - 30 < len(texts) < 0.3 * 400 + 30  # 3 standard errors
    for number, (name, empty) in itertools.product(
        (1, 2), (("tokens", 0), ("attempt", PADDING), ("weight", 0))
    ):
        place = [slice(s.start(number), s.start(number) + s.attempt) for s in (two.slots, slots)]
        before, after = getattr(bare, name)[:, place[0]], getattr(shown, name)[:, place[1]]
        np.testing.assert_array_equal(before, after)
        assert (before != empty).any()
    for row, text in texts.items():
        first = shown.tokens[row, slots.start(1) : slots.start(1) + 80]
        guess = TASK.answer(two.format.text(first[first != 0].tolist())).value
        assert re.fullmatch(rf"The number \${guess}\$ is (too small|too large|right)\.", text)


def test_the_corpus_has_the_words_of_critiques_where_they_are_shown():
    plain_, shown = list(TASK.corpus(50)), list(TASK.corpus(50, critiques=True))
    more = [text for text in shown if text in (TASK.feedback, TASK.refine) or text.startswith("The number")]
    assert len(more) == 3 * 50
    assert [text for text in shown if text not in more] == plain_


# What the host reads.

WRITTEN = [  # of each attempt the critique before it and the attempt itself; False: cut off by its slot
    [None, (f"{ANSWER}8$. Ch", True), ("Too small", True), (f"{ANSWER}9$.", True), ("", True), ("0", False)],
    [None, ("1", True), (f"{ANSWER}9$", False), ("2", True), ("ok", True), (f"{ANSWER}9$. Check", True)],
]


def written(actor):
    """Transcripts of `WRITTEN` in the slots [80 | 30 | F | 9 | F | 30 | F | 9 | F | 30], made by hand."""
    feedback, refine = (actor.format.instruction(words) for words in (TASK.feedback, TASK.refine))
    tokens = np.zeros((len(WRITTEN), actor.slots.length), np.int32)
    attempt, places = np.full_like(tokens, PADDING), []
    attempt[:, 77:80] = CONTEXT
    for row, texts in enumerate(WRITTEN):
        at = 80
        for turn, item in enumerate(texts):
            number, critique = turn // 2 + 1, turn % 2 == 0
            if item is None:
                continue
            instruction = feedback if critique else refine if number > 1 else []
            tokens[row, at : at + len(instruction)] = instruction
            attempt[row, at : at + len(instruction)] = CONTEXT
            at += len(instruction)
            ids = actor.format.tokenizer.encode(item[0], add_eos=item[1])[: 9 if critique else 30]
            tokens[row, at : at + len(ids)], attempt[row, at : at + len(ids)] = ids, number
            places.append((row, number, critique, at, len(ids)))
            at += 9 if critique else 30
        assert at == actor.slots.length
    return Episodes(*map(jnp.array, (tokens, attempt, np.zeros(tokens.shape, np.float32)))), places


def test_attempts_are_read_from_their_own_place(actor):
    """The critique that quotes the right answer earns nothing."""
    actor = actor.with_critique(True).with_task(tiny.Riddles())
    episodes, places = written(actor)
    problems = [dataclasses.replace(PROBLEM, id=str(row)) for row in range(2)]
    graded = rollout.grade(actor, problems, np.asarray(episodes.tokens), np.asarray(episodes.attempt))
    assert graded.texts == [[item[0] for item in row[1::2]] for row in WRITTEN]
    assert graded.answers == [["8", "9", None], [None, None, "9"]]
    assert graded.rewards.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert graded.finished.tolist() == [[True, True, False], [True, True, True]]
    cut = actor.format.text(actor.format.tokenizer.encode(WRITTEN[1][2][0])[:9])
    assert graded.critiques == [["Too small", ""], [cut, "ok"]]
    asked = {"unfinished_critique": 0.0}
    assert graded.notes == [[{}, asked, asked], [{}, {"unfinished_critique": 1.0}, asked]]
    assert graded.sampled.all()
    assert graded.head(1).critiques == graded.critiques[:1]
    assert "critique   Too small\n  attempt 2" in episode_text(graded, 0)

    decisive = np.asarray(rollout.experience_of(actor, episodes, graded).decisive)
    expected = np.zeros_like(decisive)
    for row, number, critique, start, length in places:
        count = length if critique else graded.decisive[row, number - 1]
        expected[row, start : start + count] = 1
    np.testing.assert_array_equal(decisive, expected)
    assert graded.decisive[1, 2] < places[-1][-1]  # an attempt's own tokens after its answer are left out

    rows = attempt_rows(graded, checkpoint="base", step=0, split="test", temperature=1.0)
    assert [row["critiques"] for row in rows] == graded.critiques
    assert result_of(rows, resamples=0)["unfinished_critique_t2"] == 0.5


def test_rows_of_an_evaluation_without_critiques_are_as_ever(actor):
    tokens = np.zeros((1, actor.slots.length), np.int32)
    graded = rollout.grade(actor, [PROBLEM], tokens, np.full_like(tokens, PADDING))
    (row,) = attempt_rows(graded, checkpoint="base", step=0, split="test", temperature=1.0)
    assert "critiques" not in row and "notes" not in row
    assert "critique" not in episode_text(graded, 0)


# What an update learns.


def test_a_critique_is_paid_with_the_attempt_that_it_prepares(actor):
    """The gradient against −Σ_t A_t log π(y_t), with numpy's A_t by the place of a token."""
    samples, alpha = 2, 1.5
    asking = actor.with_attempts(2).with_critique(True)
    vocab = actor.format.tokenizer.vocab_size
    params = tiny.copy(tiny.params(vocab))
    problems = [problem for problem in TASK.problems("test")[:4] for _ in range(samples)]
    keys = rollout.row_keys(0, "train", 0, len(problems))
    episodes, graded = rollout.roll_out(asking, params, problems, keys, temperature=1.0)
    experience = jax.tree.map(jnp.asarray, rollout.experience_of(asking, episodes, graded))
    learner = PolicyLearner(asking.model, Optimizer(1.0), samples=samples, temperature=1.0, chunk=16)
    objective = jax.tree.map(jnp.float32, objectives.stage_two(2, alpha=alpha, beta_1=0.0))
    loss = lambda p: step.rl_loss(p, {}, params, experience, objective, learner)[0]

    r = graded.rewards
    pay = np.stack([r[:, 0], r[:, 1] + alpha * (r[:, 1] - r[:, 0])], axis=1)
    advantage = pay - pay[np.arange(len(r)) ^ 1]  # rows 2i and 2i + 1 are the samples of one problem
    feedback, refine = (len(actor.format.instruction(words)) for words in (TASK.feedback, TASK.refine))
    places = {"first": (80, 110, 0), "critique": (110 + feedback, 119 + feedback, 1)}
    places["second"] = (119 + feedback + refine, 149 + feedback + refine, 1)
    weights = np.zeros((3, *episodes.tokens.shape))
    for weight, (start, stop, column) in zip(weights, places.values(), strict=True):
        weight[:, start:stop] = advantage[:, column, None] * (np.asarray(episodes.attempt[:, start:stop]) > 0)
    _, tokens, *weights = tiny.move_left(episodes.attempt, episodes.tokens, *weights)

    @jax.jit
    @jax.jacrev
    def plain_gradients(p):
        log_p = jax.nn.log_softmax(tiny.logits(asking.model, p, tokens)[:, :-1])
        logp = jnp.take_along_axis(log_p, tokens[:, 1:, None], -1)[..., 0]
        return jnp.stack([-(logp * weight[:, 1:]).sum() for weight in weights])

    parts = plain_gradients(params)
    for part in range(3):
        assert max(float(np.abs(x[part]).max()) for x in jax.tree.leaves(parts)) > 0.1
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-3 * max(np.abs(y).max(), 1e-3))
    jax.tree.map(close, jax.jit(jax.grad(loss))(params), jax.tree.map(lambda x: x.sum(axis=0), parts))


# Settings and commands.


def test_an_earlier_base_model_still_has_the_settings_that_it_was_made_with(tmp_path):
    """As they were written before there were critiques; with critiques they are others."""
    config, task = config_with(data_dir=tmp_path), tiny.Riddles()
    settings = pretrain._settings(config, task)
    assert settings["slots"] == {"prompt": 13, "attempt": 13}
    phase = {"steps": 1000, "attempts": 2, "learning_rate": 1.5e-3, "unlearned": 0.85}
    assert settings["pretrain"]["correct"] == phase
    assert set(settings) == {"seed", "task", "tokenizer", "model", "slots", "pretrain", "demonstrations"}
    roomy = pretrain._settings(config_with(slots__critique=12), task)
    assert roomy == settings  # room for critiques that no demonstration shows
    shown = pretrain._settings(config_with(slots__critique=12, pretrain__correct__critiques=0.5), task)
    assert (shown["slots"]["critique"], shown["pretrain"]["correct"]["critiques"]) == (12, 0.5)
    assert shown["demonstrations"] != settings["demonstrations"]


def test_an_evaluation_may_ask_for_critiques_that_were_not_trained(tmp_path):
    workdir = epath.Path(tmp_path)
    claim_workdir(workdir, load_config(QUICKSTART))
    check_workdir(workdir, config_with(slots__critique=12, evaluate__critique=True))
    with pytest.raises(
        ValueError, match=r"slots\.critique is 0 there and 12 here; stage1\.critique is False"
    ):
        check_workdir(workdir, config_with(slots__critique=12, stage1__critique=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"evaluate__critique": True},
            "config.evaluate.critique = True: config.slots.critique = 0 leaves no",
        ),
        ({"stage1__critique": True}, "config.stage1.critique = True: config.slots.critique = 0 leaves no"),
        (
            {"pretrain__correct__critiques": 0.1},
            "config.pretrain.correct.critiques = 0.1: config.slots.criti",
        ),
        (
            {"slots__critique": 9, "stage1__critique": True, "stage1__attempts": 1},
            "config.stage1.critique = True: config.stage1.attempts = 1: none follows",
        ),
        (
            {"slots__critique": 9, "pretrain__guess__critiques": 1},
            "config.pretrain.guess.critiques = 1.0: config.pretrain.guess.attempts = 1: none follows",
        ),
        ({"slots__critique": -1}, "config.slots.critique = -1: must not be negative"),
        ({"slots__critique": 9, "pretrain__correct__critiques": 1.5}, "critiques = 1.5: is a share"),
    ],
)
def test_critiques_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config_with(**change)


def test_a_config_without_the_field_names_it():
    config = load_config(QUICKSTART).unlock()
    del config.slots.critique
    with pytest.raises(ValueError, match=r"config\.slots\.critique is missing; configs/quickstart\.py shows"):
        check_config(config)


def test_critiques_are_trained_and_evaluated_end_to_end(tmp_path):
    """Shown in pre-training, trained in one stage and not in the other, asked for in an evaluation."""
    short = {"stages": "('stage1',)", "stage1__steps": 2}
    args = [f"--workdir={tmp_path / 'run'}", *options(tmp_path, **ON, **short)]
    assert main(["train", *args]) == 0
    steps = rows_of(tmp_path / "run" / "metrics.jsonl")
    assert len(steps) == 2
    assert all(row["sampler_gap"] < 1e-4 for row in steps)
    assert all(row["sampled"] == 8 * 2 * 2 for row in steps)
    assert all(0 <= row["unfinished_critique_t2"] <= 1 for row in steps)
    settings = json.loads((tmp_path / "base" / "settings.json").read_text())
    assert settings["pretrain"]["correct"]["critiques"] == 0.5
    for asked in (True, False):
        assert main(["evaluate", *args, f"--config.evaluate.critique={asked}"]) == 0
        rows = rows_of(tmp_path / "run" / "attempts.jsonl")
        assert [row["checkpoint"] for row in rows] == ["base"] * 20 + ["stage_one"] * 20
        assert {len(row["attempts"]) for row in rows} == {2}
        assert {len(row.get("critiques", ())) for row in rows} == ({1} if asked else {0})
        assert main(["report", f"--workdir={tmp_path / 'run'}"]) == 0
