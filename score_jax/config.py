"""Configs: read from a Python file, changed from the command line, checked before any compute."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from etils import epath
from ml_collections import config_flags

from score_jax.kl import ESTIMATORS
from score_jax.records import read_json, write_json

OBJECTIVES = ("stage_one", "stage_two", "multi_turn", "unified")
SMALL = "small"  # the model.name of one that is pre-trained here; others are the gemma package's
DTYPES = ("float32", "bfloat16")
SPLITS = ("train", "validation", "test")
_POSITIVE = (
    *("problems_per_step", "samples_per_problem", "rollout_parts", "micro_batches", "score_chunk"),
    *("slots.prompt", "slots.attempt", "checkpoint_every", "optimizer.clip_norm"),
    *("evaluate.attempts", "evaluate.batch", "log.every", "log.transcript_every"),
)
# Of a small model, which is pre-trained here.
_POSITIVE_IF_SMALL = (
    *("tokenizer.vocab_size", "tokenizer.texts", "pretrain.batch"),
    *("model.layers", "model.width", "model.hidden_width", "model.heads", "model.kv_heads"),
    *("model.head_width", "model.sliding_window"),
)
# What may change between two commands on one work directory: how much is shown, and where things lie.
_FREE = ("evaluate", "log", "base_dir", "data_dir", "files", "model.checkpoint", "model.tokenizer")


def load_config(path: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The config that `path` defines, with `--config.field=value` overrides, checked.

    Raises:
      ValueError: a field is misspelt, has the wrong type, or has a value that makes no sense.
    """
    values = flags.FlagValues()
    words = ["score_jax", f"--config={path}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
    if not epath.Path(path).exists():
        raise ValueError(f"--config={path}: no such file")
    for override in overrides:
        if not override.startswith("--config."):
            raise ValueError(f"{override!r} is not understood; change a field with --config.FIELD=VALUE")
    try:
        values(words)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        known = flatten(load_config(path)) if overrides else {}
        raise ValueError(_explain(error, overrides, known)) from error
    config = values["config"].value
    check_config(config)
    return config


def _explain(error: Exception, overrides: Sequence[str], known: Mapping[str, Any]) -> str:
    for override in overrides:
        field = override.removeprefix("--config.").partition("=")[0]
        if field not in known:
            close = difflib.get_close_matches(field, known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(known)}"
            return f"config.{field}: no such field; {hint}"
    return " ".join(str(error).split())


def flatten(config: Mapping[str, Any] | ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """{'stage2.alpha': 10.0, ...}: leaves by their dotted names."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def check_config(config: ml_collections.ConfigDict) -> None:
    """Refuses what cannot work, before any compute.

    Raises:
      ValueError: names the field, its value and the mend.
    """
    flat = flatten(config)
    small = flat.get("model.name") == SMALL

    def value(field: str) -> Any:
        if field not in flat:
            released = not small and field.startswith("model.")
            shown = "quickstart.released" if released else "configs/quickstart.py"
            raise ValueError(f"config.{field} is missing; {shown} shows what belongs there")
        return flat[field]

    def require(field: str, holds: bool, mend: str) -> None:
        if not holds:
            raise ValueError(f"config.{field} = {value(field)!r}: {mend}")

    def positive(*fields: str) -> None:
        for field in fields:
            require(field, value(field) > 0, "must be greater than 0")

    def not_negative(*fields: str) -> None:
        for field in fields:
            require(field, value(field) >= 0, "must not be negative")

    def among(field: str, choices: Sequence[str]) -> None:
        require(field, value(field) in choices, f"choose one of {', '.join(choices)}")

    for section, where in (("files", config), ("evaluate.files", config.get("evaluate", {}))):
        files = where.get("files")
        if not isinstance(files, ml_collections.ConfigDict):
            raise ValueError(f"config.{section} = {files!r}: must be a ConfigDict of paths, maybe empty")
        for name in files:
            require(f"{section}.{name}", isinstance(files[name], str), "must be the path of a file, or ''")
    require("evaluate.task", isinstance(value("evaluate.task"), str), "write it as 'package.module:Class'")
    positive(*_POSITIVE, *(_POSITIVE_IF_SMALL if small else ()))
    for field in ("model.name", *(() if small else ("model.checkpoint", "model.tokenizer", "model.chat"))):
        value(field)  # raises where it is missing
    not_negative("evaluate.temperature", "evaluate.problems", "train_problems", "lora_rank")
    require(
        "samples_per_problem", value("samples_per_problem") > 1, "RLOO needs at least 2 samples per problem"
    )
    require("temperature", value("temperature") > 0, "must be greater than 0 to explore")
    among("kl_estimator", ESTIMATORS)
    among("model.dtype", DTYPES)
    among("train_dtype", DTYPES)
    among("evaluate.split", SPLITS)
    problems = value("problems_per_step")
    for field in ("micro_batches", "rollout_parts"):
        require(field, problems % value(field) == 0, f"must divide problems_per_step = {problems}")
    for key in value("pretrain.phases") if small else ():
        require("pretrain.phases", key in config.pretrain, f"there is no config.pretrain.{key}")
        positive(*(f"pretrain.{key}.{field}" for field in ("steps", "attempts", "learning_rate")))
        share = value(f"pretrain.{key}.unlearned")
        require(f"pretrain.{key}.unlearned", 0 <= share <= 1, "is a share and must lie in [0, 1]")
    require("stages", len(value("stages")) > 0, "name at least one stage")
    names = ["base"]
    for key in value("stages"):
        require("stages", key in config, f"there is no config.{key}")
        positive(*(f"{key}.{field}" for field in ("steps", "attempts", "samples_factor", "learning_rate")))
        not_negative(
            *(f"{key}.{field}" for field in ("alpha", "beta_1", "beta_2", "adapt_beta_2", "warmup_steps"))
        )
        among(f"{key}.objective", OBJECTIVES)
        name, objective = value(f"{key}.name"), value(f"{key}.objective")
        require(f"{key}.name", name not in names, "another stage has this name; each needs its own")
        among(f"{key}.reference", names)
        for field in ("alpha", "scale_kl"):  # what would have no effect is a mistake
            unread = value(f"{key}.{field}") and objective != "stage_two"
            require(f"{key}.{field}", not unread, f"has no effect on the objective {objective}; leave it out")
        discount, hold = value(f"{key}.discount"), value(f"{key}.hold")
        require(f"{key}.discount", 0 <= discount <= 1, "must lie in [0, 1]")
        require(
            f"{key}.discount",
            discount == 0 or not value("decisive_only"),
            "credits an attempt with the next one's pay, which tokens after its answer change; "
            "set config.decisive_only=False with it",
        )
        require(f"{key}.hold", 0 <= hold <= 1, "is a fraction of the stage's steps and must lie in [0, 1]")
        require(
            f"{key}.adapt_beta_2",
            not value(f"{key}.adapt_beta_2") or value(f"{key}.beta_2") > 0,
            "adapts beta_2, which has to start above 0",
        )
        if objective == "unified":
            _check_unified(config, key, require)
        names.append(name)


def _check_unified(
    config: ml_collections.ConfigDict, key: str, require: Callable[[str, bool, str], None]
) -> None:
    """A stage whose numbers are those of two other sections, one after the other."""
    stage = config[key]
    for field in ("alpha", "beta_1", "beta_2", "discount", "adapt_beta_2"):
        require(f"{key}.{field}", not stage[field], "a unified stage has the numbers of config.KEY.between")
    found = [config.get(name) for name in stage.between]
    fits = [
        isinstance(section, ml_collections.ConfigDict)
        and section.get("objective") in OBJECTIVES
        and section.objective != "unified"
        and section.attempts == stage.attempts
        for section in found
    ]
    require(
        f"{key}.between",
        fits == [True, True],
        f"name two stages' sections of this config that have {stage.attempts} attempts",
    )
    require(
        f"{key}.ramp",
        len(stage.ramp) == 2 and 0 <= stage.ramp[0] < stage.ramp[1] <= 1,
        "give two rising shares of the steps, such as (0.2, 0.5)",
    )


def check_workdir(workdir: epath.Path, config: ml_collections.ConfigDict) -> None:
    """Refuses a work directory that belongs to another config.

    Raises:
      ValueError: names the fields that differ.
    """
    if not (workdir / "config.json").exists():
        return
    theirs, ours = flatten(config_of(workdir)), flatten(_plain(config))
    missing = object()
    differ = [
        f"{field} is {theirs.get(field, 'absent')!r} there and {ours.get(field, 'absent')!r} here"
        for field in sorted(theirs.keys() | ours.keys())
        if not _is_free(field) and theirs.get(field, missing) != ours.get(field, missing)
    ]
    if differ:
        raise ValueError(
            f"--workdir={workdir} holds a run of another config ({'; '.join(differ)}); "
            "give another --workdir, or the config that it was started with"
        )


def _is_free(field: str) -> bool:
    return any(field == free or field.startswith(free + ".") for free in _FREE)


def relocate(config: ml_collections.ConfigDict, overrides: Sequence[str]) -> None:
    """Sets where a run's files lie now, from the options of a command that goes by the run's own config.

    Raises:
      ValueError: an option would change what the run is.
    """
    values, moved = flags.FlagValues(), config.copy_and_resolve_references()
    words = ["score_jax", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", moved, flag_values=values, sys_argv=words)
        values(words)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(_explain(error, overrides, flatten(config))) from error
    theirs, ours = flatten(config), flatten(moved)
    for field, value in ours.items():
        if value != theirs[field] and not _is_free(field):
            raise ValueError(
                f"config.{field} = {value!r}: the run has {theirs[field]!r}, and the run decides here"
            )
    config.update(moved)


def claim_workdir(workdir: epath.Path, config: ml_collections.ConfigDict) -> None:
    """Writes the config into a new work directory."""
    workdir.mkdir(parents=True, exist_ok=True)
    if not (workdir / "config.json").exists():
        write_json(workdir / "config.json", _plain(config))


def _plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What JSON makes of a config: tuples become the lists as which they come back."""
    return json.loads(config.to_json())


def config_of(workdir: epath.PathLike) -> ml_collections.ConfigDict:
    """The config with which a work directory was started.

    Raises:
      FileNotFoundError: there is none.
    """
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"--workdir={workdir} holds no run; start one with `python -m score_jax train`"
        )
    return ml_collections.ConfigDict(read_json(path))
