"""Any config either trains two updates or is refused with a line that names a field: drawn by hypothesis."""

import contextlib
import copy
import io
import json
import math
import tempfile
from pathlib import Path

import ml_collections
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from small_runs import options

from score_jax.__main__ import main
from score_jax.config import load_config
from score_jax.config_check import check_config, flatten

NESTED = json.loads(load_config("configs/quickstart.py").to_json())
FLAT = flatten(NESTED)

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(
        st.one_of(st.integers(-2, 2), st.text(max_size=3), st.sampled_from(["stage1", "guess"])), max_size=3
    ),
    st.just({}),
    st.just({"steps": 1}),
)


def with_field(field: str, value) -> ml_collections.ConfigDict:
    changed = copy.deepcopy(NESTED)
    *path, leaf = field.split(".")
    section = changed
    for name in path:
        section = section[name]
    section[leaf] = value
    return ml_collections.ConfigDict(changed)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(field=st.sampled_from(sorted(FLAT)), value=JUNK)
def test_any_value_of_any_field_is_taken_or_refused_by_name(field, value):
    try:
        check_config(with_field(field, value))
    except ValueError as error:
        said = str(error)
        assert f"config.{field}" in said or f"{field.split('.')[-1]}" in said, said
        assert "\n" not in said and len(said) > len(f"config.{field} = {value!r}: ")
    else:  # what is taken is of the kind that stood there
        kind = type(FLAT[field])
        assert isinstance(value, kind) or (kind is float and isinstance(value, int))
        assert not isinstance(value, float) or math.isfinite(value)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(field=st.sampled_from(sorted(FLAT)))
def test_any_field_that_is_missing_is_named(field):
    changed = copy.deepcopy(NESTED)
    *path, leaf = field.split(".")
    section = changed
    for name in path:
        section = section[name]
    del section[leaf]
    try:
        check_config(ml_collections.ConfigDict(changed))
    except ValueError as error:
        assert f"config.{field} is missing" in str(error)
    else:
        pytest.fail(f"config.{field} was not missed")


# The first values are those of a run that works, the others may work or not, alone or with other fields.
VALUES = {
    "seed": (7, 0, -1, 2**31),
    "train_problems": (12, 1, 0, -1, 10**6),
    "problems_per_step": (8, 16, 4, 7, 0),
    "samples_per_problem": (2, 4, 3, 1),
    "micro_batches": (1, 2, 4, 3, 0),
    "rollout_parts": (1, 2, 5),
    "score_chunk": (16, 1, 1000, 0),
    "offline_attempts": (2, 0, -2),
    "temperature": (1.0, 0.3, 0.0),
    "kl_estimator": ("full", "k1", "k2", "k3", "k4"),
    "decisive_only": (True, False),
    "remat": (False, True),
    "lora_rank": (0, 2, -1),
    "train_dtype": ("float32", "bfloat16", "int8"),
    "optimizer.clip_norm": (1.0, 1e-6, 0.0),
    "optimizer.b2": (0.95, 0.0, 1.0),
    "optimizer.weight_decay": (0.0, 0.1, -0.1),
    "slots.prompt": (13, 20, 6),
    "slots.attempt": (13, 16, 6),
    "slots.critique": (0, 30, 2),
    "mesh.data": (-1, 8, 4, 3),
    "mesh.fsdp": (1, 2, 8, -1, 0),
    "mesh.tensor": (1, 2, -1),
    "model.layers": (2, 1, 0),
    "model.heads": (2, 1, 3),
    "model.kv_heads": (1, 2),
    "model.head_width": (8, 2, 5),
    "model.sliding_window": (32, 1, 0),
    "model.dtype": ("float32", "bfloat16"),
    "tokenizer.vocab_size": (320, 10),
    "pretrain.batch": (8, 16, 9),
    "pretrain.guess.critiques": (0.0, 0.5, 2.0),
    "pretrain.correct.attempts": (2, 1, 0),
    "stage1.attempts": (2, 1, 3, 0),
    "stage1.samples_factor": (1, 2, 0),
    "stage1.adapt_beta_2": (0.0, 0.5, -1.0),
    "stage1.offline": (0.0, 0.5, 1.0, 0.3),
    "stage1.critique": (False, True),
    "stage1.warmup_steps": (10, 0, -1),
    "stage1.hold": (0.5, 0.0, 1.0, 2.0),
    "stage2.alpha": (5.0, 0.0, -1.0),
    "stage2.beta_1": (0.02, 0.0, -0.1),
    "stage2.discount": (0.0, 0.8, 1.1),
    "stage2.objective": ("stage_two", "multi_turn", "unified", "ppo"),
    "stage2.reference": ("base", "stage_one", "stage_two"),
    "stage2.start": ("previous", "base", "last"),
    "stage2.learning_rate": (3e-4, 1e38, 0.0),
    "checkpoint_every": (2, 1, 0),
    "max_skipped": (5, 1, 0),
    "alarms.window": (10, 1, 0),
    "log.every": (1, 1000, 0),
    "evaluate.split": ("test", "train", "tests"),
    "evaluate.attempts": (2, 1, 4, 0),
    "evaluate.critique": (False, True),
}


@st.composite
def changes(draw) -> dict:
    fields = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4, unique=True))
    return {field: draw(st.sampled_from(VALUES[field])) for field in fields}


def trains_or_is_refused(changed: dict) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, said = Path(name), io.StringIO()
        head = {
            "stage1__steps": 1,
            "stage2__steps": 1,
            "pretrain__guess__steps": 1,
            "pretrain__correct__steps": 1,
        }
        args = options(folder, **head, data_dir=DATA)
        args += [f"--config.{field}={value}" for field, value in changed.items()]
        with contextlib.redirect_stderr(said):
            code = main(["train", f"--workdir={folder / 'run'}", *args])
        lines = [line for line in said.getvalue().splitlines() if line.startswith("score_jax")]
        if code == 0:
            rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
            assert [row["step"] for row in rows] == [1, 2]
            assert all(row["skipped"] == (row["loss"] is None or row["grad_norm"] is None) for row in rows)
        elif "times in a row" in lines[0]:  # it was no config to train with, and that was found by training
            assert code == 2 and "config.max_skipped" in lines[0]
        elif "first_attempts.jsonl" in lines[0]:  # nor was this known before the base had written
            assert code == 2 and "config.slots.prompt" in lines[0] and "offline" in lines[0]
        else:
            assert code == 2 and len(lines) == 1, said.getvalue()
            assert any(f"{field.split('.')[-1]}" in lines[0] for field in changed), (changed, lines)
            assert "config" in lines[0] and not (folder / "run").exists() and not (folder / "base").exists()


DATA = Path(tempfile.gettempdir()) / "score_jax_property_data"
HOW = {
    "deadline": None,
    "derandomize": True,
    "phases": (Phase.explicit, Phase.generate),  # shrinking would train for hours
    "suppress_health_check": list(HealthCheck),
    "print_blob": False,
}


@settings(max_examples=10, **HOW)
@given(changed=changes())
def test_a_config_trains_or_is_refused(changed):
    trains_or_is_refused(changed)


@pytest.mark.slow
@settings(max_examples=200, **HOW)
@given(changed=changes())
def test_many_configs_train_or_are_refused(changed):
    trains_or_is_refused(changed)


def test_the_config_that_all_are_changes_of_trains():
    trains_or_is_refused({field: values[0] for field, values in VALUES.items()})
