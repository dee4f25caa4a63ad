"""The work that a step needs: against a walk over every token, and against what is compiled."""

import itertools
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest
import tiny

from score_jax import model as models
from score_jax.compiled import PHASES, compile_and_count
from score_jax.config import load_config
from score_jax.machine import Rates
from score_jax.program_cost import Cost
from score_jax.programs import model_of, trace
from score_jax.slots import Slots
from score_jax.work import Part, least, rollout_work, sampled, scoring_work, sizes_of, update_work

ROOT = Path(__file__).resolve().parents[1]
# Of tiny.model(): the first layer's window is 4, the second sees all.
WIDTH, HEADS, KEYS, HEAD, HIDDEN, WINDOWS = 16, 2, 1, 8, 24, (4, 1000)
SLOTS = {
    "two": Slots(5, 6, (7, 8, 9), 2),
    "one": Slots(5, 6, (), 1),
    "critique": Slots(3, 4, (7, 8), 3, critique=5, feedback=(6, 6, 6)),
}


def kernels_by_hand():
    attention = WIDTH * HEAD * (HEADS + 2 * KEYS) + HEADS * HEAD * WIDTH
    return attention + 3 * WIDTH * HIDDEN


def masks(length):
    """[layer, query, key]: what each token sees."""
    query, key = np.arange(length)[:, None], np.arange(length)[None, :]
    return np.stack([(key <= query) & (key > query - window) for window in WINDOWS])


def writer(slots):
    """For each place of a transcript, whether the model writes it."""
    written = np.zeros(slots.length, bool)
    for segment in slots.segments:
        written[segment.start : segment.stop] = True
    return written


def walk(slots, rows, counted):
    """Operations of a forward pass and of its attention, token by token, of those that are `counted`."""
    seen = masks(slots.length)
    tokens = attention = logits = 0
    for _, at in itertools.product(range(rows), np.flatnonzero(counted)):
        tokens += 2 * 2 * kernels_by_hand()  # in two layers
        for layer in range(2):
            for _ in range(int(seen[layer, at].sum())):
                attention += HEADS * (2 * HEAD + 2 * HEAD)  # scores, and the sum of values
        if at + 1 < slots.length and writer(slots)[at + 1]:
            logits += 2 * WIDTH * tiny.VOCAB
    return tokens, attention, logits


def of(parts, *names):
    chosen = [part.cost for part in parts if part.name in names]
    return sum(cost.flops for cost in chosen), sum(cost.memory for cost in chosen), len(chosen)


# --- By hand ---


def test_the_sizes_of_a_model():
    sizes = sizes_of(tiny.model())
    count = sum(leaf.size for leaf in jax.tree.leaves(tiny.params()))
    assert (sizes.kernels, sizes.table) == (2 * kernels_by_hand(), tiny.VOCAB * WIDTH)
    assert (sizes.parameters, sizes.trained, sizes.bytes) == (count, count, 4 * count)
    assert sizes.inputs == WIDTH * HEAD * (HEADS + 2 * KEYS)
    assert sizes.adapters == 0


@pytest.mark.parametrize("name", SLOTS)
def test_sampling_runs_every_token_but_the_last_once(name):
    slots = SLOTS[name]
    parts = rollout_work(sizes_of(tiny.model()), slots, rows=3, prompts=3)
    everywhere = np.ones(slots.length, bool)
    everywhere[-1] = False
    assert of(parts, "prefill", "decode")[0] == sum(walk(slots, 3, everywhere))
    assert of(parts, "decode")[2] == sum(s.stop - s.start - 1 for s in slots.segments)
    assert of(parts, "prefill")[2] == len(slots.segments)


@pytest.mark.parametrize("name", SLOTS)
def test_decoding_reads_the_parameters_and_what_each_token_sees(name):
    slots = SLOTS[name]
    sizes = sizes_of(tiny.model())
    seen, entry = masks(slots.length), 2 * KEYS * HEAD * 4  # a key and a value
    expected, fed = [], 0
    for segment in slots.segments:
        for begin, stop in [
            (fed, segment.start),
            *((at, at + 1) for at in range(segment.start, segment.stop - 1)),
        ]:
            # Of what was cached before, that which any of these tokens sees, and all that is written now.
            used = seen[:, begin:stop].any(axis=1)
            expected.append(sizes.bytes + 3 * entry * int(used[:, :begin].sum() + 2 * (stop - begin)))
        fed = segment.stop - 1
    assert [part.cost.memory for part in rollout_work(sizes, slots, rows=3, prompts=3)] == expected


@pytest.mark.parametrize("name", SLOTS)
def test_a_prompt_is_computed_once_for_all_of_its_samples(name):
    sizes = sizes_of(tiny.model())
    apart, together = (rollout_work(sizes, SLOTS[name], rows=6, prompts=count) for count in (6, 2))
    assert together[1:] == apart[1:]
    assert together[0].cost.flops == apart[0].cost.flops / 3
    assert together[0].cost.memory - sizes.bytes == (apart[0].cost.memory - sizes.bytes) / 3


@pytest.mark.parametrize("name", SLOTS)
def test_an_update_learns_from_a_prompt_once_for_all_of_its_samples(name):
    slots, sizes = SLOTS[name], sizes_of(tiny.model())
    apart, together = (update_work(sizes, slots, rows=6, prompts=count, itemsize=4) for count in (6, 2))
    saved = sum(walk(slots, 4, np.arange(slots.length) < slots.prompt))
    differ = [one.cost.flops - two.cost.flops for one, two in zip(apart, together, strict=True)]
    assert differ == [saved, saved, 2 * saved, 0]
    assert [part.cost.memory for part in apart] == [part.cost.memory for part in together]


@pytest.mark.parametrize("name", SLOTS)
def test_scoring_makes_logits_of_what_was_sampled_alone(name):
    slots = SLOTS[name]
    scored = np.arange(slots.length) < slots.length - 1
    (part,) = scoring_work(sizes_of(tiny.model()), slots, rows=3, prompts=3)
    assert part.cost.flops == sum(walk(slots, 3, scored))
    assert sampled(slots) == writer(slots).sum()


def test_an_update_is_two_forward_passes_a_backward_pass_and_adam():
    slots, sizes = SLOTS["two"], sizes_of(tiny.model())
    parts = update_work(sizes, slots, rows=3, prompts=3, itemsize=4)
    forward = sum(walk(slots, 3, np.arange(slots.length) < slots.length - 1))
    assert [part.name for part in parts] == ["reference", "forward", "backward", "optimizer"]
    assert [part.cost.flops for part in parts] == [forward, forward, 2 * forward, 0]
    # Parameter, two moments: read and written; the gradient: written and read.
    assert parts[-1].cost.memory == (2 + 2 * 2 + 2) * 4 * sizes.parameters


def test_of_a_frozen_model_the_backward_pass_needs_the_inputs_gradients_alone():
    slots = SLOTS["two"]
    adapted = models.with_adapters(tiny.model(), 2)
    bare, sizes = sizes_of(tiny.model()), sizes_of(adapted)
    # A and B beside q, kv, the product of heads, the two gates and the last kernel, in each layer.
    heads = HEADS * HEAD
    pairs = ((WIDTH, heads), (WIDTH, 2 * KEYS * HEAD), (heads, WIDTH), (WIDTH, 2 * HIDDEN), (HIDDEN, WIDTH))
    assert sizes.adapters == sizes.trained == 2 * sum(2 * (a + b) for a, b in pairs)
    assert (sizes.kernels, sizes.table) == (bare.kernels, bare.table)
    parts = {part.name: part.cost for part in update_work(sizes, slots, rows=3, prompts=3, itemsize=4)}
    places = slots.length - 1
    kernels, attention, logits = walk(slots, 3, np.arange(slots.length) < places)
    adapters = 2 * sizes.adapters * 3 * places
    inputs = (
        2 * WIDTH * HEAD * (HEADS + 2 * KEYS) * 3 * places
    )  # of the first layer: nothing before it learns
    assert parts["reference"].flops == kernels + attention + logits
    assert parts["forward"].flops == kernels + attention + logits + adapters
    assert parts["backward"].flops == kernels - inputs + 2 * attention + logits + 2 * adapters
    assert parts["optimizer"].memory == 8 * 4 * sizes.adapters


def test_gemma_3_1b_has_the_parameters_that_its_name_says():
    sizes = sizes_of(models.named_gemma("Gemma3_1B", "bfloat16"))
    assert sizes.parameters == 999_885_952  # as of the released checkpoint
    assert sizes.bytes == 2 * sizes.parameters
    assert sizes.windows.count(512) == 22 and len(sizes.windows) == 26


def test_a_model_whose_work_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"Gemma4_E2B has the parameter .*, whose work"):
        sizes_of(tiny.gemma4())


def test_gemma_2_is_known():
    assert sizes_of(tiny.FAMILIES["gemma2"]).kernels == 2 * kernels_by_hand()


# --- The least time ---


def test_each_part_takes_as_long_as_what_it_has_most_of():
    rates = Rates(flops=10.0, bandwidth=2.0)
    parts = [Part("a", Cost(100.0, 4.0)), Part("b", Cost(10.0, 8.0)), Part("c", Cost(0.0, 2.0))]
    assert least(parts, rates) == {"flops": 10.0, "memory": 4.0 + 1.0}


# --- As compiled ---


@pytest.fixture
def shapes_for_arrays(monkeypatch):
    """Programs are traced from shapes, which the checks of signatures would take for a mistake."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize(
    ("rank", "estimator", "most"), [(0, "k1", {"rollout": 1.6, "update": 2.0}), (2, "full", {"update": 2.0})]
)
def test_no_program_does_with_less(shapes_for_arrays, rank, estimator, most):
    fields = {
        "problems_per_step": 4, "micro_batches": 1, "score_chunk": 16,
        "tokenizer.vocab_size": 64, "model.layers": 2, "model.width": 32,
        "model.heads": 2, "model.head_width": 16, "model.hidden_width": 64, "model.sliding_window": 9,
        "lora_rank": rank, "kl_estimator": estimator,
    }  # fmt: skip
    words = [f"--config.{name}={value}" for name, value in fields.items()]
    config = load_config(str(ROOT / "configs" / "quickstart.py"), words)
    model, slots = model_of(config), Slots(13, 13, tuple(range(10)), 2)
    programs = {p.name: p for p in trace(config, config.stage2, model, slots, tiny.mesh(1))}
    sizes = sizes_of(model)
    needed = {
        "rollout": rollout_work(sizes, slots, rows=16, prompts=4),
        "update": update_work(sizes, slots, rows=16, prompts=4, itemsize=4),
    }
    for name in most:
        found = compile_and_count(programs[name].lowered, PHASES[name])["regions"]
        for count, at_most in (("flops", most[name]), ("memory", np.inf)):
            emitted = sum(region["runs"] * region["cost"][count] for region in found)
            least_of = sum(getattr(part.cost, count) for part in needed[name])
            assert least_of <= emitted <= at_most * least_of, (name, count)


def test_parts_of_a_rollout_are_work_of_their_own():
    sizes = sizes_of(tiny.model())
    whole, half = (rollout_work(sizes, SLOTS["two"], rows, rows // 2) for rows in (4, 2))
    assert of(whole, "prefill", "decode")[0] == 2 * of(half, "prefill", "decode")[0]
    # Parameters are read for each part again.
    more = 2 * of(half, "decode")[1] - of(whole, "decode")[1]
    assert more == of(whole, "decode")[2] * sizes.bytes
