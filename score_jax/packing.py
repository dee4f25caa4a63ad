"""Where the tokens of a batch stand while it is scored and learned from: several episodes share a row.

    rows of a batch       a row of a part
    ·p11··f22···          p11f22pp1f222···          · = padding
    pp1···f222··

An update goes through its batch part by part. A part has so many rows as it would have of episodes, each as
long as a transcript; where attempts end early it has room for more of them, and fewer parts are to be done.
No token sees another episode's, and the sampled ones' scores are put back to where they came from.
"""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from score_jax.types import PADDING

_EMPTY = -1


@flax.struct.dataclass
class Packing:
    """What stands where.

    Attributes:
      places: of each part, row and place in it the token's index in the batch: episode x L + its index in
        the transcript; -1 where nothing stands.
      parts: how many of the M parts there are to do; nothing stands in the others.
    """

    places: Int[Array | np.ndarray, "M R L"]
    parts: Int[Array | np.ndarray, ""]


def as_it_stands(episodes: int, length: int, samples: int, parts: int) -> Packing:
    """Each episode in a row of its own, padding and all.

    Args:
      episodes: E, those of a problem together.
      length: L.
      samples: K, of each problem; problems stay whole.
      parts: M. Problems are dealt out, so that each part has some of every device's.
    """
    rows = np.arange(episodes * length, dtype=np.int32).reshape(-1, parts, samples, length)
    return Packing(rows.swapaxes(0, 1).reshape(parts, -1, length), np.array(parts, np.int32))


def packed(attempt: Int[np.ndarray, "E L"], samples: int, parts: int) -> Packing:
    """As few parts as first fit finds, the longest problems first, each episode in the fullest row that has
    room for it.

    Until a part holds its share of the problems, at least K of its rows are empty, and these have room for
    any problem: so M parts are always enough.

    Args:
      attempt: `Episodes.attempt`.
      samples: K, of each problem; problems stay whole.
      parts: M, at most. A single one cannot be fewer, and is left as it stands.
    """
    episodes, length = attempt.shape
    if parts == 1:
        return as_it_stands(episodes, length, samples, parts)
    stands = attempt != PADDING
    lengths = stands.sum(axis=1).reshape(-1, samples)
    room = np.full((parts, episodes // parts), length)
    rows: list[list[list[int]]] = [[[] for _ in part] for part in room]
    for problem in np.argsort(-lengths.sum(axis=1), kind="stable").tolist():
        longest_first = np.argsort(-lengths[problem], kind="stable")
        for part in np.flatnonzero(room.sum(axis=1) >= lengths[problem].sum()).tolist():
            chosen, left = _fit(lengths[problem, longest_first], room[part])
            if left is not None:
                room[part] = left
                for row, sample in zip(chosen, longest_first.tolist(), strict=True):
                    rows[part][row].append(problem * samples + sample)
                break
    places = np.full((parts, episodes // parts, length), _EMPTY, np.int32)
    for part, row in np.ndindex(*room.shape):
        taken = [episode * length + np.flatnonzero(stands[episode]) for episode in rows[part][row]]
        if taken:
            places[part, row, : length - room[part, row]] = np.concatenate(taken)
    done = np.any(places != _EMPTY, axis=(1, 2)).sum()
    return Packing(places, np.array(done, np.int32))


def _fit(lengths: np.ndarray, room: np.ndarray) -> tuple[list[int], np.ndarray | None]:
    """The row that takes each of some episodes, and the room that is left; None where there is too little."""
    chosen: list[int] = []
    left = room.copy()
    for length in lengths.tolist():
        row = int(np.argmin(np.where(left >= length, left, np.iinfo(left.dtype).max)))
        if left[row] < length:
            return chosen, None
        left[row] -= length
        chosen.append(row)
    return chosen, left


def take(x: Shaped[Array | np.ndarray, "E L"], places: Int[Array, "R L"], empty: int) -> Shaped[Array, "R L"]:
    """What stands at the places of a part; `empty` where nothing does."""
    return jnp.where(places == _EMPTY, empty, jnp.ravel(x)[places])


def put_back(x: Shaped[Array, "R L"], places: Int[Array, "R L"], episodes: int) -> Shaped[Array, "E L"]:
    """The inverse of `take`: zeros where an episode, or its padding, stands in no place of the part."""
    size = episodes * places.shape[-1]
    where = jnp.where(places == _EMPTY, size, places)
    return jnp.zeros(size, x.dtype).at[where].set(x, mode="drop").reshape(episodes, -1)


def episode_of(places: Int[Array, "R L"]) -> Int[Array, "R L"]:
    """Whose token stands at each place; -1 where nothing does."""
    return places // places.shape[-1]
