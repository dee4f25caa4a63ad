"""Alarms, from synthetic rows: raised once, over once, by the limits and by nothing else."""

import json

import ml_collections
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from score_jax import alarms
from score_jax.config import load_config
from score_jax.log import Metrics

LIMITS = {
    "window": 2,
    "kl_max": 5.0,
    "entropy_min": 0.1,
    "entropy_max": 3.0,
    "length_growth": 2.0,
    "cut_off_max": 0.5,
    "unparsed_max": 0.4,
    "changed_min": 0.05,
}
CONFIG = ml_collections.ConfigDict({"alarms": LIMITS, "log": {"wandb": ""}})
FINE = {
    "stage": "one",
    "skipped": 0,
    "changed": 0.2,
    **{f"{name}_t{t}": value for t in (1, 2) for name, value in
       {"kl": 1.0, "entropy": 1.0, "length": 10.0, "unfinished": 0.1, "unparsed": 0.1}.items()},
}  # fmt: skip


def rows(*changes):
    return [FINE | {"step": step} | change for step, change in enumerate(changes, start=1)]


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        ({"kl_t2": 9.0}, "kl_high_t2", "nats: 9 > config.alarms.kl_max = 5 (mean of 2 updates)"),
        ({"entropy_t1": 0.05}, "entropy_low_t1", "0.05 < config.alarms.entropy_min = 0.1"),
        ({"entropy_t2": 3.5}, "entropy_high_t2", "3.5 > config.alarms.entropy_max = 3"),
        ({"length_t2": 25.0}, "length_t2", "the stage's first: 2.5 > config.alarms.length_growth = 2"),
        ({"unfinished_t1": 0.6}, "cut_off_t1", "end with their slot: 0.6 > config.alarms.cut_off_max = 0.5"),
        ({"unparsed_t2": 0.5}, "unparsed_t2", "readable answer: 0.5 > config.alarms.unparsed_max = 0.4"),
        ({"changed": 0.01}, "unchanged", "differ from the first: 0.01 < config.alarms.changed_min = 0.05"),
    ],
)
def test_each_limit_has_its_alarm(change, name, said):
    assert alarms.alarms_at(rows({}, {}, {}, {}), LIMITS) == {}
    found = alarms.alarms_at(rows({}, {}, change, change), LIMITS)
    assert list(found) == [name]
    assert said in found[name]
    assert alarms.alarms_at(rows({}, {}, change, change, {}, {}), LIMITS) == {}


def test_the_mean_of_the_window_decides():
    assert alarms.alarms_at(rows({}, {"kl_t1": 8.9}), LIMITS) == {}
    assert list(alarms.alarms_at(rows({}, {"kl_t1": 9.1}), LIMITS)) == ["kl_high_t1"]
    assert alarms.alarms_at(rows({"kl_t1": 99.0}), LIMITS) == {}  # fewer than the window


def test_a_stage_is_judged_by_its_own_rows():
    before, after = {"kl_t1": 99.0}, {"kl_t1": 99.0, "stage": "two"}
    assert alarms.alarms_at(rows(before, before, after), LIMITS) == {}
    assert list(alarms.alarms_at(rows({}, {}, after, after), LIMITS)) == ["kl_high_t1"]


def test_a_number_that_is_not_there_says_nothing():
    bad = {"kl_t1": None, "skipped": 1}
    assert list(alarms.alarms_at(rows({}, bad), LIMITS)) == ["skipped"]
    assert alarms.alarms_at(rows({"kl_t1": 9.0}, bad, {"kl_t1": 9.0}), LIMITS).keys() == {"kl_high_t1"}
    nothing = {"stage": "sft", "step": 1, "skipped": 0}
    assert alarms.alarms_at([nothing, nothing], LIMITS) == {}


def test_skipped_updates_are_counted_from_the_end():
    marks = [{"skipped": 1}, {"skipped": 0}, {"skipped": 1}, {"skipped": 1}]
    assert [alarms.skipped_in_a_row(marks[:end]) for end in range(5)] == [0, 1, 0, 1, 2]


@given(st.lists(st.sampled_from([{}, {"kl_t1": 99.0}, {"length_t2": 90.0}, {"skipped": 1}, "stage"])))
def test_what_is_remembered_raises_the_alarms_that_all_rows_raise(changes):
    everything, kept, stage = [], [], 0
    for step, change in enumerate(changes):
        stage += change == "stage"
        row = FINE | {"step": step, "stage": str(stage)} | (change if change != "stage" else {})
        everything.append(row)
        kept = alarms.remembered([*kept, row], LIMITS)
        assert alarms.alarms_at(kept, LIMITS) == alarms.alarms_at(everything, LIMITS)
        skipped = alarms.skipped_in_a_row(everything)
        assert alarms.skipped_in_a_row(kept) == skipped
        assert kept[-1] is row
        assert len(kept) <= 2 * LIMITS["window"] + skipped + 1


def test_an_alarm_is_said_once_and_once_over(tmp_path, capsys):
    high = {"kl_t2": 9.0, "loss": float("nan")}
    with Metrics(epath.Path(tmp_path), 0, CONFIG) as metrics:
        for row in rows({}, {}, high, high, high, {}, {}):
            metrics.write(row)
    said = [line for line in capsys.readouterr().out.splitlines() if "larm" in line.lower()]
    assert [line.split(": ")[:2] for line in said] == [
        ["ALARM at update 4", "kl_high_t2"],
        ["Alarm over at update 6", "kl_high_t2"],
    ]
    written = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in written  # which is no JSON
    found = [json.loads(line) for line in written.splitlines()]
    assert [row["alarms"] for row in found] == [[], [], [], ["kl_high_t2"], ["kl_high_t2"], [], []]
    assert found[2]["loss"] is None
    (span,) = alarms.spans(found)
    assert span == alarms.Span("kl_high_t2", "one", 4, 5, True)


def test_a_resumed_run_does_not_raise_its_alarms_again(tmp_path, capsys):
    high = rows(*[{"kl_t2": 9.0}] * 6)
    with Metrics(epath.Path(tmp_path), 0, CONFIG) as metrics:
        for row in high[:4]:
            metrics.write(row)
    straight = (tmp_path / "metrics.jsonl").read_text()
    with Metrics(epath.Path(tmp_path), 3, CONFIG) as metrics:
        assert metrics.last["step"] == 3
        metrics.write(high[3])
    assert capsys.readouterr().out.count("ALARM") == 1
    assert (tmp_path / "metrics.jsonl").read_text() == straight


def test_spans_of_alarms_that_come_again():
    marks = [["a"], ["a", "b"], ["b"], [], ["a"]]
    log = [{"step": step, "stage": "s", "alarms": names} for step, names in enumerate(marks, start=1)]
    shown = [(span.name, span.first, span.last, span.over) for span in alarms.spans([{"step": 0}, *log])]
    assert shown == [("a", 1, 2, True), ("b", 2, 3, True), ("a", 5, 5, False)]


def test_the_shipped_limits_are_all_read():
    shipped = load_config("configs/quickstart.py").alarms
    assert set(shipped) == set(LIMITS)
