"""Small things to test with, and the plain forward pass that everything is held against.

The oracle knows no cache, no chunks, no padding mask and no layout: each row's tokens are moved to the
left, so that causal attention over positions 0, 1, 2, ... is all there is to it.
"""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import sentencepiece
from gemma import gm

from score_jax import model as models
from score_jax.datasets import number_riddles
from score_jax.mesh import make_mesh
from score_jax.slots import Slots
from score_jax.tokenizer import train_tokenizer
from score_jax.types import CONTEXT, PADDING, Episodes, Problem

VOCAB, PAD, EOS = 40, 0, 1
SLOTS = Slots(prompt=5, attempt=6, instruction=(7, 8, 9), attempts=2)


def mesh(data: int = 8, fsdp: int = 1, tensor: int = 1):
    """A mesh over as many of the test's eight devices as it takes."""
    return make_mesh((data, fsdp, tensor), tuple(jax.devices()[: data * fsdp * tensor]))


# By names that say their sizes: data x fsdp x tensor.
MESHES = {"8x1x1": (8, 1, 1), "2x4x1": (2, 4, 1), "1x8x1": (1, 8, 1), "2x2x2": (2, 2, 2)}
# Where whole runs go over the others, see test_mesh_runs.
SPLIT = {name: sizes for name, sizes in MESHES.items() if name in ("1x8x1", "2x2x2")}


@functools.cache
def model(vocab: int = VOCAB, softcap: float | None = None):
    """Two layers of width 16; the first one's window is shorter than any transcript here."""
    config = ml_collections.ConfigDict(
        {
            "layers": 2, "width": 16, "hidden_width": 24, "heads": 2, "head_width": 8, "kv_heads": 1,
            "sliding_window": 4, "dtype": "float32",
        }
    )  # fmt: skip
    gemma = models.small_gemma(config, vocab)
    return gemma.clone(config=dataclasses.replace(gemma.config, final_logit_softcap=softcap))


_KINDS = gm.nn.config.AttentionType
_SHAPE = {
    "num_embed": VOCAB, "embed_dim": 16, "hidden_dim": 24, "num_heads": 2, "head_dim": 8, "num_kv_heads": 1,
    "use_post_attn_norm": True, "use_post_ffw_norm": True, "sliding_window_size": 4,
}  # fmt: skip


class TinyGemma2(gm.nn.Transformer):
    """Gemma 2 in small: both soft-caps, no query-key norm."""

    config: gm.nn.config.TransformerConfig = gm.nn.config.TransformerConfig(
        **_SHAPE | {"num_embed": 320},
        final_logit_softcap=30.0,
        attn_logits_soft_cap=50.0,
        attention_types=(_KINDS.LOCAL_SLIDING, _KINDS.GLOBAL),
    )
    INFO = gm.nn.Gemma2_2B.INFO


class TinyGemma3(gm.nn.Transformer):
    """Gemma 3 in small."""

    config: gm.nn.config.TransformerConfig = gm.nn.config.TransformerConfig(
        **_SHAPE | {"num_embed": 320},
        final_logit_softcap=None,
        use_qk_norm=True,
        transpose_gating_einsum=True,
        attention_types=(_KINDS.LOCAL_SLIDING, _KINDS.GLOBAL),
    )
    INFO = gm.nn.Gemma3_1B.INFO


def gemma4():
    """Gemma 4 in small: inputs per layer, and two layers that use the keys and values of two before them."""
    large = gm.nn.Gemma4_E2B().config
    kinds = type(large.attention_types[0])
    config = dataclasses.replace(
        large,
        **_SHAPE,
        num_global_kv_heads=None,
        global_key_size=12,
        per_layer_input_dim=4,
        override_kv_shared_ffw_hidden=20,
        attention_types=(kinds.LOCAL_SLIDING, kinds.GLOBAL) * 2,
        kv_cache_sharing_config=dataclasses.replace(large.kv_cache_sharing_config, frac_shared_layers=0.5),
    )
    return gm.nn.Gemma4_E2B(config=config, dtype=jnp.float32)


def _clone(cls):
    gemma = cls(dtype=jnp.float32)
    return gemma.clone(config=dataclasses.replace(gemma.config, num_embed=VOCAB))


FAMILIES = {"gemma2": _clone(TinyGemma2), "gemma3": _clone(TinyGemma3), "gemma4": gemma4()}


@functools.cache
def params(vocab: int = VOCAB, seed: int = 0) -> dict:
    """Random parameters, none of them at its starting value."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model(vocab).init, jax.random.key(0), jnp.ones((1, 2), jnp.int32))["params"]
    return jax.tree.map(lambda x: rng.normal(scale=0.4, size=x.shape).astype(np.float32), shapes)


def copy(tree):
    """Arrays of their own: updates take the memory of what they are given."""
    return jax.tree.map(jnp.array, tree)


def transcripts(rows: int, slots: Slots = SLOTS, vocab: int = VOCAB, seed: int = 0) -> Episodes:
    """Random ones: ragged prompts, attempts of any length, those that do not fill their slot with an end."""
    rng = np.random.default_rng(seed)
    tokens = np.full((rows, slots.length), PAD, np.int32)
    attempt = np.full((rows, slots.length), PADDING, np.int32)

    def write(row: int, start: int, ids, who: int) -> None:
        tokens[row, start : start + len(ids)] = ids
        attempt[row, start : start + len(ids)] = who

    for row in range(rows):
        length = rng.integers(1, slots.prompt + 1)
        write(row, slots.prompt - length, rng.integers(2, vocab, length), CONTEXT)
        for number in range(1, slots.attempts + 1):
            if number > 1:
                write(row, slots.start(number) - len(slots.instruction), slots.instruction, CONTEXT)
            length = rng.integers(1, slots.attempt + 1)
            ids = rng.integers(2, vocab, length)
            ids[-1] = EOS if length < slots.attempt else ids[-1]
            write(row, slots.start(number), ids, number)
    return Episodes(*map(jnp.array, (tokens, attempt, np.zeros(tokens.shape, np.float32))))


def move_left(attempt, *arrays):
    """`attempt` and `arrays` with each row's padding moved behind everything else."""
    order = np.argsort(np.asarray(attempt) == PADDING, axis=1, kind="stable")
    return tuple(np.take_along_axis(np.asarray(x), order, axis=1) for x in (attempt, *arrays))


@functools.partial(jax.jit, static_argnames="gemma")
def logits(gemma, params, tokens):
    """[E, L, V] logits of rows without padding on their left."""
    rows, length = tokens.shape
    return gemma.apply(
        {"params": params},
        tokens,
        positions=jnp.broadcast_to(jnp.arange(length), (rows, length)),
        attention_mask=jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (rows, length, length)),
    ).logits


def log_softmax(logits, temperature: float = 1.0) -> np.ndarray:
    """In float64."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))


def distributions(gemma, params, episodes: Episodes, temperature: float = 1.0):
    """Log-probabilities [E, L, V] that each token was drawn from, padding moved behind; and `attempt`, moved.

    Row by row they line up with `x[row, episodes.attempt[row] != PADDING]`; nothing stands before the first
    token of a row, whose entry is NaN.
    """
    attempt, tokens = move_left(episodes.attempt, episodes.tokens)
    logp = log_softmax(logits(gemma, params, tokens), temperature)
    return np.concatenate([np.full_like(logp[:, :1], np.nan), logp[:, :-1]], axis=1), attempt, tokens


class Riddles(number_riddles.NumberRiddles):
    """The default task without its files."""

    def problems(self, split: str) -> list[Problem]:
        rows = (
            number_riddles.riddle(*pair, n) for pair in number_riddles.split_pairs(split) for n in (3, 8, 21)
        )
        return [Problem(**row) for row in rows]


class EvenRiddles(Riddles):
    """What even a random model is sometimes paid for: an even number of characters.

    On the host whose number BROKEN_HOST in the environment is the grader fails.
    """

    def reward(self, problem: Problem, text: str) -> float:
        if os.environ.get("BROKEN_HOST") == str(jax.process_index()):
            raise OSError("this host cannot grade")
        return float(len(text) % 2 == 0)


def tokenizer(directory):
    """A vocabulary of 300 over the default task's texts."""
    return train_tokenizer(Riddles().corpus(200), directory / "tokenizer.model", vocab_size=300)


def released_tokenizer(path, version: int):
    """A file with a small vocabulary and the special tokens of Gemma 2's, 3's or 4's where they belong."""
    special = getattr(gm.text, f"Gemma{version}Tokenizer").special_tokens
    marks = ("<|turn>", "<turn|>") if version == 4 else ("<start_of_turn>", "<end_of_turn>")
    symbols = ["<mask>"] + [f"<unused{i}>" for i in range(special.START_OF_TURN - special.MASK - 1)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=Riddles().corpus(200),
        model_prefix=str(path.with_suffix("")),
        model_type="bpe",
        vocab_size=300,
        pad_id=special.PAD,
        eos_id=special.EOS,
        bos_id=special.BOS,
        unk_id=special.UNK,
        user_defined_symbols=[*symbols, *marks, "\n"],
        split_digits=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        character_coverage=1.0,
        minloglevel=2,
    )
    return path
