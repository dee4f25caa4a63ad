"""Long runs: nothing is compiled anew, and nothing grows: memory, open files, processes, threads."""

import os
import re
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from test_quickstart import options
from test_survival import launched

from score_jax.__main__ import main
from score_jax.exit_codes import RESUME
from score_jax.log import Metrics

COMPILED = "/jax/core/compile/backend_compile_duration"
MINUTES = float(os.environ.get("SCORE_JAX_SOAK_MINUTES", "120"))
EVERY_S = 5
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which Linux has")


def test_nothing_is_compiled_after_a_stages_second_update(tmp_path, monkeypatch):
    counts, compiled, write = {}, [], Metrics.write

    def counted(self, row):
        counts[row["step"]] = len(compiled)
        compiled.clear()
        write(self, row)

    def listen(event, *_, **__):
        if event == COMPILED:
            compiled.append(event)

    monkeypatch.setattr(Metrics, "write", counted)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        changes = {"stage1__steps": 5, "stage2__steps": 6, "checkpoint_every": 1, "keep_newest": 2}
        assert main(["train", f"--workdir={tmp_path / 'run'}", *options(tmp_path, **changes)]) == 0
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert list(counts) == list(range(1, 12))
    assert counts[1] > 0  # the counter counts
    assert [counts[step] for step in (3, 4, 5, 8, 9, 10, 11)] == [0] * 7, counts


def sample(pid, metrics):
    """(step, MB, open files, threads, child processes) of a run."""
    step = int(re.findall(r'"step": (\d+)', metrics.read_text()[-3000:])[-1])
    status = Path(f"/proc/{pid}/status").read_text()
    rss = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
    threads = int(re.search(r"Threads:\s+(\d+)", status)[1])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return step, rss, len(os.listdir(f"/proc/{pid}/fd")), threads, len(children)


def soak(folder, seconds, every_s, warm_up, updates=0, **changes):
    """A run as it goes on, told to stop after the seconds and after so many updates beyond the warm-up.

    Returns:
      A row of `sample` each time after the first `warm_up` of the seconds; how often it compiled up to
      then, and after.
    """
    changes = {"stage2__steps": 10**7, "keep_newest": 2, "log__every": 50} | changes
    workdir = folder / "run"
    metrics, log = workdir / "metrics.jsonl", Path(f"{workdir}.log")
    compiled = lambda: log.read_text().count("Finished XLA compilation")
    table, before = [], 0
    with launched("train", workdir, folder, **changes) as process:
        while not metrics.exists() or metrics.stat().st_size < 5000:
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.2)
        begin = time.monotonic()
        done = lambda: len(table) > 0 and table[-1][0] >= table[0][0] + updates
        while (passed := time.monotonic() - begin) < seconds or not done():
            time.sleep(every_s)
            assert process.poll() is None, log.read_text()[-3000:]
            if passed < warm_up * seconds:
                before = compiled()
            else:
                table.append(sample(process.pid, metrics))
        after = compiled()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == RESUME
    return np.array(table), before, after - before


def assert_steady(rows, more):
    """No more open files, threads and processes (but for `more`) in the second half than in the first."""
    half = len(rows) // 2
    assert (rows[half:, 2:].max(axis=0) <= rows[:half, 2:].max(axis=0) + more).all(), rows


@linux
def test_saves_and_updates_leave_no_files_threads_and_processes(tmp_path, monkeypatch):
    """The long run's short version, which saves all the time; of memory it is too short to tell."""
    monkeypatch.setenv("JAX_LOG_COMPILES", "1")
    rows, before, after = soak(tmp_path, 20, 0.5, 0.3, updates=40, checkpoint_every=2)  # twenty saves
    assert before > 0 and after == 0
    assert_steady(rows, more=3)


@pytest.mark.slow
@linux
def test_a_long_run_does_not_grow(tmp_path, monkeypatch):
    """SCORE_JAX_SOAK_MINUTES says how long (120); the first fifth is warm-up.

    A save costs about 0.5 kB for each array, and 12 kB more, that are never given back: tensorstore, through
    which orbax writes, keeps the strings of all that it turns to JSON (0.1.76 to 0.1.86 do). Hence
    a checkpoint each 100 updates, as a long run has them.
    """
    monkeypatch.setenv("JAX_LOG_COMPILES", "1")
    rows, before, after = soak(tmp_path, 60 * MINUTES, EVERY_S, 0.2, checkpoint_every=100)
    slope = 1000 * np.polyfit(rows[:, 0], rows[:, 1], 1)[0]
    seen = [f"{step:.0f} {mb:.1f}" for step, mb in rows[:: 1 + len(rows) // 12, :2]]
    print(f"updates {rows[0, 0]:.0f} to {rows[-1, 0]:.0f}: {slope:+.3f} MB per 1,000 updates")
    print("updates and MB:", ", ".join(seen))
    print("files, threads, children:", rows[:, 2:].min(axis=0), "to", rows[:, 2:].max(axis=0))
    print(f"compiled {before} times in the warm-up, then {after}")
    assert before > 0 and after == 0
    assert slope < 1
    assert_steady(rows, more=1)
