"""The pure parts of training: batches, learning rates, objectives of configs; and the comparison."""

import json
from collections import Counter

import numpy as np
import pytest

from score_jax import objectives
from score_jax.__main__ import main
from score_jax.compare import as_markdown, compare
from score_jax.config import load_config
from score_jax.schedule import batch_of, learning_rate_at, objective_of
from score_jax.types import Problem

PROBLEMS = [Problem(id=str(number), prompt="", gold="") for number in range(10)]


def test_every_pass_shows_every_problem_once():
    shown = [p.id for step in range(15) for p in batch_of(PROBLEMS, seed=0, step=step, size=4)]
    for start in range(0, 60, 10):
        assert sorted(Counter(shown[start : start + 10]).values()) == [1] * 10
    assert shown[:10] != shown[10:20]


def test_a_batch_is_a_function_of_seed_and_step():
    assert batch_of(PROBLEMS, seed=1, step=7, size=4) == batch_of(PROBLEMS, seed=1, step=7, size=4)
    assert batch_of(PROBLEMS, seed=1, step=7, size=4) != batch_of(PROBLEMS, seed=2, step=7, size=4)


def test_a_batch_may_be_larger_than_the_pool():
    assert len(batch_of(PROBLEMS, seed=0, step=3, size=25)) == 25


def test_the_learning_rate_warms_up_holds_and_falls_to_0():
    stage = load_config("configs/quickstart.py").stage2
    rates = np.array([learning_rate_at(stage, step) for step in range(stage.steps)])
    warm, hold = stage.warmup_steps, int(stage.hold * stage.steps)
    np.testing.assert_allclose(rates[:warm], stage.learning_rate * np.arange(1, warm + 1) / warm)
    np.testing.assert_allclose(rates[warm : hold + 1], stage.learning_rate)
    assert (np.diff(rates[hold + 1 :]) < 0).all()
    assert 0 < rates[-1] <= stage.learning_rate / (stage.steps - hold) * (1 + 1e-9)


def test_the_quickstart_runs_the_papers_objectives():
    config = load_config("configs/quickstart.py")
    one, two = objective_of(config.stage1), objective_of(config.stage2)
    np.testing.assert_array_equal(one.reward_weight, [0, 1])
    np.testing.assert_array_equal(one.bonus, [0, 0])
    np.testing.assert_allclose(
        one.kl_coef, [config.stage1.beta_1 + config.stage1.beta_2, config.stage1.beta_1]
    )
    np.testing.assert_array_equal(two.reward_weight, [1, 1])
    np.testing.assert_array_equal(two.bonus, [0, config.stage2.alpha])
    assert one.discount == two.discount == 0


@pytest.mark.parametrize("name", ["multi_turn", "single_turn"])
def test_a_baseline_has_scores_budget_and_its_kl_on_attempt_1(name):
    score, baseline = load_config("configs/quickstart.py"), load_config(f"configs/quickstart_{name}.py")
    steps = lambda config: sum(config[key].steps for key in config.stages)
    assert steps(baseline) == steps(score)
    attempts = lambda stage: stage.attempts * stage.samples_factor
    assert attempts(baseline.stage1) == attempts(score.stage1) == attempts(score.stage2)
    kl = lambda stage: objective_of(stage).kl_coef[0]
    assert kl(baseline.stage1) == pytest.approx(kl(score.stage1)) == pytest.approx(kl(score.stage2))
    for field in ("train_problems", "problems_per_step", "samples_per_problem", "temperature", "seed"):
        assert baseline[field] == score[field]


@pytest.mark.parametrize("name", ["star", "pair_sft", "star_stage_two"])
def test_a_supervised_baseline_has_scores_budget(name):
    score, baseline = load_config("configs/quickstart.py"), load_config(f"configs/quickstart_{name}.py")

    def sampled(config):
        batch = config.problems_per_step * config.samples_per_problem
        stages = [config[key] for key in config.stages]
        return sum(stage.steps * batch * stage.samples_factor * stage.attempts for stage in stages)

    steps = lambda config: sum(config[key].steps for key in config.stages)
    assert steps(baseline) == steps(score) == 220
    assert sampled(baseline) == sampled(score) == 220 * 256 * 2
    for field in ("train_problems", "problems_per_step", "samples_per_problem", "temperature", "seed"):
        assert baseline[field] == score[field]


def test_single_turn_is_multi_turn_of_one_attempt():
    assert objectives.multi_turn(1, beta_1=0.5).attempts == 1


def write_run(folder, method, seed, last, rewards, *, split="test", temperature=0.0, base=(0, 0)):
    """A work directory with the same base and first stage, and the given rewards after the last stage.

    The runs of SCoRe have their problems in the other order.
    """
    path = folder / method / str(seed)
    path.mkdir(parents=True)
    rows = [
        {"checkpoint": name, "split": split, "temperature": temperature, "id": str(i), "rewards": row}
        for name, table in (
            ("base", [list(base)] * len(rewards)),
            ("first", [[1, 0]] * len(rewards)),
            (last, rewards),
        )
        for i, row in enumerate(table)
    ][:: -1 if method == "score" else 1]
    (path / "attempts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"stages": ["a", "b"], "a": {"name": "first"}, "b": {"name": last}}
    (path / "config.json").write_text(json.dumps(config))


def test_compare_reads_the_last_stage(tmp_path):
    write_run(tmp_path, "score", 0, "stage_two", [[0, 1], [1, 1], [0, 1], [0, 0]])
    write_run(tmp_path, "score", 1, "stage_two", [[1, 1], [1, 1], [0, 1], [0, 1]])
    for seed in (0, 1):
        write_run(tmp_path, "multi_turn", seed, "multi_turn", [[0, 0], [1, 1], [0, 0], [1, 0]])
    found = compare(tmp_path)
    assert found["seeds"] == {"base": 2, "multi_turn": 2, "score": 2}
    assert found["table"]["score"]["acc_t1"][0] == (1 / 4 + 2 / 4) / 2
    assert found["table"]["score"]["acc_t2"][0] == (3 / 4 + 4 / 4) / 2
    assert found["table"]["multi_turn"]["c_to_i"][0] == 1 / 4
    assert found["acc_t2_gain"]["multi_turn"][0] == 7 / 8 - 1 / 4
    assert json.loads((tmp_path / "comparison.json").read_text()) == found
    assert "| multi_turn | 2 | 50.0 [" in as_markdown(found)


def test_compare_pairs_problems_by_id(tmp_path):
    for method in ("score", "multi_turn"):
        write_run(tmp_path, method, 0, method, [[0, 0], [1, 1], [0, 1], [0, 1]])
    assert compare(tmp_path)["acc_t2_gain"]["multi_turn"] == [0, 0, 0]


def test_compare_takes_the_last_attempt_and_any_method(tmp_path, capsys):
    write_run(tmp_path, "alpha10", 0, "stage_two", [[0, 0, 1], [0, 0, 1]], base=[0, 0, 0])
    write_run(tmp_path, "alpha5", 0, "stage_two", [[0, 1, 1], [0, 1, 0]])
    assert main(["compare", f"--workdir={tmp_path}", "--method=alpha10"]) == 0
    said = capsys.readouterr().out
    assert "| Acc@t1 | Acc@t3 | Δ | i→c | c→i | Acc@t3, alpha10 minus this |" in said
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["acc_t3_gain"]["alpha5"][0] == 1 / 2 == found["table"]["alpha5"]["acc_t3"][0]


@pytest.mark.parametrize(
    ("rewards", "how", "said"),
    [
        ([[0, 1, 1]], {}, "on the test split with 3 attempts at temperature 0.0"),
        ([[0, 1]], {"split": "validation"}, "on the validation split with 2 attempts at temperature 0.0"),
        ([[0, 1]], {"temperature": 0.7}, "on the test split with 2 attempts at temperature 0.7"),
    ],
)
def test_compare_refuses_what_was_not_evaluated_alike(rewards, how, said, tmp_path):
    write_run(tmp_path, "multi_turn", 0, "multi_turn", rewards, **how)
    write_run(tmp_path, "score", 0, "stage_two", [[0, 1]])
    with pytest.raises(
        ValueError, match=f"multi_turn in .*/multi_turn/0 {said}, base in .*/score/0 on the test"
    ):
        compare(tmp_path)


def test_compare_refuses_a_run_that_was_not_evaluated(tmp_path):
    write_run(tmp_path, "score", 0, "stage_two", [])
    with pytest.raises(ValueError, match="score/0: base has not been evaluated"):
        compare(tmp_path)


def test_compare_refuses_unequal_seeds(tmp_path):
    write_run(tmp_path, "score", 0, "stage_two", [[0, 1]])
    write_run(tmp_path, "multi_turn", 1, "multi_turn", [[0, 0]])
    with pytest.raises(ValueError, match="multi_turn has the seeds 1, score has 0"):
        compare(tmp_path)


def test_compare_needs_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match="no evaluated score/SEED"):
        compare(tmp_path)
