"""Scalars for TensorBoard, written as they come.

tensorboardX's own SummaryWriter has a thread write them. Where the disk is full that thread dies, and the
run waits for it for ever; here the error is raised.
"""

from __future__ import annotations

import time

from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from score_jax.records import writes, writing


class Board:
    """An event file in a folder; of several hosts the first one has it."""

    def __init__(self, folder: epath.Path, step: int):
        """Opens a new file. What others in the folder say of `step` and later steps is void."""
        self._folder = folder
        self._writer = None
        if writes():
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                self._writer = EventsWriter(str(folder / "events"), f".{step}")  # one for each start
        self._add(session_log=SessionLog(status=SessionLog.START), step=step)

    def add(self, name: str, value: int | float, step: int) -> None:
        """One number."""
        self._add(summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]), step=step)

    def _add(self, **content: object) -> None:
        if self._writer:
            with writing(self._folder):
                self._writer.write_event(Event(wall_time=time.time(), **content))

    def flush(self) -> None:
        """Brings the file up to date."""
        if self._writer:
            with writing(self._folder):
                self._writer.flush()

    def close(self) -> None:
        """No more numbers come."""
        if self._writer:
            with writing(self._folder):
                self._writer.close()
