"""Between text and tokens: a task's words as they are, or as the turns of a chat."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from score_jax.gemma import gm


@dataclasses.dataclass(frozen=True)
class Format:
    """A tokenizer, and the text around prompts, instructions and attempts.

    Attributes:
      tokenizer: the model's.
      before: stands before a prompt.
      again: stands before a correction instruction, after the attempt's end token.
      after: stands after either; the model's attempt follows.
      end: the token with which the model closes an attempt.
    """

    tokenizer: gm.text.Tokenizer
    before: str
    again: str
    after: str
    end: int

    @property
    def pad(self) -> int:
        """The token that fills empty places."""
        return int(self.tokenizer.special_tokens.PAD)

    def prompt(self, text: str) -> list[int]:
        """A task's prompt as the model is shown it."""
        return self.tokenizer.encode(self.before + text + self.after, add_bos=True)

    def instruction(self, text: str) -> list[int]:
        """A task's correction instruction as the model is shown it."""
        return self.tokenizer.encode(self.again + text + self.after)

    def attempt(self, text: str) -> list[int]:
        """An attempt as the model would write it."""
        return [*self.tokenizer.encode(text), self.end]

    def text(self, attempt: Sequence[int]) -> str:
        """The text of (the first tokens of) an attempt, without the token that closes it.

        A released Gemma's embedding table may have more rows than its tokenizer has tokens: UNK stands for
        those.
        """
        ids = attempt[:-1] if attempt and attempt[-1] == self.end else attempt
        unknown = int(self.tokenizer.special_tokens.UNK)
        return self.tokenizer.decode([id_ if id_ < self.tokenizer.vocab_size else unknown for id_ in ids])


def plain(tokenizer: gm.text.Tokenizer) -> Format:
    """The words as they are: for models that continue text."""
    return Format(tokenizer, "", "", "", int(tokenizer.special_tokens.EOS))


def turns(tokenizer: gm.text.Tokenizer) -> Format:
    """Gemma's chat: a turn of the user's, a turn of the model's, and again.

        <start_of_turn>user⏎ prompt <end_of_turn>⏎<start_of_turn>model⏎ attempt 1 <end_of_turn>
        ⏎<start_of_turn>user⏎ instruction <end_of_turn>⏎<start_of_turn>model⏎ attempt 2 <end_of_turn>

    Gemma 4 writes its two marks otherwise; they are read from the tokenizer.
    """
    special = tokenizer.special_tokens
    start, end = (tokenizer.tokens[token] for token in (special.START_OF_TURN, special.END_OF_TURN))
    return Format(
        tokenizer,
        before=f"{start}user\n",
        again=f"\n{start}user\n",
        after=f"{end}\n{start}model\n",
        end=int(special.END_OF_TURN),
    )
