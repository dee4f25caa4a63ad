"""What a config must be like to work: every field is there, has a value that makes sense, and an effect."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from score_jax.config_fields import check_fields, missing
from score_jax.kl import ESTIMATORS
from score_jax.tracker import check_tracker

OBJECTIVES = ("stage_one", "stage_two", "multi_turn")
UNIFIED = "unified"  # the objective of a stage that goes from one section's numbers to another's
SUPERVISED = ("star", "pair_sft")  # objectives of stages that imitate instead: score_jax.traces
STARTS = ("previous", "base")  # the parameters from which a stage's updates begin
SMALL = "small"  # the model.name of one that is pre-trained here; others are the gemma package's
DTYPES = ("float32", "bfloat16")
SPLITS = ("train", "validation", "test")
AXES = ("data", "fsdp", "tensor")  # of config.mesh, see score_jax.mesh
_POSITIVE = (
    *("problems_per_step", "samples_per_problem", "rollout_parts", "micro_batches", "score_chunk"),
    *("slots.prompt", "slots.attempt", "checkpoint_every", "optimizer.clip_norm"),
    *("evaluate.attempts", "evaluate.batch", "log.every", "log.transcript_every"),
    *("max_skipped", "alarms.window", "alarms.kl_max", "alarms.entropy_max", "alarms.length_growth"),
)
_SHARES = ("alarms.cut_off_max", "alarms.unparsed_max", "alarms.changed_min")
# Of a small model, which is pre-trained here.
_POSITIVE_IF_SMALL = (
    *("tokenizer.vocab_size", "tokenizer.texts", "pretrain.batch", "pretrain.clip_norm"),
    *("model.layers", "model.width", "model.hidden_width", "model.heads", "model.kv_heads"),
    *("model.head_width", "model.sliding_window"),
)
# What of a stage only some objectives read, beside `between` and `ramp`.
_REINFORCED = (
    *("alpha", "scale_kl", "beta_1", "beta_2", "adapt_beta_2", "discount"),
    *("reference", "critique", "offline"),
)
_BETWEEN = ("between", "ramp")
# What a unified stage does not read of a section that it goes between.
_NOT_BETWEEN = ("adapt_beta_2", "offline", "critique", "reference")


def check_config(config: ml_collections.ConfigDict) -> None:
    """Refuses what cannot work, before any compute.

    Raises:
      ValueError: names the field, its value and the mend.
    """
    fields = Fields(config)
    _check_files(fields)
    check_fields(fields.flat, small=fields.small)
    _check_run(fields)
    _check_numbers(fields)
    if fields.small:
        _check_pretraining(fields)
    names = ["base"]
    for key in fields.value("stages"):
        is_section = isinstance(config.get(key), ml_collections.ConfigDict)
        fields.require("stages", is_section, f"there is no section config.{key}")
        check_stage(fields, key, names)
        names.append(config[key].name)


def flatten(config: Mapping[str, Any] | ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """{'stage2.alpha': 10.0, ...}: leaves by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


class Fields:
    """A config's fields by their dotted names, and what may be asked of them; all raise ValueError."""

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.flat = flatten(config)
        self.small = self.flat.get("model.name") == SMALL

    def value(self, field: str) -> Any:
        """What a field holds; it has to be there."""
        if field not in self.flat:
            raise ValueError(missing(field, self.flat.get("model.name", ""), small=self.small))
        return self.flat[field]

    def require(self, field: str, holds: bool, mend: str) -> None:
        """Something that has to hold of a field, else `mend` says what to do."""
        if not holds:
            raise ValueError(f"config.{field} = {self.value(field)!r}: {mend}")

    def positive(self, *fields: str) -> None:
        for field in fields:
            self.require(field, self.value(field) > 0, "must be greater than 0")

    def not_negative(self, *fields: str) -> None:
        for field in fields:
            self.require(field, self.value(field) >= 0, "must not be negative")

    def share(self, *fields: str) -> None:
        for field in fields:
            self.require(field, 0 <= self.value(field) <= 1, "is a share and must lie in [0, 1]")

    def among(self, field: str, choices: Sequence[str]) -> None:
        self.require(field, self.value(field) in choices, f"choose one of {', '.join(choices)}")

    def unread(self, field: str, why: str, *, needed: bool) -> None:
        """A field that has no effect there; what would change nothing is a mistake, not a wish."""
        value = self.flat.get(field, 0)
        neutral = "base" if isinstance(value, str) else type(value)()
        mend = f"set it to {neutral!r}" if needed else "leave it out"
        self.require(field, value == neutral, f"{why}; {mend}")

    def critique(self, section: str, name: str = "critique", *, given: bool = False) -> None:
        """A field that asks for critiques, of a section that has `attempts`; they may be of `given` ones."""
        field = f"{section}.{name}"
        if self.value(field):
            room, attempts = self.value("slots.critique") > 0, self.value(f"{section}.attempts")
            mend = "config.slots.critique = 0 leaves no tokens for it; raise that, or leave this out"
            self.require(field, room, mend)
            mend = f"config.{section}.attempts = {attempts}: none follows; raise that, or leave this out"
            self.require(field, given or attempts > 1, mend)


def _check_files(fields: Fields) -> None:
    config = fields.config
    for section, where in (("files", config), ("evaluate.files", config.get("evaluate", {}))):
        files = where.get("files")
        if not isinstance(files, ml_collections.ConfigDict):
            raise ValueError(f"config.{section} = {files!r}: must be a ConfigDict of paths, maybe empty")
        for name in files:
            is_path = isinstance(files[name], str)
            fields.require(f"{section}.{name}", is_path, "must be the path of a file, or ''")


def _check_run(fields: Fields) -> None:
    """What belongs to no stage."""
    is_name = isinstance(fields.value("evaluate.task"), str)
    fields.require("evaluate.task", is_name, "write it as 'package.module:Class'")
    fields.positive(*_POSITIVE, *(_POSITIVE_IF_SMALL if fields.small else ()))
    released = ("model.checkpoint", "model.tokenizer", "model.chat")
    for field in ("model.name", *(() if fields.small else released)):
        fields.value(field)  # raises where it is missing
    fields.not_negative("evaluate.temperature", "evaluate.problems", "train_problems", "lora_rank")
    fields.not_negative("slots.critique", "offline_attempts", "keep_newest", "keep_best")
    spare = fields.value("keep_newest") != 1
    fields.require("keep_newest", spare, "leaves none to go back to if it is damaged; give 2, or 0 for all")
    several = fields.value("samples_per_problem") > 1
    fields.require("samples_per_problem", several, "RLOO needs at least 2 samples per problem")
    fields.require("temperature", fields.value("temperature") > 0, "must be greater than 0 to explore")
    check_tracker(fields.value("log.wandb"))
    fields.among("kl_estimator", ESTIMATORS)
    fields.among("model.dtype", DTYPES)
    fields.among("train_dtype", DTYPES)
    fields.among("evaluate.split", SPLITS)
    sizes = [f"mesh.{axis}" for axis in AXES]
    for field in sizes:
        size = fields.value(field)
        fields.require(field, size > 0 or size == -1, "must be greater than 0, or -1 for all that is left")
        others = [f"config.{other}" for other in sizes if other != field and fields.value(other) == -1]
        alone = size != -1 or not others
        fields.require(field, alone, f"so has {' and '.join(others)}; only one of the mesh's axes may be -1")
    problems = fields.value("problems_per_step")
    for field in ("micro_batches", "rollout_parts"):
        divides = problems % fields.value(field) == 0
        fields.require(field, divides, f"must divide problems_per_step = {problems}")
    fields.critique("evaluate", given=True)  # whether there are such the task knows, see `task.evaluated`


def _check_numbers(fields: Fields) -> None:
    """Ranges that are neither a share nor half a line."""
    seed = 0 <= fields.value("seed") < 2**31
    fields.require("seed", seed, "must lie in [0, 2**31)")
    for field in ("optimizer.b1", "optimizer.b2", *(("pretrain.b2",) if fields.small else ())):
        fields.require(field, 0 <= fields.value(field) < 1, "is a decay and must lie in [0, 1)")
    fields.not_negative("optimizer.weight_decay", "alarms.entropy_min")
    fields.share(*_SHARES)


def _check_pretraining(fields: Fields) -> None:
    fields.not_negative("pretrain.weight_decay")
    fields.share("pretrain.warmup")
    heads, kv_heads = fields.value("model.heads"), fields.value("model.kv_heads")
    fields.require("model.kv_heads", heads % kv_heads == 0, f"must divide model.heads = {heads}")
    even = fields.value("model.head_width") % 2 == 0  # positions turn its halves
    fields.require("model.head_width", even, "must be even")
    for name in fields.value("pretrain.phases"):
        key = f"pretrain.{name}"
        is_section = isinstance(fields.config.pretrain.get(name), ml_collections.ConfigDict)
        fields.require("pretrain.phases", is_section, f"there is no section config.{key}")
        fields.positive(f"{key}.steps", f"{key}.attempts", f"{key}.learning_rate")
        fields.share(f"{key}.unlearned", f"{key}.critiques")
        fields.critique(key, "critiques")


def check_stage(fields: Fields, key: str, earlier: Sequence[str]) -> None:
    """One stage of training.

    Args:
      fields: the run's.
      key: of the stage's section.
      earlier: names of the stages before it, and 'base'.
    """
    fields.positive(*(f"{key}.{name}" for name in ("steps", "attempts", "samples_factor", "learning_rate")))
    fields.not_negative(f"{key}.warmup_steps")
    hold = 0 <= fields.value(f"{key}.hold") <= 1
    fields.require(f"{key}.hold", hold, "is a fraction of the stage's steps and must lie in [0, 1]")
    fields.among(f"{key}.objective", (*OBJECTIVES, UNIFIED, *SUPERVISED))
    fields.among(f"{key}.start", STARTS)
    name, objective = fields.value(f"{key}.name"), fields.value(f"{key}.objective")
    fine = re.fullmatch(r"[\w-]+", name) is not None
    fields.require(f"{key}.name", fine, "names files; write it in letters, digits, - and _")
    fields.require(f"{key}.name", name not in earlier, "another stage has this name; each needs its own")
    reinforced = objective not in SUPERVISED
    for field in _unread(objective):
        needed = reinforced and field in _REINFORCED
        fields.unread(f"{key}.{field}", f"has no effect on the objective {objective}", needed=needed)
    for field in _REINFORCED if reinforced else ("keep_right",):
        fields.value(f"{key}.{field}")  # raises where it is missing
    if not reinforced:
        mend = f"{objective} imitates second attempts after first ones; set it to 2"
        fields.require(f"{key}.attempts", fields.value(f"{key}.attempts") == 2, mend)
        return
    fields.among(f"{key}.reference", earlier)
    fields.critique(key)
    if objective == UNIFIED:
        _check_unified(fields, key)
    else:
        _check_objective(fields, key)
    fields.share(f"{key}.offline")
    if fields.value(f"{key}.offline"):
        _check_offline(fields, key)


def _unread(objective: str) -> tuple[str, ...]:
    """The fields of a stage that its objective does not read."""
    if objective in SUPERVISED:
        return (*_REINFORCED, *_BETWEEN)
    if objective == UNIFIED:
        return ("keep_right", "alpha", "scale_kl", "beta_1", "beta_2", "adapt_beta_2", "discount")
    alone = ("keep_right", *_BETWEEN)
    return alone if objective == "stage_two" else (*alone, "alpha", "scale_kl")


def _check_objective(fields: Fields, key: str) -> None:
    """The numbers of an objective of reinforcement learning."""
    fields.not_negative(*(f"{key}.{name}" for name in ("alpha", "beta_1", "beta_2", "adapt_beta_2")))
    fixed, begins = not fields.value(f"{key}.adapt_beta_2"), fields.value(f"{key}.beta_2") > 0
    fields.require(f"{key}.adapt_beta_2", fixed or begins, "adapts beta_2, which has to start above 0")
    several = fields.value(f"{key}.attempts") > 1
    fields.require(f"{key}.adapt_beta_2", fixed or several, "adapts the KL of earlier attempts: of none")
    discount = fields.value(f"{key}.discount")
    fields.require(f"{key}.discount", 0 <= discount <= 1, "must lie in [0, 1]")
    fields.require(
        f"{key}.discount",
        discount == 0 or not fields.value("decisive_only"),
        "credits an attempt with the next one's pay, which tokens after its answer change; "
        "set config.decisive_only=False with it",
    )


def _check_unified(fields: Fields, key: str) -> None:
    """A stage whose numbers are first those of one section, then those of another."""
    between, ramp = fields.value(f"{key}.between"), fields.value(f"{key}.ramp")
    attempts = fields.value(f"{key}.attempts")
    fits = [
        fields.flat.get(f"{name}.objective") in OBJECTIVES and fields.value(f"{name}.attempts") == attempts
        for name in between
    ]
    mend = f"name two stages' sections of this config that have {attempts} attempts"
    fields.require(f"{key}.between", fits == [True, True], mend)
    for name in between:
        _check_objective(fields, name)
        for field in _NOT_BETWEEN if name not in fields.config.stages else ():
            fields.unread(f"{name}.{field}", f"config.{key} does not read it of this section", needed=True)
    rises = len(ramp) == 2 and 0 <= ramp[0] < ramp[1] <= 1
    fields.require(f"{key}.ramp", rises, "give two rising shares of the steps, such as (0.2, 0.5)")


def _check_offline(fields: Fields, key: str) -> None:
    """A stage some or all of whose first attempts are given."""
    stage, parts = fields.config[key], fields.value("rollout_parts")
    problems, attempts = fields.value("problems_per_step"), stage.attempts
    given = stage.offline * problems
    rest = problems - given
    whole = abs(given - round(given)) < 1e-6
    for holds, mend in (
        (attempts == 2, f"gives the first of 2 attempts, and config.{key}.attempts = {attempts}"),
        (not stage.critique, f"gives attempts that nobody criticised; set config.{key}.critique=False"),
        (stage.offline < 1 or not stage.adapt_beta_2, f"leaves no KL to set config.{key}.adapt_beta_2 by"),
        (stage.discount == 0, f"credits no given attempt; set config.{key}.discount=0"),
        (whole, f"{given:g} of problems_per_step = {problems} problems are no whole number; change either"),
        (
            round(given) % parts == 0,
            f"rollout_parts = {parts} must divide {given:g} problems and the other {rest:g} alike",
        ),
        (
            fields.value("offline_attempts") > 0,
            "config.offline_attempts = 0 leaves none to give; raise that",
        ),
    ):
        fields.require(f"{key}.offline", holds, mend)
