"""The package's floors, and what its source may not contain. Read from the source, nothing is imported."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "score_jax"

# Each module imports only what stands above it: no cycles, and no maths that knows of configs or models.
FLOORS = """
gemma  types  records  barriers  exit_codes  rewards.cores  hlo  lengths  topology  timing
slots  hlo_loops  board  tracker  manifest  retention  machine  peers
percent  duration  markdown
program_cost
rewards.sandbox.syscalls  rewards.sandbox.lockdown  rewards.sandbox.wire  rewards.sandbox.job
rewards.sandbox.seccomp  rewards.sandbox.program_side  rewards.sandbox.test_side
rewards.sandbox.layers  rewards.sandbox.canaries
rewards.sandbox.zygote  rewards.sandbox.worker
rewards.sandbox.pool
rewards.sandbox.check
attempts  instructions  places
objectives  kl  losses  packing
metrics  paper_tables  alarms  config_fields
charts  run  estimates  study_file
report  figures  sweep_file  dataset
study_charts  study_tables  sweep_charts
study_page  sweep_page
log  config_check  hosts
transcript
repair  lock  interruption  summary  options
checkpoint
mesh  config
cell  compare  study_cells  sweep_points
clock
claims
findings
task
study_plan
rewards.math_notation
rewards.math_form
rewards.math_answer  rewards.math_expressions  rewards.math_pool
rewards.math_worker  rewards.math_reward
datasets.prepared  datasets.rows
datasets.number_riddles
datasets.published
datasets.maths  datasets.programs
datasets.hendrycks_math  datasets.gsm8k  datasets.jsonl  datasets.mbpp  datasets.human_eval
datasets.mbpp_r
tokenizer  model  chat
layers
policy  learner
decoding
sampling
prompts  highlight
rollout  schedule  origin
step  imitation
diagnosis  traces
pretrain  released  offline  examples  updates
rl  sft
base
train  evaluate
solve  export  measure  programs
study  compiled
sweep  roofline  work  workload
plan  efficiency
plan_text  benchmark
benchmark_text
__main__
"""
FLOOR_OF = {
    f"score_jax.{name}": floor for floor, line in enumerate(FLOORS.split("\n")) for name in line.split()
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {name: path for name, path in SOURCES.items() if path.name != "__init__.py"}


def imports_of(path: Path) -> set[str]:
    """The package's modules that a file imports, anywhere in it (functions and TYPE_CHECKING included)."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively"
            # `from score_jax import kl` names a module, `from score_jax.kl import KLPenalty` what is in one.
            found |= {
                name if (name := f"{node.module}.{alias.name}") in SOURCES else node.module
                for alias in node.names
            }
    return {name for name in found if name.split(".")[0] == "score_jax"}


def test_every_module_has_its_floor():
    assert set(MODULES) == set(FLOOR_OF)


@pytest.mark.parametrize("module", sorted(MODULES.keys() & FLOOR_OF.keys()))
def test_imports_point_upwards_in_the_list(module):
    floor = FLOOR_OF[module]
    wrong = {name for name in imports_of(MODULES[module]) if FLOOR_OF.get(name, floor) >= floor}
    assert not wrong, f"{module} imports {wrong}, which do not stand above it in FLOORS"


def test_packages_import_nothing():
    for name in SOURCES.keys() - MODULES.keys():
        assert not imports_of(SOURCES[name]), name


def test_imports_inside_functions_are_the_commands_alone():
    """`__main__` imports what a command needs, as some of it takes seconds; all others do so at the top."""
    for name, path in MODULES.items():
        functions = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef))
        late = [n for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)]
        assert not late or name == "score_jax.__main__", f"{name}:{late[0].lineno}"


@pytest.mark.parametrize("module", ["score_jax.report", "score_jax.metrics"])
def test_reading_results_needs_no_accelerator_library(module):
    """Reports are made on a laptop from the files of a TPU run."""
    code = f"import sys, {module}; print({{'jax', 'gemma', 'tensorflow'}} & set(sys.modules) or 'none')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "none"


def test_no_module_is_a_drawer():
    assert not [name for name in SOURCES if name.rsplit(".")[-1] in ("util", "utils", "helpers", "common")]


def test_nothing_is_left_to_do():
    texts = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".j2", ".jinja", ".html")]
    assert len(texts) > len(SOURCES)
    assert not [path.name for path in texts if re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text())]


def test_shapes_are_strings():
    """`Float[Array, E]`, from which a linter (UP037) took the quotes of "E", is silently never checked."""
    bare = [
        f"{name}:{node.lineno}"
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("Float", "Int", "Bool", "Key")
        and not isinstance(node.slice.elts[1], ast.Constant)
    ]
    assert not bare
