"""The launch scripts, run against a stand-in for uv, and the locks they install from."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ["setup", "lock", "test", "quickstart", "seeds"]
LOCKS = [
    "requirements.txt",
    "launch/requirements-tpu.txt",
    "launch/requirements-gpu.txt",
    "launch/requirements-uv.txt",
]
# All that the scripts may count on finding, besides uv or a Python.
TOOLS = (
    "bash cat cksum cut date dirname env flock grep head ls mkdir mv rm sed sha256sum shasum "
    "sleep sort tail uname"
)

# Notes each call, makes real (bare) environments, installs nothing, and fails to
# do so where UV_SAYS gives it something to say.
STUB_UV = """#!/usr/bin/env bash
case "$1 ${2:-}" in
  "--version ") echo 'uv 99.0.0' ;;
  "python find") echo "$REAL_PYTHON" ;;
  venv*)
    echo venv >>"$UV_CALLS"
    "$REAL_PYTHON" -m venv --without-pip "${@: -1}"
    ;;
  "pip sync")
    echo sync "${@: -1}" >>"$UV_CALLS"
    sleep "${UV_SLEEPS:-0}"
    if [ -n "${UV_SAYS:-}" ]; then
      printf '%s\\n' "$UV_SAYS" >&2
      exit 2
    fi
    ;;
esac
"""


class Checkout:
    """A copy of the scripts under a path with a space, with a PATH of its own."""

    def __init__(self, tmp_path: Path):
        self.root = tmp_path / "a checkout"
        self.elsewhere = tmp_path / "else where"
        self.bin = tmp_path / "bin"
        self.calls_file = tmp_path / "calls"
        for folder in (self.root / "launch", self.elsewhere, self.bin):
            folder.mkdir(parents=True)
        for script in (ROOT / "launch").glob("*.sh"):
            shutil.copy(script, self.root / "launch")
        for lock in LOCKS:
            (self.root / lock).write_text(f"# {lock}\n")
        (self.root / ".python-version").write_text("{}.{}\n".format(*sys.version_info))
        for tool in TOOLS.split():
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        self.env = {
            "HOME": str(self.elsewhere),
            "PATH": str(self.bin),
            "REAL_PYTHON": sys._base_executable,
            "UV_CALLS": str(self.calls_file),
        }

    def add_uv(self) -> None:
        (self.bin / "uv").write_text(STUB_UV)
        (self.bin / "uv").chmod(0o755)

    def start(self, script: str, *args: str, **env: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(self.root / "launch" / f"{script}.sh"), *args],
            cwd=self.elsewhere,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *args: str, **env: str) -> subprocess.CompletedProcess:
        with self.start(script, *args, **env) as process:
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def set_up(self, **env: str) -> None:
        done = self.run("setup", **env)
        assert (done.returncode, done.stderr) == (0, "")

    def uv_calls(self) -> list[str]:
        """What uv was asked to do since this was last asked."""
        calls = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return [re.sub(r" .*/", " ", call) for call in calls]

    def add_module(self, path: str, text: str) -> None:
        """Puts a module where `.venv/bin/python -m` finds it first."""
        file = self.root / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


@pytest.fixture
def bare(tmp_path):
    """A checkout on a machine with neither uv nor Python."""
    return Checkout(tmp_path)


@pytest.fixture
def checkout(bare):
    """A checkout on a machine with the stand-in for uv."""
    bare.add_uv()
    return bare


def assert_fails_with_one_line(done, *parts):
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("score_jax: "), done.stderr
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_works_from_anywhere_and_does_nothing_else(bare, script):
    done = bare.run(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: launch/{script}.sh")
    assert not (bare.root / ".uv").exists() and not (bare.root / ".venv").exists()


@pytest.mark.parametrize("script", [*(f"launch/{script}.sh" for script in SCRIPTS), ".ci/run"])
def test_scripts_are_executable(script):
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.parametrize("script", ["setup", "test", "quickstart", "seeds"])
def test_without_uv_and_python_one_line_names_the_mend(bare, script):
    assert_fails_with_one_line(bare.run(script), "install uv, or Python")


def test_a_python_too_old_for_uv_counts_as_none(bare):
    (bare.bin / "python3").write_text("#!/usr/bin/env bash\nexit 1\n")
    (bare.bin / "python3").chmod(0o755)
    assert_fails_with_one_line(bare.run("setup"), "install uv, or Python")


@pytest.mark.parametrize(
    ("uv_says", "mend"),
    [
        ("error: failed to copy file: No space left on device (os error 28)", "free about"),
        ("error: Failed to fetch\n  cause: dns error\n  cause: no address", "check the connection"),
        ("error: Failed to download\n  cause: Hash mismatch for `six==1`", "uv cache clean"),
        ("error: failed to create file: Permission denied (os error 13)", "write access"),
        ("some noise\nerror: the moon is full", "error: the moon is full"),
    ],
)
def test_a_failing_install_ends_in_one_line_that_names_the_mend_and_the_log(checkout, uv_says, mend):
    done = checkout.run("setup", UV_SAYS=uv_says)
    log = checkout.root / ".uv" / "setup.log"
    assert_fails_with_one_line(done, "installing the packages failed", mend, str(log))
    assert uv_says in log.read_text()


def test_offline_by_choice_is_told_as_such(checkout):
    done = checkout.run("setup", UV_OFFLINE="1", UV_SAYS="error: there is no version of six==1")
    assert_fails_with_one_line(done, "unset UV_OFFLINE")


@pytest.mark.parametrize("script", ["test", "quickstart"])
def test_nothing_runs_after_a_failed_set_up(checkout, script):
    done = checkout.run(script, UV_SAYS="error: the moon is full")
    assert_fails_with_one_line(done, "the moon is full")


def test_an_unknown_accelerator_is_refused(checkout):
    done = checkout.run("setup", SCORE_JAX_ACCELERATOR="abacus")
    assert_fails_with_one_line(done, "abacus", "cpu, tpu or gpu")


def test_a_second_set_up_installs_nothing(checkout):
    checkout.set_up()
    assert checkout.uv_calls() == ["venv", "sync requirements.txt"]
    checkout.set_up()
    assert checkout.uv_calls() == []


def test_changed_requirements_are_installed_into_the_same_environment(checkout):
    checkout.set_up()
    checkout.uv_calls()
    (checkout.root / "requirements.txt").write_text("# changed\n")
    checkout.set_up()
    assert checkout.uv_calls() == ["sync requirements.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="accelerators need Linux")
def test_the_accelerator_is_kept_until_another_is_chosen(checkout):
    checkout.set_up()
    checkout.uv_calls()
    checkout.set_up(SCORE_JAX_ACCELERATOR="tpu")
    assert checkout.uv_calls() == ["sync requirements-tpu.txt"]
    checkout.set_up()
    assert checkout.uv_calls() == []
    checkout.set_up(SCORE_JAX_ACCELERATOR="cpu")
    assert checkout.uv_calls() == ["sync requirements.txt"]


def test_an_environment_left_half_made_is_made_anew(checkout):
    checkout.run("setup", UV_SAYS="error: the moon is full")
    half_made = checkout.root / ".venv" / "half made"
    half_made.touch()
    checkout.uv_calls()
    checkout.set_up()
    assert checkout.uv_calls() == ["venv", "sync requirements.txt"]
    assert not half_made.exists()


def test_an_environment_whose_python_is_gone_is_made_anew(checkout):
    checkout.set_up()
    checkout.uv_calls()
    for python in (checkout.root / ".venv" / "bin").glob("python*"):
        python.unlink()
    checkout.set_up()
    assert checkout.uv_calls() == ["venv", "sync requirements.txt"]


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock")
def test_of_two_set_ups_at_once_one_waits_for_the_other(checkout):
    both = [checkout.start("setup", UV_SLEEPS="0.5") for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert [process.returncode for process in both] == [0, 0]
    assert checkout.uv_calls() == ["venv", "sync requirements.txt"]


def test_a_folder_that_cannot_be_locked_is_set_up_all_the_same(checkout):
    (checkout.bin / "flock").unlink(missing_ok=True)
    (checkout.bin / "flock").write_text("#!/usr/bin/env bash\nexit 71\n")
    (checkout.bin / "flock").chmod(0o755)
    done = checkout.run("setup")
    assert done.returncode == 0
    assert "cannot be locked" in done.stdout + done.stderr
    assert checkout.uv_calls() == ["venv", "sync requirements.txt"]


# Notes its arguments, and fails at the step that FAIL_AT names.
STUB_PACKAGE = """
import os, sys
with open("steps", "a") as file:
    print(*sys.argv[1:], sep="|", file=file)
sys.exit(7 if os.environ.get("FAIL_AT") == sys.argv[1] else 0)
"""


def test_quickstart_trains_evaluates_and_reports(checkout):
    checkout.add_module("score_jax/__main__.py", STUB_PACKAGE)
    done = checkout.run("quickstart", "--config.seed=1", "--workdir", "my run", "--config.a=b c")
    assert (done.returncode, done.stderr) == (0, "")
    workdir = checkout.elsewhere / "my run"
    arguments = f"--config=configs/quickstart.py|--config.seed=1|--config.a=b c|--workdir={workdir}"
    assert (checkout.root / "steps").read_text().splitlines() == [
        f"{step}|{arguments}" for step in ("train", "evaluate", "report", "summary")
    ]
    assert done.stdout.splitlines()[-1].endswith(str(workdir / "report.html"))


def test_quickstart_keeps_its_run_in_the_project_by_default(checkout):
    checkout.add_module("score_jax/__main__.py", STUB_PACKAGE)
    done = checkout.run("quickstart")
    assert "--workdir=runs/quickstart\n" in (checkout.root / "steps").read_text()
    report = checkout.root / "runs" / "quickstart" / "report.html"
    assert done.stdout.splitlines()[-1].endswith(str(report))


@pytest.mark.parametrize("given", ["gs://bucket/run", "~/run"])
def test_quickstart_leaves_a_bucket_and_finds_the_home(checkout, given):
    checkout.add_module("score_jax/__main__.py", STUB_PACKAGE)
    done = checkout.run("quickstart", f"--workdir={given}")
    meant = given.replace("~", str(checkout.elsewhere))
    assert f"--workdir={meant}\n" in (checkout.root / "steps").read_text()
    assert done.stdout.splitlines()[-1].endswith(f"{meant}/report.html")


def test_quickstart_stops_at_the_step_that_fails(checkout):
    checkout.add_module("score_jax/__main__.py", STUB_PACKAGE)
    done = checkout.run("quickstart", FAIL_AT="evaluate")
    assert done.returncode == 7
    assert_fails_with_one_line(done, "'evaluate'", "run the same command again")
    steps = (checkout.root / "steps").read_text().splitlines()
    assert [step.split("|")[0] for step in steps] == ["train", "evaluate"]


def test_quickstart_adds_nothing_to_an_error_that_names_its_mend(checkout):
    checkout.add_module("score_jax/__main__.py", STUB_PACKAGE.replace("sys.exit(7", "sys.exit(2"))
    done = checkout.run("quickstart", FAIL_AT="train")
    assert (done.returncode, done.stderr) == (2, "")


def test_seeds_trains_every_method_of_every_seed_and_compares(checkout):
    checkout.add_module("score_jax/__main__.py", STUB_PACKAGE)
    done = checkout.run("seeds", "mine", "3", "4")
    assert (done.returncode, done.stderr) == (0, "")
    *calls, last = (line.split("|") for line in (checkout.root / "steps").read_text().splitlines())
    folder = checkout.elsewhere / "mine"
    assert last == ["compare", f"--workdir={folder}"]
    assert [(call[0], call[2]) for call in calls] == [
        (command, f"--workdir={folder}/{method}/{seed}")
        for seed in (3, 4)
        for method in ("score", "multi_turn", "single_turn")
        for command in ("train", "evaluate")
    ]
    assert all(call[4] == f"--config.base_dir={folder}/base-{call[3][-1]}" for call in calls)


# Says how it was called, and fails where the variable of its name says so.
STUB_TOOL = """
import os, pathlib, sys
name = pathlib.Path(__file__).stem
print(name, *sys.argv[1:])
sys.exit(int(os.environ.get(name.upper(), 0)))
"""


@pytest.mark.parametrize(
    ("env", "status", "last"),
    [
        ({}, 0, "pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder -k some thing"),
        ({"PYTEST": "5"}, 5, "pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder -k some thing"),
        ({"RUFF": "3"}, 3, "ruff check"),
        (
            {"SCORE_JAX_TEST_PROCESSES": "4"},
            0,
            "pytest --numprocesses=4 --dist=loadfile --no-loadscope-reorder -k some thing",
        ),
    ],
)
def test_test_ends_with_pytest_or_with_what_failed_before(checkout, env, status, last):
    for name in ("ruff", "pytest"):
        checkout.add_module(f"{name}.py", STUB_TOOL)
    done = checkout.run("test", "-k", "some thing", **env)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (status, last)


def lock_entries(lock: str) -> dict[str, set[str]]:
    """The names in a lock, each with its versions; fails on what is no pinned, hashed entry."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    entries: dict[str, set[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        match = re.fullmatch(
            r"([a-z0-9.-]+)==([^\s;]+)(?: ;[^\\]*?)?((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", line
        )
        assert match, f"{lock}: neither pinned nor hashed: {line[:200]}"
        entries.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    assert entries
    return entries


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_pin_and_hash_everything_and_name_no_place(lock):
    lock_entries(lock)
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^-", text, flags=re.MULTILINE)
    header = [line for line in text.splitlines()[:3] if line.startswith("#")]
    assert header[-1] == "#    ./launch/lock.sh"


def test_locks_agree_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lock = lock_entries("requirements.txt")
    for text in [*project["dependencies"], *extras["test"], *extras["tpu"], *extras["gpu"]]:
        requirement = Requirement(text)
        versions = lock.get(canonicalize_name(requirement.name))
        assert versions, f"requirements.txt lacks {text}: run launch/lock.sh"
        for version in versions:
            assert version in requirement.specifier, f"{text} is locked at {version}"


@pytest.mark.parametrize(("accelerator", "package"), [("tpu", "libtpu"), ("gpu", "jax-cuda13-plugin")])
def test_accelerator_locks_only_add_to_the_common_one(accelerator, package):
    extra = lock_entries(f"launch/requirements-{accelerator}.txt")
    assert package in extra
    assert not extra.keys() & lock_entries("requirements.txt").keys()


def test_protobuf_is_new_enough_for_sentencepiece():
    (version,) = lock_entries("requirements.txt")["protobuf"]
    assert Version(version) >= Version("7.36")


def test_docs_writes_pages_where_the_caller_says(checkout):
    checkout.add_module("pdoc/__main__.py", STUB_PACKAGE)
    done = checkout.run("docs", "pages")
    assert (done.returncode, done.stderr) == (0, "")
    folder = checkout.elsewhere / "pages"
    assert (
        checkout.root / "steps"
    ).read_text() == f"--docformat|google|--output-directory|{folder}|score_jax\n"
    assert done.stdout.splitlines()[-1].endswith(f"{folder}/index.html")
    refused = checkout.run("docs", "--wat")
    assert refused.returncode == 2 and "unknown argument '--wat'" in refused.stderr
