"""Text to token rows, and where in its tokens an answer stands."""

import re

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax import prompts
from score_jax.chat import plain
from score_jax.slots import Slots
from score_jax.task import Answer, Demonstration
from score_jax.types import CONTEXT, PADDING, Problem

TASK = tiny.Riddles()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny.tokenizer(tmp_path_factory.mktemp("tokenizer"))


def problems(count: int = 4) -> list[Problem]:
    return TASK.problems("test")[:count]


def test_make_slots_encodes_the_tasks_instruction(tokenizer):
    slots = prompts.make_slots(plain(tokenizer), TASK, prompt=70, attempt=40, attempts=3)
    assert (slots.prompt, slots.attempt, slots.attempts) == (70, 40, 3)
    assert tokenizer.decode(list(slots.instruction)) == TASK.instruction


def test_prompts_are_padded_on_the_left(tokenizer):
    rows = prompts.encode_prompts(plain(tokenizer), problems(), Slots(90, 1, (), 1))
    assert rows.shape == (4, 90)
    special = tokenizer.special_tokens
    for row, problem in zip(rows.tolist(), problems(), strict=True):
        start = row.index(special.BOS)
        assert set(row[:start]) == {special.PAD}
        assert special.PAD not in row[start:]
        assert tokenizer.decode(row[start + 1 :]) == problem.prompt


def test_a_prompt_may_fill_its_slot_but_nothing_is_cut(tokenizer):
    lengths = {p.id: len(tokenizer.encode(p.prompt, add_bos=True)) for p in problems(40)}
    longest = max(lengths, key=lengths.get)
    prompts.encode_prompts(plain(tokenizer), problems(40), Slots(lengths[longest], 1, (), 1))
    slot = min(lengths.values())
    count = sum(length > slot for length in lengths.values())
    assert 0 < count < 40
    with pytest.raises(ValueError) as refused:
        prompts.encode_prompts(plain(tokenizer), problems(40), Slots(slot, 1, (), 1))
    said = str(refused.value)
    assert said.startswith(
        f"config.slots.prompt = {slot}: {count} of 40 prompts are longer ({longest!r} with "
    )
    assert said.endswith(f" tokens); shorten them, or train with config.slots.prompt = {lengths[longest]}")
    listed = sorted((length for length in lengths.values() if length > slot), reverse=True)[:20]
    assert [int(length) for length in re.findall(r"' with (\d+)", said)] == listed
    assert (f" and {count - 20} more tokens" in said) == (count > 20)


def test_demonstrations_stand_where_samples_would(tokenizer):
    slots = prompts.make_slots(plain(tokenizer), TASK, prompt=90, attempt=80, attempts=2)
    rng = np.random.default_rng(0)
    demonstrations = [TASK.demonstration(problem, rng) for problem in problems(20)]
    tokens, attempt, weight = prompts.encode_demonstrations(
        plain(tokenizer), TASK, problems(20), demonstrations, slots
    )
    assert tokens.shape == attempt.shape == weight.shape == (20, slots.length)
    np.testing.assert_array_equal(
        tokens[:, :90], prompts.encode_prompts(plain(tokenizer), problems(20), slots)
    )
    np.testing.assert_array_equal(attempt[:, :90] == CONTEXT, tokens[:, :90] != tokenizer.special_tokens.PAD)
    between = slice(90 + 80, slots.start(2))
    np.testing.assert_array_equal(tokens[:, between], np.tile(slots.instruction, (20, 1)))
    assert (attempt[:, between] == CONTEXT).all()
    unlearned = 0
    for row, demonstration in enumerate(demonstrations):
        for number in (1, 2):
            place = np.flatnonzero(attempt[row] == number)
            text = demonstration.attempts[number - 1]
            ids = tokenizer.encode(text, add_eos=True)
            np.testing.assert_array_equal(place, slots.start(number) + np.arange(len(ids)))
            assert tokens[row, place].tolist() == ids
            learned = [1.0] * len(ids)
            if not demonstration.imitate_answer[number - 1]:
                unlearned += 1
                digits = text.split("$")[1]
                first = len(tokenizer.encode(text[: text.index("$") + 1]))
                learned[first : first + len(digits)] = [0.0] * len(digits)  # digits stand alone
            assert weight[row, place].tolist() == learned
    assert unlearned > 2
    assert not weight[attempt <= CONTEXT].any()
    assert (attempt[(tokens == tokenizer.special_tokens.PAD)] == PADDING).all()


def test_a_demonstration_longer_than_its_slot_is_refused(tokenizer):
    text = "Final Answer: The final answer is $3$."
    needed = len(tokenizer.encode(text)) + 1
    demonstration = Demonstration((text,), (True,))
    encode = lambda slot: prompts.encode_demonstrations(
        plain(tokenizer), TASK, problems(1), [demonstration], Slots(90, slot, (), 1)
    )
    encode(needed)
    with pytest.raises(ValueError) as refused:
        encode(needed - 1)
    message = str(refused.value)
    for part in (f"config.slots.attempt = {needed - 1}", repr(problems()[0].id), f"to {needed} "):
        assert part in message


def characters_of(tokenizer, ids) -> list[int]:
    """For each character of the decoded text, which token it stands in: the first whose prefix shows it."""
    owners: list[int] = []
    for index in range(len(ids)):
        shown = len(tokenizer.decode(ids[: index + 1]))
        owners += [index] * (shown - len(owners))
    return owners


pieces = st.sampled_from(
    [*"012345 $.\nxé", "Final Answer: The final answer is $", "it is", "too small", "mul"]
)
texts = st.lists(pieces, max_size=12).map("".join)


@settings(deadline=None)
@given(texts, st.booleans())
def test_token_at_equals_counting_characters(tokenizer, text, add_eos):
    ids = tokenizer.encode(text, add_eos=add_eos)
    owners = characters_of(tokenizer, ids)
    text = tokenizer.decode(ids)  # what it does not know looks otherwise there
    assert len(owners) == len(text)
    for char, owner in enumerate(owners):
        assert prompts.token_at(plain(tokenizer), ids, char) == owner
    assert prompts.token_at(plain(tokenizer), ids, len(text)) == len(ids)


@settings(deadline=None)
@given(texts, texts, st.booleans())
def test_decisive_tokens_are_those_up_to_the_answers_last(tokenizer, before, after, add_eos):
    text = f"{before}Final Answer: The final answer is $12$ {after}"
    ids = tokenizer.encode(text, add_eos=add_eos)
    answer = TASK.answer(tokenizer.decode(ids))
    count = prompts.decisive_tokens(plain(tokenizer), ids, answer)
    # The fewest leading tokens whose text already has the answer, to its end.
    read = lambda n: TASK.answer(tokenizer.decode(ids[:n]))
    assert count == next(n for n in range(len(ids) + 1) if read(n) is not None and read(n) == answer)


def test_without_an_answer_every_token_is_decisive(tokenizer):
    ids = tokenizer.encode("Check: no answer.", add_eos=True)
    assert prompts.decisive_tokens(plain(tokenizer), ids, None) == len(ids)
    assert prompts.decisive_tokens(plain(tokenizer), [], None) == 0
    beyond = Answer("1", 0, 1, decided=99)  # a task whose grader reads to the end
    assert prompts.decisive_tokens(plain(tokenizer), ids, beyond) == len(ids)
