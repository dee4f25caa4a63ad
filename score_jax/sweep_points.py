"""The points of a sweep: a grid and random draws over the fields of a config, each a run's config."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from etils import epath

from score_jax.config import is_free, load_config
from score_jax.config_check import flatten
from score_jax.config_fields import meant
from score_jax.sweep_file import spelled

SPLIT = "validation"  # by which sweeps choose: numbers of the test split must not decide
SHOWN = "configs/sweeps/alpha_beta_2.py"
KINDS = ("log", "linear", "integer")
SEED = "seed"  # points that differ in this field alone are one setting, measured more than once
_SECTION = ("base", "grid", "random", "points", "seed")
_DIGITS = 4  # significant ones of a draw, so that a point's name says its values exactly
_LONGEST = 32  # characters of a value in a name


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Attributes:
      name: of its work directory.
      values: of the swept fields, by their dotted names.
      arguments: those of `train` and `evaluate` that make it from the sweep's base config.
      config: what they make.
    """

    name: str
    values: Mapping[str, Any]
    arguments: tuple[str, ...]
    config: ml_collections.ConfigDict


def expand(config: ml_collections.ConfigDict) -> list[Point]:
    """All points of a sweep, the grid's last field varying fastest, and the draws faster still.

    Raises:
      ValueError: names the field that cannot work.
    """
    check_sweep(config)
    sweep, known = config.sweep, flatten(load_config(config.sweep.base))
    common = changes(config, known)
    grid = {name: grid_values(name, values, known) for name, values in swept(sweep.grid, known, "grid")}
    drawn = {name: check_range(name, spec, known) for name, spec in swept(sweep.random, known, "random")}
    if both := grid.keys() & drawn.keys():
        raise ValueError(f"config.sweep.random.{min(both)}: config.sweep.grid has it, too; keep one of them")
    if not grid and not drawn:
        raise ValueError(f"config.sweep.grid: sweeps no field; name one, as {SHOWN} does")
    if bool(drawn) != (sweep.points > 0):
        raise ValueError(
            f"config.sweep.points = {sweep.points}: is the number of draws of config.sweep.random, which has "
            f"{len(drawn)} fields; have both or neither"
        )
    draws = [
        {name: draw(sweep.seed, i, name, spec) for name, spec in drawn.items()} for i in range(sweep.points)
    ]
    every = [
        dict(zip(grid, values, strict=True)) | more
        for values in itertools.product(*grid.values())
        for more in draws or [{}]
    ]
    named = [(name_of(values), values) for values in every]
    name, times = Counter(name for name, _ in named).most_common(1)[0]
    if times > 1:  # the grid's values are distinct
        raise ValueError(
            f"config.sweep.points = {sweep.points}: {times} draws give the point {name}; draw fewer, another "
            "config.sweep.seed, or make a grid of it"
        )
    return [point_of(sweep.base, name, values, common) for name, values in named]


def check_sweep(config: ml_collections.ConfigDict) -> None:
    """Refuses a `sweep` section that is not one.

    Raises:
      ValueError: names the field.
    """
    if "sweep" not in config:
        raise ValueError(f"config.sweep is missing; {SHOWN} shows what belongs there")
    for name in config.sweep:
        if name not in _SECTION:
            raise ValueError(f"config.sweep.{name}: no such field; {meant(name, _SECTION)}")
    for name in _SECTION:
        if name not in config.sweep:
            raise ValueError(f"config.sweep.{name} is missing; {SHOWN} shows what belongs there")
    for name in ("grid", "random"):
        if not isinstance(config.sweep[name], ml_collections.ConfigDict):
            raise ValueError(
                f"config.sweep.{name} = {config.sweep[name]!r}: must be a ConfigDict of fields, maybe empty"
            )
    if not isinstance(config.sweep.base, str) or not epath.Path(config.sweep.base).exists():
        raise ValueError(f"config.sweep.base = {config.sweep.base!r}: no such file; name a config's file")
    if config.sweep.points < 0:
        raise ValueError(f"config.sweep.points = {config.sweep.points}: must not be negative")
    if config.evaluate.split != SPLIT:
        raise ValueError(
            f"config.evaluate.split = {config.evaluate.split!r}: sweeps choose by their numbers; set it to "
            f"{SPLIT!r}, and evaluate the chosen point alone on others"
        )


def changes(config: ml_collections.ConfigDict, known: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in which all points differ from the base config, whose fields are `known`.

    Raises:
      ValueError: names a field that only one of them has.
    """
    ours = config.copy_and_resolve_references()
    with ours.unlocked():
        del ours.sweep
    fields = flatten(ours)
    if odd := sorted(fields.keys() ^ known.keys()):
        where = "the sweep's config" if odd[0] in fields else config.sweep.base
        raise ValueError(f"config.{odd[0]}: only {where} has it; points change fields and add none")
    return {name: value for name, value in fields.items() if value != known[name]}


def swept(
    section: ml_collections.ConfigDict, known: Mapping[str, Any], kind: str
) -> Iterator[tuple[str, Any]]:
    """The fields of sweep.grid or sweep.random with what is said of them, all such as may be swept.

    Raises:
      ValueError: names a field that there is not, or that decides nothing about a run.
    """
    for name, said in flatten(section).items():
        if name not in known:
            raise ValueError(f"config.sweep.{kind}.{name}: no such field; {meant(name, known)}")
        if is_free(name):
            raise ValueError(
                f"config.sweep.{kind}.{name}: is the same for all points of a sweep; set config.{name}"
            )
        yield name, said


def grid_values(name: str, values: Any, known: Mapping[str, Any]) -> list[Any]:
    """The values of one field of the grid.

    Raises:
      ValueError: there are none, or one is of another type, or comes twice.
    """
    where = f"config.sweep.grid.{name}"
    if not isinstance(values, list) or not values:
        raise ValueError(f"{where} = {values!r}: give a tuple of at least one value")
    typed = [of_type(where, value, known[name]) for value in values]
    texts = [text_of(value) for value in typed]
    if len(set(texts)) < len(texts):
        twice = Counter(texts).most_common(1)[0][0]
        raise ValueError(f"{where}: has {twice} more than once, which would be the same points; keep one")
    return typed


def of_type(where: str, value: Any, like: Any) -> Any:
    """A value as the field that holds `like` takes it: an int as a float where that is one.

    Raises:
      ValueError: it is of another type, or no finite number.
    """
    value = list(value) if isinstance(value, tuple) else value
    if type(like) is float and type(value) is int:
        value = float(value)
    if type(value) is not type(like):
        kinds = ["tuple" if isinstance(x, list) else type(x).__name__ for x in (value, like)]
        raise ValueError(f"{where}: {value!r} is of type {kinds[0]}, and the field of type {kinds[1]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value!r} is no finite number")
    return value


def check_range(name: str, spec: Any, known: Mapping[str, Any]) -> tuple[float, float, str]:
    """(lowest, highest, kind) of a field that is drawn.

    Raises:
      ValueError: says what is wrong with it.
    """
    where = f"config.sweep.random.{name}"
    if not isinstance(spec, list) or len(spec) != 3 or spec[2] not in KINDS:
        raise ValueError(
            f"{where} = {spec!r}: write it as (lowest, highest, {' or '.join(map(repr, KINDS))})"
        )
    kind = spec[2]
    low, high = (of_type(where, value, known[name]) for value in spec[:2])
    wanted = int if kind == "integer" else float
    if type(low) is not wanted:
        raise ValueError(
            f"{where}: {kind!r} draws values of type {wanted.__name__}, and the field has others"
        )
    if not low < high or (kind == "log" and low <= 0):
        raise ValueError(
            f"{where}: from {low!r} to {high!r} is no range" + " above 0" * (kind == "log") + " to draw from"
        )
    return low, high, kind


def draw(seed: int, index: int, name: str, spec: tuple[float, float, str]) -> int | float:
    """A field's value in draw `index` = 0, 1, ...: a function of these alone, whatever else is drawn.

    Numbers other than integers are rounded to four digits, but never beyond the ends of the range.
    """
    low, high, kind = spec
    rng = np.random.default_rng([seed, index, zlib.crc32(name.encode())])
    if kind == "integer":
        return int(rng.integers(int(low), int(high), endpoint=True))
    log = kind == "log"
    value = rng.uniform(*(math.log(low), math.log(high)) if log else (low, high))
    return min(max(float(f"{math.exp(value) if log else value:.{_DIGITS}g}"), low), high)


def name_of(values: Mapping[str, Any]) -> str:
    """alpha=5,beta_2=0.1: of fields and their values, safe as a folder's name."""
    return ",".join(f"{short}={text_of(values[name])}" for name, short in short_names(values).items())


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Each field's last word, and as many words before it as tell it from the others; sorted by these."""
    names, found = list(names), {}
    for name in names:
        words = name.split(".")
        ends = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        alike = lambda end: sum(f".{other}".endswith(f".{end}") for other in names)
        found[name] = next(end for end in ends if alike(end) == 1 or end == name)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def text_of(value: Any) -> str:
    """A value in a name: 5, 0.1, True; of what is long or unsafe in a name the beginning and a checksum."""
    text = spelled(value)
    if re.fullmatch(rf"[\w.+-]{{1,{_LONGEST}}}", text, re.ASCII):
        return text
    kept = re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII)[: _LONGEST - 9].strip("-")
    return f"{kept}-{zlib.crc32(text.encode()):08x}"


def point_of(base: str, name: str, values: Mapping[str, Any], common: Mapping[str, Any]) -> Point:
    """A point, and the config that its arguments make.

    Raises:
      ValueError: names the point, and the field that cannot work.
    """
    fields = {**common, **values}
    overrides = [f"--config.{field}={argument_of(value)}" for field, value in fields.items()]
    try:
        config = load_config(base, overrides)
    except ValueError as error:
        raise ValueError(f"point {name}: {error}") from error
    return Point(name, dict(values), (f"--config={base}", *overrides), config)


def argument_of(value: Any) -> str:
    """A value as the command line takes it."""
    return repr(tuple(value)) if isinstance(value, list) else str(value)


def chosen(points: Sequence[Point], only: str) -> list[Point]:
    """The points that are named in NAME[,NAME]; all for ''. A name has a comma between its fields.

    Raises:
      ValueError: there is no such point.
    """
    if not only:
        return list(points)
    by_name, size = {point.name: point for point in points}, len(points[0].values)
    words = only.split(",")
    names = [",".join(words[start : start + size]) for start in range(0, len(words), size)]
    if unknown := [name for name in names if name not in by_name]:
        hint = meant(unknown[0], by_name, "points")
        raise ValueError(f"--only: {unknown[0]!r} is not a point of this sweep; {hint}")
    return [point for point in points if point.name in names]
