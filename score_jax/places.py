"""Where the tokens of a batch stand while it is scored and learned from: several episodes share a row.

    rows of a batch     a group of a part: what samples have in common (S = 2), then rows of O = 11
    ·pp11··f22···       p·  p11f22p1f2·
    ·pp1···f2····           qq1f22q1f2·      · = padding; q: another problem's, its prompt once more

An update goes through its batch part by part. A part has room for its share of the problems; where attempts
end early it has room for more of them, and fewer parts are to be done. What all samples of a problem begin
with is computed once for all those in a group or a row; its last token stands with each of them, as it says
what their first sampled one is. A token sees its own episode and no other's. The sampled ones' scores are put
back to where they came from.

Letters beside those of `types`: M parts, each of Q groups of U = S + G O places. At the first S stands what
the samples of one problem have in common; G rows of O = L - S places follow, R = Q G in all.
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

EMPTY = -1  # in `Places.tokens`


@dataclasses.dataclass(frozen=True)
class Grid:
    """How a batch is cut.

    Attributes:
      samples: K, of each problem; problems stay whole, and their episodes stand together.
      parts: M. Problems are dealt out, so that each part has some of every device's.
      prompt: S, the places with which all samples of a problem begin: the prompts' slot without its last one;
        0: nothing stands before the rows.
      group: G, a divisor of K: so many samples share those.
    """

    samples: int
    parts: int = 1
    prompt: int = 0
    group: int = 1


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

    tokens: Int[Array | np.ndarray, "*M Q U"]
    common: Bool[Array | np.ndarray, "*M Q U"]
    samples: int = flax.struct.field(pytree_node=False)
    length: int = flax.struct.field(pytree_node=False)
    prompt: int = flax.struct.field(pytree_node=False)

    def part(self, number: int | Int[Array, ""]) -> Places:
        """One of all parts."""
        return jax.tree.map(lambda x: x[number], self)

    def take(self, x: Shaped[Array | np.ndarray, "E L"], empty: int) -> Shaped[Array, "Q U"]:
        """What stands at the places of a part; `empty` where nothing does."""
        return jnp.where(self.tokens == EMPTY, empty, jnp.ravel(x)[self.tokens])

    def rows(self, x: Shaped[Array, "Q U *D"]) -> Shaped[Array, "R O *D"]:
        """Of what stands in a part's places, that of the rows."""
        return x[:, self.prompt :].reshape(-1, self.length - self.prompt, *x.shape[2:])

    def put_back(self, x: Shaped[Array, "R O"], episodes: int) -> Shaped[Array, "E L"]:
        """The inverse of `take`, for `rows` alone: zeros where an episode stands in none of them.

        What samples have in common may stand in several rows. It is not defined which one's comes back: they
        are to be alike, as are the scores of all that was not sampled, 0.
        """
        size, tokens = episodes * self.length, self.rows(jnp.asarray(self.tokens))
        where = jnp.where(tokens == EMPTY, size, tokens)
        return jnp.zeros(size, x.dtype).at[where].set(x, mode="drop").reshape(episodes, -1)

    def seen(self, valid: Bool[Array, "Q U"]) -> Bool[Array, "Q U L"]:
        """What each token of a part sees of the S places before its rows, and of its own row; `valid` is
        False for padding, which nobody sees."""
        every = (jnp.asarray(self.tokens) // self.length, jnp.asarray(self.common), valid)
        before, rows = [x[:, : self.prompt] for x in every], [self.rows(x) for x in every]
        group = len(rows[0]) // len(valid)
        repeated = [jnp.repeat(x, group, axis=0) for x in before]
        in_rows = self._seen(rows, [jnp.concatenate(both, 1) for both in zip(repeated, rows, strict=True)])
        rest = self.length - self.prompt
        in_before = jnp.pad(self._seen(before, before), ((0, 0), (0, 0), (0, rest)))
        return jnp.concatenate([in_before, in_rows.reshape(len(valid), -1, self.length)], axis=1)

    def _seen(self, queries: list[Array], keys: list[Array]) -> Bool[Array, "R q k"]:
        """The same of rows whose queries are the last of their keys; of each: episode, common, valid."""
        mine, (others, common, valid) = queries[0][:, :, None], (x[:, None, :] for x in keys)
        related = common & (mine // self.samples == others // self.samples)
        after = keys[0].shape[1] - mine.shape[1]
        causal = jnp.tril(jnp.ones((mine.shape[1], keys[0].shape[1]), bool), after)
        return ((mine == others) | related) & valid & causal


@flax.struct.dataclass
class Arrangement:
    """A batch in parts.

    Attributes:
      places: of all M parts.
      parts: how many of them there are to do; nothing stands in the others.
    """

    places: Places
    parts: Int[Array | np.ndarray, ""]


def as_it_stands(episodes: int, length: int, grid: Grid) -> Arrangement:
    """Each of E episodes of L places in a row of its own, padding and all."""
    index = np.arange(episodes * length, dtype=np.int32)
    every = index.reshape(-1, grid.parts, grid.samples, length).swapaxes(0, 1)
    rows = every[..., grid.prompt :].reshape(grid.parts, episodes // grid.parts, length - grid.prompt)
    first = every[:, :, :1, : grid.prompt].repeat(grid.samples // grid.group, axis=2)
    before = first.reshape(grid.parts, rows.shape[1] // grid.group, grid.prompt)
    places = places_of(before, rows, np.zeros(rows.shape, bool), grid.samples)
    return Arrangement(places, np.array(grid.parts, np.int32))


def places_of(
    before: Int[np.ndarray, "M Q S"],
    rows: Int[np.ndarray, "M R O"],
    common: Bool[np.ndarray, "M R O"],
    samples: int,
) -> Places:
    """Of all parts: what stands before rows and in them; `common` as in `Places`, in the rows alone."""
    joined = lambda x, y: np.concatenate([x, y.reshape(*x.shape[:2], -1)], axis=2)
    prompt = before.shape[2]
    to_all = joined(np.ones(before.shape, bool), common)
    return Places(joined(before, rows), to_all, samples, prompt + rows.shape[2], prompt)
