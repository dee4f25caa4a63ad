"""First fit: as few parts of a batch as its episodes' lengths allow."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from score_jax.places import EMPTY, Arrangement, Grid, as_it_stands, places_of
from score_jax.types import CONTEXT, PADDING


def packed(tokens: Int[np.ndarray, "E L"], attempt: Int[np.ndarray, "E L"], grid: Grid) -> Arrangement:
    """As few parts as first fit finds, the longest problems first; see `_Part`.

    Args:
      tokens: `Episodes.tokens`.
      attempt: `Episodes.attempt`.
      grid: has as many parts as there may be. A single one cannot be fewer, and is left as it stands.

    Raises:
      ValueError: S is not 0, and the samples of a problem do not begin with the same prompt.
    """
    episodes, length = attempt.shape
    common = _in_common(tokens, attempt, grid)
    index = np.arange(episodes * length, dtype=np.int32).reshape(-1, grid.samples, length)
    own = (attempt != PADDING).reshape(index.shape) & ~common[:, None]
    if apart := np.flatnonzero(own[:, :, : grid.prompt].any(axis=(1, 2))).tolist():
        raise ValueError(
            f"the episodes of problem {apart[0]} of the batch do not begin with the same prompt; give all "
            "samples of a problem the same one, or have none stand before their rows: prompt = 0"
        )
    if grid.parts == 1:
        return as_it_stands(episodes, length, grid)
    filled = [_Part(episodes // grid.parts, length, grid) for _ in range(grid.parts)]
    for problem in np.argsort(-own.sum(axis=(1, 2)) - common.sum(axis=1), kind="stable").tolist():
        longest_first = np.argsort(-own[problem].sum(axis=1), kind="stable")
        owns = [index[problem, sample, own[problem, sample]] for sample in longest_first]
        if not any(part.add(index[problem, 0, common[problem]], owns) for part in filled):
            raise AssertionError(f"no part has room for problem {problem}")  # see _Part: one always has
    places = places_of(
        np.stack([part.before for part in filled]),
        np.stack([part.rows for part in filled]),
        np.stack([part.common for part in filled]),
        grid.samples,
    )
    return Arrangement(places, np.array(sum(part.used.any() for part in filled), np.int32))


def _in_common(
    tokens: Int[np.ndarray, "E L"], attempt: Int[np.ndarray, "E L"], grid: Grid
) -> Bool[np.ndarray, "B L"]:
    """What all samples of a problem begin with, without the last token of their context; at most S tokens,
    where something stands before the rows."""
    if grid.samples == 1:
        return np.zeros(attempt.shape, bool)
    given, who = (
        x.reshape(-1, grid.samples, x.shape[1]) for x in (np.where(attempt == PADDING, 0, tokens), attempt)
    )
    alike = ((given == given[:, :1]) & (who == who[:, :1]) & (who <= CONTEXT)).all(axis=1)
    context = np.logical_and.accumulate(alike, axis=1) & (who[:, 0] == CONTEXT)
    rank = np.cumsum(context, axis=1)
    return context & (rank < rank[:, -1:]) & (rank <= (grid.prompt or rank[:, -1:]))


class _Part:
    """Rows of a part that are filled from the left.

    They are opened K by K, a problem's worth. Each sample goes to a row where its prompt stands already, or
    may stand before it, else to one that has room for both; of several to the fullest. A row with what is
    before it has room for any episode, and no problem opens more than K: so M parts have room for all.
    """

    def __init__(self, rows: int, length: int, grid: Grid) -> None:
        self.before = np.full((rows // grid.group, grid.prompt), EMPTY, np.int32)
        self.rows = np.full((rows, length - grid.prompt), EMPTY, np.int32)
        self.common = np.zeros(self.rows.shape, bool)
        self.used = np.zeros(rows, int)
        self._grid, self._open = grid, 0

    def add(self, common: Int[np.ndarray, "p"], owns: list[Int[np.ndarray, "_"]]) -> bool:
        """Adds a problem, what its samples have in common and what each has of its own, the longest first; or
        nothing, where there is too little room."""
        fresh = slice(self._open, min(self._open + self._grid.samples, len(self.rows)))
        cost = np.full(fresh.stop, len(common))  # of the prompt, in each row
        if self.before.size:
            cost[fresh] = 0
        chosen = self._fit([len(own) for own in owns], cost)
        if max(chosen, default=-1) >= fresh.start:
            if self.before.size:
                groups = slice(fresh.start // self._grid.group, fresh.stop // self._grid.group)
                self.before[groups, : len(common)] = common
            self._open = fresh.stop
        for row, own in zip(chosen, owns, strict=False):
            if cost[row]:
                self._append(row, common, to_all=True)
                cost[row] = 0
            self._append(row, own, to_all=False)
        return bool(chosen)

    def _fit(self, lengths: list[int], cost: Int[np.ndarray, "r"]) -> list[int]:
        """A row for each; [] where there is too little room."""
        room, cost, chosen = self.rows.shape[1] - self.used[: len(cost)], cost.copy(), []
        for length in lengths:
            fits = np.flatnonzero(room >= length + cost)
            if not len(fits):
                return []
            row = int(fits[np.lexsort((room[fits], cost[fits]))[0]])
            room[row] -= length + cost[row]
            cost[row] = 0
            chosen.append(row)
        return chosen

    def _append(self, row: int, tokens: Int[np.ndarray, "_"], *, to_all: bool) -> None:
        places = slice(self.used[row], self.used[row] + len(tokens))
        self.rows[row, places], self.common[row, places] = tokens, to_all
        self.used[row] = places.stop
