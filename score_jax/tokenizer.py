"""A small SentencePiece tokenizer with Gemma's special tokens, behind the gemma package's interface."""

from __future__ import annotations

import dataclasses
import enum
import io
from collections.abc import Iterable

import sentencepiece
from etils import epath

from score_jax.gemma import gm
from score_jax.records import write_bytes

# What the gemma package calls `<unusedX>`, images and audio has no place in so small a vocabulary.
_CONTROL = ("<mask>",)
_SYMBOLS = ("<start_of_turn>", "<end_of_turn>", "\n")


class _SpecialTokens(gm.text.SpecialTokens, enum.IntEnum):
    PAD = 0
    EOS = 1
    BOS = 2
    UNK = 3
    MASK = 4
    START_OF_TURN = 5
    END_OF_TURN = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallTokenizer(gm.text.Tokenizer):
    """A `gm.text.Tokenizer` over a vocabulary made by `train_tokenizer`."""

    special_tokens = _SpecialTokens

    VERSION = "small"


def train_tokenizer(texts: Iterable[str], path: epath.PathLike, *, vocab_size: int) -> SmallTokenizer:
    """Trains a byte-pair vocabulary on `texts`, writes it to `path` and opens it.

    As in Gemma's tokenizer, digits stand alone, white space is kept, and nothing is normalised.
    Unlike there, pieces may span words: a task's text has few phrases, and a phrase that is one
    token keeps transcripts short.

    Raises:
      ValueError: the texts are too few for `vocab_size` pieces.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            pad_id=_SpecialTokens.PAD,
            eos_id=_SpecialTokens.EOS,
            bos_id=_SpecialTokens.BOS,
            unk_id=_SpecialTokens.UNK,
            control_symbols=list(_CONTROL),
            user_defined_symbols=list(_SYMBOLS),
            split_digits=True,
            split_by_whitespace=False,
            split_by_unicode_script=False,
            split_by_number=False,
            max_sentencepiece_length=64,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            character_coverage=1.0,
            num_threads=1,  # the same vocabulary on every machine
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"config.tokenizer.vocab_size = {vocab_size}: no vocabulary of that size from this text ({error})"
        ) from error
    epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, model.getvalue())
    return SmallTokenizer(path=path)
