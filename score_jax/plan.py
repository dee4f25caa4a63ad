"""Whether a run fits a TPU slice, and how fast it can be at most, told without the slice.

The programs of an RL step are compiled for the described chips. Memory is what the compiler says, time the
roofline's lower bound: what the host does between them, grading above all, comes on top.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
from etils import epath

from score_jax.compiled import Counted, counted
from score_jax.config_check import AXES, SUPERVISED
from score_jax.lengths import Lengths
from score_jax.mesh import make_mesh, prompt_rows
from score_jax.programs import model_of, slots_of, trace
from score_jax.roofline import Phase, phases_of
from score_jax.task import training_task
from score_jax.topology import Chip, chip_of, described_devices

_UNKNOWN = "instructions count a token for four characters, as config.model.tokenizer is not given"


@dataclasses.dataclass(frozen=True)
class Need:
    """Memory of a chip that a program needs, in bytes.

    Attributes:
      program: rollout | update.
      stays: what lies there before it runs: parameters, Adam's moments, the batch.
      temporary: what it takes while it runs.
      fits: whether both fit the chip.
    """

    program: str
    stays: float
    temporary: float
    fits: bool


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """A stage's step.

    Attributes:
      stage: its name.
      steps: updates.
      needs: of its programs.
      phases: () where a program does not fit: the compiler stops there.
      tokens: that are sampled in a step, on all chips.
    """

    stage: str
    steps: int
    needs: tuple[Need, ...]
    phases: tuple[Phase, ...]
    tokens: float

    @property
    def fits(self) -> bool:
        """Whether all of its programs do."""
        return all(need.fits for need in self.needs)

    @property
    def seconds(self) -> float:
        """The least that a step can take."""
        return sum(phase.seconds for phase in self.phases)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `plan` found.

    Attributes:
      topology: the slice.
      mesh: devices of each axis.
      memory: bytes that a program may use on a chip.
      mean_length: of an attempt that is not cut, in tokens; as supposed.
      stages: one for each stage that is planned.
      advice: what to change where it does not fit.
      notes: what was supposed or left out.
    """

    topology: str
    mesh: dict[str, int]
    memory: float
    mean_length: float
    stages: tuple[StagePlan, ...]
    advice: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether all stages do."""
        return all(stage.fits for stage in self.stages)

    @property
    def seconds(self) -> float:
        """The least that all planned updates can take."""
        return sum(stage.steps * stage.seconds for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        stages = [
            dataclasses.asdict(stage) | {"fits": stage.fits, "seconds": stage.seconds}
            for stage in self.stages
        ]
        return dataclasses.asdict(self) | {"stages": stages, "fits": self.fits, "seconds": self.seconds}


def plan(
    config: ml_collections.ConfigDict,
    topology: str,
    *,
    mean: float = 0.25,
    cache: epath.Path,
    say: Callable[[str], None] = print,
) -> Plan:
    """Compiles a config's RL steps for a slice, and counts.

    Args:
      config: the run's.
      topology: VERSION:SHAPE, see `topology.chip_of`.
      mean: of the lengths of attempts, as a share of their slot (`Lengths`).
      cache: where the counts of programs are kept, by their content.
      say: takes a line of progress.

    Raises:
      ValueError: the slice is not known, libtpu is missing, or the config cannot run on it.
    """
    if not mean > 0:
        raise ValueError(f"--mean-length={mean}: a share of the attempt's slot, above 0; 0.25 is usual")
    chip, devices = chip_of(topology), described_devices(topology)
    mesh = make_mesh(tuple(config.mesh[axis] for axis in AXES), devices)
    target = f"{topology}, {devices[0].client.platform_version.splitlines()[-1]}"
    task, model = training_task(config), model_of(config)
    lengths = Lengths(config.slots.attempt, max(1.0, mean * config.slots.attempt))
    stages, notes, seen = [], [], {}
    for key in config.stages:
        stage = config[key]
        if stage.objective in SUPERVISED:
            notes.append(f"{stage.name}: imitates, and is not planned")
            continue
        if stage.offline:
            notes.append(f"{stage.name}: gives first attempts, and is planned as if it sampled all")
        slots, guessed = slots_of(config, stage, model, task)
        if guessed:
            notes.append(_UNKNOWN)
        samples = config.samples_per_problem * stage.samples_factor
        kind = (slots, samples, stage.reference == "base")
        if kind not in seen:
            traced = trace(config, stage, model, slots, mesh)
            seen[kind] = [counted(program, target, cache, say) for program in traced]
        episodes = config.problems_per_step * samples
        spoken = slots.attempts * lengths.expected
        spoken += (slots.attempts - 1) * slots.critique / slots.attempt * lengths.expected
        rounds = lengths.longest(episodes // config.rollout_parts) / slots.attempt
        stages.append(
            StagePlan(
                stage=stage.name,
                steps=stage.steps,
                needs=tuple(need_of(program, chip) for program in seen[kind]),
                phases=phases_of(seen[kind], chip, rounds),
                tokens=episodes * spoken,
            )
        )
    advice = [
        line
        for stage in stages
        for need in stage.needs
        if not need.fits
        for line in advice_for(need, config, mesh.shape, chip)
    ]
    return Plan(
        topology=topology,
        mesh=dict(mesh.shape),
        memory=chip.memory,
        mean_length=lengths.mean,
        stages=tuple(stages),
        advice=tuple(dict.fromkeys(advice)),
        notes=tuple(dict.fromkeys(notes)),
    )


def need_of(program: Counted, chip: Chip) -> Need:
    """What a program needs of a chip's memory."""
    fits = bool(program.regions) and program.stays + program.temporary <= chip.memory
    return Need(program.name, program.stays, program.temporary, fits)


def advice_for(
    need: Need, config: ml_collections.ConfigDict, mesh: Mapping[str, int], chip: Chip
) -> list[str]:
    """What can be changed where a program does not fit, and would work on this mesh."""
    gib = lambda size: f"{size / 2**30:.2f} GiB"
    more = f"the {need.program} needs {gib(need.stays + need.temporary)} of {gib(chip.memory)}: "
    shares = mesh["data"] * mesh["fsdp"]
    problems = config.problems_per_step
    episodes = problems * config.samples_per_problem
    found = []
    if need.program == "rollout":
        parts = 2 * config.rollout_parts
        if not problems % parts and not (episodes // parts) % shares:
            found.append(f"config.rollout_parts={parts} halves the cache")
    else:
        parts = 2 * config.micro_batches
        together = lambda parts: prompt_rows(episodes // parts, config.samples_per_problem, shares)
        as_many = together(parts) == together(config.micro_batches)  # samples share a prompt
        if not problems % parts and not (episodes // parts) % shares and as_many:
            found.append(f"config.micro_batches={parts} halves what the layers leave for the backward pass")
        if not config.remat:
            found.append("config.remat=True keeps of each layer its input alone")
        if config.score_chunk > 1:
            found.append(
                f"config.score_chunk={config.score_chunk // 2} halves the scores over the vocabulary"
            )
    if mesh["data"] > 1:
        found.append("config.mesh.data=1 --config.mesh.fsdp=-1 cuts parameters and moments over all chips")
    if not config.lora_rank:
        found.append("config.lora_rank=64 trains adapters: no moments and no gradient of all parameters")
    found.append("a larger slice, or chips of more memory")
    return [more + line if line.startswith("a larger") else f"{more}--{line}" for line in found]
