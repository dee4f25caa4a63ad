"""The sandbox as a reward uses it: verdicts, what crosses, workers that die, machines that lack a layer."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from boxes import ADD, HONEST, job, needs_layers, sessions
from pace import slowness

import score_jax.rewards.sandbox.worker as worker_module
from score_jax.rewards.sandbox import canaries
from score_jax.rewards.sandbox.check import sandbox_check
from score_jax.rewards.sandbox.job import Job, SandboxError, entry_names
from score_jax.rewards.sandbox.layers import NAMES
from score_jax.rewards.sandbox.pool import REQUIRED, Sandbox

ROOT = Path(__file__).resolve().parents[1]
pytestmark = needs_layers


@pytest.fixture(scope="module")
def box():
    with Sandbox(workers=1) as box:
        yield box


def status(box, *args, **fields):
    return box.run([job(*args, **fields)])[0].status


# Verdicts.


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (HONEST, "passed"),
        ("def add(a, b): return a - b", "failed"),
        ("def add(a, b): return a / 0", "error"),
        ("def add(a, b): assert False", "error"),
        ("def plus(a, b): return a + b", "error"),
        ("def add(a, b) return a + b", "error"),
        ("1 / 0", "error"),
        ("def add(a, b):\n    while True: pass", "timeout"),
        ("import os\ndef add(a, b): os._exit(0)", "crashed"),
        ("import ctypes\nctypes.string_at(0)", "crashed"),
    ],
)
def test_verdicts(box, program, expected):
    (verdict,) = box.run([job(program, timeout_s=0.5 if expected == "timeout" else 10.0)])
    assert verdict.status == expected
    assert verdict.groups == {"tests": expected}
    assert 0 < verdict.seconds < 2.5


def test_groups_have_a_verdict_each(box):
    groups = {"shown": "assert add(2, 3) == 5", "hidden": "assert add(1, 1) == 2", "more": "add(None, 1)"}
    (verdict,) = box.run([job("def add(a, b): return a and 5", groups=groups)])
    assert verdict.groups == {"shown": "passed", "hidden": "failed", "more": "passed"}
    assert verdict.status == "failed"


def test_a_group_that_hangs_leaves_the_verdict_of_the_one_before(box):
    program = "def add(a, b):\n    while a == 1: pass\n    return 5"
    groups = {"shown": "assert add(2, 3) == 5", "hidden": "add(1, 1)", "last": "assert add(2, 3) == 5"}
    (verdict,) = box.run([job(program, groups=groups, timeout_s=1.0)])
    assert verdict.groups == {"shown": "passed", "hidden": "timeout", "last": "timeout"}
    assert verdict.status == "timeout"


def test_a_group_cannot_see_another_groups_names(box):
    groups = {"shown": "x = 1\nassert add(2, 3) == 5", "hidden": "assert add(x, 3) == 4"}
    (verdict,) = box.run([job(groups=groups)])
    assert verdict.groups == {"shown": "passed", "hidden": "harness_error"}


def test_set_up_and_check(box):
    """A helper of the set-up stays the tests' own, even if the program has one of the same name."""
    setup = "def half(x): return x / 2\ndef add(a, b):\n    pass\n"
    tests = "def check(candidate):\n    assert half(candidate(2, 4)) == 3"
    fields = {"setup": setup, "check": "check(add)"}
    assert status(box, HONEST, tests, **fields) == "passed"
    assert status(box, "def half(x): return 3\ndef add(a, b): return 0", tests, **fields) == "failed"
    assert status(box, HONEST, tests, setup=setup, check="check(candidate)") == "passed"


def test_programs_that_look_themselves_up(box):
    program = """
from __future__ import annotations
import dataclasses, pickle
@dataclasses.dataclass
class Pair:
    a: int
def add(a, b):
    return pickle.loads(pickle.dumps(Pair(a))).a + b
if __name__ == "__main__":
    input()
"""
    assert status(box, program) == "passed"


@pytest.mark.parametrize(
    ("tests", "detail"),
    [
        ("assert add(2, 3 == 5", "SyntaxError in the tests' text"),
        ("assert undefined == 5", "NameError in the tests before they called the program"),
        ("assert True", "the tests never called the program"),
        ("def check(candidate): assert candidate(2, 3) == 5", "the tests never called the program"),
    ],
)
def test_faults_of_the_tests_are_no_verdict_on_the_program(box, tests, detail):
    (verdict,) = box.run([job(tests=tests)])
    assert verdict.status == "harness_error"
    assert verdict.detail == f"tests: {detail}"


def test_many_faults_stop_the_run(box):
    broken = job(tests="assert True")
    assert [v.status for v in box.run([broken, *[job()] * 3])].count("harness_error") == 1
    with pytest.raises(
        SandboxError, match=r"2 of 4 programs ended as harness_error.*never called.*mend the tests"
    ):
        box.run([broken, broken, job(), job()])


# What crosses between the program and its tests.


@pytest.mark.parametrize(
    "value",
    [
        "None", "True", "0", "-1", "2**53", "-10**300", "1.5", "float('inf')", "-0.0", "1 + 2j",
        "'ü\\x00\\ud800'", "b'\\x00'", "bytearray(b'a')", "[1, [2, (3,)]]", "(1, 'a')", "{1: {2: [3]}}",
        "{(1, 2): None}", "{1, 2}", "frozenset({1})", "range(3, 9, 2)", "int", "[str, float, type(None)]",
        "[[]] * 3", "__import__('collections').deque([1, 2])", "__import__('array').array('i', [1, 2])",
    ],
)  # fmt: skip
def test_plain_values_cross_unchanged(box, value):
    tests = (
        f"value = {value}\nback = same(value)\nassert type(back) is type(value) and repr(back) == repr(value)"
    )
    assert status(box, "def same(value): return value", tests, entry=("same",)) == "passed"


def test_iterators_stay_iterators(box):
    program = "def squares(n): return (i * i for i in range(n))"
    assert status(box, program, "assert list(squares(3)) == [0, 1, 4]", entry=("squares",)) == "passed"
    assert status(box, program, "assert squares(3) == [0, 1, 4]", entry=("squares",)) == "failed"


@pytest.mark.parametrize(
    "value", ["object()", "lambda: 5", "__import__('math')", "print", "Exception()", "type('X', (), {})"]
)
def test_other_values_do_not_cross(box, value):
    assert status(box, f"def add(a, b): return {value}") == "error"


def test_exceptions_cross_by_the_name_of_their_built_in_class(box):
    program = "class Mine(KeyError): pass\ndef add(a, b): raise Mine"
    tests = "try:\n    add(1, 2)\nexcept LookupError:\n    pass\nelse:\n    assert False"
    assert status(box, program, tests) == "passed"


def test_arguments_are_copies(box):
    """A program cannot reach into the tests' own values: what it does to its arguments stays with it."""
    tests = "value = [3]\nassert grow(value) == [3, 4]\nassert value == [3]"
    assert status(box, "def grow(a):\n    a.append(4)\n    return a", tests, entry=("grow",)) == "passed"


def test_objects_that_the_tests_make(box):
    program = "class Node:\n    def __init__(self, x): self.x, self.next = x, None\n"
    program += "def total(node): return node.x + (total(node.next) if node.next else 0)"
    tests = "root = Node(1)\nroot.next = Node(2)\nroot.next.next = Node(4)\n"
    tests += "assert total(root) == 7\nassert root.next.x == 2"
    assert status(box, program, tests, entry=("Node", "total")) == "passed"


# Workers.


def test_verdicts_come_in_the_order_of_the_jobs():
    programs = [HONEST if i % 3 else "def add(a, b): return 0" for i in range(30)]
    with Sandbox(workers=2) as box:
        assert [v.status == "passed" for v in box.run([job(p) for p in programs])] == [
            p == HONEST for p in programs
        ]
        assert box.run([]) == []


def test_a_hanging_program_occupies_its_own_worker_alone():
    hanging = job("import time\ndef add(a, b): time.sleep(100)", timeout_s=4.0)
    with Sandbox(workers=3) as box:
        begin = time.monotonic()
        verdicts = box.run([hanging, hanging, *[job()] * 20])
        # Two after each other would take 8 s.
        assert time.monotonic() - begin < 7.9
    assert [v.status for v in verdicts] == ["timeout"] * 2 + ["passed"] * 20


def test_a_killed_worker_loses_and_repeats_no_verdict():
    programs = [HONEST if i % 2 else "def add(a, b): return 0" for i in range(60)]
    programs = [f"import time\ntime.sleep(0.02)\n{p}" for p in programs]
    with Sandbox(workers=2) as box:
        killed, stop = [], threading.Event()

        def killer():
            while not stop.wait(0.3) and len(killed) < 3:
                pid = box._workers[len(killed) % 2].pid
                with contextlib.suppress(ProcessLookupError):  # it is being replaced
                    os.kill(pid, signal.SIGKILL)
                killed.append(pid)

        thread = threading.Thread(target=killer)
        thread.start()
        verdicts = box.run([job(p) for p in programs])
        stop.set()
        thread.join()
        assert killed
        assert sessions(killed) == []
    assert [v.status for v in verdicts] == ["failed", "passed"] * 30


def test_a_worker_that_does_not_answer_is_replaced():
    with Sandbox(workers=1) as box:
        stopped = box._workers[0].pid
        os.kill(stopped, signal.SIGSTOP)
        begin = time.monotonic()
        first, second = box.run([job(timeout_s=0.3), job()])
        assert time.monotonic() - begin < 0.3 + 2 + 5  # the timeout, what is allowed over it, a new worker
        assert (first.status, second.status) == ("harness_error", "passed")
        assert sessions([stopped]) == []


def test_a_worker_that_fails_without_a_word_is_told_by_the_errors_name():
    class Mute:
        def settimeout(self, seconds):
            pass

        def recv(self, size):
            raise OSError

        def close(self):
            pass

    worker = worker_module.Worker()
    worker._socket.close()
    worker._socket = Mute()
    with pytest.raises(SandboxError, match=r"did not start: OSError\(\)"):
        worker.wait_until_ready()


def test_closing_leaves_nothing():
    with Sandbox(workers=2) as box:
        pids = [worker.pid for worker in box._workers]
        assert len(sessions(pids)) == 2
    assert sessions(pids) == []
    with pytest.raises(SandboxError, match="closed"):
        box.run([job()])


TRAINER = """
import sys
sys.path.insert(0, {root!r})
from score_jax.rewards.sandbox.layers import NAMES
from score_jax.rewards.sandbox.pool import Sandbox
from score_jax.rewards.sandbox.job import Job
box = Sandbox(workers=2, mode={mode!r}, without={without!r}, say=lambda text: None)
print(*[worker.pid for worker in box._workers], flush=True)
loop = Job(program="while True: pass", groups={{"a": "add()"}}, entry=("add",), timeout_s=60)
box.run([loop] * 4)
"""


@pytest.mark.parametrize("without", [(), ("parent-death signal",)])
def test_killing_the_trainer_leaves_nothing(without):
    """And without the parent-death signal it does leave something."""
    code = TRAINER.format(root=str(ROOT), mode="unsafe" if without else "strict", without=without)
    trainer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in trainer.stdout.readline().split()]
    try:
        deadline = time.monotonic() + 10
        while len(sessions(pids)) < 6:  # each worker, its program, its tests
            assert time.monotonic() < deadline
            time.sleep(0.02)
        trainer.kill()
        trainer.wait()
        if without:
            time.sleep(0.3)
            assert len(sessions(pids)) > 0
        else:
            deadline = time.monotonic() + 2
            while sessions(pids) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert sessions(pids) == []
    finally:
        trainer.kill()
        trainer.stdout.close()
        trainer.wait()
        for pid in sessions(pids):
            os.kill(pid, signal.SIGKILL)


SEARCH = """
import ctypes, os, re
libc = ctypes.CDLL(None, use_errno=True)
libc.sbrk.restype = ctypes.c_void_p
MARK = re.compile(rb"canary-[0-9a-f]{12}")
def mapped(page):
    ctypes.set_errno(0)
    libc.access(ctypes.c_void_p(page), 0)
    return ctypes.get_errno() != 14
def search():
    texts = [repr(dict(os.environ)).encode()]
    for pid in ("self", os.getppid(), 1, TRAINER):
        for name in ("environ", "cmdline"):
            try:
                texts.append(open(f"/proc/{pid}/{name}", "rb").read())
            except OSError:
                pass
    stack = ctypes.addressof(ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ").contents) & ~4095
    heap, here = libc.sbrk(ctypes.c_long(0)) & ~4095, id(texts) & ~4095
    spans = (heap - (16 << 20), heap), (here - (16 << 20), here + (4 << 20)), (stack, stack + (1 << 16))
    for start, stop in spans:
        texts += [ctypes.string_at(page, 4096) for page in range(start, stop, 4096) if mapped(page)]
    return [match.decode() for text in texts for match in MARK.findall(text)]
"""


def test_the_trainers_environment_is_in_no_sandbox(monkeypatch):
    monkeypatch.setenv("SCORE_JAX_TOKEN", "canary-0123456789ab")
    program = SEARCH.replace("TRAINER", str(os.getpid()))
    with Sandbox(workers=1) as box:
        assert status(box, program, "assert search() == []", entry=("search",)) == "passed"
        # The search would find one that is there.
        there = "token = 'canary-' + 'abcdefabcdef'[:12] * 1\n" + program.replace(
            "texts = [", "texts = [token.encode(), "
        )
        assert status(box, there, "assert search() == []", entry=("search",)) == "failed"
        if os.access(f"/proc/{box._workers[0].pid}/environ", os.R_OK):
            assert Path(f"/proc/{box._workers[0].pid}/environ").read_bytes() == b""


def test_a_program_costs_little():
    """By the clock of a machine that may be busy: half the 100 programs a second of a free core."""
    with Sandbox(workers=1) as box:
        box.run([job()] * 5)
        rates = []
        for _ in range(5):
            begin = time.monotonic()
            verdicts = box.run([job(timeout_s=20.0)] * 50)
            rates.append(len(verdicts) / (time.monotonic() - begin))
            assert {v.status for v in verdicts} == {"passed"}
        assert max(rates) > 50 / slowness(), rates


# Machines on which it must not start.

# Refuses one system call, as a container's own filter does; struct sock_filter by hand.
WITHOUT = {
    "landlock": [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50026), (0x06, 0, 0, 0x7FFF0000)],
    "seccomp": [
        *[(0x20, 0, 0, 0), (0x15, 1, 0, 157), (0x15, 0, 3, 167)],  # prctl of x86_64, of aarch64
        *[(0x20, 0, 0, 16), (0x15, 0, 1, 22), (0x06, 0, 0, 0x50016), (0x06, 0, 0, 0x7FFF0000)],
    ],
}
MACHINE = """
import struct, sys
sys.path.insert(0, {root!r})
from score_jax.rewards.sandbox import lockdown, seccomp
lockdown.no_new_privs()
seccomp.install(b"".join(struct.pack("=HBBI", *line) for line in {lines!r}))
"""


def on_a_machine_without(layer: str, code: str) -> subprocess.CompletedProcess:
    machine = MACHINE.format(root=str(ROOT), lines=WITHOUT[layer])
    return subprocess.run([sys.executable, "-c", machine + code], capture_output=True, text=True, timeout=60)


def test_every_layer_is_required_and_has_a_mend(box):
    assert set(REQUIRED) == set(NAMES)
    assert [layer.name for layer in box.layers() if layer.required and layer.holds] == list(REQUIRED)


@pytest.mark.parametrize("layer", WITHOUT)
def test_a_missing_layer_is_named_with_its_mend(layer):
    code = "from score_jax.__main__ import main; sys.exit(main(['sandbox-check']))"
    done = on_a_machine_without(layer, code)
    assert done.returncode == 1, done
    assert re.search(rf"MISSING +{layer}", done.stdout)
    assert f"{layer} does not hold" in done.stdout
    assert REQUIRED[layer] in done.stdout
    held = set(REQUIRED) - {layer}
    assert {name for name in held if re.search(rf"holds +{name}", done.stdout)} == held


def test_unsafe_runs_without_and_says_so_at_every_batch():
    code = f"""
from score_jax.rewards.sandbox.layers import NAMES
from score_jax.rewards.sandbox.pool import Sandbox
from score_jax.rewards.sandbox.job import Job
job = Job(program={HONEST!r}, groups={{"a": {ADD!r}}}, entry=("add",), timeout_s=5)
with Sandbox(workers=1, mode="unsafe", say=print) as box:
    for _ in range(2):
        print(box.run([job])[0].status)
"""
    done = on_a_machine_without("landlock", code)
    line = "sandbox = 'unsafe': 1 programs that a model wrote run without landlock"
    assert done.stdout.splitlines() == [line, "passed"] * 2


@pytest.mark.parametrize(("layer", "attack"), [("landlock", "read files"), ("seccomp", "open sockets")])
def test_the_checks_attacks_succeed_without_the_layer(layer, attack):
    code = "from score_jax.rewards.sandbox.check import sandbox_check; sandbox_check(print, mode='unsafe')"
    done = on_a_machine_without(layer, code)
    assert re.search(rf"LEAK +{attack}", done.stdout), done
    assert "DOES NOT HOLD" in done.stdout


def test_another_system_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxError, match=r"^the sandbox needs Linux, this is darwin: .*=unsafe[^\n]*$"):
        Sandbox(workers=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "loose"}, "sandbox = 'loose': choose 'strict' or 'unsafe'"),
        ({"workers": 0}, "sandbox workers = 0: choose at least 1"),
        ({"without": ("seccomp",)}, "layers are left off in mode 'unsafe' alone"),
    ],
)
def test_wrong_options(fields, message):
    with pytest.raises(ValueError, match=message):
        Sandbox(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": {}}, "Job.groups is empty"),
        ({"entry": ()}, r"Job.entry = \(\)"),
        ({"timeout_s": 0.0}, "Job.timeout_s = 0.0: give seconds above 0"),
    ],
)
def test_wrong_jobs(fields, message):
    with pytest.raises(ValueError, match=message):
        job(**fields)


def bubblewrap(folder: Path, script: str, monkeypatch) -> None:
    (folder / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    # An interpreter under /root cannot be started by nobody; the worker leaves root itself all the same.
    monkeypatch.setattr(worker_module, "NOBODY", os.geteuid())


def test_bubblewrap_is_used_where_it_works(tmp_path, monkeypatch):
    bubblewrap(
        tmp_path,
        f'echo "$@" > {tmp_path}/said; while [ "$1" != "--" ]; do shift; done; shift; exec "$@"',
        monkeypatch,
    )
    with Sandbox(workers=1) as box:
        assert [layer.note for layer in box.layers() if layer.name == "bubblewrap"] == [f"{tmp_path}/bwrap"]
        assert box.run([job()])[0].status == "passed"
    assert "--unshare-all --die-with-parent" in (tmp_path / "said").read_text()


def test_bubblewrap_is_done_without_where_it_does_not_work(tmp_path, monkeypatch):
    bubblewrap(tmp_path, "echo No permissions to create new namespace >&2; exit 1", monkeypatch)
    with Sandbox(workers=1) as box:
        layer = box.layers()[-1]
        assert (layer.name, layer.holds, layer.required) == ("bubblewrap", False, False)
        assert "No permissions to create new namespace" in layer.note
        assert box.run([job()])[0].status == "passed"


# The check.


def test_the_check_holds_here():
    said = []
    assert sandbox_check(said.append)
    text = "\n".join(said)
    assert all(re.search(rf"holds +{name}", text) for name in REQUIRED)
    assert f"{len(canaries.CANARIES)} of {len(canaries.CANARIES)} attacks failed" in text


def test_the_check_notices_a_leak(monkeypatch):
    """A canary that gets what it wants, and one that breaks what comes after it, both count."""
    leak = canaries.Canary("leak", "def attack(): return ['something']", frozenset({"passed"}))
    hack = canaries.Canary("hack", "def add(a, b): return a + b", frozenset({"passed"}) - {"passed"})
    monkeypatch.setattr("score_jax.rewards.sandbox.check.CANARIES", (leak, hack))
    said = []
    assert not sandbox_check(said.append)
    assert "0 of 2 attacks failed" in said[-1] and "DOES NOT HOLD" in said[-1]


def test_the_command_needs_no_accelerator_library():
    code = "import sys; from score_jax.__main__ import main; code = main(['sandbox-check']); "
    code += "print({'jax', 'numpy', 'gemma', 'tensorflow'} & set(sys.modules) or 'none', code)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "none 0"


# Which names a benchmark tests.


def test_entry_names():
    solution = "R = 3\nclass Pair: pass\ndef helper(x): pass\ndef chain(x): pass\ndouble = lambda x: 2 * x\n"
    assert entry_names(solution, "assert chain([Pair(1, 2)]) == 3") == ("Pair", "chain")
    assert entry_names(solution, "assert double(R) == 6") == ("double",)
    assert entry_names("def sum(a, b): pass", "assert sum(1, 2) == 3") == ("sum",)
    with pytest.raises(
        ValueError, match=r"the tests use \['chian'\], of which the reference solution defines nothing"
    ):
        entry_names(solution, "assert chian(len([])) == 3")


def test_a_job_is_given_by_keyword():
    with pytest.raises(TypeError):
        Job(HONEST, {"tests": ADD}, ("add",), "", "", 1.0)
