"""First fit: as few parts of a batch as its episodes' lengths allow."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from score_jax.places import EMPTY, Packing, as_it_stands, joined
from score_jax.types import CONTEXT, PADDING


def packed(
    tokens: Int[np.ndarray, "E L"],
    attempt: Int[np.ndarray, "E L"],
    samples: int,
    parts: int,
    prompt: int = 0,
) -> Packing:
    """As few parts as first fit finds, the longest problems first; see `_Part`.

    Args:
      tokens: `Episodes.tokens`.
      attempt: `Episodes.attempt`.
      samples: K, of each problem; problems stay whole.
      parts: M, at most. A single one cannot be fewer, and is left as it stands.
      prompt: S: the prompts' slot without its last place; or 0.

    Raises:
      ValueError: S is not 0, and the samples of a problem do not begin with the same prompt.
    """
    episodes, length = attempt.shape
    common = _in_common(tokens, attempt, samples, prompt)
    index = np.arange(episodes * length, dtype=np.int32).reshape(-1, samples, length)
    own = (attempt != PADDING).reshape(index.shape) & ~common[:, None]
    if apart := np.flatnonzero(own[:, :, :prompt].any(axis=(1, 2))).tolist():
        raise ValueError(
            f"the episodes of problem {apart[0]} of the batch do not begin with the same prompt; give all "
            "samples of a problem the same one, or share none: prompt = 0"
        )
    if parts == 1:
        return as_it_stands(episodes, length, samples, parts, prompt)
    done = [_Part(episodes // parts, length, samples, prompt) for _ in range(parts)]
    for problem in np.argsort(-own.sum(axis=(1, 2)) - common.sum(axis=1), kind="stable").tolist():
        longest_first = np.argsort(-own[problem].sum(axis=1), kind="stable")
        given = [index[problem, sample, own[problem, sample]] for sample in longest_first]
        first = index[problem, 0, common[problem]]
        if not any(part.add(first, given) for part in done):
            raise AssertionError(f"no part has room for problem {problem}")  # see _Part: one always has
    before, rows, shared = (
        np.stack([getattr(part, x) for part in done]) for x in ("before", "rows", "common")
    )
    return Packing(joined(before, rows, shared, samples), np.array(sum(p.used.any() for p in done), np.int32))


def _in_common(
    tokens: Int[np.ndarray, "E L"], attempt: Int[np.ndarray, "E L"], samples: int, most: int
) -> Bool[np.ndarray, "B L"]:
    """What all samples of a problem begin with, without the last token of their context; at most `most`
    tokens, where that is not 0."""
    if samples == 1:
        return np.zeros(attempt.shape, bool)
    given, who = (
        x.reshape(-1, samples, x.shape[1]) for x in (np.where(attempt == PADDING, 0, tokens), attempt)
    )
    alike = ((given == given[:, :1]) & (who == who[:, :1]) & (who <= CONTEXT)).all(axis=1)
    context = np.logical_and.accumulate(alike, axis=1) & (who[:, 0] == CONTEXT)
    rank = np.cumsum(context, axis=1)
    return context & (rank < rank[:, -1:]) & (rank <= (most or rank[:, -1:]))


class _Part:
    """Rows of a part that are filled from the left.

    They are opened K by K, a problem's worth. A problem takes fresh ones where they come with S places for
    its prompt; else each of its samples goes to the fullest row that has room for it, and for the prompt if
    that does not stand there yet. So none opens more than K rows, and M parts have room for all.
    """

    def __init__(self, rows: int, length: int, samples: int, prompt: int) -> None:
        self.before = np.full((rows // samples if prompt else rows, prompt), EMPTY, np.int32)
        self.rows = np.full((rows, length - prompt), EMPTY, np.int32)
        self.common = np.zeros(self.rows.shape, bool)
        self.used = np.zeros(rows, int)
        self._samples, self._open = samples, 0

    def add(self, first: Int[np.ndarray, "p"], samples: list[Int[np.ndarray, "_"]]) -> bool:
        """Adds a problem's samples, the longest first, and what they begin with; or nothing, if there is too
        little room."""
        fresh = slice(self._open, min(self._open + self._samples, len(self.rows)))
        price = np.full(fresh.stop, len(first))
        if self.before.size:
            price[fresh] = 0
        chosen = self._fit([len(sample) for sample in samples], price)
        if max(chosen, default=-1) >= fresh.start:
            if self.before.size:
                self.before[fresh.start // self._samples, : len(first)] = first
            self._open = fresh.stop
        for row, sample in zip(chosen, samples, strict=False):
            if price[row]:
                self._append(row, first, common=True)
                price[row] = 0
            self._append(row, sample, common=False)
        return bool(chosen)

    def _fit(self, lengths: list[int], price: Int[np.ndarray, "r"]) -> list[int]:
        """A row for each, where a prompt has its price; [] where there is too little room."""
        room, price, chosen = self.rows.shape[1] - self.used[: len(price)], price.copy(), []
        for length in lengths:
            fits = np.flatnonzero(room >= length + price)
            if not len(fits):
                return []
            row = int(fits[np.lexsort((room[fits], price[fits]))[0]])
            room[row] -= length + price[row]
            price[row] = 0
            chosen.append(row)
        return chosen

    def _append(self, row: int, tokens: Int[np.ndarray, "_"], *, common: bool) -> None:
        places = slice(self.used[row], self.used[row] + len(tokens))
        self.rows[row, places], self.common[row, places] = tokens, common
        self.used[row] = places.stop
