"""The work that a phase of a step needs, from shapes alone: operations and bytes, and the least time for it.

It is what has to be done and not what a compiler makes of it: a token attends over what it may see and not
over padding or masked places, logits are made where a token is sampled or scored and nowhere else, nothing is
computed anew in the backward pass, each token but the last is run through the model once, and a prompt once
for all samples of its problem. For each row, with all slots full:

    forward   2 operations per kernel parameter and token
              + 4 H d per layer, token, and token that it sees (of a local layer: within its window)
              + 2 V D per token that is sampled or scored
    backward  twice as many: by the inputs and by the parameters; not by those that are frozen
    decoding  reads all parameters once per token of all rows together, and each row's keys and values
    Adam      reads and writes the parameter and both moments; writes the gradient, and reads it again when
              its norm is known

Element-wise work, activations and the tokens themselves are left out: they could hide behind the rest.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_jax import model as models
from score_jax.machine import Rates
from score_jax.program_cost import Cost
from score_jax.slots import Slots

# Paths of parameters. A kernel is multiplied with every token; `_INPUTS` are those that a layer begins with.
_KERNEL = r"layer_\d+/(attn/(q|kv|qkv|attn_vec)_einsum/w|mlp/(gating_einsum|linear))"
_INPUTS = r"layer_0/attn/(q|kv|qkv)_einsum/w"
_ADAPTER = r"layer_\d+/.*/lora/[ab]"
_NORM = r"(layer_\d+/.*|final_norm)/scale"
_TABLE = "embedder/input_embedding"


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of a phase; the next one waits for its end.

    Attributes:
      name: prefill | decode | reference | forward | backward | optimizer.
      cost: all of it.
    """

    name: str
    cost: Cost


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A model's numbers that its work depends on.

    Attributes:
      kernels: parameters of all layers' kernels, without adapters.
      inputs: those of them that the first layer begins with.
      adapters: parameters of adapters.
      table: V D, the embedding table, which is the output layer too.
      parameters: all of them.
      bytes: of all parameters, as the model runs with them.
      trained: how many parameters are trained.
      pair: operations of a layer for a token and one that it sees: 4 H d.
      cached: bytes of a layer's key and value of a token.
      windows: of each layer, how many tokens a token sees at most, itself among them.
    """

    kernels: int
    inputs: int
    adapters: int
    table: int
    parameters: int
    bytes: int
    trained: int
    pair: int
    cached: int
    windows: tuple[float, ...]

    def pairs(self, start: int, stop: int) -> int:
        """Tokens and those that each of them sees, of the tokens at [start, stop), over all layers."""
        return sum(sum(int(min(at + 1, window)) for at in range(start, stop)) for window in self.windows)

    def forward(self, start: int, stop: int, scored: int) -> float:
        """Operations of a row's tokens at [start, stop), with the logits of `scored` of them."""
        tokens = 2 * (self.kernels + self.adapters) * (stop - start)
        return float(tokens + self.pair * self.pairs(start, stop) + 2 * self.table * scored)

    def backward(self, start: int, stop: int, scored: int) -> float:
        """Operations of the backward pass of the same."""
        attention = 2 * self.pair * self.pairs(start, stop)
        # Beside adapters the kernels and the table are frozen, and nothing before the first layer is trained.
        if self.adapters:
            kernels = 2 * (self.kernels - self.inputs) + 4 * self.adapters
            return float(kernels * (stop - start) + attention + 2 * self.table * scored)
        return float(4 * self.kernels * (stop - start) + attention + 4 * self.table * scored)

    def cache(self, start: int, stop: int) -> int:
        """Bytes of a row's cache that are read and written when its tokens [start, stop) are fed at once."""
        seen = (min(start, window - 1) + stop - start for window in self.windows)
        return int(self.cached * sum(seen))


def sizes_of(model: nn.Module) -> Sizes:
    """The numbers of a Gemma 2 or 3, with its adapters.

    Raises:
      ValueError: it has parameters whose work is not known here.
    """
    config, bare = model.config, models.without_adapters(model)
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(models.shapes_of(model))
    }
    known = f"{_KERNEL}|{_ADAPTER}|{_NORM}|{_TABLE}"
    strange = [name for name in leaves if not re.fullmatch(known, name)]
    if strange:
        raise ValueError(
            f"config.model.name: {type(bare).__name__} has the parameter {strange[0]}, whose work is not "
            "known; benchmark a Gemma 2 or 3"
        )
    adapters = _count(leaves, _ADAPTER)
    itemsize, parameters = jnp.dtype(bare.dtype).itemsize, _count(leaves, ".*")
    return Sizes(
        kernels=_count(leaves, _KERNEL),
        inputs=_count(leaves, _INPUTS),
        adapters=adapters,
        table=_count(leaves, _TABLE),
        parameters=parameters,
        bytes=itemsize * parameters,
        trained=adapters or parameters,
        pair=4 * config.num_heads * config.head_dim,
        cached=2 * config.num_kv_heads * config.head_dim * itemsize,
        windows=tuple(
            config.sliding_window_size if kind.name == "LOCAL_SLIDING" else math.inf
            for kind in config.attention_types
        ),
    )


def _count(leaves: Mapping[str, Any], pattern: str) -> int:
    return sum(leaf.size for name, leaf in leaves.items() if re.fullmatch(pattern, name))


def rollout_work(sizes: Sizes, slots: Slots, rows: int, prompts: int) -> list[Part]:
    """Sampling all attempts of `rows` episodes at once, which have so many `prompts`.

    Before each segment what the cache lacks is fed, the last token of the segment before it included, and
    gives the logits of its first token; each of its other tokens takes a step of its own.
    """
    parts, fed = [], 0

    def feed(name: str, start: int, stop: int, count: int) -> Part:
        cost = Cost(count * sizes.forward(start, stop, 1), sizes.bytes + count * sizes.cache(start, stop))
        return Part(name, cost)

    for segment in slots.segments:
        parts.append(feed("prefill", fed, segment.start, rows if fed else prompts))
        parts += [feed("decode", at, at + 1, rows) for at in range(segment.start, segment.stop - 1)]
        fed = segment.stop - 1
    return parts


def scoring_work(sizes: Sizes, slots: Slots, rows: int, prompts: int, name: str = "forward") -> list[Part]:
    """Log-probabilities of all that is sampled in `rows` episodes, which have so many `prompts`."""
    return [Part(name, Cost(_over_all(sizes.forward, slots, rows, prompts), sizes.bytes))]


def _over_all(pass_: Callable[[int, int, int], float], slots: Slots, rows: int, prompts: int) -> float:
    """Operations of a pass over all that rows have of their own, and once over each of their prompts, whose
    last token gives the logits of all first tokens."""
    own = pass_(slots.prompt, slots.length - 1, sampled(slots) - 1)
    return rows * own + prompts * pass_(0, slots.prompt, 1)


def update_work(
    sizes: Sizes, slots: Slots, rows: int, prompts: int, itemsize: int, *, reference: bool = True
) -> list[Part]:
    """One update: the reference's forward pass, the policy's, the backward pass, Adam.

    Args:
      sizes: the model's.
      slots: the layout of the transcripts.
      rows: episodes.
      prompts: how many these have.
      itemsize: bytes of a number of what is trained, its gradient and its moments.
      reference: whether a KL is asked for, and so the reference.
    """
    frozen = dataclasses.replace(sizes, adapters=0)
    backward = _over_all(sizes.backward, slots, rows, prompts)
    return [
        *(scoring_work(frozen, slots, rows, prompts, "reference") if reference else ()),
        *scoring_work(sizes, slots, rows, prompts),
        Part("backward", Cost(backward, sizes.bytes)),
        Part("optimizer", Cost(0.0, 8.0 * itemsize * sizes.trained)),
    ]


def sampled(slots: Slots) -> int:
    """Tokens of a transcript that the model writes."""
    return sum(segment.stop - segment.start for segment in slots.segments)


def least(parts: Sequence[Part], rates: Rates) -> dict[str, float]:
    """Seconds that parts take at least: each as long as its operations or its bytes, whichever takes longer.

    Returns:
      {'flops': ..., 'memory': ...}: of those parts that are bound by the one and by the other.
    """
    spent = {"flops": 0.0, "memory": 0.0}
    for part in parts:
        times = {"flops": part.cost.flops / rates.flops, "memory": part.cost.memory / rates.bandwidth}
        longest = max(times, key=times.__getitem__)
        spent[longest] += times[longest]
    return spent
