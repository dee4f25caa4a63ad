"""Checkpoints: what is read is what was written, and which one is last or best."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from score_jax import mesh
from score_jax.checkpoint import Checkpoints, Note, load_params, save_params
from score_jax.step import Optimizer
from score_jax.types import TrainState


def make_state(step: int = 0, seed: int = 0) -> TrainState:
    """A state with arrays of several dtypes, and moments that are not zero."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.array(rng.normal(size=shape), jnp.float32)
    optimizer = Optimizer(clip_norm=1.0)
    state = optimizer.init({"mlp": {"linear": normal(8, 16)}, "scale": normal(16).astype(jnp.bfloat16)})
    state = optimizer.apply(state, jax.tree.map(jnp.ones_like, state.params), jnp.float32(0.1))
    return state.replace(step=jnp.int32(step))


def assert_identical(found, expected):
    """Bit for bit, dtype for dtype."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def blank(state):
    return jax.tree.map(jnp.zeros_like, state)


def save_all(directory, notes: dict[int, Note]) -> None:
    with Checkpoints(directory) as checkpoints:
        for step, note in notes.items():
            checkpoints.save(make_state(step, seed=step), note)


def test_a_state_comes_back_bit_for_bit_in_another_process_life(tmp_path):
    save_all(tmp_path, {0: Note("base", 0.25), 10: Note("stage1", 0.5)})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [0, 10]
        assert checkpoints.note(10) == Note("stage1", 0.5)
        assert checkpoints.note(0) == Note("base", 0.25)
        for step in (0, 10):
            expected = make_state(step, seed=step)
            assert_identical(checkpoints.restore(step, blank(expected)), expected)


def test_the_directory_may_be_absent_and_then_is_empty(tmp_path):
    with Checkpoints(tmp_path / "new" / "checkpoints") as checkpoints:
        assert checkpoints.steps() == []
        assert checkpoints.last("stage1") is None
        assert checkpoints.best("stage1") is None


def test_last_and_best_of_each_stage(tmp_path):
    nan = float("nan")
    save_all(
        tmp_path,
        {
            0: Note("base", 0.9),
            10: Note("stage1", 0.3), 20: Note("stage1", 0.6), 30: Note("stage1", 0.6),
            40: Note("stage1", 0.1), 50: Note("stage2", nan), 60: Note("stage2", -0.5),
            70: Note("stage2", nan),
            80: Note("stage3", nan),
        },
    )  # fmt: skip
    with Checkpoints(tmp_path) as checkpoints:
        assert [checkpoints.last(stage) for stage in ("base", "stage1", "stage2")] == [0, 40, 70]
        assert checkpoints.best("base") == 0
        assert checkpoints.best("stage1") == 30  # of two equal ones, the newer
        assert checkpoints.best("stage2") == 60  # NaN is no reward, however low the others are
        assert (checkpoints.last("stage3"), checkpoints.best("stage3")) == (80, None)
        assert (checkpoints.last("stage4"), checkpoints.best("stage4")) == (None, None)


def test_what_is_saved_does_not_change_with_later_updates(tmp_path):
    """Saving goes on in the background while the next update takes the state's memory."""
    state, expected = make_state(1), make_state(1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, Note("stage1", 0.0))
        jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)(state)
        checkpoints.wait()
        assert_identical(checkpoints.restore(1, blank(expected)), expected)


SIZES = {"8": (1, 8, 1), "4": (2, 2, 1), "1": (1, 1, 1), "2x4": (2, 4, 1), "2x2x2": (2, 2, 2)}


@pytest.mark.parametrize(
    ("source", "target"), [("8", "4"), ("4", "1"), ("1", "8"), ("8", "2x4"), ("2x4", "2x2x2")]
)
def test_another_mesh_reads_the_same(tmp_path, source, target):
    source, target = tiny.mesh(*SIZES[source]), tiny.mesh(*SIZES[target])
    expected = make_state(5)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(mesh.place(expected, source), Note("stage1", 0.0))
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(5, mesh.place(blank(expected), target))
    assert_identical(restored, expected)
    for leaf, where in zip(jax.tree.leaves(restored), mesh.layout(restored, target), strict=True):
        assert leaf.sharding.is_equivalent_to(where, leaf.ndim)


def test_params_alone_are_written_over_and_read(tmp_path):
    first, second = make_state(seed=0).params, make_state(seed=1).params
    save_params(first, tmp_path / "base")
    assert_identical(load_params(tmp_path / "base", blank(first)), first)
    save_params(second, tmp_path / "base")
    assert_identical(load_params(tmp_path / "base", blank(first)), second)
