"""A transcript as HTML for notebooks: each token on the colour of a number, which stands above it.

The colours are washes of blue (above 0) and orange (below 0) that let the page through, and the text has the
page's own colour: readable on light and on dark pages.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from score_jax.chat import Format
from score_jax.percent import MINUS
from score_jax.types import CONTEXT, PADDING

_ABOVE, _BELOW = "70,135,220", "225,110,30"  # red, green, blue
_DEEPEST = 0.55  # opacity of the largest number
_END = "\N{BLACK SQUARE}"
_LINE = "\N{RETURN SYMBOL}"


def pieces(format: Format, tokens: Int[np.ndarray, "L"], attempt: Int[np.ndarray, "L"]) -> list[str]:
    """The text of each token of a transcript, "" where nothing stands.

    A token is what the text grows by with it, so that what one token alone would not show is there. The end
    of an attempt is a black square.

    Args:
      format: whose tokens they are.
      tokens: of one row of `Episodes`.
      attempt: of the same row.
    """
    special = format.tokenizer.special_tokens
    silent = {int(special.PAD), int(special.BOS)}
    found: list[str] = []
    before: list[int] = []
    author = PADDING
    for token, by in zip(tokens.tolist(), attempt.tolist(), strict=True):
        before, author = ([], by) if by != author else (before, author)
        if by == PADDING or token in silent:
            found.append("")
        elif token == format.end:
            found.append(_END)
            before = []
        else:
            before = [*before, token]
            found.append(format.text(before)[len(format.text(before[:-1])) :])
    return found


def highlighted(
    title: str,
    texts: Sequence[str],
    attempt: Int[np.ndarray, "L"],
    values: Float[np.ndarray, "L"] | None = None,
    *,
    deepest: float = 0.0,
    digits: int = 2,
) -> str:
    """One transcript as a paragraph of HTML; all of its text is escaped.

    Args:
      title: what the numbers are.
      texts: of each token, see `pieces`; what is "" is left out.
      attempt: who wrote it: numbers stand on sampled tokens alone, what was given is grey.
      values: a number for each token; None shows the transcript without any.
      deepest: the absolute value that has the deepest colour; 0: the largest there is.
      digits: after the point.
    """
    sampled = attempt > CONTEXT
    if values is not None and not deepest:
        deepest = float(np.abs(values[sampled]).max(initial=0.0))
    parts, author = [], PADDING
    for index, (text, by) in enumerate(zip(texts, attempt.tolist(), strict=True)):
        if not text:
            continue
        if by != author:
            parts.append("<br>" * (author != PADDING) + f"<b>{by}</b> " * (by > CONTEXT))
            author = by
        # Alone in an element a dollar sign opens no formula, which notebooks would set.
        shown = html.escape(text).replace("\n", _LINE).replace("$", "<span>$</span>")
        if by == CONTEXT:
            parts.append(f'<span style="opacity:.65">{shown}</span>')
        elif values is None:
            parts.append(shown)
        else:
            parts.append(_coloured(shown, float(values[index]), deepest, digits))
    style = "font-family:monospace;line-height:2.4;white-space:pre-wrap;margin:.3em 0 1em"
    scale = f" (deepest colour: {deepest:.3g})" if values is not None else ""
    return f"<div><b>{html.escape(title)}</b>{scale}</div><div style='{style}'>{''.join(parts)}</div>"


def _coloured(shown: str, value: float, deepest: float, digits: int) -> str:
    """A token under its number, on its colour."""
    share = min(abs(value) / deepest, 1.0) if deepest else 0.0
    colour = f"rgba({_ABOVE if value > 0 else _BELOW},{_DEEPEST * share:.2f})"
    number = f"{value:.{digits}f}"
    number = number.lstrip("-") if float(number) == 0 else number.replace("-", MINUS)
    edge = "border-left:1px solid rgba(128,128,128,.5)"
    return f'<ruby style="background:{colour};{edge}">{shown}<rt style="padding:0 .3em">{number}</rt></ruby>'
