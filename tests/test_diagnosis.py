"""Runs whose numbers go bad: updates are skipped and counted, and at last the run stops and says where."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_step
import tiny
from etils import epath
from small_runs import options

from score_jax import diagnosis
from score_jax.__main__ import main
from score_jax.types import TrainState

STATE = TrainState(jnp.int32(0), tiny.params(), ())


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def found_in(data, state=STATE, **changes):
    learner = dataclasses.replace(test_step.LEARNER, **changes)
    batch = diagnosis.of_experience(state, {}, test_step.REF_PARAMS, data, test_step.OBJECTIVE, learner)
    return batch, diagnosis.not_finite(batch)


def test_a_bad_reward_is_found_with_its_attempt_and_row():
    assert found_in(test_step.experience())[1] == {}
    _, found = found_in(test_step.with_reward(np.nan))
    assert found == {
        "rewards_t2": [3],
        "loss": [2, 3],
        "grad_norm": [2, 3],
    }  # 2 and 3: samples of one problem


def test_a_token_that_the_sampler_drew_with_probability_0_is_found():
    data = test_step.experience()
    row, at = np.argwhere(np.asarray(data.episodes.attempt) == 2)[0]
    episodes = data.episodes.replace(logp=data.episodes.logp.at[row, at].set(-np.inf))
    assert found_in(data.replace(episodes=episodes))[1] == {"logp_sampler_t2": [row]}


@pytest.mark.parametrize("sizes", [None, (2, 2, 2)], ids=str)
def test_bad_parameters_are_named(sizes):
    params = tiny.copy(tiny.params())
    params["final_norm"]["scale"] = params["final_norm"]["scale"].at[1].set(np.nan)
    state, data, devices = STATE.replace(params=params), test_step.experience(), sizes and tiny.mesh(*sizes)
    if devices:
        state, data = test_step.putting(devices)(state, data)
    batch, found = found_in(data, state, mesh=devices)
    assert diagnosis.bad_parameters(state.params) == ["final_norm/scale"]
    assert found["logp_t1"] == found["logp_t2"] == found["grad_norm"] == list(range(test_step.ROWS))
    assert not {"logp_reference_t1", "rewards_t1", "tokens_t1"} & set(found)
    assert batch["tokens"].shape == batch["logp"].shape


def test_each_problems_gradient_is_that_of_its_own_loss():
    batch, _ = found_in(test_step.experience())
    norm = lambda rows: test_step.optax.tree.norm(
        test_step.rl_grad(test_step.LEARNER)(jax.tree.map(lambda x: x[rows], test_step.experience()),
                                             test_step.OBJECTIVE)
    )  # fmt: skip
    np.testing.assert_allclose(batch["grad_norm"][2], norm(slice(2, 4)), rtol=1e-4)
    assert batch["grad_norm"][2] == batch["grad_norm"][3]


def test_it_is_scored_in_as_many_parts_as_the_update_was(monkeypatch):
    """A batch that the update takes in parts has no room as a whole."""
    whole, _ = found_in(test_step.experience())
    seen = []
    hidden_states = diagnosis.policy.hidden_states

    def seeing(model, params, tokens, *rest, **how):
        seen.append(tokens.shape[0])
        return hidden_states(model, params, tokens, *rest, **how)

    monkeypatch.setattr(diagnosis.policy, "hidden_states", seeing)
    parts, _ = found_in(test_step.experience(), micro_batches=2)
    assert max(seen) == test_step.ROWS // 2
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_words_name_few_rows_and_count_the_rest():
    said = diagnosis.in_words({"logp_t2": list(range(9)), "loss": [4]}, ["layer_0/x"])
    assert (
        said
        == "1 parameters such as layer_0/x; logp of attempt 2 in rows 0, 1, 2, 3, 4 and 4 more; loss in row 4"
    )
    assert "only their sum is not" in diagnosis.in_words({}, [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("diverged")


def stopped(workdir, args, capfd):
    """The one line of a run that gives up, its rows, and what it left to look at."""
    assert main(["train", f"--workdir={workdir}", *args]) == 2
    said = capfd.readouterr()
    (error,) = said.err.strip().splitlines()
    path = epath.Path(re.search(r"The batch lies in (\S+);", error)[1])
    rows = [json.loads(line) for line in (path.parents[1] / "metrics.jsonl").read_text().splitlines()]
    return error, said.out, rows, load(path), json.loads(path.with_suffix(".json").read_text())


def test_a_run_that_diverges_stops_with_a_diagnosis(folder, tmp_path, capfd):
    """The second stage's first update throws the parameters out of float32; the first stage's stay."""
    args = options(folder, stage2__learning_rate=1e38, stage2__steps=8, max_skipped=3, checkpoint_every=4)
    args += ["--config.stage2.warmup_steps=0"]
    error, out, rows, batch, said = stopped(tmp_path, args, capfd)
    assert error.startswith("score_jax train: stage_two, update 6: ")
    assert "3 times in a row, as many as config.max_skipped allows" in error
    assert "logp of attempt 1 in rows 0, 1, 2, 3, 4 and 11 more" in error
    assert [row["skipped"] for row in rows] == [0, 0, 0, 1, 1, 1]
    assert [row["alarms"] for row in rows] == [[], [], [], *[["skipped"]] * 3]
    assert rows[-1]["loss"] is None
    assert out.count("ALARM at update 4: skipped") == 1
    assert batch["tokens"].shape == batch["logp_reference"].shape and len(batch["rewards"]) == 16
    assert np.isfinite(batch["logp_reference"]).all() and not np.isfinite(batch["logp"]).all()
    assert (said["stage"], said["step"], said["skipped"]) == ("stage_two", 6, 3)
    assert len(said["problems"]) == 16 and said["not_finite"]["logp_t2"] == list(range(16))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2"]
    assert main(["report", f"--workdir={tmp_path}"]) == 0
    assert "3 skipped, their loss or gradient not finite" in (tmp_path / "report.html").read_text()


def test_imitation_that_diverges_stops_with_a_diagnosis(tmp_path, capfd):
    changes = {"stage1__learning_rate": 1e38, "stage1__warmup_steps": 0, "stage1__steps": 6}
    changes |= {"task": "tiny:EvenRiddles", "max_skipped": 3}
    args = options(tmp_path, "configs/quickstart_star.py", **changes)
    error, _, rows, batch, said = stopped(tmp_path / "run", args, capfd)
    assert error.startswith("score_jax train: star_1, update 4: ")
    assert [row["skipped"] for row in rows] == [0, 1, 1, 1]
    assert (said["stage"], said["step"], said["skipped"]) == ("star_1", 4, 3)
    assert len(said["problems"]) == len(batch["logp"]) == 16
    assert set(np.unique(batch["attempt"][batch["weight"] > 0])) == {2}
    assert "logp_t2" in said["not_finite"] and not np.isfinite(batch["loss"]).all()


def test_pretraining_that_diverges_stops_with_a_diagnosis(tmp_path, capfd):
    args = options(tmp_path, pretrain__guess__learning_rate=1e38, max_skipped=2)
    args += ["--config.pretrain.guess.steps=12", "--config.log.every=4"]
    error, _, rows, batch, said = stopped(tmp_path / "run", args, capfd)
    assert error.startswith("score_jax train: pre-training, update 4: ")
    assert (rows[0]["skipped"], said["stage"]) == (2, "pre-training")
    assert len(said["problems"]) == len(batch["logp"]) == 8
    assert not (tmp_path / "base" / "settings.json").exists()


def test_the_stages_name_is_what_a_message_begins_with(tmp_path):
    batch = {"tokens": np.zeros((2, 3), np.int32), "attempt": np.ones((2, 3), np.int32)}
    batch["logp"] = np.array([[0, 0, 0], [0, np.nan, 0]], np.float32)
    with pytest.raises(diagnosis.Diverged, match=r"star, update 7: .*logp of attempt 1 in row 1"):
        diagnosis.give_up(epath.Path(tmp_path), {}, batch, ["a", "b"], stage="star", step=7, times=2)
    np.testing.assert_array_equal(load(tmp_path / "diagnosis" / "step_7.npz")["logp"], batch["logp"])
