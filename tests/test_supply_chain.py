"""What the source may not contain, and what must stand in the locks; nothing of it is imported."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
# A checkout without git (an archive) is searched as it lies.
FILES = [ROOT / name for name in TRACKED] or [
    path
    for folder in ("score_jax", "configs", "launch", "tests", "notebooks")
    for path in (ROOT / folder).rglob("*")
]
FILES = [path for path in FILES if path.is_file()]
SHIPPED = [path for path in FILES if path.suffix == ".py" and ROOT / "tests" not in path.parents]
LOCKS = [path for path in FILES if re.fullmatch(r"requirements.*\.txt", path.name)]

LOADERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "torch"}
# Where a program that a model wrote is run: inside the sandbox, after every layer is on.
RUNS_PROGRAMS = {"score_jax/rewards/sandbox/program_side.py", "score_jax/rewards/sandbox/test_side.py"}
EVALUATE = {"eval", "exec", "compile", "sympify", "parse_expr", "literal_eval"}
SECRETS = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{36}\b",
    r"\bhf_[A-Za-z]{34}\b",
    r"\bsk-[A-Za-z0-9_-]{32,}\b",
    r"\bxox[abpr]-[A-Za-z0-9-]{10,}",
    r"\bAIza[0-9A-Za-z_-]{35}\b",
    r"\"private_key\"\s*:",
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def faults(source: str, name: str = "x.py") -> list[str]:
    """What of a Python source can turn data into code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = {module.split(".")[0]} | {alias.name.split(".")[0] for alias in node.names}
            found += [f"{name}:{node.lineno} imports {bad}" for bad in names & LOADERS]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {word.arg: ast.unparse(word.value) for word in node.keywords}
        wrong = (
            (called.rpartition(".")[2] in EVALUATE and not called.startswith("re.")
             and not called.endswith(".compile") and name not in RUNS_PROGRAMS)
            or (called in ("np.load", "numpy.load") and options.get("allow_pickle") != "False")
            or options.get("allow_pickle") == "True"
            or (called.startswith("yaml.") and called.rpartition(".")[2] not in ("safe_load", "safe_dump"))
            or options.get("shell") == "True"
            or called in ("os.system", "os.popen")
        )  # fmt: skip
        found += [f"{name}:{node.lineno} calls {called}"] if wrong else []
    return found


def secrets_in(content: bytes) -> list[str]:
    """What looks like a credential."""
    text = content.decode(errors="replace")
    return [found[0] for pattern in SECRETS if (found := re.search(pattern, text))]


def test_no_data_become_code():
    """No pickle, no unsafe YAML, no evaluation of text, no shell."""
    assert len(SHIPPED) > 80
    assert [fault for path in SHIPPED for fault in faults(path.read_text(), name_of(path))] == []


def test_notebooks_evaluate_nothing():
    notebooks = [path for path in FILES if path.suffix == ".ipynb"]
    assert notebooks
    for path in notebooks:
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        source = "\n".join("".join(cell["source"]) for cell in cells)
        assert faults(re.sub(r"^[%!].*$", "", source, flags=re.M), name_of(path)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import numpy, dill", "import torch", "eval(text)",
        "exec(text)", "np.load(file)", "np.load(file, allow_pickle=True)", "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)", "yaml.unsafe_load(text)", "sympy.sympify(text)",
        "builtins.eval(text)", "subprocess.run(text, shell=True)", "os.system(text)",
        "compile(text, '', 'exec')",
    ],
)  # fmt: skip
def test_the_search_finds(source):
    assert len(faults(source)) == 1


def test_the_search_leaves_what_is_harmless():
    source = (
        "re.compile(x)\nlowered.compile()\nnp.load(f, allow_pickle=False)\nyaml.safe_load(t)\njson.loads(t)"
    )
    assert faults(source) == []


@pytest.mark.parametrize("path", LOCKS, ids=name_of)
def test_every_requirement_is_pinned_and_hashed(path):
    text = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert lines
    for line in lines:
        assert re.match(r"[A-Za-z0-9_.\[\]-]+==[^\s;]+", line), line[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), line[:80]


def test_what_is_installed_is_held_to_the_hashes():
    scripts = [path for path in FILES if "launch" in path.parts and path.suffix in (".sh", "")]
    installs = [
        (name_of(path), line)
        for path in scripts
        for line in path.read_text(errors="replace").replace("\\\n", " ").splitlines()
        if re.search(r"\bpip\b.*\b(install|sync)\b", line) and not line.lstrip().startswith("#")
    ]
    assert len(installs) >= 3
    assert [install for install in installs if "--require-hashes" not in install[1]] == []


def test_nothing_tracked_is_a_secret():
    texts = {
        name_of(path): path.read_bytes().decode(errors="replace") for path in FILES if path != Path(__file__)
    }
    assert [
        (name, found[0]) for name, text in texts.items() for p in SECRETS if (found := re.search(p, text))
    ] == []


def test_the_threat_model_is_written_down():
    text = (ROOT / ".github" / "SECURITY.md").read_text()
    for word in ("does not promise", "--sandbox=unsafe", "sandbox-check", "--require-hashes"):
        assert word in text
