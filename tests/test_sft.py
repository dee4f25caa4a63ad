"""STaR and Pair-SFT: filters against plain lists, examples token for token, and whole runs by the command."""

import json
import shutil
from collections import defaultdict

import jax
import ml_collections
import numpy as np
import pytest
import tiny
from etils import epath
from test_quickstart import options, rows_of

from score_jax import chat, rl, rollout, schedule, sft
from score_jax import model as models
from score_jax.__main__ import main
from score_jax.base import load_base
from score_jax.checkpoint import Checkpoints
from score_jax.config import load_config
from score_jax.config_check import check_config
from score_jax.evaluate import load_policy
from score_jax.examples import Found, collect, read_found, tally_of, write_found
from score_jax.rollout import Graded
from score_jax.task import training_task
from score_jax.traces import Trace, lay_out, pair, remember_right, star, traces_of
from score_jax.types import CONTEXT, Problem

PROBLEMS = [Problem(id=f"p{number}", prompt="", gold="") for number in range(5)]


def sampled(rows: int, seed: int = 0, share: float = 0.5):
    """Random transcripts, rewards (a `share` of them 1) and problems."""
    rng = np.random.default_rng([seed, 1])
    episodes = jax.tree.map(np.asarray, tiny.transcripts(rows, seed=seed))
    rewards = (rng.random((rows, 2)) < share).astype(np.float32)
    problems = [PROBLEMS[index] for index in rng.integers(len(PROBLEMS), size=rows)]
    return episodes, rewards, problems


def traces(rows: int, seed: int = 0) -> list[Trace]:
    episodes, rewards, problems = sampled(rows, seed)
    return traces_of(episodes.tokens, episodes.attempt, rewards, problems, tiny.SLOTS)


def plain(trace: Trace) -> tuple:
    """A trace as Python's own types."""
    ids = [segment.tolist() for segment in (trace.prompt, *trace.attempts)]
    return (trace.problem, *ids, tuple(trace.right))


def test_a_trace_is_the_episodes_tokens():
    episodes, rewards, problems = sampled(12)
    found = traces_of(episodes.tokens, episodes.attempt, rewards, problems, tiny.SLOTS)
    starts = [0, tiny.SLOTS.start(1), tiny.SLOTS.start(2)]
    stops = [tiny.SLOTS.prompt, starts[1] + tiny.SLOTS.attempt, tiny.SLOTS.length]
    for row, trace in enumerate(found):
        segments = []
        for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            who = episodes.attempt[row, start:stop].tolist()
            ids = episodes.tokens[row, start:stop].tolist()
            segments.append([token for token, writer in zip(ids, who, strict=True) if writer == number])
        right = tuple(bool(reward) for reward in rewards[row])
        assert plain(trace) == (problems[row].id, *segments, right)


def test_examples_are_the_tokens_that_were_sampled_and_only_attempt_2_is_learned():
    episodes, rewards, problems = sampled(12)
    found = traces_of(episodes.tokens, episodes.attempt, rewards, problems, tiny.SLOTS)
    examples = lay_out(found, tiny.SLOTS, tiny.PAD)
    np.testing.assert_array_equal(examples.tokens, episodes.tokens)
    np.testing.assert_array_equal(examples.attempt, episodes.attempt)
    for row in range(12):
        learned = [who == 2 for who in episodes.attempt[row].tolist()]
        assert examples.weight[row].tolist() == [float(x) for x in learned]
    assert (episodes.tokens[examples.weight == 1] == tiny.EOS).any()  # stopping is learned


@pytest.mark.parametrize("keep_right", [False, True])
def test_star_keeps_what_ends_right(keep_right):
    rows = traces(40)
    wanted = {(False, True), (True, True)} if keep_right else {(False, True)}
    expected = [plain(trace) for trace in rows if tuple(trace.right) in wanted]
    assert 5 < len(expected) < 35
    assert [plain(trace) for trace in star(rows, keep_right=keep_right)] == expected


@pytest.mark.parametrize("keep_right", [False, True])
def test_a_pair_is_a_first_attempt_and_a_right_one_at_the_same_problem(keep_right):
    rows = traces(120)
    rights = defaultdict(list)
    for trace in rows:
        for ids, right in zip(trace.attempts, trace.right, strict=True):
            if right and trace.problem != "p3":  # which nobody solves
                rights[trace.problem].append(ids)
    pairs = pair(rows, rights, seed=0, first_row=0, keep_right=keep_right)
    wanted = [t for t in rows if (keep_right or not t.right[0]) and t.problem != "p3"]
    assert 5 < len(wanted) < len(rows) - 3
    drawn = defaultdict(set)
    for found, trace in zip(pairs, wanted, strict=True):
        assert plain(found)[:3] == plain(trace)[:3]
        assert tuple(found.right) == (trace.right[0], True)
        second = found.attempts[1].tolist()
        assert second in [ids.tolist() for ids in rights[trace.problem]]
        drawn[trace.problem].add(tuple(second))
    assert all(len(ids) > 1 for ids in drawn.values())  # not always the same one


def test_the_draw_is_a_function_of_seed_and_row():
    rows, rights = traces(40), defaultdict(list)
    remember_right(rights, rows)
    draw = lambda rows, **place: [plain(t) for t in pair(rows, rights, keep_right=True, **place)]
    whole = draw(rows, seed=0, first_row=8)
    assert draw(rows[:15], seed=0, first_row=8) + draw(rows[15:], seed=0, first_row=23) == whole
    assert draw(rows, seed=1, first_row=8) != whole
    assert draw(rows, seed=0, first_row=9) != whole


def test_a_moved_attempt_stands_in_attempt_2s_place():
    rows, rights = traces(40), defaultdict(list)
    remember_right(rights, rows)
    pairs = pair(rows, rights, seed=0, first_row=0, keep_right=False)
    examples = lay_out(pairs, tiny.SLOTS, tiny.PAD)
    place = tiny.SLOTS.start(2)
    for row, trace in enumerate(pairs):
        ids = trace.attempts[1].tolist()
        behind = tiny.SLOTS.attempt - len(ids)
        assert examples.tokens[row, place:].tolist() == ids + [tiny.PAD] * behind
        assert examples.weight[row].tolist() == [0.0] * place + [1.0] * len(ids) + [0.0] * behind
        instruction = slice(place - len(tiny.SLOTS.instruction), place)
        assert tuple(examples.tokens[row, instruction]) == tiny.SLOTS.instruction
        assert (examples.attempt[row, instruction] == CONTEXT).all()


def found_of(rows: list[Trace]) -> Found:
    return Found(rows, {key: int(count) for key, count in tally_of(rows).items()}, 1.5)


def test_counts():
    rows = [trace for trace in traces(40) if trace.problem != "p0"]
    rights = [tuple(trace.right) for trace in rows]
    assert found_of(rows).tally == {
        "episodes": len(rows),
        "wrong_first": sum(1 for right in rights if not right[0]),
        "right": sum(right[0] + right[1] for right in rights),
        "i_to_c": sum(1 for right in rights if right == (False, True)),
        "c_to_c": sum(1 for right in rights if right == (True, True)),
    }
    kept = found_of(star(rows, keep_right=True))
    assert kept.composition == {
        "examples_i_to_c": kept.tally["i_to_c"],
        "examples_c_to_c": kept.tally["c_to_c"],
        "examples_problems": 4,
    }


def test_what_was_found_comes_back_from_disk(tmp_path):
    path, stamp, found = epath.Path(tmp_path / "examples" / "x.npz"), {"seed": 1}, found_of(traces(9))
    assert read_found(path, stamp) is None
    write_found(path, stamp, found)
    again = read_found(path, stamp)
    assert [plain(trace) for trace in again.traces] == [plain(trace) for trace in found.traces]
    assert (again.tally, again.seconds) == (found.tally, found.seconds)
    assert read_found(path, {"seed": 2}) is None
    assert [file.name for file in path.parent.iterdir()] == ["x.npz"]
    whole = path.read_bytes()
    for damaged in (whole[:-40], whole[:100] + b"?" + whole[101:], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.npz: damaged .* delete it"):
            read_found(path, stamp)


STEPS, SIZE, SAMPLES = 3, 4, 2  # of the scripted sampling
TINY = ml_collections.ConfigDict(
    {
        "seed": 3, "problems_per_step": SIZE, "samples_per_problem": SAMPLES, "temperature": 0.7,
        "rollout_parts": 1, "log": {"every": 10}, "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    }
)  # fmt: skip


class Script:
    """In place of `rollout.roll_out`: random episodes, and notes of what was asked for."""

    def __init__(self):
        self.asked, self.episodes = [], []

    def __call__(self, actor, params, problems, keys, *, temperature, mesh, parts, samples):
        each = [problems[row - row % samples] for row in range(len(problems))]
        assert problems == each  # the samples of a problem stand together
        episodes, rewards, _ = sampled(len(problems), seed=len(self.asked), share=0.25)
        self.asked.append((problems, np.asarray(jax.random.key_data(keys)).tolist(), params, temperature))
        self.episodes.append((episodes, rewards))
        nothing = [[None, None]] * len(problems)
        zeros = np.zeros_like(rewards, np.int32)
        texts = [["", ""]] * len(problems)
        notes, critiques = [[{}, {}]] * len(problems), [[]] * len(problems)
        return episodes, Graded(
            problems, texts, nothing, rewards, zeros > 0, zeros, notes, critiques, zeros == 0
        )


@pytest.fixture
def script(monkeypatch):
    script = Script()
    monkeypatch.setattr(rollout, "roll_out", script)
    return script


@pytest.fixture(scope="module")
def actor(tmp_path_factory):
    tokenizer = tiny.tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return rollout.Actor(tiny.model(tokenizer.vocab_size), chat.plain(tokenizer), tiny.Riddles(), tiny.SLOTS)


def collected(actor, objective: str, factor: int = 1, keep_right: bool = False, begin: int = 5) -> Found:
    stage = ml_collections.ConfigDict(
        {
            "name": "x", "objective": objective, "steps": STEPS, "attempts": 2, "samples_factor": factor,
            "keep_right": keep_right,
        }
    )  # fmt: skip
    return collect(TINY, stage, actor, PROBLEMS, {}, begin=begin)


@pytest.mark.parametrize("factor", [1, 2])
def test_a_stage_samples_what_rl_would(script, actor, factor):
    found = collected(actor, "star", factor)
    assert len(script.asked) == STEPS
    assert found.tally["episodes"] == STEPS * SIZE * SAMPLES * factor
    keys = [tuple(key) for _, rows, _, _ in script.asked for key in rows]
    assert len(set(keys)) == len(keys) == found.tally["episodes"]
    rl_keys = jax.random.key_data(rollout.row_keys(TINY.seed, "train", 5, len(keys)))
    assert not set(keys) & set(map(tuple, np.asarray(rl_keys).tolist()))
    for step, (problems, _, _, temperature) in enumerate(script.asked, start=5):
        batch = schedule.batch_of(PROBLEMS, seed=TINY.seed, step=step, size=SIZE)
        assert problems == [problem for problem in batch for _ in range(SAMPLES * factor)]
        assert temperature == TINY.temperature


@pytest.mark.parametrize("keep_right", [False, True])
def test_a_right_attempt_of_this_batch_or_an_earlier_one_makes_the_pair(script, actor, keep_right):
    found = collected(actor, "pair_sft", keep_right=keep_right)
    expected, rights, late = [], defaultdict(list), 0
    for (problems, *_), (episodes, rewards) in zip(script.asked, script.episodes, strict=True):
        cut = lambda row, number, e=episodes: e.tokens[row][e.attempt[row] == number].tolist()
        rows = range(len(problems))
        for row in rows:
            for number in (1, 2):
                if rewards[row, number - 1] == 1:
                    rights[problems[row].id].append(cut(row, number))
        here = {problems[row].id for row in rows if rewards[row].any()}
        for row in rows:
            if rights[problems[row].id] and (keep_right or rewards[row, 0] == 0):
                late += problems[row].id not in here
                expected.append((problems[row].id, cut(row, 1), list(rights[problems[row].id])))
    assert late > 0  # solved in an earlier batch alone
    assert 8 < len(expected) < STEPS * SIZE * SAMPLES  # and one was not solved yet
    assert len(found.traces) == len(expected)
    for trace, (problem, first, choices) in zip(found.traces, expected, strict=True):
        assert (trace.problem, trace.attempts[0].tolist()) == (problem, first)
        assert trace.attempts[1].tolist() in choices


# Whole runs of shrunk configs.

SMALL = {"task": "tiny:EvenRiddles", "stage1__learning_rate": 0.03, "checkpoint_every": 1}
STAR = SMALL | {"stage2__steps": 2, "stage2__learning_rate": 0.03, "stage3__steps": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sft")


def star_options(folder, **changes):
    return options(folder, "configs/quickstart_star.py", **STAR | changes)


@pytest.fixture(scope="module")
def star_run(folder):
    """Three iterations of STaR, two updates each, evaluated and shown."""
    workdir = folder / "star"
    for command in ("train", "evaluate"):
        assert main([command, f"--workdir={workdir}", *star_options(folder)]) == 0
    assert main(["report", f"--workdir={workdir}"]) == 0
    return workdir


def loaded(workdir, args):
    """The config, the actor and the base."""
    config = load_config(args[0].removeprefix("--config="), args[1:])
    return config, *load_base(config, epath.Path(workdir), training_task(config))


def params_at(workdir, args, step):
    config, actor, base = loaded(workdir, args)
    with Checkpoints(epath.Path(workdir) / "checkpoints") as checkpoints:
        return jax.tree.map(np.asarray, load_policy(config, checkpoints, step, actor, base))


def same(one, other) -> bool:
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def written(workdir, stage: str) -> list[tuple]:
    """A stage's examples, as they lie on disk."""
    path = epath.Path(workdir) / "examples" / f"{stage}.npz"
    with np.load(str(path)) as file:
        stamp = json.loads(str(file["stamp"]))
    return [plain(trace) for trace in read_found(path, stamp).traces]


def timeless(path) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(path)]


def test_star_runs_from_nothing_to_a_report(star_run):
    rows = rows_of(star_run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["stage"] for row in rows] == ["star_1"] * 2 + ["star_2"] * 2 + ["star_3"] * 2
    assert [row["sampled"] for row in rows] == [2 * 16 * 2, 0] * 3
    for row in rows:
        assert {"learning_rate", "loss", "grad_norm", "seconds"} <= row.keys()
        assert row["examples"] == len(written(star_run, row["stage"]))
    for row in rows[::2]:
        assert row["examples"] == row["examples_i_to_c"] + row["examples_c_to_c"] > 3
        assert 1 <= row["examples_problems"] <= 12
    results = json.loads((star_run / "results.json").read_text())
    assert list(results) == ["base", "star_1", "star_2", "star_3"]
    attempts = rows_of(star_run / "attempts.jsonl")  # a stage's best checkpoint is its last
    assert {(row["checkpoint"], row["step"]) for row in attempts} == {
        ("base", 0), ("star_1", 2), ("star_2", 4), ("star_3", 6)
    }  # fmt: skip
    assert (star_run / "report.html").exists()


def test_an_iteration_samples_from_the_one_before(star_run, folder):
    """Its examples are what the policy after star_1 writes, and not what the base does."""
    config, actor, _ = loaded(star_run, star_options(folder))
    pool = actor.task.problems("train")[: config.train_problems]
    again = lambda step: [
        plain(trace)
        for trace in collect(
            config, config.stage2, actor, pool, params_at(star_run, star_options(folder), step), begin=2
        ).traces
    ]
    assert again(2) == written(star_run, "star_2")
    assert again(0) != written(star_run, "star_2")


def starts_of(monkeypatch, module, name: str) -> dict[int, dict]:
    """Will hold the parameters with which each update begins, by the updates before it."""
    update, starts = getattr(module, name), {}

    def noted(state, *args, **kwargs):
        starts[int(state.step)] = jax.tree.map(np.asarray, state.params)
        return update(state, *args, **kwargs)

    monkeypatch.setattr(module, name, noted)
    return starts


@pytest.mark.parametrize("start", ["base", "previous"])
def test_updates_begin_where_the_stage_says(start, star_run, folder, tmp_path, monkeypatch):
    starts = starts_of(monkeypatch, sft, "sft_step")
    args = star_options(folder, stage2__start=start)
    assert main(["train", f"--workdir={tmp_path}", *args]) == 0
    base, first, second = (params_at(tmp_path, args, step) for step in (0, 2, 4))
    assert not same(base, first) and not same(first, second)
    assert same(starts[0], base)
    assert same(starts[2], base if start == "base" else first)
    assert same(starts[4], base)  # of star_3
    assert same(first, params_at(star_run, star_options(folder), 2))
    assert same(second, params_at(star_run, star_options(folder), 4)) == (start == "base")


@pytest.mark.parametrize("start", ["base", "previous"])
def test_rl_begins_where_the_stage_says(start, folder, tmp_path, monkeypatch):
    starts = starts_of(monkeypatch, rl, "train_step")
    args = options(folder, task="tiny:EvenRiddles", stage2__start=start)
    assert main(["train", f"--workdir={tmp_path}", *args]) == 0
    base, first = (params_at(tmp_path, args, step) for step in (0, 2))
    assert not same(base, first)
    assert same(starts[2], base if start == "base" else first)


def test_star_twice_is_not_star_once(star_run, folder):
    once, twice = written(star_run, "star_1"), written(star_run, "star_2")
    assert once != twice
    one, two = (params_at(star_run, star_options(folder), step) for step in (2, 4))
    assert not same(one, two)


@pytest.mark.parametrize("keep", [1, 2, 3])  # of six steps, two in each stage
def test_resumed_equals_straight_bit_for_bit(keep, star_run, folder, tmp_path):
    resumed = tmp_path / "resumed"
    shutil.copytree(star_run, resumed)
    for step in range(keep + 1, 7):
        epath.Path(resumed / "checkpoints" / str(step)).rmtree()
    if keep == 3:  # in the middle of star_2
        (resumed / "examples" / "star_2.npz").unlink()
    assert main(["train", f"--workdir={resumed}", *star_options(folder)]) == 0
    for step in (keep + 1, 6):
        one, other = (params_at(workdir, star_options(folder), step) for workdir in (star_run, resumed))
        assert same(one, other)
    assert written(resumed, "star_2") == written(star_run, "star_2")
    assert timeless(resumed / "metrics.jsonl") == timeless(star_run / "metrics.jsonl")


def test_an_interrupted_collection_starts_over(star_run, folder, tmp_path, monkeypatch):
    roll_out, calls = rollout.roll_out, []

    def stopped(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:  # the second batch of star_2
            raise OSError("stopped")
        return roll_out(*args, **kwargs)

    monkeypatch.setattr(rollout, "roll_out", stopped)
    args = ["train", f"--workdir={tmp_path}", *star_options(folder)]
    assert main(args) == 2
    assert [path.name for path in (tmp_path / "examples").iterdir()] == ["star_1.npz"]
    assert main(args) == 0
    assert len(calls) == 4 + 4  # star_1's are read, star_2's and star_3's sampled
    assert same(*(params_at(workdir, star_options(folder), 6) for workdir in (star_run, tmp_path)))
    assert timeless(tmp_path / "metrics.jsonl") == timeless(star_run / "metrics.jsonl")


def test_pair_sft_runs(folder, tmp_path):
    args = options(
        folder,
        "configs/quickstart_pair_sft.py",
        **SMALL | {"stage1__keep_right": True, "micro_batches": 2},
    )
    for command in ("train", "evaluate"):
        assert main([command, f"--workdir={tmp_path}", *args]) == 0
    first, _ = rows_of(tmp_path / "metrics.jsonl")
    assert first["sampled"] == 64
    assert first["examples_c_to_c"] > 0
    assert list(json.loads((tmp_path / "results.json").read_text())) == ["base", "pair_sft"]


def test_an_evaluation_with_critiques_changes_no_supervised_stage(folder, star_run, tmp_path):
    args = star_options(folder, slots__critique=8, evaluate__critique=True)
    assert main(["train", f"--workdir={tmp_path}", *args]) == 0
    assert timeless(tmp_path / "metrics.jsonl") == timeless(star_run / "metrics.jsonl")


def test_star_after_stage_one_runs_with_adapters(folder, tmp_path, monkeypatch):
    """RL, then supervised stages that go on from it, the adapters alone being trained."""
    starts = starts_of(monkeypatch, sft, "sft_step")
    steps = {f"stage{number}__steps": 2 for number in (2, 3, 4)}
    args = options(folder, "configs/quickstart_star_stage_two.py", **SMALL | steps | {"lora_rank": 2})
    assert main(["train", f"--workdir={tmp_path}", *args]) == 0
    stages = [row["stage"] for row in rows_of(tmp_path / "metrics.jsonl")]
    assert stages == ["stage_one"] * 2 + ["star_1"] * 2 + ["star_2"] * 2 + ["star_3"] * 2
    for step in (2, 4, 6):
        trained = models.peft.split_params(params_at(tmp_path, args, step)).lora
        assert same(starts[step], trained)
    last, base = params_at(tmp_path, args, 8), params_at(tmp_path, args, 0)
    assert same(models.peft.split_params(last).original, base)
    assert not same(models.peft.split_params(last).lora, starts[6])


@pytest.mark.parametrize("name", ["star", "pair_sft"])
def test_nothing_to_imitate_ends_in_one_line(name, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tiny.EvenRiddles, "reward", lambda self, problem, text: 0.0)
    args = options(folder, f"configs/quickstart_{name}.py", **SMALL)
    assert main(["train", f"--workdir={tmp_path}", *args]) == 2
    error = capsys.readouterr().err.strip()
    stage = "star_1" if name == "star" else name
    assert f"stage '{stage}': no example for objective = '{name}' in 32 episodes, of which 32 began" in error
    assert "0 went wrong -> right and 0 right -> right (0 right attempts in all); give the stage" in error
    assert ("keep_right=True" in error) == (name == "pair_sft")
    assert "\n" not in error
    assert not (tmp_path / "examples").exists()


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ("star", {"stage1__attempts": 3}, "config.stage1.attempts = 3: star imitates second attempts"),
        ("star", {"stage1__start": "bas"}, "config.stage1.start = 'bas': choose one of previous, base"),
        (
            "star",
            {"stage1__objective": "stars"},
            "one of stage_one, stage_two, multi_turn, unified, star, pair_sft",
        ),
        ("star", {"stage1__beta_1": 0.1}, "config.stage1.beta_1: no such field"),
        ("star", {"stage1__steps": 0}, "config.stage1.steps = 0: must be greater than 0"),
        ("pair_sft", {"stage1__hold": 2}, "config.stage1.hold = 2.0: is a fraction"),
        ("pair_sft", {"stage1__warmup_steps": -1}, "config.stage1.warmup_steps = -1: must not be negative"),
    ],
)
def test_bad_supervised_stages_end_in_one_line(config, change, message, tmp_path, capsys):
    args = options(tmp_path, f"configs/quickstart_{config}.py", **change)
    assert main(["train", f"--workdir={tmp_path / 'run'}", *args]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", 5.0), ("beta_1", 0.1), ("beta_2", 0.1), ("discount", 0.5), ("scale_kl", True),
        ("reference", "star_1"),
    ],
)  # fmt: skip
def test_what_a_supervised_stage_does_not_read_must_not_be_set(field, value):
    config = load_config("configs/quickstart_star.py")
    neutral = "base" if field == "reference" else type(value)(0)
    with config.unlocked():
        config.stage2[field] = neutral
        check_config(config)
        config.stage2[field] = value
        with pytest.raises(ValueError, match=f"config.stage2.{field} = .* no effect on the objective star"):
            check_config(config)


def test_keep_right_belongs_to_supervised_stages():
    config = load_config("configs/quickstart.py")
    with config.unlocked():
        config.stage2.keep_right = True
        with pytest.raises(ValueError, match=r"config\.stage2\.keep_right = True: has no effect"):
            check_config(config)
        config = load_config("configs/quickstart_star.py")
        with config.unlocked():
            del config.stage2.keep_right
            with pytest.raises(ValueError, match=r"config\.stage2\.keep_right is missing"):
                check_config(config)
