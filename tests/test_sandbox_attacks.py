"""Attacks on the sandbox (attacks.py), each followed by an honest program on the same worker."""

import os
import sysconfig
import tempfile
import time
from pathlib import Path

import attacks
import pytest
from boxes import ADD, HONEST, job, needs_layers, sessions

from score_jax.rewards.sandbox import lockdown
from score_jax.rewards.sandbox.job import Verdict
from score_jax.rewards.sandbox.pool import Sandbox

ROOT = Path(__file__).resolve().parents[1]
pytestmark = needs_layers

ACCESS, EXHAUSTION, HACKS = map(attacks.programs, (attacks.ACCESS, attacks.EXHAUSTION, attacks.HACKS))
REFUSED = "got = attack()\nassert got == []"
SECRET = f'assert secret() == "{attacks.EXPECTED}"'
# Killed by the kernel on x86_64, where these calls exist.
KILLED = ("calls_of_32_bit", "calls_of_x32")
PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/root", "/home", "/")


@pytest.fixture(scope="module")
def writable():
    """A folder that everyone may write to, under no folder that is closed to anyone."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        given = Path(folder) / "given"
        given.touch(0o666)
        given.chmod(0o666)
        yield folder


@pytest.fixture(scope="module")
def box():
    with Sandbox(workers=1) as box:
        yield box


def run(box: Sandbox, attack) -> Verdict:
    """The verdict of an attack, after which nothing is left of it and an honest program passes."""
    begin = time.monotonic()
    (verdict,) = box.run([attack])
    assert time.monotonic() - begin < attack.timeout_s + 2
    workers = [worker.pid for worker in box._workers]
    assert sessions(workers) == workers
    assert box.run([job()])[0].status == "passed"
    return verdict


def access(name: str, writable: str):
    site = sysconfig.get_path("stdlib") + "/site-packages"
    places = {
        "PROJECT": str(ROOT),
        "WRITABLE": writable,
        "SITE_PACKAGES": [sysconfig.get_path("purelib"), site],
    }
    text = attacks.PRELUDE + "".join(f"{key} = {value!r}\n" for key, value in places.items()) + ACCESS[name]
    return job(text, REFUSED, timeout_s=5.0, entry=("attack",))


def hack(name: str):
    return job(HACKS[name], groups={"sums": ADD, "secret": SECRET}, entry=("add", "secret"), timeout_s=1.0)


def test_the_corpus_is_large():
    assert len(ACCESS) + len(EXHAUSTION) + len(HACKS) >= 80


@pytest.mark.parametrize("name", ACCESS)
def test_access_is_refused(name, box, writable):
    verdict = run(box, access(name, writable))
    # To the end and without a single success, so that nothing broke off before it had tried all.
    assert verdict.status == "passed" or (name in KILLED and verdict.status == "crashed"), verdict
    left = [path for place in (*PLACES, writable) for path in Path(place).glob(f"*{'score_jax_attack'}*")]
    assert left == []
    assert os.listdir(writable) == ["given"]


@pytest.mark.parametrize("name", EXHAUSTION)
def test_exhaustion_ends_in_time(name, box):
    verdict = run(box, job(EXHAUSTION[name], timeout_s=0.3))
    assert verdict.status in ("timeout", "error", "crashed", "failed"), verdict


@pytest.mark.parametrize("name", HACKS)
def test_reward_is_not_hacked(name, box):
    # The same tests have been run by this worker before: nothing of them may be left in its memory.
    right = f"{HONEST}\ndef secret(): return {attacks.EXPECTED!r}"
    honest = job(right, groups={"sums": ADD, "secret": SECRET}, entry=("add", "secret"))
    assert box.run([honest])[0].status == "passed"
    verdict = run(box, hack(name))
    assert verdict.status in ("timeout", "error", "crashed", "failed"), verdict
    assert verdict.groups["secret"] != "passed"


def test_a_call_cannot_end_the_tests_early(box):
    """StopIteration inside `map` would be the end of the cases, and `all` of none is true."""
    tests = "assert all(map(lambda case: add(*case) == 5, [(2, 3), (1, 4)]))"
    for error in ("StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit", "KeyboardInterrupt"):
        assert run(box, job(f"def add(*a): raise {error}", tests)).status == "error"


def test_an_object_of_the_programs_is_neither_equal_nor_true(box):
    program = "class add:\n    def __init__(self, *a): pass\n    def __eq__(self, o): return True"
    for tests in (
        "assert add(1) == 5",
        "assert 5 == add(1)",
        "assert add(1)",
        "assert add(1) in [5]",
        "assert not add(1)",
    ):
        assert run(box, job(program, tests)).status == "error"


def naive(program: str, tests: str) -> bool:
    """What a harness without a boundary says: one namespace, one process, an exit code."""
    names = {}
    try:
        exec(program, names)
        exec(tests, names)
    except SystemExit as end:
        return end.code in (0, None)
    except BaseException:
        return False
    return True


@pytest.mark.parametrize(
    "name",
    ["always_equal", "always_equal_number", "always_equal_text", "mock", "exit_at_the_top", "raise_exit"],
)
def test_these_hacks_are_real(name):
    assert naive(HACKS[name], f"{ADD}\n{SECRET}")


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("landlock", "system_files"),
        ("landlock", "list_folders"),
        ("landlock", "project_files"),
        ("seccomp", "sockets"),
        ("seccomp", "signals_by_descriptor"),
        ("seccomp", "sessions"),
        ("resource limits", "map_bomb"),
        ("resource limits", "descriptor_bomb"),
    ],
)
def test_each_layer_is_what_stops_its_attacks(layer, name, writable):
    """With the layer left off the attack succeeds: the corpus tries what it says."""
    said = []
    with Sandbox(workers=1, mode="unsafe", say=said.append, without=(layer,)) as box:
        (verdict,) = box.run([access(name, writable)])
    assert verdict.status == "failed"
    assert layer in said[0]


def test_installed_packages_cannot_be_read():
    """Also where the interpreter's folder is open to everyone, which it need not be here."""
    stdlib = Path(sysconfig.get_path("stdlib")).resolve()
    contents = [Path(path) for path, contents in lockdown.readable_paths() if contents]
    assert stdlib / "json" in contents
    assert not [
        path for path in contents if path in (stdlib, *stdlib.parents) or path.name == "site-packages"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="root is not here to be left")
def test_root_is_left(writable):
    with Sandbox(workers=1, mode="unsafe", say=lambda _: None, without=("non-root user",)) as box:
        assert box.run([access("gain_rights", writable)])[0].status == "failed"
