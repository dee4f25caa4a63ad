"""Where the tokens of a batch stand while it is scored and learned from: several episodes share a row.

    rows of a batch          a row of a part: what a problem's samples have in common, then a row for each
    ·pp11··f22···            p  p11f22qq2f2··        · = padding
    ·pp1···f2····               p1f2···q3f33··       (q: another problem's)

An update goes through its batch part by part. A part has room for its share of the problems; where attempts
end early it has room for more of them, and fewer parts are to be done. What all samples of a problem begin
with is computed once for all those in a row; its last token stands with each of them, as it says what their
first sampled one is. A token sees its own episode and no other's. The sampled ones' scores are put back to
where they came from.

Letters beside those of `types`: M parts, each of Q rows of T = S + G C places. At the first S stands what the
samples of one problem have in common, then G rows of C = L - S follow it. R = Q G; W = S + C is all that a
token may see.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

EMPTY = -1  # in `Places.tokens`


@flax.struct.dataclass
class Places:
    """What stands where, in a part or in all of them.

    Attributes:
      tokens: of each place the token's index in the batch: episode x L + its index in the transcript; -1
        where nothing stands. What samples have in common is that of the first one.
      common: whether all samples of its problem see it.
      samples: K, of each problem.
      length: L.
      prompt: S.
    """

    tokens: Int[Array | np.ndarray, "*M Q T"]
    common: Bool[Array | np.ndarray, "*M Q T"]
    samples: int = flax.struct.field(pytree_node=False)
    length: int = flax.struct.field(pytree_node=False)
    prompt: int = flax.struct.field(pytree_node=False)

    def part(self, number: int | Int[Array, ""]) -> Places:
        """One of all parts."""
        return jax.tree.map(lambda x: x[number], self)

    def take(self, x: Shaped[Array | np.ndarray, "E L"], empty: int) -> Shaped[Array, "Q T"]:
        """What stands at the places of a part; `empty` where nothing does."""
        return jnp.where(self.tokens == EMPTY, empty, jnp.ravel(x)[self.tokens])

    def rows(self, x: Shaped[Array, "Q T *D"]) -> Shaped[Array, "R C *D"]:
        """The places of a part in which samples stand, each row for itself."""
        return x[:, self.prompt :].reshape(-1, self.length - self.prompt, *x.shape[2:])

    def put_back(self, x: Shaped[Array, "R C"], episodes: int) -> Shaped[Array, "E L"]:
        """The inverse of `take`, for `rows` alone: zeros where an episode stands in none of them."""
        size, tokens = episodes * self.length, self.rows(jnp.asarray(self.tokens))
        where = jnp.where(tokens == EMPTY, size, tokens)
        return jnp.zeros(size, x.dtype).at[where].set(x, mode="drop").reshape(episodes, -1)

    def seen(self, valid: Bool[Array, "Q T"]) -> Bool[Array, "Q T W"]:
        """What each token of a part sees of the S places before its rows, and of its own row; `valid` is
        False for padding, which nobody sees."""
        every = (jnp.asarray(self.tokens) // self.length, jnp.asarray(self.common), valid)
        before, rows = [x[:, : self.prompt] for x in every], [self.rows(x) for x in every]
        each = len(rows[0]) // len(valid)
        repeated = [jnp.repeat(x, each, axis=0) for x in before]
        in_rows = self._seen(rows, [jnp.concatenate(both, 1) for both in zip(repeated, rows, strict=True)])
        width = in_rows.shape[-1]
        in_before = jnp.pad(self._seen(before, before), ((0, 0), (0, 0), (0, width - self.prompt)))
        return jnp.concatenate([in_before, in_rows.reshape(len(valid), -1, width)], axis=1)

    def _seen(self, queries: list[Array], keys: list[Array]) -> Bool[Array, "R q k"]:
        """The same of rows whose queries are the last of their keys; of each: episode, common, valid."""
        mine, (others, common, valid) = queries[0][:, :, None], (x[:, None, :] for x in keys)
        related = common & (mine // self.samples == others // self.samples)
        after = keys[0].shape[1] - mine.shape[1]
        causal = jnp.tril(jnp.ones((mine.shape[1], keys[0].shape[1]), bool), after)
        return ((mine == others) | related) & valid & causal


@flax.struct.dataclass
class Packing:
    """A batch in parts.

    Attributes:
      places: of all M parts.
      parts: how many of them there are to do; nothing stands in the others.
    """

    places: Places
    parts: Int[Array | np.ndarray, ""]


def as_it_stands(episodes: int, length: int, samples: int, parts: int, prompt: int = 0) -> Packing:
    """Each episode in a row of its own, padding and all.

    Args:
      episodes: E, those of a problem together.
      length: L.
      samples: K, of each problem; problems stay whole.
      parts: M. Problems are dealt out, so that each part has some of every device's.
      prompt: S, the places with which all samples of a problem begin; with 0 each has a whole row.
    """
    every = np.arange(episodes * length, dtype=np.int32).reshape(-1, parts, samples, length).swapaxes(0, 1)
    rows = every[..., prompt:].reshape(parts, -1, length - prompt)
    before = every[:, :, 0, :prompt] if prompt else rows[:, :, :0]
    return Packing(joined(before, rows, np.zeros(rows.shape, bool), samples), np.array(parts, np.int32))


def joined(
    before: Int[np.ndarray, "M Q S"],
    rows: Int[np.ndarray, "M R C"],
    common: Bool[np.ndarray, "M R C"],
    samples: int,
) -> Places:
    """Places from those before the rows and those in them; `common` as in `Places`, of the rows' own."""
    join = lambda x, y: np.concatenate([x, y.reshape(*x.shape[:2], -1)], axis=2)
    prompt = before.shape[2]
    everywhere = join(np.ones(before.shape, bool), common)
    return Places(join(before, rows), everywhere, samples, prompt + rows.shape[2], prompt)
