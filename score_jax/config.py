"""Configs: read from a Python file, changed from the command line, checked before any compute."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from etils import epath
from ml_collections import config_flags

from score_jax.config_check import SMALL, check_config, flatten
from score_jax.config_fields import meant
from score_jax.manifest import differences
from score_jax.records import read_json, write_json

# What may change between two commands on one work directory: how much is shown and kept, when a run is
# stopped, and where things lie, on disk and on devices.
_FREE = (
    *("evaluate", "log", "alarms", "max_skipped", "keep_newest", "keep_best"),
    *("mesh", "base_dir", "data_dir", "files", "model.checkpoint", "model.tokenizer"),
)


_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def load_config(path: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The config that `path` defines, with `--config.field=value` overrides, checked.

    Raises:
      ValueError: a field is misspelt, has the wrong type, or has a value that makes no sense.
    """
    values = flags.FlagValues()
    words = ["score_jax", f"--config={path}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
    # An argument of get_config may follow the file's name.
    if not epath.Path(re.sub(r"(\.py):.*", r"\1", path)).is_file():
        raise ValueError(f"--config={path}: no such file; those of the project lie in configs/")
    for override in overrides:
        if not override.startswith("--config."):
            raise ValueError(f"{override!r} is not understood; change a field with --config.FIELD=VALUE")
    try:
        values(words)
    except Exception as error:  # a config file is a program: it may raise anything
        known = flatten(load_config(path)) if overrides else {}
        raise ValueError(_explain(error, path, overrides, known)) from error
    config = values["config"].value
    if not isinstance(config, ml_collections.ConfigDict):
        # config_flags takes an OSError of the file itself for a file that is not there.
        why = "get_config() returned no ml_collections.ConfigDict, or a file that it opens cannot be read"
        raise ValueError(f"--config={path}: {why}; mend the file")
    check_config(config)
    return config


def _explain(error: Exception, path: str, overrides: Sequence[str], known: Mapping[str, Any]) -> str:
    for override in overrides:
        field = override.removeprefix("--config.").partition("=")[0]
        section, _, name = field.rpartition(".")
        if field not in known and section in ("files", "evaluate.files"):
            return (
                f"config.{field}: this config reads no such file; write config.{section}.{name} = '' into it"
            )
        if field not in known:
            return f"config.{field}: no such field; {meant(field, known)}"
    if found := re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL):
        field, value = found.groups()
        kind = _KINDS.get(type(known[field]), "a value")
        return f"config.{field} = {value!r}: must be {kind}, as {known[field]!r}"
    if overrides:
        return " ".join(str(error).split())
    # What is raised inside get_config() comes with its traceback, whose last line it is.
    own = str(error).strip().splitlines()[-1:] if "Traceback" in str(error) else None
    said = " ".join(own or [f"{type(error).__name__}: {' '.join(str(error).split())}"])
    return f"--config={path}: {said}; mend the file (SCORE_JAX_TRACEBACK=1 shows where)"


def check_place(path: epath.PathLike, field: str) -> None:
    """Refuses a folder that could not be made or written.

    Raises:
      ValueError: says what is in the way.
    """
    if "://" in str(path):
        return  # a bucket has no folders
    place = Path(path).absolute()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not there.is_dir():
        raise ValueError(f"{field}={path}: {there} is a file; name another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(
            f"{field}={path}: {there} cannot be written; name another folder, or change its rights"
        )


def judged_by(config: ml_collections.ConfigDict) -> str:
    """The name of the evaluation by which a run is judged: of its last stage, of the base where none is."""
    return config[config.stages[-1]].name if config.stages else "base"


def check_workdir(workdir: epath.Path, config: ml_collections.ConfigDict) -> None:
    """Refuses a work directory that belongs to another config.

    Raises:
      ValueError: names the fields that differ.
    """
    if not (workdir / "config.json").exists():
        return
    theirs, ours = flatten(config_of(workdir)), flatten(_plain(config))
    # Critiques that nothing was trained on are a matter of the evaluation alone.
    unread = () if trains_critiques(config) else ("slots.critique",)
    fixed = lambda fields: {k: v for k, v in fields.items() if not (is_free(k) or k in unread)}
    if differ := differences(fixed(theirs), fixed(ours)):
        raise ValueError(
            f"--workdir={workdir} holds a run of another config ({'; '.join(differ)}); "
            "give another --workdir, or the config that it was started with"
        )


def trains_critiques(config: ml_collections.ConfigDict) -> bool:
    """Whether any critique is trained, in pre-training or later."""
    return shows_critiques(config) or any(config[key].get("critique") for key in config.stages)


def shows_critiques(config: ml_collections.ConfigDict) -> bool:
    """Whether the pre-training of a small model shows critiques."""
    if config.model.name != SMALL:
        return False
    return any(config.pretrain[name].critiques > 0 for name in config.pretrain.phases)


def is_free(field: str) -> bool:
    """Whether a field may change between two commands on one work directory."""
    return any(field == free or field.startswith(free + ".") for free in _FREE)


def deciding(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields that decide about a run's numbers and its evaluation's, flat: not where things lie."""
    fields = flatten(_plain(config))
    return {
        name: value for name, value in fields.items() if not is_free(name) or name.startswith("evaluate.")
    }


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
        raise ValueError(_explain(error, "config.json", overrides, flatten(config))) from error
    theirs, ours = flatten(config), flatten(moved)
    for field, value in ours.items():
        if value != theirs[field] and not is_free(field):
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
        if path.with_name("train.lock").exists():
            raise FileNotFoundError(
                f"--workdir={workdir} holds no run yet: a training was begun there, and its base model is "
                "not done; wait for that, or where it ended before, give its `train` command again"
            )
        raise FileNotFoundError(
            f"--workdir={workdir} holds no run; start one with `python -m score_jax train`"
        )
    return ml_collections.ConfigDict(read_json(path))
