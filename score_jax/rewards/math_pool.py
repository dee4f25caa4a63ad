"""The pool of maths workers: gives out pairs, keeps their time limit, replaces what dies.

Workers are fresh interpreters, never forked from a process that runs JAX. No signal handler, timer or
thread is used on this side, so that the pool works in any thread and leaves others' timers alone.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-P", "-m", "score_jax.rewards.math_worker"]
START_LIMIT_S = 120.0  # for a worker to load its libraries: 2-4 s on an idle core
STARTS = 3  # how many workers may die while they start before that is an error
TRIES = 2  # a pair whose worker was killed from outside is given out once more
TIMEOUT, CRASHED = "timeout", "crashed"


class Worker:
    """One worker process (see `math_worker`), and the pair that it has.

    Attributes:
      ready: a child of it waits for a pair, or works on one.
      pair: key of that pair, or None.
      deadline: of the pair, or of its start while it is not ready; in `time.monotonic` seconds.
    """

    def __init__(self) -> None:
        kept = {k: os.environ[k] for k in ("LD_LIBRARY_PATH", "PYTHONHOME") if k in os.environ}
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            # The trainer's own environment may hold secrets.
            env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", **kept},
        )
        assert self.process.stdin is not None and self.process.stdout is not None  # both are pipes
        self.input, self.output = self.process.stdin, self.process.stdout
        self.ready, self.started = False, False
        self.pair: int | None = None
        self.deadline = time.monotonic() + START_LIMIT_S
        self.serial, self.buffer = 0, b""

    def give(self, pair: int, gold: str, answer: str | None, limit_s: float) -> None:
        self.serial += 1
        self.pair, self.deadline = pair, time.monotonic() + limit_s
        with contextlib.suppress(BrokenPipeError):  # if it is gone, `messages` will say so
            self.input.write(json.dumps([self.serial, gold, answer]).encode() + b"\n")

    def messages(self) -> list[list] | None:
        """What it has said since; None if it is gone."""
        chunk = os.read(self.output.fileno(), 1 << 16)
        *lines, self.buffer = (self.buffer + chunk).split(b"\n")
        return [json.loads(line) for line in lines] if chunk else None

    def interrupt(self) -> None:
        """Has its child killed; another will say that it is ready."""
        self.process.send_signal(signal.SIGUSR1)
        self.ready, self.pair = False, None
        self.deadline = time.monotonic() + START_LIMIT_S

    def end(self) -> None:
        self.process.kill()  # its child has the kernel's parent-death signal, and sees the pipe close
        self.process.wait()
        self.input.close()
        self.output.close()


class Pool:
    """At most `size` workers, started when they are needed. For one thread at a time."""

    def __init__(self, size: int):
        self.size = size
        self.workers: list[Worker] = []

    def close(self) -> None:
        while self.workers:
            self.workers.pop().end()

    def run(self, pairs: dict[int, tuple[str, str | None]], limit_s: float) -> dict[int, bool | str | None]:
        """What the workers say of each (gold, answer), or TIMEOUT after `limit_s` seconds, or CRASHED."""
        for worker in [w for w in self.workers if w.process.poll() is not None]:
            worker.end()
            self.workers.remove(worker)
        while len(self.workers) < min(self.size, len(pairs)):
            self.workers.append(Worker())
        try:
            return _Run(self.workers, pairs, limit_s).finish()
        except BaseException:
            # Interrupted: nobody would take what is under way.
            self.close()
            raise


class _Run:
    """One call of `Pool.run`."""

    def __init__(self, workers: list[Worker], pairs: dict[int, tuple[str, str | None]], limit_s: float):
        self.workers, self.pairs = workers, pairs
        self.waiting = collections.deque(pairs)
        self.left = dict.fromkeys(pairs, limit_s)  # seconds; a second try has what the first one left
        self.tries: collections.Counter[int] = collections.Counter()
        self.failed_starts = 0
        self.verdicts: dict[int, bool | str | None] = {}

    def finish(self) -> dict[int, bool | str | None]:
        self.listen(0.0)  # a worker whose child was killed while it was idle has said so
        while len(self.verdicts) < len(self.pairs):
            self.give_out()
            busy = [worker.deadline for worker in self.workers if worker.pair is not None or not worker.ready]
            self.listen(max(0.0, min(busy) - time.monotonic()))
            self.enforce_limits()
        return self.verdicts

    def give_out(self) -> None:
        for worker in self.workers:
            if worker.ready and worker.pair is None and self.waiting:
                pair = self.waiting.popleft()
                self.tries[pair] += 1
                worker.give(pair, *self.pairs[pair], self.left[pair])

    def listen(self, timeout_s: float) -> None:
        with selectors.DefaultSelector() as selector:
            for i, worker in enumerate(self.workers):
                selector.register(worker.output, selectors.EVENT_READ, i)
            said = [key.data for key, _ in selector.select(timeout_s)]
        for i in said:
            self.hear(i)

    def hear(self, i: int) -> None:
        worker = self.workers[i]
        messages = worker.messages()
        if messages is None:
            self.failed_starts += not worker.started
            if self.failed_starts == STARTS:
                raise OSError(f"maths workers end as they start; {' '.join(COMMAND)!r} shows why")
            self.lose(worker)
            worker.end()
            self.workers[i] = Worker()
            return
        for serial, said in messages:
            if said == "ready":
                worker.ready = worker.started = True
                self.lose(worker)
            elif worker.pair is not None and serial == worker.serial:
                self.verdicts[worker.pair] = said
                worker.pair = None

    def lose(self, worker: Worker) -> None:
        """The worker's child has died: what it worked on, if anything, is tried again or given up."""
        pair, worker.pair = worker.pair, None
        if pair is None:
            return
        self.left[pair] = max(0.0, worker.deadline - time.monotonic())
        if self.tries[pair] < TRIES:
            self.waiting.appendleft(pair)
        else:
            self.verdicts[pair] = CRASHED
            worker.interrupt()  # the new child may have read it already

    def enforce_limits(self) -> None:
        now = time.monotonic()
        for worker in self.workers:
            if worker.deadline > now:
                continue
            if worker.pair is not None:
                self.verdicts[worker.pair] = TIMEOUT
                worker.interrupt()
            elif not worker.ready:
                why = f"{' '.join(COMMAND)!r} shows why"
                raise OSError(f"a maths worker did not start within {START_LIMIT_S:g} s; {why}")
