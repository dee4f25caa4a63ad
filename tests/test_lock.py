"""Locks: one at a time, told who, and free again however the holder ends."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from etils import epath

from score_jax import lock

ROOT = Path(__file__).resolve().parents[1]
HOLDER = """
import sys, time
from score_jax.lock import hold
with hold(sys.argv[1], "train"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        yield other
        other.kill()


def test_the_second_is_told_who_the_first_is_and_may_when_that_one_is_killed(holder, tmp_path):
    told = pytest.raises(lock.Held, match=f"another `train` is at work there .process {holder.pid} on ")
    with told, lock.hold(tmp_path, "train"):
        pass
    with lock.hold(tmp_path, "evaluate"):
        pass
    holder.kill()
    holder.wait()
    with lock.hold(tmp_path, "train"):
        pass


def test_a_lock_is_given_back_when_its_holder_fails(tmp_path):
    with pytest.raises(KeyError), lock.hold(tmp_path / "new", "train"):
        raise KeyError
    with lock.hold(tmp_path / "new", "train"):
        with pytest.raises(lock.Held), lock.hold(tmp_path / "new", "train"):
            pass
        with pytest.raises(lock.Held), lock.hold(tmp_path / "new", "train"):
            pass


def test_a_folder_in_which_nothing_came_to_lie_goes_again(tmp_path):
    with pytest.raises(KeyError), lock.hold(tmp_path / "new" / "run", "train"):
        raise KeyError
    assert not (tmp_path / "new").exists()
    with lock.hold(tmp_path / "new" / "run", "train"):
        (tmp_path / "new" / "kept").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kept"]
    with lock.hold(tmp_path / "new" / "run", "train"):
        (tmp_path / "new" / "run" / "config.json").touch()
    assert (tmp_path / "new" / "run" / "config.json").exists()


def bucket(path):
    return lock._Bucket(epath.Path(path), beat_s=0.05, dead_s=2.0)


def test_in_a_bucket_the_holder_shows_that_it_lives(tmp_path):
    first, second = bucket(tmp_path / "x.lock"), bucket(tmp_path / "x.lock")
    assert first.take() == ""
    time.sleep(2.5)  # longer than the dead are waited for
    assert "process" in second.take()
    first.give_back()
    assert not (tmp_path / "x.lock").exists()
    assert second.take() == ""
    second.give_back()


@pytest.mark.parametrize(
    "left", ["", '{"tor', json.dumps({"host": "h", "pid": 1, "since": "?", "beat": 5.0})]
)
def test_in_a_bucket_the_dead_hold_nothing(tmp_path, left):
    (tmp_path / "x.lock").write_text(left)
    mine = bucket(tmp_path / "x.lock")
    assert mine.take() == ""
    mine.give_back()


def test_who_was_taken_for_dead_stops_when_it_finds_another_in_its_place(tmp_path, capsys):
    told = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        first = bucket(tmp_path / "x.lock")
        assert first.take() == ""
        other = json.dumps({"host": "b", "pid": 7, "since": "noon", "token": "other", "beat": time.time()})
        (tmp_path / "x.lock").write_text(other)
        first._thread.join(timeout=10)
        for _ in range(100):
            if told:
                break
            time.sleep(0.05)
        assert told == [signal.SIGTERM]
        first.give_back()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "x.lock").read_text() == other
    assert "another run's now (process 7 on b, since noon)" in capsys.readouterr().out


def test_a_bucket_that_does_not_answer_for_once_costs_no_lock(tmp_path, monkeypatch):
    first, second = bucket(tmp_path / "x.lock"), bucket(tmp_path / "x.lock")
    assert first.take() == ""
    beat, calls = first._beat, []

    def fail_once():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a library's own: unavailable")
        beat()

    monkeypatch.setattr(first, "_beat", fail_once)
    time.sleep(2.5)
    assert len(calls) > 1
    assert "process" in second.take()
    first.give_back()
