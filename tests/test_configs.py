"""The shipped configs: all resolve, and those of real tasks run on the real files with a tiny model."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tiny
from etils import epath
from gemma import gm
from published_rows import write
from real_data import real_file

from score_jax import model as models
from score_jax import schedule
from score_jax.__main__ import main
from score_jax.config import load_config
from score_jax.config_check import SUPERVISED
from score_jax.records import read_jsonl
from score_jax.task import Task, load_task

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(str(path.relative_to(ROOT / "configs")) for path in (ROOT / "configs").rglob("*.py"))
REAL = ("math_gemma2_2b", "math_gemma3_4b", "gsm8k_gemma3_1b", "code_gemma3_4b")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_resolves_and_opens_with_what_a_user_asks(name):
    config = load_config(f"configs/{name}")
    for key in config.stages:
        if config[key].objective not in SUPERVISED:
            assert schedule.objective_of(config[key]).attempts == config[key].attempts
    assert isinstance(load_task(config.task), Task)
    text = (ROOT / "configs" / name).read_text()
    for word in ("Command", "Hardware", "Result"):
        assert f"\n{word} " in text, word
    assert re.search(rf"--config=configs/{name}|quickstart\.sh", text)
    if name.removesuffix(".py") in REAL:
        assert "\nMemory " in text and "\nPaper " in text
        assert isinstance(models.named_gemma(config.model.name, "bfloat16"), gm.nn.Transformer)


def test_the_papers_numbers_stand_in_its_experiment():
    """Table 8, the columns of MATH and MBPP."""
    for name, steps, batch, beta_2 in (
        ("math_gemma2_2b", 3000, 512, 0.1),
        ("code_gemma3_4b", 1500, 128, 0.25),
    ):
        config = load_config(f"configs/{name}.py")
        one, two = config.stage1, config.stage2
        assert one.steps + two.steps == steps
        assert config.problems_per_step * config.samples_per_problem == batch
        assert (one.beta_1, two.beta_1, one.beta_2, two.alpha) == (0.01, 0.01, beta_2, 10)
        assert (config.temperature, config.evaluate.temperature) == (1.0, 0.0)
    assert load_config("configs/math_gemma2_2b.py").stage2.learning_rate == 5e-6


@pytest.fixture(scope="module")
def gemmas(tmp_path_factory):
    """Random checkpoints and tokenizers of a tiny Gemma 2 and 3."""
    folder = tmp_path_factory.mktemp("gemmas")
    for version, cls in ((2, tiny.TinyGemma2), (3, tiny.TinyGemma3)):
        tiny.released_tokenizer(folder / f"tokenizer{version}.model", version)
        params = models.init_params(cls(dtype=jnp.float32), jax.random.key(version))
        gm.ckpts.save_params(params, folder / f"gemma{version}", wait_until_finished=True)
    return folder


def tiny_gemma(gemmas: Path, version: int) -> dict[str, str | Path]:
    return {
        "model.name": f"tiny:TinyGemma{version}",
        "model.checkpoint": gemmas / f"gemma{version}",
        "model.tokenizer": gemmas / f"tokenizer{version}.model",
    }


def files_of(name: str) -> dict[str, Path]:
    return {
        "math": {"files.train": "math500/train_sample_2000.jsonl", "files.test": "math500/test.jsonl"},
        "gsm8k": {"files.train": "gsm8k/train.jsonl", "files.test": "gsm8k/test.jsonl"},
        "code": {
            "files.mbpp": "mbpp/mbpp.jsonl",
            "evaluate.files.human_eval": "human_eval/HumanEval.jsonl.gz",
        },
    }[name.partition("_")[0]]


SHRUNKEN = {
    "model.dtype": "float32",
    "train_problems": 8,
    "slots.attempt": 8,
    "problems_per_step": 4,
    "samples_per_problem": 2,
    "rollout_parts": 1,
    "micro_batches": 1,
    # With fsdp over eight devices on two cores a step of such long prompts now and then stood still for ever:
    # the products are large enough for XLA to share each among the threads that wait in the collectives.
    "mesh.data": -1,
    "mesh.fsdp": 1,
    "evaluate.problems": 8,
    "evaluate.batch": 8,
}
SHRUNKEN_STUDY = SHRUNKEN | {
    "slots.critique": 8,
    "methods.score.stage1.steps": 1,
    "methods.score.stage2.steps": 1,
}


@pytest.mark.parametrize("name", REAL)
def test_real_tasks_train_and_evaluate_with_a_shrunken_model(name, gemmas, tmp_path, monkeypatch, capfd):
    """One step of each stage and an evaluation on the real files, by the commands alone."""
    monkeypatch.setenv("SECRET_TOKEN", "c4n4ry-70k3n")
    version = 2 if "gemma2" in name else 3
    fields = {field: real_file(path) for field, path in files_of(name).items()} | {
        "data_dir": tmp_path / "data",
        **tiny_gemma(gemmas, version),
        **SHRUNKEN,
        "slots.prompt": 2500,
        "stage1.steps": 1,
        "stage2.steps": 1,
    }
    args = [f"--config=configs/{name}.py", f"--workdir={tmp_path / 'run'}"]
    args += [f"--config.{field}={value}" for field, value in fields.items()]
    assert main(["train", *args]) == 0
    assert main(["evaluate", *args]) == 0
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert b"c4n4ry" not in written and "c4n4ry" not in "".join(capfd.readouterr())
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in steps] == ["stage_one", "stage_two"]
    assert all(row["sampler_gap"] < 1e-3 for row in steps)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results) == ["base", "stage_one", "stage_two"]
    assert all(result["n"] == 8 and result["acc_t2"] == 0 for result in results.values())
    if name.startswith("code"):
        assert "shown_only_t2" in steps[0] and results["base"]["split"] == "HumanEval test"
        wrong = [{"task_id": number, "program": "def wrong(): pass"} for number in range(11, 19)]
        more = {
            "task": "mbpp_r:MBPPR",
            "attempts": 1,
            "files.programs": write(tmp_path / "wrong.jsonl", wrong),
        }
        more |= {"files.mbpp": fields["files.mbpp"], "files.human_eval": ""}
        split = "MBPPR test"
    else:
        rows = [{"problem": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(8)]
        more = {"task": "jsonl:Jsonl", "files.test": write(tmp_path / "own.jsonl", rows)}
        split = "Jsonl test"
    more["task"] = f"score_jax.datasets.{more['task']}"
    others = [f"--config.evaluate.{field}={value}" for field, value in more.items()]
    assert main(["evaluate", *args, *others, "--checkpoint=latest"]) == 0
    result = json.loads((tmp_path / "run" / "results.json").read_text())["latest"]
    assert (result["split"], result["n"], "acc_t2" in result) == (split, 8, split != "MBPPR test")


def study_of(name: str, folder: Path, fields: dict) -> dict:
    """The study.json of a shipped config's study with some fields changed."""
    args = [f"--config.{field}={value}" for field, value in fields.items()]
    assert main(["study", f"--config=configs/{name}.py", f"--workdir={folder}", *args]) == 0
    return json.loads((folder / "study.json").read_text())


def test_the_math_study_makes_tables_and_figures_of_its_published_files(gemmas, tmp_path):
    """A row with every measurement, by the command that its config opens with."""
    fields = {field: real_file(path) for field, path in files_of("math").items()} | {
        "study.rows": ("base", "score"),
        "study.fast.rows": ("base", "score"),
        "study.measures.votes.evaluate.problems": 1,
        "study.measures.edits.evaluate.problems": 8,
        "study.measures.own.evaluate.problems": 8,
        "study.measures.fixed.evaluate.problems": 8,
        "study.measures.attempts.evaluate.attempts": 3,
        "data_dir": tmp_path / "data",
        **tiny_gemma(gemmas, 2),
        **SHRUNKEN_STUDY,
        "slots.prompt": 1000,
    }
    found = study_of("study_math", tmp_path / "study", fields)
    assert found["missing"] == [] and set(found["rows"]) == {"base", "score"}
    assert {"figure1", "figure3", "figure4", "figure5", "figure7", "figure8"} <= found["figures"].keys()


def test_the_code_study_measures_table_3(gemmas, tmp_path):
    """MBPP trained, HumanEval attempted, MBPP-R repaired, all by one command."""
    wrong = [{"task_id": number, "program": "def wrong(): pass"} for number in range(11, 19)]
    mbpp = real_file("mbpp/mbpp.jsonl")
    fields = {
        "files.mbpp": mbpp,
        "evaluate.files.human_eval": real_file("human_eval/HumanEval.jsonl.gz"),
        "study.measures.repair.evaluate.files.mbpp": mbpp,
        "study.measures.repair.evaluate.files.programs": write(tmp_path / "wrong.jsonl", wrong),
        "study.rows": ("base", "self_refine", "score"),
        "data_dir": tmp_path / "data",
        **tiny_gemma(gemmas, 3),
        **SHRUNKEN_STUDY,
        "slots.prompt": 2500,
    }
    folder = tmp_path / "study"
    found = study_of("study_code", folder, fields)
    assert found["missing"] == [] and set(found["rows"]) == {"base", "self_refine", "score"}
    repaired = {name: row["statistics"].get("mbpp_r", {}).get("n") for name, row in found["rows"].items()}
    assert repaired == {"base": 8, "self_refine": 8, "score": 8}
    for row in ("base", "self_refine", "score"):
        (path,) = (folder / row / "0" / "measures" / "repair").iterdir()
        criticised = [len(repair.get("critiques", ())) for repair in read_jsonl(epath.Path(path))[1:]]
        assert criticised == [int(row == "self_refine")] * 8
    assert main(["report", f"--workdir={folder}"]) == 0
    page = (folder / "report.html").read_text()
    assert "MBPP-R" in page and "Table 3" in page
