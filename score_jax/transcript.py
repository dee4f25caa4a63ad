"""Attempts for a terminal, with what changed from one to the next marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from rich.text import Text

from score_jax.log import console, say


def explain_marks() -> None:
    """Says what the brackets mean, where the terminal shows no styles and `print_attempts` makes some."""
    if console.color_system is None:
        say("[...]: words that the attempt before has not")


def print_attempts(texts: Sequence[str]) -> None:
    """Prints each attempt, the words marked that the one before has not."""
    for number, text in enumerate(texts, start=1):
        plain = console.color_system is None
        shown = marked(texts[number - 2], text, brackets=plain) if number > 1 else Text(text)
        console.print(Text(f"Attempt {number}  ", style="bold").append_text(shown))


def marked(before: str, text: str, *, brackets: bool = True) -> Text:
    """`text` with the words that were not in `before` in reverse, and for plain terminals in [brackets]."""
    words = re.findall(r"\s+|[^\s]+", text)
    out = Text()
    matcher = difflib.SequenceMatcher(a=re.findall(r"\s+|[^\s]+", before), b=words, autojunk=False)
    for kind, _, _, start, stop in matcher.get_opcodes():
        piece = "".join(words[start:stop])
        if kind == "equal" or not piece.strip():
            out.append(piece)
        else:
            out.append(f"[{piece}]" if brackets else piece, style="bold reverse")
    return out
