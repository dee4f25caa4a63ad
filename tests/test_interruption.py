"""Signals: heard at once, heeded when asked, and Python as it was afterwards."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from score_jax import interruption
from score_jax.exit_codes import STOPPED

ROOT = Path(__file__).resolve().parents[1]
BUSY = """
import hashlib
from score_jax.interruption import listening
with listening():
    print("ready", flush=True)
    # One instruction, as long as a compilation, during which Python runs no handler.
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2 * 10**8)
"""


def heard(seconds=5.0):
    end = time.monotonic() + seconds
    while not interruption.asked() and time.monotonic() < end:
        time.sleep(0.01)
    return interruption.asked()


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_a_signal_is_heard_and_forgotten_afterwards(number, capsys):
    before = [signal.getsignal(each) for each in interruption.SIGNALS], threading.active_count()
    with interruption.listening():
        assert not interruption.asked()
        os.kill(os.getpid(), number)
        assert heard()
        error = interruption.Interrupted("update 7 is saved")
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert str(error) == f"stopped by {name}: update 7 is saved; the same command goes on"
    assert f"{name}: stops when" in capsys.readouterr().out
    assert not interruption.asked()
    assert before == ([signal.getsignal(each) for each in interruption.SIGNALS], threading.active_count())


def test_sigterm_may_come_again(capsys):
    with interruption.listening():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard()


def test_ctrl_c_for_the_second_time_ends_a_process_that_is_busy():
    with subprocess.Popen([sys.executable, "-c", BUSY], cwd=ROOT, stdout=subprocess.PIPE, text=True) as busy:
        assert busy.stdout.readline() == "ready\n"
        busy.send_signal(signal.SIGINT)
        assert busy.stdout.readline().startswith("Ctrl-C: stops when")
        assert busy.poll() is None
        busy.send_signal(signal.SIGINT)
        assert busy.wait(timeout=10) == STOPPED
        assert "Stopped at once" in busy.stdout.read()


def test_elsewhere_than_in_the_main_thread_nothing_is_heard():
    found = []

    def run():
        with interruption.listening():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [before]
