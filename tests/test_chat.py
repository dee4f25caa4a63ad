"""chat: the turns that Gemma was tuned on, token by token, and an attempt's text."""

import dialog
import pytest
import tiny
from gemma import gm

from score_jax import chat


@pytest.fixture(scope="module", params=[2, 3, 4])
def turns(request, tmp_path_factory):
    path = tiny.released_tokenizer(tmp_path_factory.mktemp("tokenizer") / "t.model", request.param)
    return chat.turns(getattr(gm.text, f"Gemma{request.param}Tokenizer")(path=str(path)))


def test_a_transcript_in_turns_is_the_packages_own_conversation(turns):
    first, second, question, fix = "It is $7$.", "No, $8$.", "What is it?\n", "Look again."
    ours = turns.prompt(question) + turns.attempt(first) + turns.instruction(fix) + turns.attempt(second)
    words = (dialog.User(question), dialog.Model(first), dialog.User(fix), dialog.Model(second))
    theirs = dialog.Conversation(*words).as_text(format=turns.tokenizer.FORMAT)
    special = turns.tokenizer.special_tokens
    assert ours[:-1] == turns.tokenizer.encode(theirs, add_bos=True)  # the package leaves the last turn open
    assert ours.count(special.START_OF_TURN) == 4 and ours[-1] == special.END_OF_TURN == turns.end


def test_an_attempts_text_is_without_its_end(turns):
    assert turns.text(turns.attempt("It is $7$.")) == "It is $7$."
    assert turns.text(turns.attempt("It is $7$.")[:-1]) == "It is $7$."
    assert turns.text([]) == ""


def test_ids_beyond_the_vocabulary_are_unknown_words(turns):
    """Gemma 2's embedding table has 128 rows more than its tokenizer has tokens."""
    beyond = turns.tokenizer.vocab_size
    unknown = turns.tokenizer.decode([turns.tokenizer.special_tokens.UNK])
    assert turns.text([beyond, beyond + 127]) == unknown * 2


def test_plain_words_are_left_as_they_are(tmp_path):
    format = chat.plain(tiny.tokenizer(tmp_path))
    tokens = format.tokenizer
    assert format.prompt("multiply") == tokens.encode("multiply", add_bos=True)
    assert format.instruction("multiply") == tokens.encode("multiply")
    assert format.attempt("multiply") == tokens.encode("multiply", add_eos=True)
    assert (format.end, format.pad) == (tokens.special_tokens.EOS, tokens.special_tokens.PAD)
