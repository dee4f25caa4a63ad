"""What grading adds to a step where workers keep up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from boxes import needs_layers

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@needs_layers
def test_256_programs_add_at_most_a_tenth_to_a_step():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the trainer and the sandbox's worker want a core each")
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    command = [sys.executable, "tests/overlap.py", "mid"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["added"] <= 0.1
    # Graded one after the other, the programs would take as long as they do alone.
    alone = 256 / found["programs_per_second"]
    assert found["added"] * found["without"] < alone / 2
