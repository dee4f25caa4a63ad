"""Runs that are killed, told to stop, or robbed of their disk: the same command goes on as if nothing was.

Each is a process of its own, of the shrunk quickstart; it is held against a run that nothing happened to.
"""

import collections
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from etils import epath
from test_quickstart import options, params_at, rows_of

from score_jax.__main__ import main
from score_jax.checkpoint import Checkpoints
from score_jax.exit_codes import IO_ERROR, RESUME, STOPPED
from score_jax.repair import SAVING, steps_in

ROOT = Path(__file__).resolve().parents[1]
LONG = {"stage2__steps": 60, "evaluate__batch": 8}
BUSY_S = 300  # after which a process that should have got somewhere has not


def arguments(command, workdir, folder, **changes):
    return [command, f"--workdir={workdir}", *options(folder, **LONG | changes)]


@contextlib.contextmanager
def launched(command, workdir, folder, log=None, more=(), **changes):
    """A process at work on a run, what it prints in `log` (WORKDIR.log); at the end it is gone."""
    words = [sys.executable, "-m", "score_jax", *arguments(command, workdir, folder, **changes), *more]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT / "tests")}
    with Path(log or f"{workdir}.log").open("a") as out:
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(seen, process):
    """Waits until `seen()`, or the process's end; whether it still runs."""
    end = time.monotonic() + BUSY_S
    while process.poll() is None and not seen():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.002)
    return process.poll() is None


def said(workdir):
    return Path(f"{workdir}.log").read_text()


def length(path):
    return path.stat().st_size if path.exists() else 0


def assert_same(workdir, straight, folder, **changes):
    """The run is what the straight one is: every checkpoint and row there is, and nothing else."""
    places = [epath.Path(each) / "checkpoints" for each in (workdir, straight)]
    assert steps_in(places[0]) == steps_in(places[1])
    with Checkpoints(places[0]) as mine, Checkpoints(places[1]) as other:
        steps = mine.steps()
        assert steps == other.steps() == steps_in(places[0])
        assert [mine.note(step) for step in steps] == [other.note(step) for step in steps]
    for step in steps[:1] + steps[-1:]:
        found = [params_at(each, folder, step, **LONG | changes) for each in (workdir, straight)]
        for one, two in zip(*map(jax.tree.leaves, found), strict=True):
            assert one.dtype == two.dtype and one.tobytes() == two.tobytes()
    timeless = lambda path: [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(path)]
    assert timeless(workdir / "metrics.jsonl") == timeless(straight / "metrics.jsonl")
    for name in ("attempts.jsonl", "results.json"):
        if (straight / name).exists():
            assert (workdir / name).read_text() == (straight / name).read_text()
            assert not list((workdir / "drafts").iterdir())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("survival")


@pytest.fixture(scope="module")
def straight(folder):
    """A run that nothing happens to, evaluated."""
    workdir = folder / "straight"
    for command in ("train", "evaluate"):
        assert main(arguments(command, workdir, folder)) == 0
    return workdir


def unfinished(workdir):
    """The names of checkpoints that are being saved, or were when the run was killed."""
    folder = workdir / "checkpoints"
    return {path.name for path in folder.iterdir() if SAVING in path.name} if folder.exists() else set()


def drafted(workdir):
    """Bytes of an evaluation that is at work."""
    folder = workdir / "drafts"
    return sum(map(length, folder.glob("*"))) if folder.exists() else 0


def kill_once(command, workdir, folder, rng, **changes):
    """Starts the command and kills it at a moment drawn by `rng`; whether it was at work, and saving."""
    metrics = workdir / "metrics.jsonl"
    before, grown = length(metrics), rng.randrange(1, 3000)  # bytes, of some 700 a row
    drawn, old = drafted(workdir), unfinished(workdir)
    if command == "evaluate":
        seen = lambda: drafted(workdir) > drawn + grown
    else:
        written = lambda: length(metrics) > before + grown or length(metrics) < before
        seen = rng.choice([lambda: unfinished(workdir) - old, written])
    with launched(command, workdir, folder, **changes) as process:
        late = rng.random() < 0.8
        at_work = until(seen if late else (lambda: False), process) if late else True
        if not late:  # anywhere in the start
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(0, 20))
            at_work = process.poll() is None
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        return at_work and process.wait() == -signal.SIGKILL, bool(unfinished(workdir) - old)


def survive(kills, workdir, folder, straight, seed, **changes):
    """Kills the training two times in three, then the evaluation, and lets both end; counts what was hit."""
    rng, counts = random.Random(seed), collections.Counter()
    for command, share in (("train", 2 * kills // 3), ("evaluate", kills - 2 * kills // 3)):
        for _ in range(share):
            at_work, saving = kill_once(command, workdir, folder, rng, **changes)
            counts[command] += at_work
            counts["saving"] += saving
        assert main(arguments(command, workdir, folder, **changes)) == 0
    assert_same(workdir, straight, folder, **changes)
    assert not (workdir / "damaged").exists()
    return counts


def test_three_kills_change_nothing(straight, folder, tmp_path):
    counts = survive(3, tmp_path / "run", folder, straight, seed=1)
    assert (counts["train"], counts["evaluate"]) == (2, 1)


@pytest.mark.slow
def test_twenty_kills_change_nothing(straight, folder, tmp_path):
    """Base model included: it is pre-trained anew where it was cut short."""
    counts = survive(20, tmp_path / "run", folder, straight, seed=2, base_dir=str(tmp_path / "base"))
    print(counts)
    assert counts["train"] + counts["evaluate"] >= 18 and counts["saving"] >= 2, counts


def test_told_to_stop_a_run_saves_and_goes_on(straight, folder, tmp_path, capsys):
    """SIGTERM, then Ctrl-C, where no checkpoint is due; meanwhile a second command is refused."""
    workdir, sent = tmp_path / "run", []
    for number in (signal.SIGTERM, signal.SIGINT):
        rows = length(workdir / "metrics.jsonl")
        with launched("train", workdir, folder) as process:
            grown = lambda rows=rows: length(workdir / "metrics.jsonl") > rows + 1000
            assert until(grown, process), said(workdir)
            if not sent:
                assert main(arguments("train", workdir, folder)) == RESUME
                assert (
                    f"another `train` is at work there (process {process.pid} on" in capsys.readouterr().err
                )
            process.send_signal(number)
            assert process.wait(timeout=60) == RESUME, said(workdir)
        sent.append(rows_of(workdir / "metrics.jsonl")[-1]["step"])
        assert f"update {sent[-1]} is saved; the same command goes on" in said(workdir)
        assert sent[-1] == steps_in(epath.Path(workdir) / "checkpoints")[-1]
    assert sent[0] < sent[1] < 62
    assert f"after step {sent[0]}." in said(workdir)
    for command in ("train", "evaluate"):
        assert main(arguments(command, workdir, folder)) == 0
    assert_same(workdir, straight, folder)


def test_told_to_stop_a_host_of_a_cluster_of_one_saves_and_goes_on(straight, folder, tmp_path):
    """Where JAX's runtime for several hosts is at work, which takes notice of preemptions itself. With it
    sums may round otherwise, so that the run is not held against the straight one's numbers."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        alone = [f"--hosts=localhost:{found.getsockname()[1]},1,0"]
    workdir = tmp_path / "run"
    with launched("train", workdir, folder, more=alone) as process:
        assert until(lambda: length(workdir / "metrics.jsonl") > 1000, process), said(workdir)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=BUSY_S) == RESUME, said(workdir)
    step = rows_of(workdir / "metrics.jsonl")[-1]["step"]
    assert step < 62 and step == steps_in(epath.Path(workdir) / "checkpoints")[-1]
    assert f"update {step} is saved; the same command goes on" in said(workdir)
    assert main(arguments("train", workdir, folder)) == 0
    assert [row["step"] for row in rows_of(workdir / "metrics.jsonl")] == [*range(1, 63)]
    places = [epath.Path(each) / "checkpoints" for each in (workdir, straight)]
    assert steps_in(places[0]) == steps_in(places[1])


def test_ctrl_c_twice_stops_at_once(straight, folder, tmp_path):
    workdir = tmp_path / "run"
    with launched("train", workdir, folder) as process:
        assert until(lambda: "reused from" in said(workdir), process), said(workdir)  # and now it compiles
        process.send_signal(signal.SIGINT)
        assert until(lambda: "Ctrl-C: stops when" in said(workdir), process), said(workdir)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == STOPPED, said(workdir)


def test_a_damaged_checkpoint_is_made_again(straight, folder, tmp_path, capsys):
    """One flipped byte in the newest: the run goes on from the one before, to the same end."""
    workdir = tmp_path / "run"
    shutil.copytree(straight, workdir)
    newest = workdir / "checkpoints" / "62"
    path = max((p for p in newest.rglob("*") if p.parent.name == "d"), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(["solve", f"--workdir={workdir}", "--checkpoint=62", "problem"]) == 2
    told = capsys.readouterr().err
    assert "checkpoint 62 in" in told and "is damaged" in told and "name another one" in told
    assert main(arguments("train", workdir, folder)) == 0
    assert "WARNING: checkpoint 62 is damaged" in capsys.readouterr().out
    assert (workdir / "damaged" / "62").exists()
    assert_same(workdir, straight, folder)


def test_a_checkpoint_of_another_run_is_refused(straight, folder, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(straight, workdir)
    config = json.loads((workdir / "config.json").read_text()) | {"checkpoint_every": 3}
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "checkpoints" / "62").rename(workdir / "62")
    assert main(arguments("train", workdir, folder, checkpoint_every=3)) == 2
    assert "config.checkpoint_every is 2 there and 3 here" in capsys.readouterr().err


@contextlib.contextmanager
def small_disk(folder, size):
    """A disk of its own, which root may make."""
    folder.mkdir()
    call = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(call, capture_output=True).returncode:
        pytest.skip("only root can make a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def lock_up(folder):
    """For all that is opened from now on, by a mount on top of it."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)


def erase(folder):
    """The run on the disk, all of it, although that still writes there."""
    while (folder / "run").exists():
        shutil.rmtree(folder / "run", ignore_errors=True)


@pytest.mark.parametrize("trouble", ["full", "read-only", "gone"])
def test_without_a_disk_a_run_says_so_and_goes_on_later(trouble, straight, folder, tmp_path):
    disk, log = tmp_path / "disk", tmp_path / "log"
    workdir = disk / "run"
    with small_disk(disk, "64m"):
        with launched("train", workdir, folder, log) as process:
            assert until(lambda: length(workdir / "metrics.jsonl") > 3000, process), log.read_text()
            {"full": fill, "read-only": lock_up, "gone": erase}[trouble](disk)
            assert process.wait(timeout=120) == IO_ERROR, log.read_text()
        last = log.read_text().strip().splitlines()[-1]
        assert last.startswith("score_jax train: ") and "cannot be written" in last, log.read_text()
        if trouble == "gone":
            return
        if trouble == "read-only":
            subprocess.run(["umount", disk], check=True)
        (disk / "filler").unlink(missing_ok=True)
        for command in ("train", "evaluate"):
            assert main(arguments(command, workdir, folder)) == 0
        assert_same(workdir, straight, folder)


def test_a_run_whose_checkpoints_are_elsewhere_keeps_its_log(straight, folder, tmp_path, capsys):
    """On a disk that is not mounted, say: it is not begun anew over what it has."""
    workdir = tmp_path / "run"
    shutil.copytree(straight, workdir)
    (workdir / "checkpoints").rename(tmp_path / "elsewhere")
    assert main(arguments("train", workdir, folder)) == 2
    said = capsys.readouterr().err
    assert "metrics.jsonl tells of 62 updates" in said and "put that folder back" in said
    shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
    (tmp_path / "elsewhere").rename(workdir / "checkpoints")
    assert main(arguments("train", workdir, folder)) == 0
    assert_same(workdir, straight, folder)


def test_a_run_does_not_go_on_with_other_problems(straight, folder, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(straight, workdir)
    told = json.loads((workdir / "problems.json").read_text())
    (workdir / "problems.json").write_text(json.dumps(told | {"crc32": told["crc32"] + 1}))
    assert main(arguments("train", workdir, folder)) == 2
    assert f"training problems are not the {told['count']} that the run in" in capsys.readouterr().err
