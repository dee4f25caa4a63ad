"""released, export: official checkpoints in every layout, what does not belong together, and the way back."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from etils import epath
from flax.traverse_util import flatten_dict
from gemma import gm

from score_jax import model as models
from score_jax import policy, released
from score_jax.__main__ import main
from score_jax.config import config_of
from score_jax.evaluate import load_one
from score_jax.types import CONTEXT


def params_of(model, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    draw = lambda x: jnp.array(rng.normal(scale=0.3, size=x.shape), x.dtype)
    return jax.tree.map(draw, models.shapes_of(model))


def save(tree: dict, path) -> str:
    gm.ckpts.save_params(tree, path, wait_until_finished=True)
    return str(path)


def old_layout(params: dict) -> dict:
    """As Gemma 1 to 3 were released: {'transformer/layer_0/attn/q_einsum': {'w': ...}, ...}."""
    out = {}
    for name, value in flatten_dict(params, sep=".").items():
        *folders, leaf = name.split(".")
        if folders[-1] == "mlp":
            folders, leaf = [*folders, leaf], "w"
        out.setdefault("/".join(["transformer", *folders]), {})[leaf] = value
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    for version in (2, 3):
        tiny.released_tokenizer(folder / f"gemma{version}.model", version)
    params = params_of(tiny.TinyGemma3(dtype=jnp.float32))
    save(old_layout(params), folder / "old")
    save(params, folder / "nested")
    eyes = {"vision_encoder": {"w": jnp.ones(3)}}
    mixed = {**params, **eyes, "embedder": {**params["embedder"], "mm_input_projection": {"w": jnp.ones(2)}}}
    save(mixed, folder / "seeing")
    return folder


@pytest.mark.parametrize("layout", ["old", "nested", "seeing"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_is_read_in_every_layout_in_the_models_dtype(folder, layout, dtype):
    model = models.named_gemma("tiny:TinyGemma3", dtype)
    found = released.load_params(str(folder / layout), model, tiny.mesh())
    expected = params_of(tiny.TinyGemma3(dtype=jnp.float32))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(dtype)), found, expected)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", r"config\.model\.checkpoint = '': no such folder; .*--config\.model\.checkpoint=DIR"),
        ("nowhere", r"config\.model\.checkpoint = .*nowhere': no such folder"),
        (".", r"config\.model\.checkpoint = .*: not a checkpoint that the gemma package reads"),
    ],
)
def test_a_wrong_path_is_one_clear_line(folder, path, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        released.load_params(
            str(folder / path) if path else "", tiny.TinyGemma3(dtype=jnp.float32), tiny.mesh()
        )


def test_a_checkpoint_of_another_architecture_is_refused_with_the_difference(folder):
    wide = tiny.TinyGemma3()
    wide = wide.clone(config=dataclasses.replace(wide.config, embed_dim=18))
    with pytest.raises(ValueError, match=r"embedder\.input_embedding is \(320, 16\) there and \(320, 18\)"):
        released.load_params(str(folder / "nested"), wide, tiny.mesh())
    with pytest.raises(
        ValueError, match=r"TinyGemma2: .*gating_einsum is .*; the model has no .*; and 3 more"
    ):
        released.load_params(str(folder / "nested"), tiny.TinyGemma2(dtype=jnp.float32), tiny.mesh())


def test_a_tokenizer_is_that_of_the_models_version(folder):
    model = tiny.TinyGemma3()
    tokenizer = released.load_tokenizer(str(folder / "gemma3.model"), model)
    assert isinstance(tokenizer, gm.text.Gemma3Tokenizer) and tokenizer.vocab_size == 300
    with pytest.raises(FileNotFoundError, match=r"config\.model\.tokenizer = '': .*of Gemma 3's tokenizer"):
        released.load_tokenizer("", model)
    with pytest.raises(ValueError, match=r"is not the tokenizer of TinyGemma3 \(Gemma 3's, 320 embeddings\)"):
        released.load_tokenizer(str(folder / "gemma2.model"), model)
    few = model.clone(config=dataclasses.replace(model.config, num_embed=299))
    with pytest.raises(ValueError, match=r"has 300 tokens, and is not .*299 embeddings"):
        released.load_tokenizer(str(folder / "gemma3.model"), few)
    (folder / "junk.model").write_bytes(b"no vocabulary")
    with pytest.raises(ValueError, match=r"junk.model': not a SentencePiece file"):
        released.load_tokenizer(str(folder / "junk.model"), model)


def options(folder, config_path, **changes) -> list[str]:
    """A shrunk run of the riddles on a tiny released Gemma 3."""
    fields = {
        "task": "tiny:EvenRiddles", "model.checkpoint": folder / "old", "slots.prompt": 90,
        "model.tokenizer": folder / "gemma3.model", "slots.attempt": 6, "train_problems": 8,
        "problems_per_step": 8, "samples_per_problem": 2, "micro_batches": 1,
        "stage1.steps": 2, "stage2.steps": 2, "checkpoint_every": 2,
        "evaluate.problems": 8, "evaluate.batch": 8, "log.every": 1,
    } | {name.replace("__", "."): value for name, value in changes.items()}  # fmt: skip
    return [f"--config={config_path}", *(f"--config.{name}={value}" for name, value in fields.items())]


@pytest.fixture(scope="module")
def config_path(folder):
    path = folder / "released_riddles.py"
    path.write_text(
        "from configs import quickstart\n\n\n"
        "def get_config():\n"
        "    config = quickstart.get_config()\n"
        "    del config.pretrain, config.tokenizer\n"
        "    config.model = quickstart.released('tiny:TinyGemma3', dtype='float32')\n"
        "    config.kl_estimator = 'k1'\n"
        "    return config\n"
    )
    return path


@pytest.mark.parametrize("rank", [0, 3])
def test_a_released_gemma_trains_evaluates_and_is_exported(folder, config_path, rank, capsys):
    workdir, output = folder / f"run{rank}", folder / f"exported{rank}"
    args = [f"--workdir={workdir}", *options(folder, config_path, lora_rank=rank)]
    assert main(["train", *args]) == 0
    assert main(["evaluate", *args]) == 0
    assert set(json.loads((workdir / "results.json").read_text())) == {"base", "stage_one", "stage_two"}
    kl = [json.loads(line)["kl_t1"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert kl[0] == pytest.approx(0, abs=1e-4) and len(kl) == 4  # the reference is the base

    saved = (workdir / "checkpoints" / "4" / "state" / "_METADATA").read_text()
    assert ("input_embedding" in saved, "lora" in saved) == (rank == 0, rank > 0)

    assert main(["export", f"--workdir={workdir}", "--checkpoint=latest", f"--output={output}"]) == 0
    gemma = tiny.TinyGemma3(dtype=jnp.float32)
    exported = gm.ckpts.load_params(output)
    assert released.mismatches(models.shapes_of(gemma), exported) == []
    _, actor, trained = load_one(config_of(workdir), epath.Path(workdir), "latest", say=print)
    episodes = tiny.transcripts(4)
    states = lambda gemma, params: policy.hidden_states(gemma, params, episodes.tokens, episodes.attempt)
    here = episodes.attempt >= CONTEXT
    expected = states(models.for_params(actor.model, trained), trained)[here]
    np.testing.assert_allclose(states(gemma, exported)[here], expected, atol=1e-4)
    base = states(gemma, params_of(gemma))[here]
    assert np.abs(expected - base).max() > 1e-3  # it was trained

    # Files may be moved, but not exchanged: the exported weights are others.
    moved = [f"--config.model.checkpoint={folder / 'nested'}", "--config.stage2.alpha=5"]
    assert main(["solve", f"--workdir={workdir}", *moved, "a riddle"]) == 0
    capsys.readouterr()
    for option, said in (
        (f"--config.model.checkpoint={output}", "holds other weights than those that the run in"),
        ("--config.seed=1", "config.seed = 1: the run has 0, and the run decides here"),
    ):
        assert main(["solve", f"--workdir={workdir}", option, "a riddle"]) == 2
        assert said in capsys.readouterr().err
    assert main(["export", f"--workdir={workdir}", f"--output={output}"]) == 2
    assert "exists; name a new folder, nothing is overwritten" in capsys.readouterr().err
