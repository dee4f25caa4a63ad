"""launch/tpu against a stand-in for the cloud (tests/launch), and what shellcheck says of all scripts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent  # bats and shellcheck come with the requirements
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for path in [
        *ROOT.glob("launch/**/*.sh"),
        *(path for path in ROOT.glob("tests/launch/*") if path.is_file()),
        ROOT / ".ci" / "run",
    ]
)
SOURCED = {"launch/common.sh", "launch/tpu/common.sh", "launch/tpu/provision.sh"}
STAND_INS = {script for script in SCRIPTS if script.startswith("tests/")}
WORKERS_HALF = "launch/tpu/worker.sh"  # called by the others alone


def run(tool: str, *args: str) -> subprocess.CompletedProcess:
    """One of the tools of the environment, in the project's root."""
    return subprocess.run(
        [TOOLS / tool, *args], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_shellcheck_has_nothing_to_say():
    assert len(SCRIPTS) >= 20
    done = run("shellcheck", "--external-sources", "--severity=style", *SCRIPTS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_unless_they_are_sourced(script):
    assert os.access(ROOT / script, os.X_OK) == (script not in SOURCED)


@pytest.mark.parametrize("script", sorted({*SCRIPTS} - SOURCED - {WORKERS_HALF, ".ci/run"} - STAND_INS))
def test_help_ends_with_examples_whose_files_are_there(script):
    said = run(str(ROOT / script), "--help").stdout
    examples = said.partition("\nExamples:\n")[2].partition("\n\n")[0]
    assert script in examples
    assert all((ROOT / path).is_file() for path in re.findall(r"(?:configs|launch)/[\w/]+\.(?:py|sh)", said))
    assert max(map(len, examples.splitlines())) <= 80


@pytest.mark.skipif(sys.platform != "linux", reason="the workers' half needs Linux")
def test_the_scripts_for_tpus_do_what_they_should():
    done = run("bats", "tests/launch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nnot ok" not in done.stdout and done.stdout.count("\nok ") >= 50, done.stdout


def test_the_templates_for_gke_belong_together_and_say_that_they_are_untested():
    folder = ROOT / "launch" / "gke"
    blueprint, job = (yaml.safe_load((folder / name).read_text()) for name in ("blueprint.yaml", "job.yaml"))
    (replicated,) = job["spec"]["replicatedJobs"]
    slice_of_workers = replicated["template"]["spec"]
    pod = slice_of_workers["template"]["spec"]
    (container,) = pod["containers"]
    x, y = map(int, blueprint["vars"]["tpu_topology"].split("x"))
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == blueprint["vars"]["tpu_topology"]
    assert blueprint["vars"]["machine_type"].endswith(f"-{chips}t")
    assert slice_of_workers["parallelism"] == slice_of_workers["completions"] == x * y // chips
    assert "--hosts=auto" in container["args"]  # without it each worker would take itself for the only one
    names = {module["id"] for group in blueprint["deployment_groups"] for module in group["modules"]}
    used = {
        name
        for group in blueprint["deployment_groups"]
        for module in group["modules"]
        for name in module.get("use", [])
    }
    assert used <= names
    for path in folder.iterdir():
        assert "UNTESTED" in path.read_text()
