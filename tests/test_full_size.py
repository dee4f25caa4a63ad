"""At the size of a released Gemma: what a compiled update holds, and (slow) a whole run of Gemma 3 270M."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tiny
from gemma import gm
from test_policy import largest_array

from score_jax import model as models
from score_jax import objectives, released, step
from score_jax.learner import Optimizer
from score_jax.types import Episodes, Experience

ROOT = Path(__file__).resolve().parents[1]
ROWS, LENGTH, CHUNK = 8, 768, 8


@pytest.mark.parametrize("estimator", ["k1", "full"])
def test_with_gemma_3s_vocabulary_no_update_holds_logits_of_all_places(estimator):
    """By the compiler's own account, of an update of Gemma 3 270M's first layers; nothing is run."""
    large = models.named_gemma("Gemma3_270M", "float32")
    config = dataclasses.replace(large.config, attention_types=large.config.attention_types[4:6])
    model = large.clone(config=config)
    params, vocab = models.shapes_of(model), config.num_embed
    assert vocab == 262_144
    tokens, floats = jnp.zeros((ROWS, LENGTH), jnp.int32), jnp.zeros((ROWS, LENGTH))
    experience = Experience(Episodes(tokens, tokens, floats), jnp.zeros((ROWS, 2)), floats)
    learner = step.PolicyLearner(model, Optimizer(1.0), samples=2, kl_estimator=estimator, chunk=CHUNK)
    objective = jax.tree.map(jnp.float32, objectives.stage_two(2, alpha=1.0, beta_1=0.1))

    def update(params):
        state, rate = learner.optimizer.init(params), jnp.float32(1e-5)
        return step.train_step(state, {}, params, experience, objective, rate, learner=learner)

    compiled = jax.jit(update).lower(params).compile()
    all_logits = ROWS * (LENGTH - 1) * vocab
    assert largest_array(compiled) == config.num_embed * config.embed_dim  # the table
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * 4 * all_logits


@pytest.mark.slow
def test_gemma_3_270m_is_loaded_trained_exported_and_loaded_again(tmp_path):
    """Random parameters in the official layout; one update of each stage, by the commands alone."""
    model = gm.nn.Gemma3_270M(dtype=jnp.float32)
    gm.ckpts.save_params(
        models.init_params(model, jax.random.key(0)), tmp_path / "weights", wait_until_finished=True
    )
    tiny.released_tokenizer(tmp_path / "gemma3.model", 3)
    fields = {
        "task": "tiny:EvenRiddles", "model.name": "Gemma3_270M", "model.dtype": "float32",
        "model.checkpoint": tmp_path / "weights", "model.tokenizer": tmp_path / "gemma3.model",
        "slots.prompt": 96, "slots.attempt": 8, "train_problems": 4, "problems_per_step": 2,
        "samples_per_problem": 2, "micro_batches": 1, "stage1.steps": 1, "stage2.steps": 1,
        "evaluate.problems": 4, "evaluate.batch": 4,
    }  # fmt: skip
    config = ["--config=configs/gsm8k_gemma3_1b.py"]
    config += [f"--config.{field}={value}" for field, value in fields.items()]
    env = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "XLA_FLAGS": ""}

    def run(command, *more):
        args = [sys.executable, "-m", "score_jax", command, f"--workdir={tmp_path / 'run'}", *more]
        done = subprocess.run(args, cwd=ROOT, env=env, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr

    run("train", *config)
    run("evaluate", *config, "--checkpoint=latest")
    run("export", "--checkpoint=latest", f"--output={tmp_path / 'exported'}")
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in steps] == ["stage_one", "stage_two"]
    assert all(row["sampler_gap"] < 1e-3 for row in steps)
    exported = gm.ckpts.load_params(tmp_path / "exported")
    assert released.differences(models.shapes_of(model), exported) == []
