"""Which checkpoints may go, held against a brute reading of the rules over random runs."""

import math

import numpy as np
import pytest

from score_jax.retention import Note, by_reward, expendable, note_of

NAN = math.nan


def test_nan_is_never_best_and_of_equal_ones_the_newest_is():
    notes = {10: Note("a", NAN), 20: Note("a", -1.0), 30: Note("a", -1.0), 40: Note("a", -2.0)}
    assert by_reward(notes | {50: Note("b", 9.0), 60: Note("a", NAN)}, "a") == [30, 20, 40]
    assert by_reward({10: Note("a", NAN)}, "a") == []


def test_the_newest_and_the_best_are_kept():
    rewards = [0.1, 0.9, 0.2, 0.3, NAN, 0.4]
    notes = {10 * i: Note("a", reward) for i, reward in enumerate(rewards, start=1)}
    assert expendable(notes, newest=2, best=1) == [10, 30, 40]
    assert expendable(notes, newest=2, best=2) == [10, 30, 40]  # 60 is second, and new
    assert expendable(notes, newest=2, best=3) == [10, 30]
    assert expendable(notes, newest=0, best=1) == []
    assert expendable({}, newest=2, best=1) == []


def test_a_run_full_of_nan_keeps_its_newest():
    notes = {step: Note("a", NAN) for step in range(1, 9)}
    assert expendable(notes, newest=2, best=1) == [1, 2, 3, 4, 5, 6]


def test_an_interim_checkpoint_goes_when_a_newer_one_is_there():
    interim = note_of("a", [0.5, 1.0], due=False)
    assert interim.window == (0.5, 1.0) and math.isnan(interim.reward)
    notes = {10: Note("a", 0.1), 13: interim}
    assert expendable(notes, newest=0, best=1) == []
    assert expendable(notes | {14: interim}, newest=0, best=1) == [13]
    assert expendable(notes | {20: Note("a", 0.0)}, newest=0, best=1) == [13]
    assert note_of("a", [0.5, 1.0], due=True) == Note("a", 0.75)


@pytest.mark.parametrize("seed", range(200))
def test_what_a_run_needs_is_never_expendable(seed):
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(1, 40, size=2))
    notes = {}
    for step in range(1, 1 + int(rng.integers(1, 40))):
        stage = "abc"[int(np.searchsorted(cuts, step))]
        reward = NAN if rng.random() < 0.2 else float(rng.integers(4))
        notes[step] = note_of(stage, [reward], due=bool(rng.random() < 0.8))
    newest, best = int(rng.integers(2, 5)), int(rng.integers(0, 3))
    gone = set(expendable(notes, newest=newest, best=best))
    due = [step for step, note in notes.items() if not note.interim]
    assert max(notes) not in gone
    assert not gone & {*due[-newest:]}
    for stage in "abc":
        mine = [step for step in due if notes[step].stage == stage]
        assert not gone & {*mine[-1:]}
        real = [step for step in mine if not math.isnan(notes[step].reward)]
        assert len(gone & {*sorted(real, key=lambda s: (notes[s].reward, s))[-best:]} if best else ()) == 0
