"""A small vocabulary behind the gemma package's tokenizer interface."""

import re

import numpy as np
import pytest
import tiny
from gemma import gm

from score_jax.tokenizer import train_tokenizer

TASK = tiny.Riddles()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny.tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_it_is_a_gemma_tokenizer(tokenizer):
    assert isinstance(tokenizer, gm.text.Tokenizer)
    assert tokenizer.vocab_size == 300
    assert len(set(tokenizer.tokens)) == 300


def test_special_ids_are_gemmas_own_and_mean_what_they_say(tokenizer):
    mine, gemmas = tokenizer.special_tokens, gm.text.Gemma3Tokenizer.special_tokens
    for name in ("PAD", "EOS", "BOS", "UNK", "MASK"):
        assert getattr(mine, name) == getattr(gemmas, name)
    pieces = ["<pad>", "</s>", "<s>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    assert list(tokenizer.tokens[: len(pieces)]) == pieces
    assert [int(mine[name]) for name in ("START_OF_TURN", "END_OF_TURN")] == [5, 6]


def test_the_ends_are_added_when_asked_for(tokenizer):
    plain = tokenizer.encode("Check: ")
    special = tokenizer.special_tokens
    both = tokenizer.encode("Check: ", add_bos=True, add_eos=True)
    assert both == [special.BOS, *plain, special.EOS]
    assert tokenizer.decode(both) == "Check: "


def test_the_tasks_texts_come_back_as_they_were(tokenizer):
    rng = np.random.default_rng(0)
    problems = TASK.problems("test")
    texts = {TASK.instruction, *(problem.prompt for problem in problems)}
    texts |= {text for problem in problems for text in TASK.demonstration(problem, rng).attempts}
    texts |= {"  two  spaces, a break\n\nand an end ", "<start_of_turn>user\n"}
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.special_tokens.UNK not in ids


def test_digits_stand_alone(tokenizer):
    for piece in tokenizer.tokens:
        assert not re.search(r"\d", piece) or len(piece) == 1, piece
    digits = tokenizer.encode("2409")
    assert [tokenizer.decode([id_]) for id_ in digits] == list("2409")


def test_a_phrase_may_be_one_token(tokenizer):
    """A whole instruction costs few tokens: pieces span words."""
    assert max(piece.count(" ") for piece in tokenizer.tokens) > 2


def test_the_same_texts_give_the_same_vocabulary(tokenizer, tmp_path):
    again = tiny.tokenizer(tmp_path)
    assert list(again.tokens) == list(tokenizer.tokens)
    assert (tmp_path / "tokenizer.model").read_bytes() == tokenizer.path.read_bytes()


def test_too_large_a_vocabulary_is_refused(tmp_path):
    path = tmp_path / "tokenizer.model"
    with pytest.raises(
        ValueError, match=r"^config\.tokenizer\.vocab_size = 5000: no vocabulary of that size"
    ):
        train_tokenizer(["few words"], path, vocab_size=5000)
    assert not path.exists()
