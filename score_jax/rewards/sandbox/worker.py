"""The trainer's side of one worker: starts it clean, hands it programs, notices when it is gone."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from score_jax.rewards.sandbox import job as job_lib
from score_jax.rewards.sandbox.lockdown import NOBODY
from score_jax.rewards.sandbox.wire import HEADER

_ROOT = str(Path(__file__).resolve().parents[3])
_START = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from score_jax.rewards.sandbox import zygote; "
    "del sys.path[0]; zygote.main(sys.argv[1])"
)
# Namespaces of its own (processes, network, IPC, users) and a read-only view of the files.
_BUBBLEWRAP = (
    *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--chdir", "/", "--"),
)

_START_S = 30.0
#: A worker that is this late after a program's timeout is stopped or gone, and is replaced.
GRACE_S = 1.5


class WorkerLost(Exception):
    """The worker's process has ended."""


class Worker:
    """One worker process, and the program that it is running.

    Args:
      without: layers to leave off.
      bubblewrap: the path of bwrap to start it in, or None.

    Attributes:
      faults: layers that do not hold in it -> why, once `wait_until_ready` has returned.
      deadline: when to give up on the program that it is running, by `time.monotonic`.
    """

    def __init__(self, without: Sequence[str] = (), bubblewrap: str | None = None):
        self._without, self._bubblewrap = list(without), bubblewrap
        self.deadline = float("inf")
        self.job: job_lib.Job  # once there is one
        self._number = 0
        self._text = b""
        self.faults: dict[str, str] = {}
        self._open()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Waits until the worker has its layers on and has tried them; raises SandboxError."""
        self._socket.settimeout(_START_S)
        try:
            while not self._text.endswith(b"\n"):
                piece = self._socket.recv(1 << 16)
                if not piece:
                    raise OSError("it ended")
                self._text += piece
        except OSError as error:
            self._process.kill()
            said = self._stderr.read().decode(errors="replace").strip()
            self.kill()
            raise job_lib.SandboxError(
                f"a sandbox worker did not start: {str(error) or repr(error)} {said[-400:]!r}; "
                f"see what this says: env -i {sys.executable} -I -S -c 'import ctypes, socket'"
            ) from error
        self.faults = json.loads(self._text)

    def send(self, job: job_lib.Job) -> None:
        """Starts a program; raises WorkerLost."""
        self._number += 1
        self.job, self._text = job, b""
        self.deadline = time.monotonic() + job.timeout_s + GRACE_S
        tests = {
            "groups": list(job.groups.values()),
            "entry": job.entry,
            "setup": job.setup,
            "check": job.check,
        }
        files = [_file(job.program), _file(json.dumps(tests))]
        try:
            socket.send_fds(self._socket, [HEADER.pack(self._number, job.timeout_s)], files)
        except OSError as error:
            raise WorkerLost from error
        finally:
            for fd in files:
                os.close(fd)

    def receive(self) -> job_lib.Verdict | None:
        """The verdict, once it is there in full; raises WorkerLost."""
        try:
            piece = self._socket.recv(1 << 16)
        except OSError as error:
            raise WorkerLost from error
        if not piece:
            raise WorkerLost
        self._text += piece
        if not self._text.endswith(b"\n"):
            return None
        reply = json.loads(self._text)
        assert reply["number"] == self._number
        return _verdict(self.job, reply)

    def kill(self) -> None:
        """Ends the worker, and by its parent-death signal what it runs."""
        self._process.kill()
        self._process.wait()
        self._socket.close()
        self._stderr.close()

    def close(self) -> None:
        """Lets an idle worker end by itself."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        self.kill()

    def _open(self) -> None:
        self._socket, guest = socket.socketpair()
        options = {"parent": None if self._bubblewrap else os.getpid(), "without": self._without}
        command = [sys.executable, "-I", "-S", "-c", _START, json.dumps(options)]
        user: int | None = None
        groups: list[int] | None = None
        if self._bubblewrap:
            command = [self._bubblewrap, *_BUBBLEWRAP, *command]
            if os.geteuid() == 0:
                # Inside a user namespace nobody could not be become any more.
                user, groups = NOBODY, []
        with guest:
            self._process = subprocess.Popen(
                command,
                stdin=guest.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env={},
                # Ctrl-C at the terminal is for the trainer, which ends its workers itself.
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=groups,
            )
        assert self._process.stderr is not None  # as it is a pipe
        self._stderr = self._process.stderr


def wait(workers: Sequence[Worker], until: float) -> list[Worker]:
    """Those of `workers` that have something to read, by `until` at the latest."""
    with selectors.PollSelector() as selector:
        for worker in workers:
            selector.register(worker, selectors.EVENT_READ, worker)
        found = selector.select(max(0.0, until - time.monotonic()))
    return [key.data for key, _ in found]


def _file(text: str) -> int:
    """A descriptor of a file in memory with `text` in it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("job", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as temporary:
            fd = os.dup(temporary.fileno())
    with open(fd, "wb", closefd=False) as file:
        file.write(text.encode(errors="surrogatepass"))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _verdict(job: job_lib.Job, reply: dict) -> job_lib.Verdict:
    """What the tests' process wrote, and for groups that it wrote nothing of, how the program ended."""
    lines = reply["lines"]
    started = ["started"] in lines
    judged = {line[0]: line for line in lines if line != ["started"]}
    if not reply["in_time"]:
        missing = "timeout", f"no end after {job.timeout_s:g} s"
    elif started:
        missing = "crashed", "the tests' process ended"
    else:
        missing = "harness_error", "the tests' process ended before the tests began"
    groups, details = {}, []
    for index, name in enumerate(job.groups):
        _, status, detail = judged.get(index, (index, *missing))
        groups[name] = status if status in job_lib.STATUSES else "harness_error"
        details += [f"{name}: {detail}"] if detail else []
    return job_lib.verdict(groups, reply["seconds"], "; ".join(details))
