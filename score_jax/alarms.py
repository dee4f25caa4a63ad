"""Alarms: what in the numbers of a run says that it is going wrong, by the limits of config.alarms.

    name                  raised when                                        limit
    skipped               the last update was skipped, see score_jax.step    none: always raised
    kl_high_tI            KL to the reference, nats per attempt              kl_max
    entropy_low_tI        nats per token: the policy has stopped to explore  entropy_min
    entropy_high_tI       nats per token: it writes noise                    entropy_max
    length_tI             mean length, over that of the stage's beginning    length_growth: length run-away
    cut_off_tI            share of attempts that end with their slot         cut_off_max: length run-away
    unparsed_tI           share of attempts without a readable answer        unparsed_max
    unchanged             share of last answers that differ from the first   changed_min: collapse

All but the first are judged by the mean over the last `window` updates of a stage, as soon as it has so
many; an update whose number is missing or not finite is left out of it. An alarm stops nothing. A row's
alarms are a function of the rows up to it, so that a resumed run goes on with those it had.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]  # of metrics.jsonl

# (alarm, stem of the number in a row, limit, whether the limit is one from above, the number in words)
_BOUNDS = (
    ("kl_high", "kl", "kl_max", True, "KL to the reference of attempt {t}, nats"),
    ("entropy_low", "entropy", "entropy_min", False, "entropy of attempt {t}, nats per token"),
    ("entropy_high", "entropy", "entropy_max", True, "entropy of attempt {t}, nats per token"),
    ("cut_off", "unfinished", "cut_off_max", True, "share of attempts {t} that end with their slot"),
    ("unparsed", "unparsed", "unparsed_max", True, "share of attempts {t} without a readable answer"),
)


@dataclasses.dataclass(frozen=True)
class Span:
    """An alarm from when it was raised to when it was over.

    Attributes:
      name: see the table above.
      stage: in which it was raised.
      first: the update that raised it.
      last: the last update at which it was on.
      over: whether a later row says that it is over.
    """

    name: str
    stage: str
    first: int
    last: int
    over: bool


def alarms_at(rows: Sequence[Row], limits: Mapping[str, int | float]) -> dict[str, str]:
    """The alarms that are on after the last of `rows`, by name, and what each says.

    Args:
      rows: of metrics.jsonl in the order of the updates, of this stage and of those before it.
      limits: config.alarms.
    """
    here = [row for row in rows if row.get("stage") == rows[-1].get("stage")]
    found = {}
    if rows[-1].get("skipped"):
        found["skipped"] = "the update was skipped: its loss or gradient is NaN or infinite"
    window = int(limits["window"])
    if len(here) < window:
        return found
    recent = here[-window:]
    over = lambda limit: f"config.alarms.{limit} = {limits[limit]:g} (mean of {window} updates)"
    for name, stem, limit, above, words in _BOUNDS:
        for t in _attempts(recent, stem):
            value = _mean(recent, f"{stem}_t{t}")
            if value is not None and (value > limits[limit] if above else value < limits[limit]):
                sign = ">" if above else "<"
                found[f"{name}_t{t}"] = f"{words.format(t=t)}: {value:.4g} {sign} {over(limit)}"
    for t in _attempts(recent, "length"):
        value, first = _mean(recent, f"length_t{t}"), _mean(here[:window], f"length_t{t}")
        if value is not None and first and value / first > limits["length_growth"]:
            times = f"mean length of attempt {t} over the stage's first: {value / first:.3g}"
            found[f"length_t{t}"] = f"{times} > {over('length_growth')}"
    changed = _mean(recent, "changed")
    if changed is not None and changed < limits["changed_min"]:
        words = "share of last answers that differ from the first"
        found["unchanged"] = f"{words}: {changed:.4g} < {over('changed_min')}"
    return found


def remembered(rows: Sequence[Row], limits: Mapping[str, int | float]) -> list[Row]:
    """Those of `rows` on which the alarms of later updates depend, so that a long run need not hold them all:
    the first and the last `window` of the stage, the last ones that were skipped and the one before these."""
    window = int(limits["window"])
    first = next(place for place, row in enumerate(rows) if row.get("stage") == rows[-1].get("stage"))
    last = len(rows) - max(window, skipped_in_a_row(rows) + 1)
    return [row for place, row in enumerate(rows) if first <= place < first + window or place >= last]


def news(before: Sequence[str], now: Mapping[str, str], step: int) -> list[str]:
    """Lines for a reader: alarms that were raised at update `step`, and those that are over."""
    raised = [f"ALARM at update {step}: {name}: {text}" for name, text in now.items() if name not in before]
    return raised + [f"Alarm over at update {step}: {name}" for name in before if name not in now]


def skipped_in_a_row(rows: Sequence[Row]) -> int:
    """How many of the last updates were skipped, one after the other."""
    count = 0
    for row in reversed(rows):
        if not row.get("skipped"):
            break
        count += 1
    return count


def spans(rows: Sequence[Row]) -> list[Span]:
    """The alarms of a run, in the order in which they were raised."""
    found: list[Span] = []
    running: dict[str, int] = {}  # name: its place in `found`
    for row in rows:
        names = row.get("alarms", ())
        for name in [name for name in running if name not in names]:
            place = running.pop(name)
            found[place] = dataclasses.replace(found[place], over=True)
        for name in names:
            if name in running:
                found[running[name]] = dataclasses.replace(found[running[name]], last=row["step"])
            else:
                running[name] = len(found)
                found.append(Span(name, str(row.get("stage", "")), row["step"], row["step"], False))
    return found


def _attempts(rows: Sequence[Row], stem: str) -> Iterator[int]:
    """The attempts whose numbers stand in the last row."""
    return (int(found[1]) for key in rows[-1] if (found := re.fullmatch(rf"{stem}_t(\d+)", key)))


def _mean(rows: Sequence[Row], key: str) -> float | None:
    """Of the numbers that are there and finite; None without any."""
    values = [row[key] for row in rows if row.get(key) is not None and math.isfinite(row[key])]
    return sum(values) / len(values) if values else None
