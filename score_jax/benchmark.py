"""How fast a config's RL step runs here, beside the least time that its work takes at the device's rates."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from score_jax.efficiency import Phase, phases_of
from score_jax.machine import Rates, device_name, measured_rates, peak_memory
from score_jax.model import without_adapters
from score_jax.peers import Ours, Peer, Side, side_by_side
from score_jax.rewards.cores import cores
from score_jax.timing import Timing, timed, timed_in_turn
from score_jax.types import CONTEXT
from score_jax.work import Part, Sizes, rollout_work, sampled, scoring_work, sizes_of, update_work
from score_jax.workload import Workload, ending_of, workload_of


@dataclasses.dataclass(frozen=True)
class Scale:
    """A step at another number of attempts.

    Attributes:
      attempts: N.
      length: L, tokens of a transcript.
      phases: rollout and update.
    """

    attempts: int
    length: int
    phases: tuple[Phase, ...]


@dataclasses.dataclass(frozen=True)
class Ragged:
    """A step whose attempts end before their slots do, in turn with one of as many tokens and no padding.

    Attributes:
      mean_length: of the attempts, geometrically distributed, before they are cut at their slot: as a share.
      sampled: share of the attempts' slots that is sampled.
      seconds: of the step.
      slot: tokens of an attempt's slot, all of them sampled, in the other: as many, to within rounding.
      unpadded: seconds of the other.
      over: the step's time for a sampled token over the other's, the median of all turns.
    """

    mean_length: float
    sampled: float
    seconds: Timing
    slot: int
    unpadded: Timing
    over: float


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What `benchmark` found.

    Attributes:
      config: its name.
      date: and time, UTC.
      device: its kind.
      platform: cpu | gpu | tpu.
      cores: of the CPU that the process may use.
      jax: its version.
      dtype: of the model and of the matrix products that were timed.
      parameters: of the model, adapters included.
      trained: those of them that are trained.
      episodes: E.
      attempts: N.
      length: L, tokens of a transcript.
      sampled: tokens that a step samples.
      startup: seconds from the command's start to the end of the first step, all compiled anew.
      memory: the most bytes that were held at once until all phases were timed.
      memory_of: device | process: whose.
      rates: the device's.
      phases: rollout, scoring, update, step.
      scales: of other numbers of attempts, () where none were asked for.
      sides: this and other libraries, () where none were asked for.
      ragged: the step with shorter attempts, None where that was not asked for.
    """

    config: str
    date: str
    device: str
    platform: str
    cores: int
    jax: str
    dtype: str
    parameters: int
    trained: int
    episodes: int
    attempts: int
    length: int
    sampled: int
    startup: float
    memory: float
    memory_of: str
    rates: Rates
    phases: tuple[Phase, ...]
    scales: tuple[Scale, ...]
    sides: tuple[Side, ...] = ()
    ragged: Ragged | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        scales = [
            {"attempts": scale.attempts, "length": scale.length}
            | {"phases": [phase.as_dict() for phase in scale.phases]}
            for scale in self.scales
        ]
        phases = [phase.as_dict() for phase in self.phases]
        return dataclasses.asdict(self) | {"phases": phases, "scales": scales}


def benchmark(
    config: ml_collections.ConfigDict,
    name: str,
    *,
    began: float,
    instruction: int = 16,
    repeats: int = 5,
    attempts: Sequence[int] = (),
    mean_length: float = 0.0,
    peers: Sequence[str] = (),
    profile: str = "",
    say: Callable[[str], None] = print,
) -> Benchmark:
    """Times a step of a config's last RL stage with random parameters, prompts and rewards, on one device.

    Args:
      config: the run's.
      name: the config's, for the reader.
      began: when the command began, by `time.perf_counter`.
      instruction: F, tokens between two attempts.
      repeats: of each call, after the first.
      attempts: numbers of attempts at which rollout and update are timed, too.
      mean_length: of attempts that end, as a share of their slot, with which a step is timed, too, in turn
        with one of as many tokens without padding; 0: none.
      peers: scripts of other libraries, which do the same work beside it.
      profile: folder for a trace of one step; "" for none.
      say: takes a line of progress.

    Raises:
      ValueError: the config has no stage of reinforcement learning, a model whose work is not known, or slots
        that are too short for the mean length.
      PeerError: a peer does not start, or ends.
    """
    load = workload_of(config, instruction)
    if mean_length:
        ending_of(mean_length, load.slots)  # refused before anything is timed
    sizes = sizes_of(load.model)
    first = first_step(load)
    startup = time.perf_counter() - began
    say(f"first step: {startup:.3g} s after the start")
    sides = beside(config, load, startup, peers, repeats, say) if peers else ()
    timings = timings_of(load, first, repeats, say)
    if profile:
        with jax.profiler.trace(profile):
            jax.block_until_ready(load.step())
        say(f"profile: {profile}")
    memory, whose = peak_memory()
    facts, works = _facts(config, load, sizes), works_of(load, sizes)
    del load  # its memory is needed
    rates = measured_rates(config.model.dtype)
    say(f"{rates.flops:.3g} FLOP/s, {rates.bandwidth:.3g} bytes/s")
    scales = []
    for number in attempts:
        load = workload_of(config, instruction, number)
        say(f"{number} attempts")
        found = timings_of(load, first_step(load), repeats, say, ("rollout", "update"))
        scales.append(Scale(number, load.slots.length, phases_of(found, works_of(load, sizes), rates)))
        del load
    ragged = ragged_of(config, instruction, mean_length, repeats, say) if mean_length else None
    return Benchmark(
        config=name,
        **facts,
        startup=startup,
        memory=memory,
        memory_of=whose,
        rates=rates,
        phases=phases_of(timings, works, rates),
        scales=tuple(scales),
        sides=sides,
        ragged=ragged,
    )


def ragged_of(
    config: ml_collections.ConfigDict,
    instruction: int,
    mean_length: float,
    repeats: int,
    say: Callable[[str], None],
) -> Ragged:
    """Times a step whose attempts end, in turn with one of as many tokens in slots that they fill.

    Both are held at once. For the arguments see `benchmark`.
    """
    say(f"attempts of {mean_length:g} of their slot")
    load = workload_of(config, instruction, mean_length=mean_length)
    attempt = np.asarray(load.rollout(load.params()).attempt)
    share = float((attempt > CONTEXT).sum() / (len(attempt) * sampled(load.slots)))
    config = config.copy_and_resolve_references()
    for slot in ("attempt", "critique"):
        if config.slots[slot]:
            config.slots[slot] = max(1, round(share * config.slots[slot]))
    full = workload_of(config, instruction)
    load.rate = full.rate = 0.0  # so that all turns sample the same
    seconds, unpadded, ratio = timed_in_turn(load.step, full.step, repeats)
    tokens = share * sampled(load.slots) / sampled(full.slots)
    return Ragged(mean_length, share, seconds, full.slots.attempt, unpadded, ratio / tokens)


def beside(
    config: ml_collections.ConfigDict,
    load: Workload,
    startup: float,
    scripts: Sequence[str],
    repeats: int,
    say: Callable[[str], None],
) -> tuple[Side, ...]:
    """A step of `load`, and single attempts of its episodes, here and by the peers of `scripts`.

    Raises:
      PeerError: a peer does not start, or ends.
    """
    memory, _ = peak_memory()
    alone = workload_of(config, 0, attempts=1)
    params = alone.params()
    calls: dict[str, Callable[[], Any]] = {
        "step": load.step,
        "sampling": functools.partial(alone.rollout, params),
    }
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(script, _shape(config, load))) for script in scripts]
        return side_by_side((Ours({"jax": jax.__version__}, startup, memory, calls), *peers), repeats, say)


def _shape(config: ml_collections.ConfigDict, load: Workload) -> dict[str, Any]:
    """What tests/peers/protocol.py calls a `Shape`."""
    model, slots = without_adapters(load.model).config, load.slots
    return {
        "vocabulary": model.num_embed,
        "layers": len(model.attention_types),
        "width": model.embed_dim,
        "hidden_width": model.hidden_dim,
        "heads": model.num_heads,
        "kv_heads": model.num_kv_heads,
        "head_width": model.head_dim,
        "window": model.sliding_window_size,
        "prompt": slots.prompt,
        "attempt": slots.attempt,
        "instruction": len(slots.instruction),
        "problems": config.problems_per_step,
        "samples": load.episodes // config.problems_per_step,
        "dtype": config.model.dtype,
    }


def first_step(load: Workload) -> dict[str, float]:
    """Makes a step; seconds of its parts and of all of it, with what they compile."""
    begin = time.perf_counter()
    episodes = jax.block_until_ready(load.rollout(load.params()))
    middle = time.perf_counter()
    jax.block_until_ready(load.update(load.experience_of(episodes)))
    end = time.perf_counter()
    return {"rollout": middle - begin, "update": end - middle, "step": end - begin}


def timings_of(
    load: Workload,
    first: Mapping[str, float],
    repeats: int,
    say: Callable[[str], None],
    names: Sequence[str] = ("rollout", "scoring", "update", "step"),
) -> dict[str, Timing]:
    """Times the phases that are named; `first` has the seconds of first calls that were made before."""
    params = load.params()
    episodes = load.rollout(params)
    calls: dict[str, Callable[[], Any]] = {
        "rollout": functools.partial(load.rollout, params),
        "scoring": functools.partial(load.score, episodes),
        "update": functools.partial(load.update, load.experience_of(episodes)),
        "step": load.step,
    }
    del params
    found = {}
    for name in names:
        # subtle: popped, so that what samples is freed before an update takes its memory
        found[name] = timed(calls.pop(name), repeats, first.get(name))
        say(f"{name}: {found[name].median:.4g} s, at first {found[name].first:.3g} s")
    return found


def works_of(load: Workload, sizes: Sizes) -> dict[str, list[Part]]:
    """What each phase needs to do."""
    trained = jax.tree.leaves(load.state.params)[0].dtype.itemsize
    rollout = load.parts * rollout_work(
        sizes, load.slots, load.episodes // load.parts, len(load.prompts) // load.parts
    )
    prompts, reference = load.episodes // load.learner.samples, load.learner.reference
    update = update_work(sizes, load.slots, load.episodes, prompts, trained, reference=reference)
    return {
        "rollout": rollout,
        "scoring": scoring_work(sizes, load.slots, load.episodes, load.episodes),  # of rows, not problems
        "update": update,
        "step": rollout + update,
    }


def _facts(config: ml_collections.ConfigDict, load: Workload, sizes: Sizes) -> dict[str, Any]:
    """What was timed, and where."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "device": device_name(),
        "platform": jax.default_backend(),
        "cores": cores(),
        "jax": jax.__version__,
        "dtype": config.model.dtype,
        "parameters": sizes.parameters,
        "trained": sizes.trained,
        "episodes": load.episodes,
        "attempts": load.objective.attempts,
        "length": load.slots.length,
        "sampled": load.episodes * sampled(load.slots),
    }
