"""The command `benchmark`: its statistics, what it times, and all of it on a very small config."""

import dataclasses
import io
import itertools
import json
import re
import resource
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import rich.console

from score_jax import benchmark as benchmarks
from score_jax import machine, timing
from score_jax.__main__ import main
from score_jax.benchmark import Benchmark, Ragged, Scale, ragged_of, works_of
from score_jax.benchmark_text import as_text, two_digits
from score_jax.config import load_config
from score_jax.efficiency import phases_of
from score_jax.lengths import Lengths
from score_jax.machine import Rates
from score_jax.program_cost import Cost
from score_jax.slots import Slots
from score_jax.timing import Timing, timed, timed_in_turn
from score_jax.types import PADDING
from score_jax.work import Part, rollout_work, sizes_of, update_work
from score_jax.workload import layout_of, stage_of, workload_of

ROOT = Path(__file__).resolve().parents[1]
TINY = str(ROOT / "configs" / "benchmark.py")
FIELDS = {
    "problems_per_step": 2, "samples_per_problem": 2, "tokenizer.vocab_size": 32, "model.layers": 1,
    "model.width": 16, "model.hidden_width": 16, "model.heads": 2, "model.head_width": 8, "slots.prompt": 4,
    "slots.attempt": 3, "micro_batches": 1, "score_chunk": 16,
}  # fmt: skip
OPTIONS = [f"--config.{name}={value}" for name, value in FIELDS.items()]


def small(**changes):
    return load_config(TINY, OPTIONS + [f"--config.{name}={value}" for name, value in changes.items()])


# --- Statistics ---


def test_a_timing_has_the_median_and_quartiles_of_all_but_the_first_call(monkeypatch):
    moments = iter(np.cumsum([0, 9, 0, 3, 0, 1, 0, 2, 0, 5, 0, 4]).tolist())  # before and after each call
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: next(moments)))
    calls = []
    assert timed(lambda: calls.append(0), 5) == Timing(9, 3.0, 2.0, 4.0, 5)
    assert len(calls) == 6


def test_a_first_call_may_have_been_made_before(monkeypatch):
    moments = iter([0.0, 3.0, 3.0, 4.0])
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: next(moments)))
    assert timed(lambda: None, 2, first=9.0) == Timing(9.0, 2.0, 1.5, 2.5, 2)


def test_two_calls_take_turns_and_the_ratio_is_that_of_a_turn(monkeypatch):
    took = [9, 8, 2, 1, 30, 10, 4, 1]  # in turn: the first two compile; ratios 2, 3, 4
    moments = iter(np.cumsum([x for seconds in took for x in (0, seconds)]).tolist())
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: next(moments)))
    calls = []
    monkeypatch.setattr(timing, "rest", lambda: calls.append("rest"))
    mine, others, ratio = timed_in_turn(lambda: calls.append("mine"), lambda: calls.append("other"), 3)
    assert calls == ["mine", "rest", "other", "rest"] * 4
    assert (mine.first, mine.median, others.first, others.median, ratio) == (9, 4, 8, 1, 3)


def test_quartiles_lie_between_two_calls():
    assert Timing.of(1.0, [1.0, 2.0]) == Timing(1.0, 1.5, 1.25, 1.75, 2)


def test_a_call_is_repeated_once_at_least():
    with pytest.raises(
        ValueError, match="--repeats=0: the first call compiles and does not count; give 1 or"
    ):
        timed(lambda: None, 0)


def test_rates_are_the_best_of_sizes_that_grow_until_they_take_long(monkeypatch):
    seen = []

    def rate(size):
        seen.append(size)
        return {2: 5.0, 4: 7.0, 8: 6.0}[size], {2: 0.001, 4: 0.01, 8: 0.06}[size]

    assert machine._best(rate, 2, 1000) == 7.0
    assert seen == [2, 4, 8]
    seen.clear()
    assert machine._best(rate, 2, 4) == 7.0
    assert seen == [2, 4]


def test_rates_count_both_operations_and_both_ways(monkeypatch):
    def half_a_second(call, repeats):
        jax.block_until_ready(call())
        return Timing.of(1.0, [0.5] * repeats)

    monkeypatch.setattr(machine, "timed", half_a_second)
    monkeypatch.setattr(machine, "_SIDES", (8, 64))
    monkeypatch.setattr(machine, "_BYTES", (400, 8000))
    assert machine.measured_rates("bfloat16") == Rates(flops=2 * 8**3 / 0.5, bandwidth=2 * 400 / 0.5)


def test_memory_is_the_device_s_where_it_tells(monkeypatch):
    device = types.SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 123})
    monkeypatch.setattr(machine.jax, "devices", lambda: [device])
    assert machine.peak_memory() == (123.0, "device")


def test_memory_is_the_process_s_on_a_cpu():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held, whose = machine.peak_memory()
    assert whose == "process"
    assert held in (1024 * before, before) or held > before


def test_efficiency_is_floor_over_median():
    rates = Rates(flops=100.0, bandwidth=10.0)
    parts = [Part("a", Cost(300.0, 10.0)), Part("b", Cost(100.0, 20.0))]  # 3 s by operations, 2 s by bytes
    (phase,) = phases_of({"update": Timing(9.0, 10.0, 9.0, 11.0, 3)}, {"update": parts}, rates)
    assert (phase.floor, phase.bound) == (5.0, "flops")
    assert (phase.ratio, phase.mfu, phase.traffic) == (0.5, 0.4, 0.3)
    told = phase.as_dict()
    assert (told["ratio"], told["median"], told["flops"], told["memory"]) == (0.5, 10.0, 400.0, 30.0)


# --- What is timed ---


@pytest.fixture(scope="module")
def load():
    """Sampled, scored and updated in two parts each."""
    return workload_of(small(rollout_parts=2, micro_batches=2), 2)


@pytest.fixture(scope="module")
def episodes(load):
    return load.rollout(load.params())


def test_all_slots_are_filled(episodes):
    assert episodes.tokens.shape == (4, 4 + 3 + 2 + 3)
    assert PADDING not in np.asarray(episodes.attempt)
    assert np.asarray(episodes.attempt)[0].tolist() == [0] * 4 + [1] * 3 + [0] * 2 + [2] * 3


def test_parts_are_sampled_with_the_keys_of_their_own_rows(load, episodes):
    tokens = np.asarray(episodes.tokens)
    assert len(np.unique(tokens[:, 4:], axis=0)) == 4
    np.testing.assert_array_equal(tokens[::2, :4], load.prompts)
    np.testing.assert_array_equal(tokens[1::2, :4], load.prompts)
    assert works_of(load, sizes_of(load.model))["rollout"] == 2 * rollout_work(
        sizes_of(load.model), load.slots, 2, 1
    )


def test_the_scores_are_the_sampler_s(load, episodes):
    """The policy starts at the reference."""
    scores = load.score(episodes)
    assert [len(part) for part in scores] == [2, 2]
    np.testing.assert_allclose(np.concatenate(scores), episodes.logp, atol=1e-5)


def test_a_step_trains_on_what_was_sampled(load):
    before = jax.tree.map(np.array, load.state.params)
    held = jax.tree.map(np.array, load.base)
    metrics = load.step()
    assert int(load.state.step) == 1
    assert metrics["length"].tolist() == [3.0, 3.0]
    assert float(metrics["sampler_gap"]) < 1e-4
    differ = lambda a, b: bool((a != np.asarray(b)).any())
    assert any(jax.tree.leaves(jax.tree.map(differ, before, load.state.params)))
    assert not any(jax.tree.leaves(jax.tree.map(differ, held, load.base)))


def test_the_update_s_work_is_that_of_all_episodes(load):
    sizes = sizes_of(load.model)
    work = works_of(load, sizes)["update"]
    assert work == update_work(sizes, load.slots, 4, 2, 4)
    assert work[-1].cost.memory == 8 * sum(leaf.nbytes for leaf in jax.tree.leaves(load.state.params))


def test_the_layout_has_the_stage_s_attempts_and_critiques():
    config = small(**{"stage2.attempts": 3})
    assert layout_of(config, config.stage2, 2) == Slots(4, 3, (1, 2), 3)
    config = small(**{"slots.critique": 5, "stage2.critique": True})
    assert layout_of(config, config.stage2, 2) == Slots(4, 3, (1, 2), 2, critique=5, feedback=(1, 2))


def test_the_last_stage_of_reinforcement_learning_is_timed():
    config = small()
    config.stages = ("stage1", "stage2")
    assert stage_of(config).name == "stage_two"
    config.stages = ("stage2", "stage1")
    assert stage_of(config).name == "stage_one"
    config.stages = ()
    with pytest.raises(
        ValueError, match=r"config.stages = \(\): no stage of reinforcement learning among them"
    ):
        stage_of(config)


# --- The command ---


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the command prints, on very small shapes."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "_SIDES", (64, 64))
        patch.setattr(machine, "_BYTES", (2**12, 2**12))
        printed = io.StringIO()
        patch.setattr("sys.stdout", printed)
        options = ["--json", "--repeats=2", "--attempts=2", "--instruction=2", "--mean-length=0.5"]
        options.append(f"--profile={folder}")
        assert main(["benchmark", f"--config={TINY}:tiny", *options, *OPTIONS]) == 0
    return json.loads(printed.getvalue()), folder


def test_the_command_tells_where_it_ran(found):
    told, _ = found
    assert told["config"] == "benchmark.py:tiny"
    assert told["platform"] == "cpu" and told["jax"] == jax.__version__ and told["dtype"] == "float32"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d\+00:00", told["date"])
    assert told["cores"] >= 1 and told["memory"] > 1e6 and told["memory_of"] == "process"
    assert (told["episodes"], told["attempts"], told["length"], told["sampled"]) == (4, 2, 12, 24)


def test_the_command_times_every_phase(found):
    told, _ = found
    phases = {phase["name"]: phase for phase in told["phases"]}
    assert list(phases) == ["rollout", "scoring", "update", "step"]
    for phase in phases.values():
        assert 0 < phase["low"] <= phase["median"] <= phase["high"]
        assert phase["repeats"] == 2
        assert phase["ratio"] == pytest.approx(phase["floor"] / phase["median"])
        assert phase["mfu"] == pytest.approx(phase["flops"] / phase["median"] / told["rates"]["flops"])
    assert phases["step"]["floor"] == pytest.approx(phases["rollout"]["floor"] + phases["update"]["floor"])
    # Compiled at their first calls, which the start-up has all of.
    firsts = [phases[name]["first"] for name in ("rollout", "update")]
    assert firsts[0] > phases["rollout"]["median"] and firsts[1] > phases["update"]["median"]
    assert told["startup"] > sum(firsts)


def test_the_command_scales_the_attempts(found):
    told, _ = found
    (scale,) = told["scales"]
    assert (scale["attempts"], scale["length"]) == (2, 12)
    assert [phase["name"] for phase in scale["phases"]] == ["rollout", "update"]
    for index, phase in zip((0, 2), scale["phases"], strict=True):
        assert phase["flops"] == told["phases"][index]["flops"]


def test_the_command_times_attempts_that_end(found):
    ragged = found[0]["ragged"]
    assert ragged["mean_length"] == 0.5 and 0 < ragged["sampled"] < 1
    assert ragged["seconds"]["repeats"] == ragged["unpadded"]["repeats"] == 2
    assert ragged["over"] > 0


def test_attempts_that_end_stand_beside_as_many_tokens_without_padding(monkeypatch):
    """The critiques' slots shrink, too. The ratio is one of seconds per token, as slots are whole tokens."""
    called = []

    def in_turn(*calls_and_repeats):
        called.extend(call.__self__ for call in calls_and_repeats[:2])
        return Timing(9.0, 3.0, 2.9, 3.1, 2), Timing(9.0, 1.5, 1.4, 1.6, 2), 2.0

    monkeypatch.setattr(benchmarks, "timed_in_turn", in_turn)
    config = small(**{"slots.attempt": 20, "slots.critique": 12, "stage2.critique": True})
    found = ragged_of(config, 2, 0.3, 2, lambda line: None)
    ends, full = called
    once, again = (np.asarray(load.rollout(load.params()).attempt) for load in (ends, ends))
    np.testing.assert_array_equal(once, again)
    tokens, slots = (once > 0).sum(), 4 * (20 + 12 + 20)
    assert found.sampled == pytest.approx(tokens / slots)
    assert full.slots.attempt == found.slot == round(20 * tokens / slots)
    assert full.slots.critique == round(12 * tokens / slots)
    whole = np.asarray(full.rollout(full.params()).attempt)
    assert (whole != PADDING).all()
    assert found.over == pytest.approx(2.0 * (whole > 0).sum() / tokens)


def test_attempts_have_the_length_that_is_asked_for():
    """Of 64 geometric ones the mean is within four standard errors; the model reads what it wrote."""
    config = load_config(f"{TINY}:tiny", ["--config.model.layers=1"])
    load = workload_of(config, 16, attempts=1, mean_length=0.25)
    attempt = np.asarray(load.rollout(load.params()).attempt)
    lengths = (attempt == 1).sum(axis=1)
    expected = Lengths(64, 16.0).expected
    assert abs(lengths.mean() - expected) < 4 * expected / len(lengths) ** 0.5
    assert len(set(lengths.tolist())) > 10


@pytest.mark.parametrize("share", ["-1", "0.001", "nan", "inf"])
def test_a_mean_length_that_cannot_be_is_refused(share, capsys):
    assert main(["benchmark", f"--config={TINY}:tiny", f"--mean-length={share}", *OPTIONS]) == 2
    assert "0.25 is usual" in capsys.readouterr().err


def test_the_command_writes_a_trace(found):
    _, folder = found
    assert list(folder.rglob("*.xplane.pb"))
    assert list(folder.rglob("*.trace.json.gz"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config=configs/benchmark.py:huge"], "configs/benchmark.py:huge: there are tiny, mid, gemma3_1b"),
        (["--config=configs/absent.py:tiny"], "--config=configs/absent.py:tiny: no such file"),
        (["--config=configs/benchmark.py", "--config.model.name=Gemma4_E2B"], "config.model.checkpoint is"),
    ],
)
def test_what_cannot_be_timed_is_refused(options, message, capsys):
    assert main(["benchmark", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("shape", ["tiny", "mid", "gemma3_1b"])
def test_the_shapes_are_those_that_are_promised(shape):
    config = load_config(f"{TINY}:{shape}")
    assert config.problems_per_step * config.samples_per_problem == 64
    model = config.model
    if shape == "gemma3_1b":
        assert (model.name, model.dtype, config.slots.attempt) == ("Gemma3_1B", "bfloat16", 512)
        return
    vocabulary = config.tokenizer.vocab_size
    sizes = (model.layers, model.width, model.hidden_width, vocabulary, model.dtype)
    assert sizes == {"tiny": (4, 256, 1024, 512, "float32"), "mid": (8, 512, 2048, 4096, "float32")}[shape]
    assert (config.slots.prompt, config.slots.attempt, config.stage2.attempts) == (32, 64, 2)


# --- For a reader ---


def made_up():
    rates = Rates(flops=80e9, bandwidth=20e9)
    timings = {name: Timing(9.0, 2.0, 1.9, 2.1, 5) for name in ("rollout", "scoring", "update", "step")}
    works = {name: [Part("forward", Cost(80e9, 4e9))] for name in timings}
    phases = phases_of(timings, works, rates)
    return Benchmark(
        config="made_up.py", date="2026-11-27T00:00+00:00", device="a device", platform="cpu", cores=1,
        jax="0.12", dtype="float32", parameters=1000, trained=10, episodes=64, attempts=2, length=176,
        sampled=8192, startup=12.0, memory=2**30, memory_of="process", rates=rates, phases=phases,
        scales=(Scale(16, 1088, phases[::2]),),
        ragged=Ragged(0.25, 0.24, Timing(9.0, 3.0, 2.9, 3.1, 5), 15, timings["step"], 1.234),
    )  # fmt: skip


def printed(found, width):
    console = rich.console.Console(width=width, file=io.StringIO())
    for part in as_text(found):
        console.print(part)
    return console.file.getvalue()


def test_the_text_says_it_all():
    text = printed(made_up(), 80)
    assert "made_up.py: 1,000 parameters in float32, 10 trained" in text
    assert "64 episodes of 2 attempts in 176 tokens" in text
    assert "a device (cpu), 1 usable cores, JAX 0.12" in text
    assert "80 GFLOP/s in matrix products, 20.0 GB/s of memory" in text
    assert re.search(r"update +2 s +10% +1 s +flops +50% +50% +10% +4,096 *\n", text)
    assert re.search(r"16 +1088 +2 s +125 ms +50% +2 s +125 ms +50% *\n", text)
    assert "attempts of 25% of their slot in the mean, 24% of all slots sampled:\n" in text
    assert "a step takes 3 s, for each sampled token 1.23 times as long as a step\n" in text
    assert "of slots of 15, all sampled, which takes 2 s\n" in text
    assert "first calls, compilation included: rollout 9 s, scoring 9 s, update 9 s" in text
    assert "12 s from the start to the end of the first step" in text and "1.00 GiB" in text
    assert "…" not in text


def test_json_has_every_number():
    told = json.loads(json.dumps(made_up().as_dict()))
    assert told.keys() == {field.name for field in dataclasses.fields(Benchmark)}
    assert told["phases"][2]["ratio"] == told["scales"][0]["phases"][1]["ratio"] == 0.5


@pytest.mark.parametrize(
    ("share", "text"), [(0.0123, "1.2%"), (0.0996, "10%"), (0.123, "12%"), (1.2, "120%")]
)
def test_percent(share, text):
    assert two_digits(share) == text


def test_a_phase_is_bound_by_what_most_of_its_floor_is():
    rates = Rates(flops=1.0, bandwidth=1.0)
    parts = [Part("a", Cost(3.0, 0.0)), Part("b", Cost(0.0, 2.0)), Part("c", Cost(0.0, 2.0))]
    for order in itertools.permutations(parts):
        (phase,) = phases_of({"step": Timing(1.0, 1.0, 1.0, 1.0, 1)}, {"step": order}, rates)
        assert (phase.floor, phase.bound) == (7.0, "memory")
