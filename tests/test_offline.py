"""First attempts that are given: sampled once from the base, shown as context, paid to nobody."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from etils import epath
from test_quickstart import options, rows_of

from score_jax import model as models
from score_jax import objectives, offline, policy, prompts, rollout, step
from score_jax.__main__ import main
from score_jax.chat import plain
from score_jax.checkpoint import Checkpoints
from score_jax.config import load_config
from score_jax.learner import Optimizer
from score_jax.offline import First
from score_jax.rl import step_metrics
from score_jax.rollout import Actor
from score_jax.step import PolicyLearner
from score_jax.types import CONTEXT, PADDING, Episodes

TASK = tiny.EvenRiddles()
FAMILIES = {"gemma2": tiny.TinyGemma2, "gemma3": tiny.TinyGemma3}
SAMPLES = 4


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny.tokenizer(tmp_path_factory.mktemp("tokenizer"))


def actor_of(gemma, tokenizer) -> Actor:
    slots = prompts.make_slots(plain(tokenizer), TASK, prompt=60, attempt=45, attempts=2)
    return Actor(gemma, plain(tokenizer), TASK, slots, critique=5)


@pytest.fixture(scope="module")
def actor(tokenizer):
    return actor_of(tiny.model(tokenizer.vocab_size), tokenizer)


@pytest.fixture(scope="module")
def params(tokenizer):
    return tiny.copy(tiny.params(tokenizer.vocab_size))


def given(count: int, samples: int = SAMPLES):
    """Problems, each `samples` times, and a first attempt for each of them, an empty one among these."""
    rng = np.random.default_rng(0)
    problems = TASK.problems("test")[:count]
    texts = ["", *(TASK.demonstration(problem, rng).attempts[0] for problem in problems[1:])]
    firsts = [First(text, float(i % 2), True, {"late": 1.0}) for i, text in enumerate(texts)]
    repeat = lambda items: [item for item in items for _ in range(samples)]
    return repeat(problems), repeat(firsts)


def corrected(actor, params, count: int = 3, samples: int = SAMPLES, seed: int = 0):
    problems, firsts = given(count, samples)
    keys = rollout.row_keys(seed, "train", 0, len(problems))
    return problems, firsts, *offline.correct(actor, params, problems, firsts, keys, temperature=1.0)


# A given first attempt stands where one's own would.


def test_the_corrector_has_the_place_of_a_first_attempt_in_its_prompt(actor):
    slots = offline.corrector(actor).slots
    assert (slots.prompt, slots.attempts) == (60 + 45 + len(actor.slots.instruction), 1)
    assert (slots.length, slots.start(1)) == (actor.slots.length, actor.slots.start(2))
    asking = actor.with_critique(True)
    slots = offline.corrector(asking).slots
    assert (slots.prompt, slots.attempts) == (60 + 45 + len(asking.slots.feedback), 1)
    assert (slots.length, slots.start(1)) == (asking.slots.length, asking.slots.start(2))


@pytest.mark.parametrize("asked", [False, True], ids=["", "criticised"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_correction_has_the_log_probabilities_of_an_episode_with_that_first_attempt(
    family, asked, tokenizer
):
    gemma = FAMILIES[family](dtype=jnp.float32)
    rng = np.random.default_rng(0)
    shapes = models.shapes_of(gemma)
    params = jax.tree.map(lambda x: rng.normal(scale=0.4, size=x.shape).astype(np.float32), shapes)
    actor = actor_of(gemma, tokenizer).with_critique(asked)
    instruction = tokenizer.encode(TASK.feedback if asked else TASK.instruction)
    problems, firsts, experience, graded = corrected(actor, params, samples=2)
    assert [len(critiques) for critiques in graded.critiques] == [asked] * len(problems)
    assert all(("unfinished_critique" in notes[1]) == asked for notes in graded.notes)
    episodes = experience.episodes
    tokens = np.zeros(episodes.tokens.shape, np.int32)
    attempt = np.full_like(tokens, PADDING)
    for row, (problem, first) in enumerate(zip(problems, firsts, strict=True)):
        at = 0
        for ids, size, who in (
            (tokenizer.encode(problem.prompt, add_bos=True), 60, CONTEXT),
            (tokenizer.encode(first.text, add_eos=True), 45, 1),
            (instruction, len(instruction), CONTEXT),
        ):
            tokens[row, at : at + len(ids)], attempt[row, at : at + len(ids)] = ids, who
            at += size
        tokens[row, at:], attempt[row, at:] = episodes.tokens[row, at:], episodes.attempt[row, at:]
    second = attempt == 2
    assert (second == (np.asarray(episodes.attempt) == 2)).all() and second.any(axis=1).all()
    online = Episodes(jnp.array(tokens), jnp.array(attempt), jnp.zeros(tokens.shape))
    expected = np.asarray(policy.score_episodes(gemma, params, online).logp)[second]
    found = policy.score_episodes(gemma, params, episodes).logp
    np.testing.assert_allclose(np.asarray(found)[second], expected, atol=3e-4)
    np.testing.assert_allclose(np.asarray(episodes.logp)[second], expected, atol=3e-4)


def test_what_is_read_out_of_corrections(actor, params):
    problems, firsts, experience, graded = corrected(actor, params)
    episodes = experience.episodes
    assert set(np.unique(episodes.attempt)) == {PADDING, CONTEXT, 2}
    assert [row[0] for row in graded.texts] == [first.text for first in firsts]
    for row in range(len(problems)):
        ids = episodes.tokens[row][episodes.attempt[row] == 2]
        text = actor.format.text(np.asarray(ids).tolist())
        assert graded.texts[row][1] == text
        reward, answer = TASK.reward(problems[row], text), TASK.answer(firsts[row].text)
        assert graded.rewards[row].tolist() == [firsts[row].reward, reward]
        assert graded.answers[row][0] == (answer.value if answer else None)
    np.testing.assert_array_equal(experience.rewards, graded.rewards)
    assert graded.sampled.tolist() == [[False, True]] * len(problems)
    assert graded.finished[:, 0].all() and not graded.decisive[:, 0].any()
    assert [row[0] for row in graded.notes] == [{"late": 1.0}] * len(problems)
    counts = np.asarray(experience.decisive).sum(axis=1)
    np.testing.assert_array_equal(counts, graded.decisive[:, 1])
    assert (np.asarray(episodes.attempt)[np.asarray(experience.decisive) == 1] == 2).all()


# What an update learns from it.


def learner_of(actor, samples: int = SAMPLES, **fields) -> PolicyLearner:
    return PolicyLearner(actor.model, Optimizer(1.0), samples=samples, chunk=16, **fields)


def test_the_bonus_multiplies_the_policy_gradient_of_the_correction_and_nothing_else(actor, params):
    """Against −Σ (1 + α) (r_2 − mean of the others' r_2) log π(y_2), over all logits at once."""
    alpha = 1.5
    problems, _, experience, graded = corrected(actor, params)
    experience = jax.tree.map(jnp.asarray, experience)
    objective = jax.tree.map(jnp.float32, objectives.stage_two(2, alpha=alpha, beta_1=0.0))

    @jax.jit
    def gradient(rewards):
        loss = lambda p: step.rl_loss(
            p, {}, params, experience.replace(rewards=rewards), objective, learner_of(actor)
        )[0]
        return jax.grad(loss)(params)

    r2 = graded.rewards[:, 1].reshape(-1, SAMPLES)
    assert 0 < r2.sum() < len(problems)
    others = (r2.sum(axis=1, keepdims=True) - r2) / (SAMPLES - 1)
    advantage = ((1 + alpha) * (r2 - others)).reshape(-1, 1)
    attempt, tokens = tiny.move_left(experience.episodes.attempt, experience.episodes.tokens)
    weight = advantage * (attempt[:, 1:] == 2)

    @jax.jit
    @jax.grad
    def expected(p):
        log_p = jax.nn.log_softmax(tiny.logits(actor.model, p, tokens)[:, :-1])
        return -(jnp.take_along_axis(log_p, tokens[:, 1:, None], -1)[..., 0] * weight).sum()

    def close(x, y):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-3 * max(np.abs(y).max(), 1e-3))

    wanted = expected(params)
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(wanted)) > 0.1
    for first in (graded.rewards[:, 0], 1 - graded.rewards[:, 0]):
        rewards = jnp.stack([first, graded.rewards[:, 1]], axis=1)
        jax.tree.map(close, gradient(rewards), wanted)


def test_own_and_given_first_attempts_are_joined_in_one_compiled_update(actor, params):
    problems = [problem for problem in TASK.problems("test")[:4] for _ in range(2)]
    keys = rollout.row_keys(5, "train", 0, 8)
    episodes, graded = rollout.roll_out(actor, params, problems, keys, temperature=1.0)
    own = rollout.experience_of(actor, episodes, graded), graded
    first = lambda made, rows: (jax.tree.map(lambda x: x[:rows], made[0]), made[1].head(rows))
    joined = offline.join(first(own, 4), corrected(actor, params, count=2, samples=2)[2:])
    objective = jax.tree.map(jnp.float32, objectives.stage_two(2, alpha=1.0, beta_1=0.1))
    learner = learner_of(actor, 2, micro_batches=2)

    def update(made):
        state, rate = learner.optimizer.init(tiny.copy(params)), jnp.float32(1e-3)
        return step.train_step(state, {}, params, made[0], objective, rate, learner=learner)[1]

    before = update(own)
    compiled = step.train_step._cache_size()
    numbers = update(joined)
    assert step.train_step._cache_size() == compiled
    assert numbers["sampler_gap"] < 1e-4

    experience, graded = joined
    row = step_metrics(graded, numbers)
    attempt = np.asarray(experience.episodes.attempt)
    assert (row["sampled"], step_metrics(own[1], before)["sampled"]) == (4 * 2 + 4, 8 * 2)
    lengths = [(attempt[:4] == 1).sum(axis=1).mean(), (attempt == 2).sum(axis=1).mean()]
    np.testing.assert_allclose([row["length_t1"], row["length_t2"]], lengths, rtol=1e-5)
    assert (row["kl_t1"], row["entropy_t1"]) == (
        pytest.approx(2 * float(numbers["kl"][0])),
        pytest.approx(float(numbers["entropy"][0])),
    )
    assert row["reward_t1"] == pytest.approx(experience.rewards[:, 0].mean())
    alone = step_metrics(*corrected(actor, params, count=4, samples=2)[3:], numbers)
    assert alone["sampled"] == 8
    assert {"kl_t2", "entropy_t2", "length_t2", "reward_t1", "reward_t2", "delta"} <= alone.keys()
    assert not {"kl_t1", "entropy_t1", "length_t1"} & alone.keys()


# The bank.


def config_with(**changes):
    fields = {"problems_per_step": 8, "samples_per_problem": 2, "offline_attempts": 3} | changes
    changed = [f"--config.{field.replace('__', '.')}={value}" for field, value in fields.items()]
    return load_config("configs/quickstart.py", changed)


def banked(folder, actor, params, count: int = 7, **changes):
    said = []
    problems = TASK.problems("train")[:count]
    workdir = epath.Path(folder)
    workdir.mkdir(exist_ok=True)
    bank = offline.first_attempts(config_with(**changes), workdir, actor, params, problems, said.append)
    return bank, rows_of(folder / offline.FILE), said


def test_first_attempts_are_the_bases_own_and_a_function_of_the_seed(actor, params, tmp_path):
    bank, rows, _ = banked(tmp_path / "a", actor, params)
    problems = TASK.problems("train")[:7]
    assert [row["id"] for row in rows] == [problem.id for problem in problems for _ in range(3)]
    assert len({row["text"] for row in rows}) > 18  # K samples of a problem are not one
    one = actor.with_attempts(1)
    asked = [problem for problem in problems for _ in range(3)]
    asked += asked[-1:] * 3  # the tests' devices are eight
    keys = rollout.row_keys(0, "offline", 0, 24)
    _, graded = rollout.roll_out(one, params, asked, keys, temperature=1.0)
    for row, text, reward, finished in zip(rows, graded.texts, graded.rewards, graded.finished, strict=False):
        assert row | {"notes": {}} == row
        assert (row["text"], row["reward"], row["finished"]) == (text[0], reward[0], finished[0])
    assert [first.text for firsts in bank.values() for first in firsts] == [row["text"] for row in rows]
    assert banked(tmp_path / "b", actor.with_critique(True), params, rollout_parts=2)[1] == rows
    assert banked(tmp_path / "c", actor, params, seed=1)[1] != rows


def test_the_bank_is_sampled_once_and_goes_on_where_it_was_stopped(actor, params, tmp_path, monkeypatch):
    _, rows, _ = banked(tmp_path / "whole", actor, params)
    roll_out, calls = rollout.roll_out, []

    def stopped(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:  # of two batches
            raise OSError("stopped")
        return roll_out(*args, **kwargs)

    monkeypatch.setattr(rollout, "roll_out", stopped)
    with pytest.raises(OSError, match="stopped"):
        banked(tmp_path / "again", actor, params)
    assert banked(tmp_path / "again", actor, params)[1] == rows
    assert banked(tmp_path / "again", actor, params)[1] == rows
    assert len(calls) == 3
    assert not list((tmp_path / "again" / "drafts").iterdir())


def test_a_bank_of_other_problems_is_refused(actor, params, tmp_path):
    banked(tmp_path, actor, params)
    for changes in ({"count": 6}, {"offline_attempts": 2}):
        with pytest.raises(ValueError, match=r"first_attempts\.jsonl does not hold .* delete it"):
            banked(tmp_path, actor, params, **changes)


def test_attempts_that_are_too_long_are_counted_and_not_cut(actor, params, tmp_path):
    problem = TASK.problems("train")[0]
    tokens = lambda text: len(actor.format.tokenizer.encode(text))
    room = 60 + 45 - (1 + tokens(problem.prompt)) - 1  # the prompt has a first token, the attempt a last one
    fits, long = "0" * room, "0" * (room + 1)  # digits stand alone
    assert (tokens(fits), tokens(long)) == (room, room + 1)

    def write(*texts):
        rows = [{"id": problem.id, "text": t, "reward": 1.0, "finished": False, "notes": {}} for t in texts]
        (tmp_path / offline.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return banked(tmp_path, actor, params, count=1, offline_attempts=len(texts))

    bank, _, (said,) = write(long, "", fits)
    assert [first.text for first in bank[problem.id]] == ["", fits]
    assert "3 at 1 problems, 100.0% right; 1 are too long" in said
    for text in ("", fits):
        shown = dataclasses.replace(problem, first=text)
        prompts.encode_prompts(actor.format, [shown], offline.corrector(actor).slots)
    with pytest.raises(
        ValueError, match=rf"slots\.prompt = 60: none .*{re.escape(repr(problem.id))}.* to 61 or"
    ):
        write(long + "0", long)


def test_problems_that_come_with_a_first_attempt_are_refused(actor, params, tmp_path):
    problem = dataclasses.replace(TASK.problems("train")[0], first="7")
    with pytest.raises(ValueError, match="comes with a first attempt already"):
        offline.first_attempts(config_with(), epath.Path(tmp_path), actor, params, [problem], print)


def test_which_attempt_is_given_is_a_function_of_seed_step_and_problem():
    problems = TASK.problems("train")[:6]
    bank = {problem.id: [First(str(i), 0.0, True, {}) for i in range(4)] for problem in problems}
    picked = lambda seed, at: [offline.pick(bank, p, seed=seed, step=at).text for p in problems]
    assert picked(0, 3) == picked(0, 3)
    assert picked(0, 3) != picked(1, 3) and picked(0, 3) != picked(0, 4)
    assert len(set(picked(0, 3))) > 1
    times = np.bincount([int(text) for at in range(200) for text in picked(0, at)])
    assert (np.abs(times - 300) < 60).all()  # of 1,200; 4 standard errors


# Settings and commands.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage1__offline": 1.5}, "config.stage1.offline = 1.5: is a share and must lie in [0, 1]"),
        (
            {"stage1__offline": 0.3},
            "config.stage1.offline = 0.3: 2.4 of problems_per_step = 8 problems are no",
        ),
        (
            {"stage1__offline": 1, "stage1__attempts": 3},
            "gives the first of 2 attempts, and config.stage1.att",
        ),
        (
            {"stage1__offline": 1, "slots__critique": 9, "stage1__critique": True},
            "gives attempts that nobody criticised; set config.stage1.critique=False",
        ),
        (
            {"stage1__offline": 1, "stage1__discount": 0.5, "decisive_only": False},
            "credits no given attempt; set config.stage1.discount=0",
        ),
        (
            {"stage1__offline": 0.25, "rollout_parts": 4},
            "config.stage1.offline = 0.25: rollout_parts = 4 must divide 2 problems and the other 6 alike",
        ),
        ({"stage1__offline": 0.5, "offline_attempts": 0}, "config.offline_attempts = 0 leaves none to give"),
        ({"offline_attempts": -1}, "config.offline_attempts = -1: must not be negative"),
    ],
)
def test_what_cannot_be_given_is_refused(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config_with(**change)


def test_a_share_that_the_devices_cannot_share_is_refused(tmp_path, capsys):
    args = options(tmp_path, stage2__offline=0.125)
    assert main(["train", f"--workdir={tmp_path / 'run'}", *args]) == 2
    assert "config.stage2.offline gives 2 rows, which 8 shares of the mesh cannot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shares", "name"), [((0.5, 1.0), "stage_one"), ((0.0, 1.0), "stage_two"), ((0.0, 0.0), "")]
)
def test_given_attempts_are_counted_in_the_first_stage_that_gives_some(shares, name):
    config = config_with(stage1__offline=shares[0], stage2__offline=shares[1])
    assert offline.first_giver(config) == name


def test_given_first_attempts_are_trained_on_end_to_end(tmp_path):
    """Half of them in one stage and all in the next; resumed as straight, from one bank."""
    changes = {"task": "tiny:EvenRiddles", "slots__prompt": 40, "checkpoint_every": 1}
    changes |= {"stage1__offline": 0.5, "stage2__offline": 1.0}
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    args = options(tmp_path, **changes)
    assert main(["train", f"--workdir={straight}", *args]) == 0
    rows = rows_of(straight / "metrics.jsonl")
    bank = 12 * 4  # problems and first attempts at each, counted in the first update
    assert [row["sampled"] for row in rows] == [bank + 24, 4 * 2 * 2 + 4 * 2] + [8 * 2] * 2
    assert all(row["sampler_gap"] < 1e-4 for row in rows)
    assert ["kl_t1" in row for row in rows] == [True, True, False, False]
    bank = rows_of(straight / offline.FILE)
    assert len(bank) == 12 * 4
    with Checkpoints(epath.Path(straight) / "checkpoints") as checkpoints:
        assert checkpoints.note(4).reward == pytest.approx(rows[3]["reward_t2"])
    assert all(0 < row["reward_t1"] < 1 for row in rows)

    shutil.copytree(straight, resumed)
    for at in (2, 3, 4):
        epath.Path(resumed / "checkpoints" / str(at)).rmtree()
    written = (resumed / offline.FILE).stat().st_mtime_ns
    assert main(["train", f"--workdir={resumed}", *args]) == 0
    assert (resumed / offline.FILE).stat().st_mtime_ns == written
    timeless = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    assert timeless(rows_of(resumed / "metrics.jsonl")) == timeless(rows)
