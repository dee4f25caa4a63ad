"""The sampler: all attempts of an episode in one jitted call, on one growing KV cache."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from score_jax.barriers import written_once
from score_jax.mesh import gathered, keep_cache, keep_rows
from score_jax.model import as_stored, inputs_first
from score_jax.policy import head_of, positions_of
from score_jax.types import CONTEXT, PADDING, Episodes


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of a transcript that the model writes: an attempt, or the critique before it.

    Attributes:
      before: token ids of the instruction that stands right before it; none before the first attempt.
      start: index of its first token.
      stop: index after its last token.
      attempt: whose tokens they are in `Episodes.attempt`.
      critique: whether it is the critique before that attempt.
    """

    before: tuple[int, ...]
    start: int
    stop: int
    attempt: int
    critique: bool


@dataclasses.dataclass(frozen=True)
class Slots:
    """The fixed layout of a transcript (the drawings stand in `score_jax.types`).

    Attributes:
      prompt: P, tokens for the prompt.
      attempt: T, tokens for each attempt, the end token included.
      instruction: the correction instruction's token ids (F of them), the same in every row.
      attempts: N.
      critique: C, tokens for the critique before each later attempt, its end token included; 0: none is
        asked for.
      feedback: token ids of the instruction that asks for a critique; none where none is asked for.

    Raises:
      ValueError: there is room for a critique that nothing asks for, or the other way round.
    """

    prompt: int
    attempt: int
    instruction: tuple[int, ...]
    attempts: int
    critique: int = 0
    feedback: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.critique) != bool(self.feedback):
            raise ValueError(
                f"Slots.critique = {self.critique} with an instruction of {len(self.feedback)} tokens in "
                "Slots.feedback: a critique needs both; give both, or neither"
            )

    @property
    def between(self) -> int:
        """How many tokens stand between two attempts."""
        return len(self.feedback) + self.critique + len(self.instruction)

    @property
    def length(self) -> int:
        """L."""
        return self.prompt + self.attempts * self.attempt + (self.attempts - 1) * self.between

    def start(self, attempt: int) -> int:
        """The index of the first token of `attempt` itself (1 is the first), after its critique."""
        return self.prompt + (attempt - 1) * (self.attempt + self.between)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What the model writes, in order."""
        segments = []
        for attempt in range(1, self.attempts + 1):
            start = self.start(attempt)
            if attempt > 1 and self.critique:
                stop = start - len(self.instruction)
                segments.append(Segment(self.feedback, stop - self.critique, stop, attempt, critique=True))
            before = self.instruction if attempt > 1 else ()
            segments.append(Segment(before, start, start + self.attempt, attempt, critique=False))
        return tuple(segments)


# On a single CPU a token's time grows with the number of rows, so that the last quarter of them is decoded
# alone. Each number of rows is one more program to compile: so this is done once, and not for short slots.
_LONG, _LAST = 64, 4


@flax.struct.dataclass
class _Decoding:
    """What changes from token to token, and the rows' keys. `logits` speak of the token at index `at`."""

    at: Int[Array, ""]
    keys: Key[Array, "E"]
    cache: dict
    logits: Float[Array, "E V"]
    episodes: Episodes
    done: Bool[Array, "E"]


def sample(
    model: nn.Module,
    params: dict,
    prompts: Int[Array, "Q P"],
    row_keys: Key[Array, "E"],
    *,
    slots: Slots,
    temperature: float | Float[Array, ""],
    pad: int,
    end: int,
    mesh: Mesh | None = None,
) -> Episodes:
    """Samples N attempts per row; attempt i + 1 reads attempt i from the cache, nothing is computed twice.

    A prompt is computed once, for all of its E / Q samples, which stand together.

    Where the layout has critiques, one is sampled before each later attempt.

    Meant to be jitted with `model`, `slots`, `pad`, `end` and `mesh` static: the temperature is an argument,
    so that another one compiles nothing anew.

    Args:
      model: a Gemma whose layers keep a KV cache.
      params: its parameters.
      prompts: token ids, left-padded with `pad`; Q divides E.
      row_keys: one key per row, made from the *global* row number: the same samples on any number of devices.
      slots: the transcript's layout.
      temperature: 0 takes the likeliest token.
      pad: fills empty places. Left-padding is told from the prompt by it.
      end: closes an attempt or a critique; it is part of it, so that stopping is learned.
      mesh: rows and cache are spread over it.

    Returns:
      Episodes. An attempt without `end` ran out of its slot.
    """
    params = gathered(params, mesh)  # once, and not for every token
    count, samples = prompts.shape[0], row_keys.shape[0] // prompts.shape[0]
    dtype = params["embedder"]["input_embedding"].dtype
    shape = (count, slots.length)
    episodes = Episodes(
        tokens=jnp.full(shape, pad, jnp.int32).at[:, : slots.prompt].set(prompts),
        attempt=jnp.full(shape, PADDING, jnp.int32)
        .at[:, : slots.prompt]
        .set(jnp.where(prompts == pad, PADDING, CONTEXT)),
        logp=jnp.zeros(shape, jnp.float32),
    )
    cache = model.config.init_cache(batch_size=count, dtype=dtype, cache_length=0)
    fed = 0  # transcript tokens that the cache holds
    for segment in slots.segments:
        if segment.before:
            episodes = _write_instruction(episodes, segment)
        # The cache grows here and not up front: the first attempt need not attend over the second's place.
        cache = keep_cache(_grow(cache, segment.stop - fed, fed), mesh)
        cache, logits = _feed(model, params, cache, episodes, fed, segment.start)
        if fed == 0:
            each = lambda x: jnp.repeat(x, samples, axis=0)
            cache, logits, episodes = jax.tree.map(each, (cache, logits, episodes))
            cache = keep_cache(cache, mesh)
        cache, episodes = _decode(
            model,
            params,
            cache,
            logits,
            episodes,
            row_keys,
            segment=segment,
            temperature=temperature,
            end=end,
            mesh=mesh,
        )
        fed = segment.stop
    tokens = jnp.where(episodes.attempt == PADDING, pad, episodes.tokens)
    return keep_rows(dataclasses.replace(episodes, tokens=tokens), mesh)


def _write_instruction(episodes: Episodes, segment: Segment) -> Episodes:
    """Puts its instruction before `segment`."""
    place = slice(segment.start - len(segment.before), segment.start)
    return dataclasses.replace(
        episodes,
        tokens=jnp.asarray(episodes.tokens).at[:, place].set(jnp.asarray(segment.before, jnp.int32)),
        attempt=jnp.asarray(episodes.attempt).at[:, place].set(CONTEXT),
    )


def _grow(cache: dict, by: int, end_index: int) -> dict:
    """Room for `by` more tokens after the cache's last place; writing goes on at `end_index`.

    # subtle: gemma's cache wraps around silently when full, and after an early exit its own end index
    # stands inside the slot that was left, so both are set here.
    """

    def grow_layer(layer: dict) -> dict:
        pad = lambda x: jnp.pad(x, ((0, 0), (0, by)) + ((0, 0),) * (x.ndim - 2))
        return {
            "k": pad(layer["k"]),
            "v": pad(layer["v"]),
            "positions": pad(layer["positions"]),
            "end_index": jnp.full_like(layer["end_index"], end_index),
        }

    return {name: grow_layer(layer) for name, layer in cache.items()}


def _feed(
    model: nn.Module, params: dict, cache: dict, episodes: Episodes, start: int, stop: int
) -> tuple[dict, Float[Array, "E V"]]:
    """Runs the transcript's tokens [start, stop) into the cache; logits for the token at `stop`."""
    size = cache["layer_0"]["k"].shape[1]
    valid = episodes.attempt != PADDING
    seen = jnp.arange(size)[None, :] <= jnp.arange(start, stop)[:, None]
    out: Any = model.apply(
        {"params": params},
        episodes.tokens[:, start:stop],
        positions=positions_of(valid)[:, start:stop],
        attention_mask=valid[:, None, :size] & seen[None],
        cache=cache,
        return_hidden_states=True,
    )
    # The head is applied to the last place alone.
    head = head_of(model, params)
    return out.cache, head.logits(out.hidden_states[:, -1])


def _decode(
    model: nn.Module,
    params: dict,
    cache: dict,
    logits: Float[Array, "E V"],
    episodes: Episodes,
    row_keys: Key[Array, "E"],
    *,
    segment: Segment,
    temperature: float | Float[Array, ""],
    end: int,
    mesh: Mesh | None,
) -> tuple[dict, Episodes]:
    """Samples the tokens of one segment, one by one, until every row has ended."""
    size = cache["layer_0"]["k"].shape[1]
    head = head_of(model, params)
    on_cpu = (jax.default_backend() if mesh is None else mesh.devices.flat[0].platform) == "cpu"
    turned = inputs_first(model, params) if on_cpu else params

    def next_token(state: _Decoding) -> _Decoding:
        keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, state.at)
        token, logp = draw(state.logits, keys, temperature)

        def write(x: Array | np.ndarray, value: Array | int, empty: int) -> Array:
            column = jnp.where(state.done, empty, value).astype(x.dtype)[:, None]
            return jax.lax.dynamic_update_slice_in_dim(x, column, state.at, axis=1)

        episodes = Episodes(
            tokens=write(state.episodes.tokens, token, 0),
            attempt=write(state.episodes.attempt, segment.attempt, PADDING),
            logp=write(state.episodes.logp, logp, 0),
        )
        valid = episodes.attempt[:, :size] != PADDING
        seen = valid & (jnp.arange(size) <= state.at)
        # subtle: without the barrier XLA takes this out of the loop, and turns kernels for every token.
        stored = as_stored(model, jax.lax.optimization_barrier(turned)) if on_cpu else params
        out: Any = model.apply(
            {"params": stored},
            token[:, None],
            positions=jnp.maximum(jnp.sum(seen, axis=-1, keepdims=True) - 1, 0),
            attention_mask=seen[:, None, :],
            cache=state.cache,
            return_hidden_states=True,
        )
        return dataclasses.replace(
            state,
            at=state.at + 1,
            cache=keep_cache(out.cache, mesh),
            logits=head.logits(out.hidden_states[:, 0]),
            episodes=episodes,
            done=state.done | (token == end),
        )

    def go_on(state: _Decoding, until: int) -> _Decoding:
        """Draws tokens until no more than so many rows have not ended."""
        unfinished = lambda state: (state.at < segment.stop) & (jnp.sum(~state.done) > until)
        return jax.lax.while_loop(unfinished, written_once(next_token) if on_cpu else next_token, state)

    rows = logits.shape[0]
    nobody = jnp.zeros(rows, bool)
    start = jnp.int32(segment.start)
    state = _Decoding(start, row_keys, cache=cache, logits=logits, episodes=episodes, done=nobody)
    alone = on_cpu and (mesh is None or mesh.size == 1) and segment.stop - segment.start >= _LONG
    few = rows // _LAST if alone else 0
    with jax.named_scope("draw_tokens"):
        state = go_on(state, few)
        if few:
            last = jnp.argsort(state.done)[:few]  # those that have not ended come first
            part = go_on(jax.tree.map(lambda x: x[last] if x.ndim else x, state), 0)
            state = jax.tree.map(lambda x, y: x.at[last].set(y) if x.ndim else y, state, part)
    return state.cache, state.episodes


def draw(
    logits: Float[Array, "E V"], keys: Key[Array, "E"], temperature: float | Float[Array, ""]
) -> tuple[Int[Array, "E"], Float[Array, "E"]]:
    """One token per row and its log-probability (nats) under the distribution it was drawn from.

    At temperature 0 the likeliest token is taken, and its log-probability at temperature 1 returned.
    """
    greedy = jnp.asarray(temperature == 0)
    logp_all = jax.nn.log_softmax(logits / jnp.where(greedy, 1.0, temperature))
    token = jax.lax.cond(
        greedy,
        lambda: jnp.argmax(logits, axis=-1),
        lambda: _inverse_transform(jnp.exp(logp_all), keys),
    )
    return token, jnp.take_along_axis(logp_all, token[:, None], axis=-1)[:, 0]


def _inverse_transform(p: Float[Array, "E V"], keys: Key[Array, "E"]) -> Int[Array, "E"]:
    """One token per row with the probabilities `p`, by one random number per row and not one per token.

    The token at which the cumulative probability passes a uniform number: never one beyond the last, since
    the number is below 1 by more than rounding. The probabilities are those of a float32 sum: each is off by
    its rounding, some 1e-7, which for a token of probability 0 may be all of it.
    """
    until = jnp.cumsum(p, axis=-1)
    point = jax.vmap(jax.random.uniform)(keys) * until[:, -1]
    return jnp.sum(until <= point[:, None], axis=-1)
