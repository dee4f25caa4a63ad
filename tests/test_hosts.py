"""The same command on two hosts: two processes with four devices each give what one with eight gives."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from test_quickstart import options, params_at, rows_of

from score_jax.__main__ import main
from score_jax.exit_codes import RESUME

ROOT = Path(__file__).resolve().parents[1]
HEARTBEAT_S = 10
CHANGES = {
    "mesh__data": 2,
    "mesh__fsdp": 4,
    "rollout_parts": 2,
    "checkpoint_every": 1,
    "task": "tiny:EvenRiddles",
    "stage2.steps": 8,
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of this process, with its eight devices."""
    folder = tmp_path_factory.mktemp("alone")
    for command in ("train", "evaluate"):
        assert main([command, f"--workdir={folder / 'run'}", *options(folder, **CHANGES)]) == 0
    return folder


@contextlib.contextmanager
def launched(command: str, folder: Path, **changes):
    """The same command on two hosts, whose output goes to host0.log and host1.log; nothing runs on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"]
        + " --xla_force_host_platform_device_count=4",  # the last one counts
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{ROOT / 'tests'}",
    }
    words = [
        f"--workdir={folder / 'run'}",
        *options(folder, **CHANGES | changes),
        f"--heartbeat={HEARTBEAT_S}",
    ]
    with contextlib.ExitStack() as stack:
        processes = []
        for number in (0, 1):
            log = stack.enter_context((folder / f"host{number}.log").open("a"))
            call = [sys.executable, "-m", "score_jax", command, *words, f"--hosts={address},2,{number}"]
            process = subprocess.Popen(call, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        yield processes


def finish(command: str, folder: Path, **changes) -> None:
    with launched(command, folder, **changes) as processes:
        for number, process in enumerate(processes):
            log = folder / f"host{number}.log"
            assert process.wait(timeout=300) == 0, log.read_text()[-3000:]


def assert_same_run(folder: Path, alone: Path, **changes) -> None:
    """Parameters and log of a run on two hosts, beside those of one process."""
    for step in (0, 10):
        wanted = params_at(alone / "run", alone, step, **CHANGES)
        found = params_at(folder / "run", folder, step, **CHANGES | changes)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6), found, wanted)
    rows = [rows_of(each / "run" / "metrics.jsonl") for each in (folder, alone)]
    assert [row["step"] for row in rows[0]] == list(range(1, 11))
    for mine, other in zip(*rows, strict=True):
        assert mine.keys() == other.keys()
        for key in ("reward_t1", "reward_t2", "changed", "length_t1", "length_t2"):
            assert mine[key] == pytest.approx(other[key], abs=1e-6), (mine["step"], key)


def test_two_hosts_do_what_one_process_does(alone, tmp_path):
    finish("train", tmp_path)
    finish("evaluate", tmp_path)
    assert_same_run(tmp_path, alone)
    for name in ("attempts.jsonl", "results.json"):
        assert (tmp_path / "run" / name).read_text() == (alone / "run" / name).read_text()


def test_a_host_that_dies_ends_the_other_and_the_same_command_resumes(alone, tmp_path):
    base = {"base_dir": str(alone / "base")}
    with launched("train", tmp_path, **base) as (first, second):
        while len(saved(tmp_path)) < 3:
            assert first.poll() is second.poll() is None, (tmp_path / "host0.log").read_text()[-3000:]
            time.sleep(0.2)
        second.kill()
        killed = time.monotonic()
        assert first.wait(timeout=HEARTBEAT_S + 60) != 0
        took = time.monotonic() - killed
    assert took < HEARTBEAT_S + 10
    assert "heartbeat" in (tmp_path / "host0.log").read_text()
    assert len(saved(tmp_path)) < 10
    finish("train", tmp_path, **base)
    assert "Resuming" in (tmp_path / "host0.log").read_text()
    assert_same_run(tmp_path, alone, **base)


def test_an_error_on_one_host_ends_both_with_its_words(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("BROKEN_HOST", "1")
    with launched("train", tmp_path, base_dir=str(alone / "base")) as processes:
        codes = [process.wait(timeout=300) for process in processes]
    assert 0 not in codes
    for number, words in enumerate(("host 1: this host cannot grade", "this host cannot grade")):
        log = (tmp_path / f"host{number}.log").read_text()
        assert words in log, log[-3000:]


def test_a_host_that_is_told_to_stop_stops_both_after_the_same_update(alone, tmp_path):
    """The second one is told, which does not write the run's files."""
    changes = {"base_dir": str(alone / "base"), "checkpoint_every": 100}  # none is due before the stage's end
    metrics = tmp_path / "run" / "metrics.jsonl"
    with launched("train", tmp_path, **changes) as processes:
        while not metrics.exists() or metrics.read_text().count("\n") < 4:
            assert processes[0].poll() is processes[1].poll() is None, (tmp_path / "host0.log").read_text()
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)
        logs = [tmp_path / "host0.log", tmp_path / "host1.log"]
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(timeout=60) == RESUME, log.read_text()[-3000:]
    step = rows_of(metrics)[-1]["step"]
    assert max(saved(tmp_path)) == step < 10
    for log in logs:
        assert f"update {step} is saved; the same command goes on" in log.read_text()
    finish("train", tmp_path, **changes)
    assert f"after step {step}." in (tmp_path / "host0.log").read_text()
    assert sorted(saved(tmp_path)) == [2, 10]
    rows = rows_of(metrics)
    assert [row["step"] for row in rows] == list(range(1, 11))
    wanted = params_at(alone / "run", alone, 10, **CHANGES)
    found = params_at(tmp_path / "run", tmp_path, 10, **CHANGES | changes)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6), found, wanted)


def saved(folder: Path) -> list[int]:
    """The steps of a run of which there are whole checkpoints."""
    checkpoints = folder / "run" / "checkpoints"
    return (
        [int(path.name) for path in checkpoints.iterdir() if path.name.isdigit()]
        if checkpoints.exists()
        else []
    )
