"""`solve`: a trained policy's attempts at a problem given on the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from etils import epath
from rich.text import Text

from score_jax import rollout
from score_jax.config import config_of, relocate
from score_jax.evaluate import load_one
from score_jax.log import console
from score_jax.types import Problem


def solve(
    workdir: epath.Path, problem: str, checkpoint: str = "best", overrides: Sequence[str] = ()
) -> list[str]:
    """Prints each attempt, with what changed since the one before marked, and returns them."""
    config = config_of(workdir)
    relocate(config, overrides)
    _, actor, params = load_one(config, workdir, checkpoint, say=lambda _: None)
    problems = [Problem(id="given", prompt=actor.task.ask(problem), gold="")]
    keys = rollout.row_keys(config.seed, "solve", 0, 1)
    _, graded = rollout.roll_out(actor, params, problems, keys, temperature=0.0)
    before = None
    for number, text in enumerate(graded.texts[0], start=1):
        console.print(Text(f"Attempt {number}  ", style="bold").append_text(marked(before, text)))
        before = text
    answers = graded.answers[0]
    console.print("The answer changed." if len(set(answers)) > 1 else "The answer stayed the same.")
    return graded.texts[0]


def marked(before: str | None, text: str) -> Text:
    """`text` with the words that were not in `before` in reverse (and [bracketed], for plain terminals)."""
    words = re.findall(r"\s+|[^\s]+", text)
    if before is None:
        return Text(text)
    out = Text()
    matcher = difflib.SequenceMatcher(a=re.findall(r"\s+|[^\s]+", before), b=words, autojunk=False)
    for kind, _, _, start, stop in matcher.get_opcodes():
        piece = "".join(words[start:stop])
        if kind == "equal" or not piece.strip():
            out.append(piece)
        else:
            out.append(f"[{piece}]", style="bold reverse")
    return out
