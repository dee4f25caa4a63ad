"""The planner: its programs against arithmetic, its sums by hand, and a real compilation for TPUs."""

import dataclasses
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest
import rich.console
import tiny
from etils import epath

from score_jax import plan as plans
from score_jax import topology as topologies
from score_jax.compiled import PHASES, Counted, compile_and_count, counted
from score_jax.config import load_config
from score_jax.lengths import Lengths
from score_jax.plan import Need, Plan, StagePlan, advice_for, need_of
from score_jax.plan_text import HEADER, as_row, as_text
from score_jax.program_cost import Cost, Region
from score_jax.programs import model_of, slots_of, trace
from score_jax.roofline import Phase, phases_of
from score_jax.slots import Slots
from score_jax.task import training_task
from score_jax.topology import Chip, chip_of

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = str(ROOT / "configs" / "quickstart.py")
SLOTS = Slots(13, 13, tuple(range(10)), 2)
LAYERS, WIDTH, HEADS, KEYS, HEAD, HIDDEN, VOCAB = 2, 16, 2, 1, 8, 24, 40
SMALL = {
    "problems_per_step": 8, "micro_batches": 1, "score_chunk": 16,
    "tokenizer.vocab_size": VOCAB, "model.layers": LAYERS, "model.width": WIDTH,
    "model.heads": HEADS, "model.kv_heads": KEYS, "model.head_width": HEAD, "model.hidden_width": HIDDEN,
}  # fmt: skip
CHIP = Chip(flops=100.0, memory=1000.0, bandwidth=10.0, network=1.0, cores="default")


@pytest.fixture(autouse=True)
def shapes_for_arrays(monkeypatch):
    """Programs are traced from shapes, which the checks of signatures would take for a mistake."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def small(**changes):
    fields = SMALL | changes
    return load_config(QUICKSTART, [f"--config.{name}={value}" for name, value in fields.items()])


def traced(devices, stage="stage2", **changes):
    config = small(**changes)
    mesh = tiny.mesh(*devices)
    return {program.name: program for program in trace(config, config[stage], model_of(config), SLOTS, mesh)}


def forward(rows, queries, keys):
    """Operations of a pass through the layers: each of `queries` tokens looks at `keys` places."""
    kernels = 2 * WIDTH * (HEADS * HEAD * 2 + KEYS * HEAD * 2 + 3 * HIDDEN)
    return rows * queries * LAYERS * (kernels + 2 * 2 * HEADS * HEAD * keys)


def flops_of(regions, phase):
    return sum(r["runs"] * r["cost"]["flops"] for r in regions if r["phase"] == phase)


# --- The programs of a step, compiled here ---


@pytest.mark.parametrize("devices", [(1, 1, 1), (8, 1, 1), (1, 1, 2), (2, 2, 2)])
def test_the_update_does_what_arithmetic_says(devices):
    program = traced(devices)["update"]
    found = compile_and_count(program.lowered, PHASES["update"])["regions"]
    share, tensor = int(np.prod(devices)), devices[-1]
    prompts, rows, shared = 8, 8 * 4, SLOTS.prompt - 1
    length = SLOTS.length - shared  # what a prompt's four samples have of their own
    reference, update = (flops_of(found, phase) * share for phase in ("reference", "update"))
    # The single head of keys and values is computed on each of the devices that share the others. XLA on CPUs
    # forgets whose attention's own two products are: they are counted with the update.
    tokens = prompts * shared + rows * length
    again = (tensor - 1) * tokens * LAYERS * 2 * WIDTH * 2 * KEYS * HEAD
    assert reference == forward(1, tokens, 0) + again  # its head is counted where the KL is taken
    pieces = -(-(length - 1) // 16)
    positions = pieces * -(-(length - 1) // pieces)  # that predict one
    heads = 2 * rows * positions * 2 * WIDTH * VOCAB
    # Backward: the gradient by the inputs and by the parameters. The first layer's inputs need none, and
    # neither do the reference's scores; the policy's are made anew.
    # So short, all of attention is one block.
    layers = forward(prompts, shared, shared) + forward(rows, length, SLOTS.length)
    least, most = 4 * layers + heads, 4.2 * layers + 3 * heads
    assert least < reference + update - 4 * again < most


def test_the_sampler_does_what_arithmetic_says():
    program = traced((1, 1, 1))["rollout"]
    found = compile_and_count(program.lowered, PHASES["rollout"])["regions"]
    rows, head = 8 * 4, 8 * 4 * 2 * WIDTH * VOCAB
    first, second = 13 + 13, SLOTS.length  # places of the cache
    draws = sum(13 * (forward(rows, 1, places) + head) for places in (first, second))
    assert flops_of(found, "decode") == draws
    # A prompt is fed once for its four samples.
    fed = forward(8, 13, first) + head / 4 + forward(rows, 10, second) + head
    assert flops_of(found, "prefill") == fed
    assert {r["runs"] for r in found if r["phase"] == "decode" and r["cost"]["flops"]} == {13}


def test_parts_are_counted_as_often_as_they_run():
    whole, parts = traced((1, 1, 1))["rollout"], traced((1, 1, 1), rollout_parts=2)["rollout"]
    assert (whole.times, parts.times) == (1, 2)


@pytest.mark.parametrize("devices", [(1, 1, 1), (2, 4, 1), (2, 2, 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_stays_on_a_device_is_what_the_compiler_is_given(devices, dtype):
    """The update is given all but the reference's second copy; the objective's numbers are 32 bytes."""
    programs = traced(devices, **{"model.dtype": dtype})
    given = programs["update"].lowered.compile().memory_analysis().argument_size_in_bytes
    assert 0 <= given - programs["update"].stays <= 64
    given = programs["rollout"].lowered.compile().memory_analysis().argument_size_in_bytes
    problems = 8 / (devices[0] * devices[1])
    policy = given - problems * (13 * 4 + 4 * 8)  # prompts, and the keys of their samples
    # What is trained and Adam's moments, in float32, and the base come on top of what the sampler is given;
    # where the policy runs in the dtype in which it is trained, it is no copy.
    more = {"float32": 3 * policy, "bfloat16": 3 * 2 * policy + policy}[dtype]
    assert abs(programs["rollout"].stays - given - more) <= 64  # the temperature, counted with the policy


def test_adapters_share_the_base():
    """Frozen parameters are given twice, to the policy and to the reference, and lie there once."""
    programs = traced((1, 1, 1), lora_rank=2)
    given = programs["update"].lowered.compile().memory_analysis().argument_size_in_bytes
    config = small()
    base = jax.eval_shape(model_of(config).init, jax.random.key(0), np.ones((1, 2), int))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(base))
    assert 0 <= given - size - programs["update"].stays <= 64


def test_a_reference_of_its_own_lies_there_too():
    base = traced((1, 1, 1))["update"].stays
    other = traced((1, 1, 1), **{"stage2.reference": "stage_one"})["update"].stays
    config = small()
    params = jax.eval_shape(model_of(config).init, jax.random.key(0), np.ones((1, 2), int))
    assert other - base == sum(4 * leaf.size for leaf in jax.tree.leaves(params))


def test_the_layout_is_the_run_s_own():
    config = load_config(QUICKSTART)
    slots, guessed = slots_of(config, config.stage2, model_of(config), training_task(config))
    assert not guessed
    assert (slots.prompt, slots.attempt, slots.attempts) == (13, 13, 2)
    assert slots.instruction


def test_without_its_tokenizer_an_instruction_s_length_is_guessed():
    config = load_config(str(ROOT / "configs" / "gsm8k_gemma3_1b.py"))
    task = training_task(config)
    slots, guessed = slots_of(config, config.stage2, model_of(config), task)
    assert guessed
    assert len(slots.instruction) == len(task.instruction) // 4 + 10
    config.slots.critique = 100
    config.stage2.critique = True
    slots, _ = slots_of(config, config.stage2, model_of(config), task)
    assert slots.critique == 100
    assert len(slots.feedback) == len(task.feedback) // 4 + 10


def test_a_batch_that_the_mesh_cannot_share_out_is_refused():
    with pytest.raises(ValueError, match=r"config.micro_batches gives 4 rows, which 8 shares"):
        traced((8, 1, 1), micro_batches=8)


# --- Lengths ---


@pytest.mark.parametrize(("slot", "mean", "rows"), [(3, 2.0, 1), (3, 2.0, 2), (4, 1.5, 3)])
def test_lengths_by_enumeration(slot, mean, rows):
    end = 1 / mean
    chance = {x: end * (1 - end) ** (x - 1) for x in range(1, slot)} | {slot: (1 - end) ** (slot - 1)}
    assert sum(chance.values()) == pytest.approx(1)
    every = itertools.product(chance, repeat=rows)
    longest = sum(max(drawn) * np.prod([chance[x] for x in drawn]) for drawn in every)
    lengths = Lengths(slot, mean)
    assert lengths.longest(rows) == pytest.approx(longest)
    assert lengths.expected == pytest.approx(sum(x * p for x, p in chance.items()))


def test_attempts_that_never_end_fill_their_slot():
    assert Lengths(100, float("inf")).expected == Lengths(100, float("inf")).longest(64) == 100
    assert Lengths(100, 1.0).longest(64) == 1


# --- The roofline, with a chip whose numbers are round ---


def test_each_region_takes_as_long_as_what_it_has_most_of():
    rollout = Counted(
        "rollout", 2, 0, 0,
        (
            Region("prefill", "", 1, Cost(flops=1000, memory=10, network=1)),  # 10 s, 1 s, 1 s
            Region("decode", "", 1, Cost(memory=20)),  # 2 s, outside of the loop
            Region("decode", "draw_tokens", 8, Cost(flops=100, memory=30, network=1)),  # 1 s, 3 s, 1 s
        ),
    )  # fmt: skip
    update = Counted(
        "update", 1, 0, 0,
        (
            Region("reference", "", 1, Cost(flops=400)),
            Region("update", "", 1, Cost(flops=500, memory=10, network=20)),  # 5 s, 1 s, 20 s
            Region("update", "scan", 4, Cost(flops=300, memory=20)),  # 3 s, 2 s
        ),
    )  # fmt: skip
    prefill, decode, reference, learned = phases_of([rollout, update], CHIP, rounds=0.5)
    assert prefill == Phase("prefill", Cost(2000, 20, 2), 20.0, "flops")
    # Half of the eight rounds of each of two parts.
    assert decode == Phase("decode", Cost(800, 2 * 20 + 8 * 30, 8), 2 * 2 + 8 * 3, "memory")
    assert reference == Phase("reference", Cost(400), 4.0, "flops")
    assert learned == Phase("update", Cost(500 + 4 * 300, 10 + 4 * 20, 20), 20 + 4 * 3, "network")


def test_what_does_not_fit_has_no_phases():
    program = Counted("update", 1, 0, 2000, ())
    assert phases_of([program], CHIP, rounds=1) == ()
    assert need_of(program, CHIP) == Need("update", 0, 2000, fits=False)


def test_memory_is_what_stays_and_what_is_taken():
    program = Counted("update", 1, 600, 400, (Region("update", "", 1, Cost(1)),))
    assert need_of(program, CHIP).fits
    assert not need_of(dataclasses.replace(program, stays=601), CHIP).fits


# --- Advice ---


def advised(program, mesh, **changes):
    config = small(**changes)
    lines = advice_for(Need(program, 3 * 2**30, 14 * 2**30, fits=False), config, mesh, chip_of("v5e:2x2"))
    assert all(line.startswith(f"the {program} needs 17.00 GiB of 15.75 GiB: ") for line in lines)
    return re.findall(r"--config\.([\w.]+=\w+)", "\n".join(lines))


def test_advice_names_what_works_on_this_mesh():
    one, four = {"data": 1, "fsdp": 4, "tensor": 1}, {"data": 4, "fsdp": 1, "tensor": 1}
    assert advised("rollout", one) == ["rollout_parts=2", "lora_rank=64"]
    assert advised("rollout", four)[0:2] == ["rollout_parts=2", "mesh.data=1"]
    assert advised("update", one) == ["micro_batches=2", "remat=True", "score_chunk=8", "lora_rank=64"]
    # Of two problems in a part four chips would have each prompt scored twice.
    assert "micro_batches=4" in advised("update", {"data": 2, "fsdp": 1, "tensor": 1}, micro_batches=2)
    assert "micro_batches=4" not in advised("update", four, micro_batches=2)
    # Eight problems in eight parts cannot be halved; episodes of a part must suffice for all chips.
    assert advised("update", one, micro_batches=8, remat=True, score_chunk=1, lora_rank=8) == []
    assert "rollout_parts=8" not in advised("rollout", {"data": 1, "fsdp": 8, "tensor": 1}, rollout_parts=4)
    assert advised("rollout", {"data": 1, "fsdp": 1, "tensor": 1}, rollout_parts=8) == ["lora_rank=64"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("rollout_parts", 2), ("micro_batches", 2), ("remat", True), ("score_chunk", 8), ("lora_rank", 64)],
)
def test_advised_fields_are_accepted(field, value):
    assert small(**{field: value})[field] == value


# --- Topologies ---


@pytest.mark.parametrize("text", ["v5e", "v5e:16", "v9:2x2", "v5e:4x4x", "2x2"])
def test_a_topology_is_written_version_shape(text):
    with pytest.raises(ValueError, match=r"write VERSION:SHAPE as v5e:4x4 or .*, with a version of v4, v5e"):
        chip_of(text)


def test_chips_are_ordered_as_they_were_sold():
    assert chip_of("v5e:2x2").flops < chip_of("v4:2x2x1").flops < chip_of("v5p:2x2x1").flops
    assert chip_of("v6e:2x2").memory == 31.24 * 2**30


def test_without_libtpu_the_command_says_what_to_do(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TPU_LIBRARY_PATH")}
    script = (
        "from score_jax import topology; from pathlib import Path; topology._FETCHED = Path('absent');"
        "from score_jax.__main__ import main; import sys; sys.modules['libtpu'] = None;"
        f"sys.exit(main(['plan', '--config={QUICKSTART}', '--topology=v5e:2x2']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip().endswith("which ./launch/libtpu.sh fetches")


# --- What is kept, and what is shown ---


def test_a_program_is_compiled_once(tmp_path, capsys):
    program = traced((1, 1, 1))["rollout"]
    said = []
    first = counted(program, "here", epath.Path(tmp_path), said.append)
    again = counted(program, "here", epath.Path(tmp_path), said.append)
    assert first == again
    assert len(said) == 1
    counted(program, "there", epath.Path(tmp_path), said.append)
    assert len(said) == 2
    full = tmp_path / "a file"
    full.write_text("")
    assert counted(program, "there", epath.Path(full), said.append) == first
    assert said[-1].startswith(f"WARNING: {full} cannot be written")
    assert first.regions
    assert first.temporary > 0


def test_a_program_that_does_not_fit_tells_its_size():
    class TooLarge:
        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
                "required for HLO temporaries (17.53G) exceeds available HBM (15.75G). HLO module: jit_f."
            )

    class Broken:
        def compile(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    assert compile_and_count(TooLarge(), str) == {"temporary": 17.53 * 2**30, "regions": []}
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        compile_and_count(Broken(), str)


def made_up(fits=True):
    phases = (
        Phase("prefill", Cost(2e12, 4e9, 0), 0.5, "memory"),
        Phase("decode", Cost(1e12, 8e9, 1e9), 1.5, "memory"),
    )
    needs = (Need("rollout", 2**30, 2**31, fits=True), Need("update", 2**30, 2**34, fits=fits))
    one = StagePlan("stage_one", 100, needs, phases if fits else (), 4000.0)
    two = dataclasses.replace(one, stage="stage_two", steps=200)
    advice = () if fits else ("the update needs 17 GiB: --config.remat=True",)
    mesh = {"data": 1, "fsdp": 4, "tensor": 1}
    return Plan("v5e:2x2", mesh, 2**34, 96.0, (one, two), advice, ("a note",))


def printed(found):
    console = rich.console.Console(width=120, file=io.StringIO())
    for part in as_text(found, "my_config"):
        console.print(part)
    return console.file.getvalue()


def test_the_text_says_it_all():
    text = printed(made_up())
    assert "my_config on v5e:2x2: data=1 fsdp=4 tensor=1, 16.00 GiB for programs on each chip" in text
    assert re.search(r"stage_two │ update +│ +1\.00 │ +16\.00 │ +17\.00 │ +yes", text)
    assert re.search(r"stage_one │ decode +│ +1 │ +8 │ +1 │ +1\.5 s │ +memory", text)
    assert "stage_two: a step takes 2 s at least, 2,000 sampled tokens/s; 200 updates 6.67 min" in text
    assert "attempts that end: 96 tokens in the mean" in text
    assert text.rstrip().endswith("a note\nIt fits.")


def test_the_text_of_what_does_not_fit_ends_with_what_would_help():
    text = printed(made_up(fits=False))
    assert "a step takes" not in text
    assert text.rstrip().endswith(
        "It does NOT fit. What would help:\n  the update needs 17 GiB: --config.remat=True"
    )


def test_a_row_of_the_table():
    row = as_row(made_up(), "my_config")
    assert row == "| my_config | v5e:2x2 | yes | 17.0 of 16.0 | 2 s | decode: memory | 10 min | 2,000 |"
    assert HEADER.splitlines()[0].count("|") == row.count("|")
    assert as_row(made_up(fits=False), "x").count("|") == row.count("|")


def test_json_has_every_number():
    found = json.loads(json.dumps(made_up().as_dict()))
    assert found["fits"] and found["seconds"] == 600
    assert found["stages"][1]["seconds"] == 2
    assert found["stages"][0]["phases"][1]["cost"] == {"flops": 1e12, "memory": 8e9, "network": 1e9}


# --- For TPUs ---


def libtpu():
    """Where the compiler lies, if anywhere."""
    found = os.environ.get("TPU_LIBRARY_PATH", str(topologies._FETCHED))
    return Path(found)


@pytest.mark.skipif(not libtpu().exists(), reason="libtpu is not there: ./launch/libtpu.sh fetches it")
def test_the_small_config_is_planned_for_a_real_slice(tmp_path):
    options = [f"--config.{name}={value}" for name, value in SMALL.items()]
    command = ["plan", f"--config={QUICKSTART}", "--topology=v5e:2x2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "score_jax", *command, *options, "--config.tokenizer.vocab_size=320"],
        cwd=ROOT,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] and found["mesh"] == {"data": 4, "fsdp": 1, "tensor": 1}
    config = small(**{"tokenizer.vocab_size": 320})
    slots, _ = slots_of(config, config.stage2, model_of(config), training_task(config))
    for stage in found["stages"]:
        flops = {phase["name"]: phase["cost"]["flops"] for phase in stage["phases"]}
        assert list(flops) == ["prefill", "decode", "reference", "update"]
        shared = slots.prompt - 1  # by the four samples of each of a chip's two problems
        own = forward(8, slots.length - shared, slots.length)
        assert flops["reference"] == forward(2, shared, shared) + own
    assert "Compiling the update for v5e:2x2" in done.stderr


def test_a_plan_needs_a_length_above_zero():
    with pytest.raises(ValueError, match=r"--mean-length=0.0: a share of the attempt's slot, above 0"):
        plans.plan(small(), "v5e:2x2", mean=0.0, cache=epath.Path("unused"))
