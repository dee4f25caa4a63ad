# /// script
# requires-python = ">=3.12"
# dependencies = ["google-tunix==0.1.7", "jax==0.11.0", "flax==0.12.8", "optax==0.2.8"]
# [tool.uv]
# exclude-newer = "2026-11-27T00:00:00Z"
# ///
"""Tunix: its sampler, its Gemma 3 and its log-probabilities, a policy gradient with a KL as its GRPO has it.

The sampler feeds a second turn's whole transcript as a prompt. Around the model stands what a step cannot do
without; the trainer's own housekeeping is left out, in Tunix's favour.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from protocol import Watch, serve, shape
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.gemma3.model import Gemma3, ModelConfig
from tunix.rl.common import compute_per_token_logps

SHAPE = shape()
PAD, NEVER = 0, SHAPE.vocabulary  # an end that is no token: all slots are filled


class Numbers:
    """A tokenizer of texts such as "17 4 201"."""

    def encode(self, text: str, **_) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids, **_) -> str:
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        return 0

    def eos_id(self) -> int:
        return NEVER

    def pad_id(self) -> int:
        return PAD


def model_of(seed: int) -> Gemma3:
    config = ModelConfig(
        num_layers=SHAPE.layers,
        num_embed=SHAPE.vocabulary,
        embed_dim=SHAPE.width,
        hidden_dim=SHAPE.hidden_width,
        num_heads=SHAPE.heads,
        head_dim=SHAPE.head_width,
        num_kv_heads=SHAPE.kv_heads,
        sliding_window_size=SHAPE.window,
        param_dtype=jnp.dtype(SHAPE.dtype),
    )
    return Gemma3(config, rngs=nnx.Rngs(seed))


model, reference = model_of(0), model_of(0)
optimizer = nnx.Optimizer(model, optax.adamw(SHAPE.learning_rate), wrt=nnx.Param)
graph, frozen = nnx.split(reference)
cache = SHAPE.second + SHAPE.attempt
sampler = Sampler(model, Numbers(), CacheConfig(cache, SHAPE.layers, SHAPE.kv_heads, SHAPE.head_width))
rng = np.random.default_rng(0)
prompts = np.repeat(rng.integers(1, SHAPE.vocabulary, (SHAPE.problems, SHAPE.prompt)), SHAPE.samples, axis=0)
instruction = np.tile(np.arange(1, 1 + SHAPE.instruction), (SHAPE.episodes, 1))


def generate(rows: np.ndarray, seed: int) -> np.ndarray:
    out = sampler(
        [Numbers().decode(row) for row in rows],
        max_generation_steps=SHAPE.attempt,
        max_prompt_length=rows.shape[1],
        eos_tokens=[NEVER],
        temperature=1.0,
        top_p=1.0,
        seed=seed,
    )
    return np.stack(out.tokens)


logps = functools.partial(compute_per_token_logps, pad_id=PAD, eos_id=NEVER)
reference_logps = jax.jit(functools.partial(logps, graph))


@nnx.jit
def update(model, optimizer, turns, references, advantages):
    def loss(model):
        graph, state = nnx.split(model)
        total = 0.0
        for (asked, answer), held, paid in zip(turns, references, advantages, strict=True):
            now = logps(graph, state, asked, answer, stop_gradient=False)
            ahead = held - now
            total += (-(now * paid[:, None]) + 0.01 * (jnp.exp(ahead) - ahead - 1)).sum()
        return total / SHAPE.episodes

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


def sampling(watch: Watch) -> None:
    generate(prompts, 0)


def step(watch: Watch) -> None:
    sampler.transformer_state = nnx.variables(model, nnx.Param)
    first = generate(prompts, 1)
    asked = np.concatenate((prompts, first, instruction), axis=1)
    turns = [(prompts, first), (asked, generate(asked, 2))]
    watch.part("rollout")
    references = [jax.block_until_ready(reference_logps(frozen, *turn)) for turn in turns]
    watch.part("reference")
    paid = [answer[:, -1].astype(np.float32) % 2 for _, answer in turns]
    jax.block_until_ready((update(model, optimizer, turns, references, paid), nnx.state(model)))
    watch.part("update")


serve("Tunix", ("google-tunix", "jax", "flax"), {"sampling": sampling, "step": step})
