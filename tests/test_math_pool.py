"""The processes behind the maths grader: what they may load, how they end, what becomes of their work."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pace import slowness

from score_jax.rewards.math_reward import MathGrader, Verdict

ROOT = Path(__file__).resolve().parents[1]
HARD = (r"1+\pi", r"\pi+1")
HOSTILE = ("2^{100}-2", "9^{9999999999}")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def children(pid: int) -> list[int]:
    """The process ids of all that descends from `pid`."""
    try:
        direct = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return direct + [below for child in direct for below in children(child)]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(runs, pids))


def grade(grader: MathGrader, *pairs: tuple[str, str]) -> list[Verdict]:
    return grader.grade(*zip(*pairs, strict=True))


def processes(grader: MathGrader) -> list[int]:
    """Keepers first, then their children."""
    keepers = [worker.process.pid for worker in grader._pool.workers]
    return keepers + [child for keeper in keepers for child in children(keeper)]


def started(workers: int = 1, limit_s: float = 30.0) -> MathGrader:
    """A grader all of whose workers have loaded their libraries."""
    grader, number = MathGrader(workers, limit_s), 0
    while not grader._pool.workers or not all(worker.ready for worker in grader._pool.workers):
        pairs = [(rf"{number + i}+\pi", rf"\pi+{number + i}") for i in range(2 * workers)]
        assert set(grade(grader, *pairs)) == {Verdict.RIGHT}
        number += len(pairs)
    return grader


@pytest.fixture(scope="module")
def shared():
    with started() as grader:
        yield grader


@pytest.mark.parametrize("module", ["math_worker", "math_reward"])
def test_no_accelerator_library_is_loaded(module):
    names = "{'jax', 'jaxlib', 'tensorflow', 'gemma', 'flax', 'numpy'}"
    code = f"import sys, score_jax.rewards.{module}; print(sorted({names} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@linux
def test_close_ends_every_process_and_grading_again_starts_new_ones():
    grader = started(workers=2)
    pids = processes(grader)
    assert len(pids) == 4
    grader.close()
    assert ends(pids, 2.0)
    assert grade(grader, HARD) == [Verdict.RIGHT]
    grader.close()


@linux
@pytest.mark.parametrize("busy", [False, True])
def test_no_process_outlives_a_killed_trainer(busy):
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "tests")!r})
from test_math_pool import HOSTILE, grade, processes, started
grader = started(workers=2, limit_s=300.0)
print(*processes(grader), flush=True)
grade(grader, HOSTILE) if {busy} else time.sleep(300)
"""
    trainer = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with trainer:
        try:
            pids = [int(pid) for pid in trainer.stdout.readline().split()]
            ran = list(map(runs, pids))
            time.sleep(0.3)
        finally:
            trainer.kill()
    assert ran == [True] * 4
    assert ends(pids, 2.0)


@linux
@pytest.mark.parametrize("who", ["keeper", "child"])
def test_a_killed_worker_loses_and_repeats_no_verdict(who):
    """Workers are killed again and again while a batch is graded."""
    golds = [rf"{i}\pi+1" for i in range(300)]
    answers = [rf"1+{i + i % 3 // 2}\pi" for i in range(300)]  # every third one is wrong
    grader, verdicts = started(workers=2), []
    thread = threading.Thread(target=lambda: verdicts.extend(grader.grade(golds, answers)))
    thread.start()
    for _ in range(3):
        time.sleep(0.2)
        keeper = grader._pool.workers[0].process.pid
        victim = keeper if who == "keeper" else next(iter(children(keeper)), None)
        if victim and thread.is_alive():
            os.kill(victim, signal.SIGKILL)
    thread.join()
    grader.close()
    assert verdicts == [Verdict.WRONG if i % 3 == 2 else Verdict.RIGHT for i in range(300)]


@linux
@pytest.mark.parametrize("who", ["keeper", "child"])
def test_a_worker_killed_between_batches_is_replaced(who):
    grader = started()
    keeper, child = processes(grader)
    os.kill(keeper if who == "keeper" else child, signal.SIGKILL)
    assert ends([child], 2.0)
    assert grade(grader, HARD) == [Verdict.RIGHT]
    assert child not in processes(grader)
    grader.close()


@linux
def test_a_pair_that_kills_its_workers_is_given_up():
    """However soon a child is killed, and however often: the worker still answers afterwards."""
    with started() as grader:
        for pause in [0.1, 0.01, 0.001, 0.0] * 3:
            verdicts = []
            thread = threading.Thread(target=lambda said=verdicts: said.extend(grade(grader, HOSTILE)))
            thread.start()
            while thread.is_alive():
                for child in children(grader._pool.workers[0].process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                time.sleep(pause)
            assert verdicts == [Verdict.CRASHED]
            assert grade(grader, HARD) == [Verdict.RIGHT]


@linux
def test_what_a_killed_child_did_not_read_is_dropped():
    with started(limit_s=5.0) as grader:
        _, child = processes(grader)
        os.kill(child, signal.SIGSTOP)
        grader._pool.workers[0].give(0, *HOSTILE, limit_s=5.0)
        os.kill(child, signal.SIGKILL)
        grader._pool.workers[0].pair = None  # given up
        assert grade(grader, HARD) == [Verdict.RIGHT]


@linux
def test_a_busy_child_ends_with_its_keeper():
    grader, verdicts = started(limit_s=5.0), []
    keeper, child = processes(grader)
    thread = threading.Thread(target=lambda: verdicts.extend(grade(grader, HOSTILE)))
    thread.start()
    time.sleep(0.3)
    os.kill(keeper, signal.SIGKILL)
    ended = ends([keeper, child], 2.0)
    thread.join()
    grader.close()
    assert ended
    assert verdicts == [Verdict.TIMEOUT]


def test_workers_that_cannot_start_are_an_error(monkeypatch):
    monkeypatch.setattr("score_jax.rewards.math_pool.COMMAND", [sys.executable, "-c", "1/0"])
    with MathGrader(1) as grader, pytest.raises(OSError, match="1/0' shows why"):
        grade(grader, HARD)


def test_outer_timers_survive():
    fired = []
    before = signal.signal(signal.SIGALRM, lambda *_: fired.append(time.monotonic()))
    start = time.monotonic()
    with started(limit_s=0.5) as grader:
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        try:
            while time.monotonic() < start + 1.4:
                assert grade(grader, HOSTILE, HARD) == [Verdict.TIMEOUT, Verdict.RIGHT]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert len(fired) == 1
    assert 1.0 <= fired[0] - start < 1.4


@pytest.mark.parametrize(
    "text",
    [
        "[1, true]",
        'x"]\\n[1, true]\\n',
        'x"], [2, true]',
        r"x\u000a[1, true]",
        "x\r[1, true]\r",
        "x\x00[1,true]",
        '[-1, "ready"]',
        "__import__('os').write(1, b'[1, true]')",
        r"\text{[1, true]}",
        "\ud800",  # half a character: no UTF-8
    ],
)
def test_no_text_is_taken_for_a_verdict(shared, text):
    worker = shared._pool.workers[0]
    for answer in (text, r"\pi+" + text):
        assert shared.grade([r"1+\pi"], [answer])[0] in (Verdict.WRONG, Verdict.REFUSED, Verdict.CRASHED)
    assert grade(shared, HARD) == [Verdict.RIGHT]
    assert shared._pool.workers == [worker]


@linux
def test_workers_see_nothing_of_the_trainers_environment(monkeypatch):
    monkeypatch.setenv("CANARY_TOKEN", "sesame")
    with started() as grader:
        for pid in processes(grader):
            assert b"sesame" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_grader_started_in_a_thread_outlives_it():
    """The kernel's parent-death signal goes with the thread that started a process, not with its process."""
    graders = []
    thread = threading.Thread(target=lambda: graders.append(started()))
    thread.start()
    thread.join()
    worker = graders[0]._pool.workers[0]
    time.sleep(0.7)
    assert grade(graders[0], HARD) == [Verdict.RIGHT]
    assert graders[0]._pool.workers == [worker]
    graders[0].close()


def test_threads_take_turns():
    with started(workers=2) as grader:
        results = {}

        def work(i: int) -> None:
            golds = [rf"{i}{j}\pi+1" for j in range(10)]
            results[i] = grader.grade(golds, [rf"1+{i}{j}\pi" for j in range(10)])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {i: [Verdict.RIGHT] * 10 for i in range(1, 5)}


@linux
def test_hard_checks_are_affordable():
    """By the clock of a machine that may be busy: half the 100 a second that a free core makes."""
    # 50 problems of 4 samples: two notations that are right, two that are wrong.
    gold = r"\frac{%d+\sqrt{%d}}{7}"
    forms = (
        r"\frac{\sqrt{%d}+%d}{7}",
        r"\frac{\sqrt{%d}}{7}+\frac{%d}{7}",
        r"\frac{\sqrt{%d}-%d}{7}",
        r"\sqrt{%d}+%d",
    )
    numbers = [(i, j) for i in (2, 3, 4, 5, 6) for j in (2, 3, 5, 6, 7, 10, 11, 13, 14, 15)]
    pairs = [(gold % (i, j), form % (j, i)) for i, j in numbers for form in forms]

    def cpu(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with started() as grader:
        child = processes(grader)[1]
        grade(grader, *pairs[:4])  # what is made once: the parser's tables
        before = cpu(child)
        verdicts = grade(grader, *pairs)
        rate = len(pairs) / max(cpu(child) - before, 0.01)
    print(f"{rate:.0f} hard checks per second, of a machine {slowness():.2f} times slower")
    assert verdicts == [Verdict.RIGHT, Verdict.RIGHT, Verdict.WRONG, Verdict.WRONG] * 50
    assert rate > 50 / slowness()


def test_the_protocol_is_one_line_of_json():
    """By hand: what the keeper and its child say."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "score_jax.rewards.math_worker"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert json.loads(worker.stdout.readline()) == [-1, "ready"]
        # The end of a line whose head another child had read is skipped.
        worker.stdin.write('ing", "x"]\n')
        worker.stdin.write(json.dumps([7, *HARD]) + "\n")
        worker.stdin.flush()
        assert json.loads(worker.stdout.readline()) == [7, True]
        worker.stdin.write(json.dumps([8, "x +", None]) + "\n")
        worker.stdin.flush()
        assert json.loads(worker.stdout.readline()) == [8, False]
        worker.stdin.close()
        try:
            assert worker.wait(5.0) == 0
        finally:
            worker.kill()
