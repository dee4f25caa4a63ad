"""A work directory is one run's at a time: `WORKDIR/NAME.lock`.

On a disk the lock is the kernel's (flock), and ends with the process that holds it, however that ends. A
bucket has no locks. There the file itself says who has the directory, and a sign of life every half minute;
without one for two minutes the holder is taken for dead. Two that begin within the same second may both
pass; it keeps off a second command that somebody starts by mistake, which is what it is for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import TextIO

from etils import epath

from score_jax import hosts
from score_jax.exit_codes import Resume
from score_jax.log import say
from score_jax.records import write_text, writing

_BEAT_S, _DEAD_S = 30.0, 120.0
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Held(Resume):
    """Another run has the work directory."""


@contextlib.contextmanager
def hold(workdir: epath.PathLike, name: str) -> Iterator[None]:
    """Keeps `workdir` to this run; of several hosts the first one does it for all.

    Args:
      workdir: a folder, which may be new.
      name: of what is done there: a training does not keep an evaluation off.

    Raises:
      Held: another process does the same there; says which.
      Unwritable: the lock cannot be written.
    """
    workdir = epath.Path(workdir)
    kind = _Bucket if "://" in str(workdir) else _Disk
    with contextlib.ExitStack() as stack:
        if refusal := hosts.from_first(lambda: _take(stack, kind(workdir / f"{name}.lock"))):
            raise Held(
                f"{workdir}: another `{name}` is at work there ({refusal}); wait for its end, stop it, or "
                "name another folder"
            )
        yield


def _take(stack: contextlib.ExitStack, lock: _Disk | _Bucket) -> str:
    """Takes the lock until the stack ends; else says who has it."""
    refusal = lock.take()
    if not refusal:
        stack.callback(lock.give_back)
    return refusal


def _me() -> dict[str, str | int]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _who(text: str) -> str:
    """A holder as it names itself; its file may be torn."""
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "it does not say who"


class _Disk:
    """A lock of the kernel's. The file stays, as to remove it would let two processes lock two files; but a
    folder that was made for it, and in which nothing came to lie, goes again."""

    def __init__(self, path: epath.Path):
        self._path = path
        self._file: TextIO | None = None
        self._made = [folder for folder in path.parents if not folder.exists()]

    def take(self) -> str:
        """ "" if it is ours now, else who has it."""
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._file = open(self._path, "a+")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = _who(file.read())
            file.close()
            return holder
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            say(f"WARNING: {self._path} cannot be locked here ({error.strerror}): start nothing else there.")
        with writing(self._path):
            file.truncate(0)
            file.write(json.dumps(_me()))
            file.flush()
        return ""

    def give_back(self) -> None:
        if self._made and self._path.exists() and len(list(self._path.parent.iterdir())) == 1:
            self._path.unlink()
            for folder in self._made:
                if not list(folder.iterdir()):
                    folder.rmdir()
        if self._file:
            self._file.close()


class _Bucket:
    """A file that says who holds the lock, and that it lives."""

    def __init__(self, path: epath.Path, *, beat_s: float = _BEAT_S, dead_s: float = _DEAD_S):
        self._path, self._beat_s, self._dead_s = path, beat_s, dead_s
        self._token = uuid.uuid4().hex
        self._me = _me() | {"token": self._token}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beats, daemon=True)

    def take(self) -> str:
        """ "" if it is ours now, else who has it."""
        text = self._read()
        if text and time.time() - _beat_of(text) < self._dead_s:
            return _who(text)
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._beat()
        if not self._mine():  # another came at the same moment, and wrote after us
            return _who(self._read())
        self._thread.start()
        return ""

    def give_back(self) -> None:
        self._done.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # a bucket's errors are its library's own; two minutes free it
            if self._mine():
                self._path.unlink()

    def _read(self) -> str:
        return self._path.read_text() if self._path.exists() else ""

    def _mine(self) -> bool:
        return self._token in self._read()

    def _beat(self) -> None:
        write_text(self._path, json.dumps(self._me | {"beat": time.time()}))

    def _beats(self) -> None:
        while not self._done.wait(self._beat_s):
            with contextlib.suppress(Exception):  # the next one may get through
                if (text := self._read()) and self._token not in text:
                    say(f"WARNING: {self._path} is another run's now ({_who(text)}); this one stops.")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                self._beat()


def _beat_of(text: str) -> float:
    try:
        return float(json.loads(text)["beat"])
    except (ValueError, KeyError, TypeError):
        return 0.0
