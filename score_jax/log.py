"""What a run tells: a row of numbers per update, TensorBoard scalars, and a progress bar."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, SupportsFloat

import ml_collections
import numpy as np
import rich.console
import rich.progress
from etils import epath

from score_jax import alarms
from score_jax.board import Board
from score_jax.records import append_jsonl, read_jsonl, to_disk, write_jsonl
from score_jax.tracker import Tracker


class _Console(rich.console.Console):
    """Goes quiet when nobody listens any more (`train | head`): a run does not end for that."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# In a notebook lines of text, as in a file: rich would make HTML of each, or draw a bar again and again.
console = _Console(
    highlight=False,
    soft_wrap=True,
    force_jupyter=False,
    force_terminal=False if "ipykernel" in sys.modules else None,
)


def say(text: str) -> None:
    """Prints a line as it is."""
    console.print(text, markup=False, emoji=False)


class Metrics:
    """The rows of a training run, in metrics.jsonl, for TensorBoard and, where asked for, for W&B."""

    def __init__(self, workdir: epath.Path, step: int, config: ml_collections.ConfigDict):
        """Opens the log at `step`: rows of later steps, which a resumed run writes anew, are dropped."""
        self._path, self._limits = workdir / "metrics.jsonl", config.alarms.to_dict()
        rows = [row for row in read_jsonl(self._path) if row["step"] <= step]
        write_jsonl(self._path, rows)
        self._rows = alarms.remembered(rows, self._limits) if rows else []
        if (found := rows[-1]["step"] if rows else 0) != step:
            say(f"WARNING: {self._path} ends with update {found}; the run goes on after update {step}.")
        self._board = Board(workdir / "tensorboard", step + 1)
        self._tracker = Tracker(config.log.wandb, workdir, config.to_dict())

    @property
    def last(self) -> Mapping[str, Any] | None:
        """The row of the update before."""
        return self._rows[-1] if self._rows else None

    @property
    def skipped(self) -> int:
        """How many of the last updates were skipped, one after the other."""
        return alarms.skipped_in_a_row(self._rows)

    def write(self, row: Mapping[str, Any]) -> None:
        """One step's numbers, with the names of the alarms that they raise. What is not finite is written as
        null, as JSON has no NaN."""
        before = self.last["alarms"] if self.last and "alarms" in self.last else []
        row = {key: value if _is_sound(value) else None for key, value in row.items()}
        self._rows.append(row)
        raised = alarms.alarms_at(self._rows, self._limits)
        row["alarms"] = list(raised)
        append_jsonl(self._path, row)
        self._rows = alarms.remembered(self._rows, self._limits)
        for line in alarms.news(before, raised, row["step"]):
            say(line)
        for key, value in row.items():
            if isinstance(value, int | float) and key != "step":
                self._board.add(key, value, row["step"])
        self._tracker.write(row)

    def flush(self) -> None:
        """Brings TensorBoard up to date, and metrics.jsonl to where it outlasts a loss of power."""
        if self._path.exists():
            to_disk(self._path)
        self._board.flush()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._board.close()
        self._tracker.close()


def _is_sound(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def by_attempt(name: str, values: Iterable[SupportsFloat]) -> dict[str, float]:
    """{'name_t1': ..., 'name_t2': ...}."""
    return {f"{name}_t{number}": float(value) for number, value in enumerate(values, start=1)}


class Progress:
    """A progress bar with a few numbers and the time left; plain lines where no terminal listens."""

    def __init__(self, title: str, total: int, *, every: int, done: int = 0):
        self._every = every
        self._title = title
        self._total = total
        self._done = self._first = done
        self._start = time.monotonic()
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[numbers]}"),
            rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, numbers="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, numbers: Mapping[str, SupportsFloat]) -> None:
        """One step further."""
        self._done += 1
        if self._done % self._every and self._done != self._total:
            self._bar.update(self._task, completed=self._done)
            return
        # Only now are the numbers fetched, so that the device need not wait in between.
        text = "  ".join(f"{key} {float(np.asarray(value)):.3f}" for key, value in numbers.items())
        self._bar.update(self._task, completed=self._done, numbers=text)
        if not console.is_terminal:
            elapsed = time.monotonic() - self._start
            left = elapsed / (self._done - self._first) * (self._total - self._done)
            console.print(f"{self._title}  {self._done}/{self._total}  {text}  {left:.0f} s left")
