"""Which fields a config has and of what kind each is; what a field means stands in configs/quickstart.py."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WHOLE, NUMBER, YES_NO, TEXT = "a whole number", "a finite number", "True or False", "a text"
NAMES, NUMBERS = "a tuple of texts", "a tuple of finite numbers"

_RUN = {
    WHOLE: (
        *("seed", "train_problems", "problems_per_step", "samples_per_problem", "offline_attempts"),
        *("rollout_parts", "micro_batches", "score_chunk", "lora_rank", "checkpoint_every", "max_skipped"),
        *("slots.prompt", "slots.attempt", "slots.critique", "mesh.data", "mesh.fsdp", "mesh.tensor"),
        *("evaluate.problems", "evaluate.attempts", "evaluate.batch", "alarms.window"),
        *("log.every", "log.transcript_every", "keep_newest", "keep_best"),
    ),
    NUMBER: (
        *("temperature", "evaluate.temperature"),
        *("optimizer.clip_norm", "optimizer.b1", "optimizer.b2", "optimizer.weight_decay"),
        *("alarms.kl_max", "alarms.entropy_min", "alarms.entropy_max", "alarms.length_growth"),
        *("alarms.cut_off_max", "alarms.unparsed_max", "alarms.changed_min"),
    ),
    YES_NO: ("remat", "decisive_only", "evaluate.critique"),
    TEXT: (
        *("task", "data_dir", "base_dir", "kl_estimator", "train_dtype", "model.name", "model.dtype"),
        *("evaluate.task", "evaluate.split", "log.wandb"),
    ),
    NAMES: ("stages",),
}
_SMALL = {
    WHOLE: (
        *("tokenizer.vocab_size", "tokenizer.texts", "pretrain.batch", "model.layers", "model.width"),
        *("model.hidden_width", "model.heads", "model.kv_heads", "model.head_width", "model.sliding_window"),
    ),
    NUMBER: ("pretrain.warmup", "pretrain.clip_norm", "pretrain.b2", "pretrain.weight_decay"),
    NAMES: ("pretrain.phases",),
}
_RELEASED = {TEXT: ("model.checkpoint", "model.tokenizer"), YES_NO: ("model.chat",)}
_PHASE = {WHOLE: ("steps", "attempts"), NUMBER: ("learning_rate", "unlearned", "critiques")}
_STAGE = {
    WHOLE: ("steps", "attempts", "samples_factor", "warmup_steps"),
    NUMBER: (*("learning_rate", "hold", "offline", "alpha", "beta_1", "beta_2", "adapt_beta_2", "discount"),),
    YES_NO: ("critique", "scale_kl", "keep_right"),
    TEXT: ("name", "objective", "reference", "start"),
    NAMES: ("between",),
    NUMBERS: ("ramp",),
}


def check_fields(flat: Mapping[str, Any], *, small: bool) -> None:
    """Refuses fields that hold something of another kind, that are missing, or that nothing reads.

    Which fields of a stage are missing depends on its objective, and is asked elsewhere. Sections that only a
    study, a sweep or another stage's objective reads are left alone.

    Args:
      flat: a config's fields by their dotted names.
      small: whether its model is pre-trained here.

    Raises:
      ValueError: names the field, its value and the mend.
    """
    known = _by_name(_RUN) | _by_name(_SMALL if small else _RELEASED)
    _check_kinds(flat, known)
    for name in known:
        if name not in flat:
            raise ValueError(missing(name, flat.get("model.name", ""), small=small))
    sections = {key: _STAGE for key in flat["stages"]}
    for stage in list(sections):
        _check_kinds(flat, {f"{stage}.between": NAMES})
        sections |= {key: _STAGE for key in flat.get(f"{stage}.between", ())}
    if small:
        sections |= {f"pretrain.{name}": _PHASE for name in flat["pretrain.phases"]}
    for section, fields in sections.items():
        inside = _by_name(fields, f"{section}.")
        _check_kinds(flat, inside)
        known |= inside
    _refuse_unknown(flat, known)


def missing(field: str, model: str, *, small: bool) -> str:
    """What to say of a field that is not there."""
    if field.startswith("model.") and not small:
        which = f"config.model.name = {model!r} is none that is pre-trained here: quickstart.released shows"
        return f"config.{field} is missing; {which} what belongs there"
    return f"config.{field} is missing; configs/quickstart.py shows what belongs there"


def _by_name(fields: Mapping[str, Sequence[str]], prefix: str = "") -> dict[str, str]:
    """{field: kind}."""
    return {prefix + name: kind for kind, names in fields.items() for name in names}


def _check_kinds(flat: Mapping[str, Any], known: Mapping[str, str]) -> None:
    for name, kind in known.items():
        if name in flat and not _is_of(kind, flat[name]):
            raise ValueError(f"config.{name} = {flat[name]!r}: must be {kind}")


def _refuse_unknown(flat: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """Fields that stand beside known ones."""
    sections = {name.rpartition(".")[0] for name in known}
    for name in flat:
        if name not in known and name.rpartition(".")[0] in sections:
            raise ValueError(f"config.{name}: no such field; {meant(name, known)}")


def _is_of(kind: str, value: Any) -> bool:
    if kind in (NAMES, NUMBERS):
        of = TEXT if kind == NAMES else NUMBER
        return isinstance(value, list) and all(_is_of(of, item) for item in value)
    if kind == TEXT:
        return isinstance(value, str)
    if kind == YES_NO:
        return isinstance(value, bool)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and (isinstance(value, int) or (kind == NUMBER and math.isfinite(value)))


def meant(field: str, known: Iterable[str], noun: str = "fields") -> str:
    """What to say to a field, or to what else `noun` says, that there is not."""
    known = list(known)
    if inside := [name for name in known if name.startswith(f"{field}.")]:
        return f"{field} is a section, its fields are {', '.join(inside)}"
    begun = [name for name in known if name.startswith(field)]
    close = difflib.get_close_matches(field, begun or known, n=1, cutoff=0.0 if begun else 0.5)
    return f"did you mean {close[0]}?" if close else f"the {noun} are {', '.join(known)}"
