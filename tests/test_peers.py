"""Other libraries beside ours: what their scripts are asked, in which turns, and what comes of it."""

import dataclasses
import io
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rich.console
from test_benchmark import OPTIONS, TINY, made_up

from score_jax import peers
from score_jax.__main__ import main
from score_jax.benchmark_text import as_text
from score_jax.peers import Ours, Peer, PeerError, Side, side_by_side
from score_jax.timing import Timing

SCRIPTS = Path(__file__).with_name("peers")
MADE_UP = """
import sys, time
sys.path.insert(0, {folder!r})
from protocol import serve, shape

def step(watch):
    open({said!r}, "a").write("step ")
    time.sleep(0.02)
    watch.part("rollout")

def sampling(watch):
    open({said!r}, "a").write("sampling ")

assert shape().episodes == 4
{more}
serve("made up", ("numpy",), {calls})
"""
BOTH = "{'step': step, 'sampling': sampling}"
SHAPE = {
    "vocabulary": 32, "layers": 1, "width": 16, "hidden_width": 16, "heads": 2, "kv_heads": 1,
    "head_width": 8, "window": 8, "prompt": 4, "attempt": 3, "instruction": 2, "problems": 2, "samples": 2,
}  # fmt: skip


def script(folder, calls=BOTH, more=""):
    path = folder / "peer.py"
    text = MADE_UP.format(folder=str(SCRIPTS), said=str(folder / "said"), calls=calls, more=more)
    path.write_text(text)
    return str(path)


def beside(peer, repeats=2):
    calls = []
    ours = Ours({"jax": "0"}, 5.0, 9.0, {name: lambda name=name: calls.append(name) for name in peers.CALLS})
    with peer:
        return calls, side_by_side((ours, peer), repeats, lambda line: None)


def test_all_take_turns_and_the_first_turn_does_not_count(tmp_path):
    calls, (ours, peer) = beside(Peer(script(tmp_path), SHAPE), repeats=2)
    assert calls == ["step", "sampling"] * 3
    assert (tmp_path / "said").read_text().split() == ["step", *["step", "sampling"] * 3]
    assert (ours.startup, ours.memory, ours.ratios) == (5.0, 9.0, {"step": 1.0, "sampling": 1.0})
    assert (peer.name, set(peer.versions)) == ("made up", {"numpy"})
    assert peer.seconds["step"].repeats == 2
    assert peer.seconds["step"].median >= peer.seconds["rollout"].median >= 0.02
    assert peer.ratios["step"] > 10
    assert peer.startup > 0.02 and peer.memory > 2**20


def test_what_a_call_leaves_to_do_is_waited_for_but_counts_for_nobody(tmp_path):
    more = """
import threading

def work():
    while time.thread_time() < 0.5:
        pass
    open({said!r}, "a").write("worked ")

def step(watch):
    threading.Thread(target=work).start()
"""
    began = time.perf_counter()
    with Peer(script(tmp_path, "{'step': step}", more.format(said=str(tmp_path / "said"))), SHAPE) as peer:
        startup, _ = peer.started()
        assert time.perf_counter() - began > startup + 0.5
        assert peer.seconds("step")["step"] < 0.4
        assert (tmp_path / "said").read_text().split() == ["worked"] * 2


def test_we_rest_as_well():
    def step():
        threading.Thread(target=work).start()

    def work():
        while time.thread_time() < 0.5:
            pass
        done.append("worked")

    done = []
    assert Ours({}, 0.0, 0.0, {"step": step}).seconds("step")["step"] < 0.4
    assert done == ["worked"]


def test_the_process_ends_with_the_block(tmp_path):
    with Peer(script(tmp_path), SHAPE) as peer:
        peer.started()
        process = peer._process
        assert process.poll() is None
    assert process.poll() is not None


def test_a_peers_memory_is_its_own(tmp_path):
    held = np.ones(2**27)  # 1 GiB here
    with Peer(script(tmp_path), SHAPE) as peer:
        _, memory = peer.started()
    assert memory < held.nbytes


def test_a_peer_may_lack_a_call(tmp_path):
    _, (_, peer) = beside(Peer(script(tmp_path, calls="{'sampling': sampling}"), SHAPE))
    assert peer.startup is None
    assert set(peer.ratios) == set(peer.seconds) == {"sampling"}


@pytest.mark.parametrize(
    ("more", "calls", "message"),
    [
        ("sys.exit(3)", BOTH, "it ended with code 3; above is why"),
        ("", "{'step': lambda watch: sys.exit(4)}", "it ended with code 4; above is why"),
        ("", "{}", "it can do none of step, sampling"),
        ("print('[1, 2]')", BOTH, r"'\[1, 2\]' is no answer; see tests/peers/protocol.py"),
        ("print('good morning')", BOTH, "'good morning' is no answer; see tests/peers/protocol.py"),
    ],
)
def test_what_a_peer_does_wrong_is_told(more, calls, message, tmp_path):
    with Peer(script(tmp_path, calls, more), SHAPE) as peer, pytest.raises(PeerError, match=message):
        peer.started()


def test_what_a_library_prints_is_no_answer(tmp_path):
    noisy = "{'step': lambda watch: print('loading ...')}"
    with Peer(script(tmp_path, noisy), SHAPE) as peer:
        peer.started()


def test_a_script_that_is_not_there_is_told(tmp_path):
    with pytest.raises(
        PeerError, match=r"--peer=.*absent.py: No such file or directory; tests/peers has some"
    ):
        Peer(str(tmp_path / "absent.py"), SHAPE)


def test_a_script_with_needs_gets_them_by_uv(tmp_path, monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command[1:])
        return subprocess.CompletedProcess(command, 0, stdout=f"{sys.executable}\n")

    monkeypatch.setattr(peers.subprocess, "run", run)
    monkeypatch.setattr(peers.shutil, "which", lambda name: "/bin/uv")
    path = Path(script(tmp_path))
    path.write_text('# /// script\n# dependencies = ["numpy==1"]\n# ///\n' + path.read_text())
    Peer(str(path), SHAPE)
    assert asked == [["sync", "--quiet", "--script", str(path)], ["python", "find", "--script", str(path)]]
    monkeypatch.setattr(peers.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(PeerError, match="uv cannot fetch what it needs"):
        Peer(str(path), SHAPE)
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    monkeypatch.setattr(peers, "_PRIVATE_UV", tmp_path / "uv")
    with pytest.raises(PeerError, match=r"needs uv: put it on PATH, or run launch/setup\.sh"):
        Peer(str(path), SHAPE)


def test_the_command_holds_a_peer_beside_ours(tmp_path, capsys):
    options = [f"--config={TINY}", *OPTIONS, "--instruction=2", "--repeats=1", "--json"]
    assert main(["benchmark", *options, f"--peer={script(tmp_path)}"]) == 0
    ours, peer = json.loads(capsys.readouterr().out)["sides"]
    assert (ours["name"], peer["name"]) == ("score_jax", "made up")
    assert set(ours["seconds"]) == {"step", "sampling"}
    assert peer["ratios"]["step"] == pytest.approx(
        peer["seconds"]["step"]["median"] / ours["seconds"]["step"]["median"]
    )


def test_a_peer_that_fails_is_told_in_one_line(tmp_path, capsys):
    options = [f"--config={TINY}", *OPTIONS, "--instruction=2", "--repeats=1"]
    assert main(["benchmark", *options, f"--peer={tmp_path / 'absent.py'}"]) == 2
    assert "absent.py: No such file" in capsys.readouterr().err


def test_the_text_shows_all_sides():
    alike = {"step": Timing(9.0, 2.0, 1.9, 2.1, 5), "sampling": Timing(1.0, 0.5, 0.4, 0.6, 5)}
    sides = (
        Side("score_jax", {}, 12.0, 2**30, alike, {"step": 1.0, "sampling": 1.0}),
        Side("another", {}, None, 2**31, {"sampling": alike["step"]}, {"sampling": 4.0}),
    )
    console = rich.console.Console(width=80, file=io.StringIO())
    for part in as_text(dataclasses.replace(made_up(), sides=sides)):
        console.print(part)
    text = console.file.getvalue()
    assert re.search(r"score_jax +2 s +1\.00 +500 ms +8,192 +1\.00 +12 s +1\.00 GiB", text)
    assert re.search(r"another +- +- +2 s +2,048 +4\.00 +- +2\.00 GiB", text)


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("[!p_]*.py")), ids=lambda path: path.stem)
def test_what_a_script_needs_is_pinned(path):
    """Each by its version, and all that they need in turn by a date."""
    block = re.search(r"^# /// script\n(.*?)^# ///$", path.read_text(), flags=re.DOTALL | re.MULTILINE)[1]
    needs = json.loads(re.search(r"dependencies = (\[.*\])", block)[1])
    assert needs and all(re.fullmatch(r"[a-z-]+==[\d.]+", need) for need in needs)
    assert re.search(r'exclude-newer = "20\d\d-\d\d-\d\dT', block)
