"""`solve`: a trained policy's attempts at problems of yours."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from etils import epath

from score_jax import rollout
from score_jax.config import config_of, relocate
from score_jax.evaluate import load_one
from score_jax.gemma import gm
from score_jax.log import console, say
from score_jax.transcript import explain_marks, print_attempts
from score_jax.types import Problem


def solve(
    workdir: epath.Path,
    problem: str | None = None,
    checkpoint: str = "best",
    overrides: Sequence[str] = (),
) -> list[list[str]]:
    """Prints each attempt at each problem, and returns them.

    Args:
      workdir: of the run.
      problem: its text; None: lines of standard input are, until its end (in a terminal: an empty one).
      checkpoint: base, latest, best or a step.
      overrides: --config.base_dir=... and the like, where files were moved.

    Raises:
      ValueError: the problem is empty or does not fit its slot; of standard input's, such a one is said and
        left out.
    """
    if problem is not None and not problem.strip():
        raise ValueError("the problem is empty; give its text, or leave it out to be asked for some")
    config = config_of(workdir)
    relocate(config, overrides)
    _, actor, params = load_one(config, workdir, checkpoint, say=lambda _: None)

    def attempt(text: str, number: int) -> list[str]:
        problems = [Problem(id="given", prompt=actor.task.ask(text), gold="")]
        if warning := unknown(actor.format.tokenizer, text):
            say(warning)
        keys = rollout.row_keys(config.seed, "solve", number, 1)
        _, graded = rollout.roll_out(actor, params, problems, keys, temperature=0.0)
        print_attempts(graded.texts[0])
        say("The answer changed." if len(set(graded.answers[0])) > 1 else "The answer stayed the same.")
        return graded.texts[0]

    explain_marks()
    if problem is not None:
        return [attempt(problem, 0)]
    found = []
    for number, text in enumerate(asked()):
        if not sys.stdin.isatty():
            say(f"\n{text}")
        try:
            found.append(attempt(text, number))
        except ValueError as error:
            say(f"{error}")
    return found


def unknown(tokenizer: gm.text.Tokenizer, text: str) -> str:
    """A warning of tokens that the tokenizer does not know; "" if there are none."""
    tokens = tokenizer.encode(text)
    if not (count := tokens.count(int(tokenizer.special_tokens.UNK))):
        return ""
    return (
        f"WARNING: {count} of {len(tokens)} tokens of the problem are unknown to the tokenizer; the model "
        "does not see what they say."
    )


def asked() -> Iterator[str]:
    """Problems from standard input, a line each; a person at a terminal is asked for them."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    while True:
        try:
            line = console.input("\nA problem (an empty line ends): ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()  # ends the line of the question
            return
        if not line:
            return
        yield line
