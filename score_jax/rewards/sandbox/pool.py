"""The sandbox: a pool of workers that run programs side by side and give each exactly one verdict."""

from __future__ import annotations

import collections
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence

from score_jax.rewards.cores import cores
from score_jax.rewards.sandbox.job import Job, Layer, SandboxError, Verdict, verdict
from score_jax.rewards.sandbox.worker import Worker, WorkerLost, wait

#: The share of a batch that may end as harness_error (one program always may); beyond it the run is stopped.
FAULTS_ALLOWED = 0.05

# A program whose worker was lost is run again, as nothing of it was reported; not for ever.
_TRIES = 3

#: Layers without which mode "strict" runs nothing -> what to do where one does not hold.
REQUIRED = {
    "no_new_privs": "a system-call filter around this container may refuse prctl",
    "landlock": "needs Linux 5.13 or newer with landlock among /sys/kernel/security/lsm (boot parameter"
    " lsm=landlock,...) and, in a container, a system-call filter that knows it (Docker 20.10.10 or newer)",
    "seccomp": "needs a kernel with CONFIG_SECCOMP_FILTER on x86_64 or aarch64 (not gVisor)",
    "resource limits": "raise the hard limits of this shell (ulimit -H)",
    "parent-death signal": "a system-call filter around this container may refuse prctl",
    "non-root user": "start the trainer as a user other than root, or let it have CAP_SETUID and CAP_SETGID",
}
_UNSAFE = "or set --sandbox=unsafe, which runs the model's programs without"


class Sandbox:
    """Runs programs that a model wrote against tests.

    Use as a context manager. A worker lives as long as the thread that started it (the kernel's parent-death
    signal goes by threads): make it and use it in one that lasts; a worker found dead is replaced. One batch
    runs at a time.

    Args:
      workers: how many programs run side by side; None: one for each core that this process may use.
      mode: "strict": every layer of `REQUIRED` holds, or nothing starts. "unsafe": runs with what there is,
        and says so at every batch.
      say: takes a line of text.
      without: layers to leave off, for tests of the tests; in mode "unsafe" alone.

    Raises:
      SandboxError: a required layer does not hold; names it and the mend.
    """

    def __init__(
        self,
        workers: int | None = None,
        mode: str = "strict",
        say: Callable[[str], object] = print,
        without: Sequence[str] = (),
    ):
        if mode not in ("strict", "unsafe"):
            raise ValueError(f"sandbox = {mode!r}: choose 'strict' or 'unsafe'")
        if workers is not None and workers < 1:
            raise ValueError(f"sandbox workers = {workers}: choose at least 1, or None for one per core")
        if without and mode != "unsafe":
            raise ValueError(f"without = {tuple(without)!r}: layers are left off in mode 'unsafe' alone")
        if mode == "strict" and sys.platform != "linux":
            raise SandboxError(f"the sandbox needs Linux, this is {sys.platform}: train on Linux, {_UNSAFE}")
        self._mode, self._say, self._without = mode, say, tuple(without)
        self._lock = threading.Lock()
        self._bubblewrap: str | None = None
        self._bubblewrap_note = ""
        self._workers: list[Worker] = []
        try:
            self._start(workers or cores())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def layers(self) -> tuple[Layer, ...]:
        """Every layer, and whether it holds here."""
        faults = self._faults
        held = "tried in a confined process"
        required = [
            Layer(name, name not in faults, True, faults.get(name, held), mend)
            for name, mend in REQUIRED.items()
        ]
        bubblewrap = Layer("bubblewrap", self._bubblewrap is not None, False, self._bubblewrap_note)
        return (*required, bubblewrap)

    def run(self, jobs: Sequence[Job]) -> list[Verdict]:
        """The verdict of each program, in the order of `jobs`.

        Raises:
          SandboxError: too many ended as harness_error: the tests or the sandbox are broken, and what would
            be learned from the rest is noise.
        """
        with self._lock:
            if not self._workers:
                raise SandboxError("the sandbox is closed; make a new one")
            if self._mode == "unsafe":
                off = (
                    ", ".join(name for name in REQUIRED if name in self._faults) or "any layer being required"
                )
                self._say(f"sandbox = 'unsafe': {len(jobs)} programs that a model wrote run without {off}")
            verdicts = self._run(jobs)
        _stop_at_faults(verdicts)
        return verdicts

    def close(self) -> None:
        """Ends the workers and everything in them."""
        for worker in self._workers:
            worker.close()
        self._workers = []

    def _start(self, count: int) -> None:
        first = self._first_worker()
        self._workers.append(first)
        self._faults = first.faults
        missing = [layer for layer in self.layers() if layer.required and not layer.holds]
        if missing and self._mode == "strict":
            reasons = "; ".join(
                f"{layer.name} does not hold ({layer.note}): {layer.mend}" for layer in missing
            )
            raise SandboxError(
                f"the sandbox is not safe here: {reasons}; mend that, {_UNSAFE}", self.layers()
            )
        # Started together, as starting is mostly importing.
        self._workers += [self._worker() for _ in range(count - 1)]
        for worker in self._workers[1:]:
            worker.wait_until_ready()

    def _first_worker(self) -> Worker:
        """Also finds out whether bubblewrap works: it is often installed where it may not make namespaces."""
        self._bubblewrap = shutil.which("bwrap")
        if self._bubblewrap:
            worker = self._worker()
            try:
                worker.wait_until_ready()
                self._bubblewrap_note = self._bubblewrap
                return worker
            except SandboxError as error:
                self._bubblewrap, self._bubblewrap_note = (
                    None,
                    f"{self._bubblewrap} does not work here: {error}",
                )
        else:
            self._bubblewrap_note = "bwrap is not installed"
        worker = self._worker()
        worker.wait_until_ready()
        return worker

    def _worker(self) -> Worker:
        return Worker(self._without, self._bubblewrap)

    def _replace(self, worker: Worker) -> Worker:
        worker.kill()
        place = self._workers.index(worker)
        for tries_left in reversed(range(_TRIES)):
            new = self._workers[place] = self._worker()
            try:
                new.wait_until_ready()
                break
            except SandboxError:  # whatever killed the worker may kill the next one while it starts
                if not tries_left:
                    raise
        if new.faults.keys() - self._faults.keys():
            raise SandboxError(f"a layer that held does not hold in a new worker: {new.faults}; start again")
        return new

    def _run(self, jobs: Sequence[Job]) -> list[Verdict]:
        verdicts: dict[int, Verdict] = {}
        waiting = collections.deque(range(len(jobs)))
        lost = collections.Counter[int]()
        running: dict[Worker, int] = {}
        try:
            while waiting or running:
                self._hand_out(jobs, waiting, running)
                for worker, index, outcome in _outcomes(running):
                    del running[worker]
                    if outcome is None:
                        lost[index] += 1
                        self._replace(worker)
                        if lost[index] < _TRIES:
                            waiting.appendleft(index)
                        else:
                            verdicts[index] = _fault(jobs[index], f"its worker was lost {_TRIES} times")
                    else:
                        verdicts[index] = outcome
                        if outcome.detail == _LATE:
                            self._replace(worker)
        finally:
            # Interrupted: what they answer later must not be taken for the next batch's.
            for worker in running:
                worker.kill()
        return [verdicts[index] for index in range(len(jobs))]

    def _hand_out(
        self, jobs: Sequence[Job], waiting: collections.deque[int], running: dict[Worker, int]
    ) -> None:
        """Gives every idle worker a program."""
        for worker in [worker for worker in self._workers if worker not in running]:
            if not waiting:
                return
            if not worker.alive():
                worker = self._replace(worker)
            index = waiting.popleft()
            running[worker] = index
            try:
                worker.send(jobs[index])
            except WorkerLost:
                del running[worker]
                waiting.appendleft(index)


_LATE = "its worker did not answer in time"


def _outcomes(running: dict[Worker, int]) -> list[tuple[Worker, int, Verdict | None]]:
    """What has come in since: a verdict, or None for a worker that was lost. Waits for the first."""
    ready = wait(list(running), min((worker.deadline for worker in running), default=0.0))
    outcomes: list[tuple[Worker, int, Verdict | None]] = []
    for worker, index in running.items():
        try:
            outcome = worker.receive() if worker in ready else None
        except WorkerLost:
            outcomes.append((worker, index, None))
            continue
        if outcome is None and time.monotonic() > worker.deadline:
            outcome = _fault(worker.job, _LATE)
        if outcome is not None:
            outcomes.append((worker, index, outcome))
    return outcomes


def _fault(job: Job, detail: str) -> Verdict:
    return verdict(dict.fromkeys(job.groups, "harness_error"), 0.0, detail)


def _stop_at_faults(verdicts: Sequence[Verdict]) -> None:
    faults = [v for v in verdicts if v.status == "harness_error"]
    if len(faults) > max(1, FAULTS_ALLOWED * len(verdicts)):
        raise SandboxError(
            f"{len(faults)} of {len(verdicts)} programs ended as harness_error, at most {FAULTS_ALLOWED:.0%} "
            f"may; the first: {faults[0].detail}; mend the tests of that problem, or see what "
            "python -m score_jax sandbox-check says"
        )
