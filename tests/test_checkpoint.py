"""Checkpoints: what is read is what was written, and which one is last or best."""

import dataclasses
import errno
import os
import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from etils import epath

from score_jax import manifest, mesh, repair
from score_jax.checkpoint import Checkpoints, Note, load_params, save_params
from score_jax.config import load_config
from score_jax.learner import Optimizer
from score_jax.origin import claim_problems, origin_of
from score_jax.records import Unreadable, Unwritable, writing
from score_jax.repair import Damaged, mend
from score_jax.retention import note_of
from score_jax.tokenizer import SmallTokenizer
from score_jax.types import Problem, TrainState


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
            assert_identical(checkpoints.restore_params(step, blank(expected)), expected.params)


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
        params = checkpoints.restore_params(5, mesh.place(blank(expected), target))
    assert_identical(restored, expected)
    assert_identical(params, expected.params)
    for found in (restored, params):
        for leaf, where in zip(jax.tree.leaves(found), mesh.layout(found, target), strict=True):
            assert leaf.sharding.is_equivalent_to(where, leaf.ndim)


def test_params_alone_are_written_over_and_read(tmp_path):
    first, second = make_state(seed=0).params, make_state(seed=1).params
    save_params(first, tmp_path / "base")
    assert_identical(load_params(tmp_path / "base", blank(first)), first)
    save_params(second, tmp_path / "base")
    assert_identical(load_params(tmp_path / "base", blank(first)), second)


def test_one_that_a_training_removed_meanwhile_is_not_called_damaged(tmp_path):
    """An evaluation chooses its checkpoints, and reads the last of them hours later."""
    save_all(tmp_path, {10: Note("stage1", 0.5)})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best("stage1") == 10
        shutil.rmtree(tmp_path / "10")
        with pytest.raises(Damaged, match=r"checkpoint 10 in .* is gone: .* give the same command again"):
            checkpoints.restore(10, blank(make_state()))


def glance(path):
    """Bytes of everything in a folder."""
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def biggest_of(folder):
    """A file of arrays: where a flipped byte would change a number."""
    files = [path for path in (folder / "state").rglob("*") if path.is_file() and path.parent.name == "d"]
    return max(files, key=lambda path: path.stat().st_size)


def flip(folder):
    path = biggest_of(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def shorten(folder):
    path = biggest_of(folder)
    path.write_bytes(path.read_bytes()[:-1])


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def tear(folder):
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])


def unlink_manifest(folder):
    (folder / "manifest.json").unlink()


DAMAGE = {
    flip: "does not hold what was written",
    shorten: "bytes, and had",
    empty: "it is empty",
    tear: "manifest.json is torn",
    unlink_manifest: "manifest.json is missing",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_and_the_step_before_is_taken(tmp_path, damage, capsys):
    folder = tmp_path / "checkpoints"
    save_all(folder, {10: Note("a", 0.5), 20: Note("a", 0.6), 30: Note("a", 0.7)})
    damage(folder / "30")
    with Checkpoints(folder) as checkpoints:
        assert (checkpoints.best("a"), checkpoints.last("a")) == (20, 20)
        assert capsys.readouterr().out.count(f"WARNING: checkpoint 30 in {folder} is damaged") == 1
        with pytest.raises(Damaged, match=f"checkpoint 30 in .* is damaged: .*{DAMAGE[damage]}"):
            checkpoints.restore(30, blank(make_state(30)))
        with pytest.raises(Damaged, match=DAMAGE[damage]):
            checkpoints.restore_params(30, blank(make_state(30)))
        assert_identical(checkpoints.restore(20, blank(make_state(20))), make_state(20, seed=20))
    left = glance(folder / "30")
    assert mend(epath.Path(folder)) == 20
    said = capsys.readouterr().out
    assert DAMAGE[damage] in said and "the run goes on from checkpoint 20" in said
    assert glance(tmp_path / "damaged" / "30") == left  # nothing is thrown away
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(make_state(30, seed=31), Note("a", 0.7))
    with Checkpoints(folder) as checkpoints:
        assert_identical(checkpoints.restore(30, blank(make_state(30))), make_state(30, seed=31))
    damage(folder / "30")
    assert mend(epath.Path(folder)) == 20
    assert (tmp_path / "damaged" / "30-2").exists()


def test_a_share_that_does_not_answer_costs_no_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    save_all(folder, {10: Note("a", 0.5), 20: Note("a", 0.6)})

    def silent(path, *_, **__):
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "_seal", silent)
        with pytest.raises(OSError, match="timed out"):
            mend(epath.Path(folder))
        with Checkpoints(folder) as checkpoints, pytest.raises(OSError, match="timed out"):
            checkpoints.last("a")
    assert not (tmp_path / "damaged").exists()
    assert mend(epath.Path(folder)) == 20
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.last("a") == 20
        monkeypatch.setattr(checkpoints._manager, "restore", silent)
        monkeypatch.setattr(ocp.Checkpointer, "restore", silent)
        for read in (checkpoints.restore, checkpoints.restore_params):
            with pytest.raises(Unreadable, match=r"checkpoints/20: cannot be read .Connection timed out"):
                read(20, blank(make_state(20)))


def test_in_a_bucket_a_save_that_was_cut_short_is_damaged(monkeypatch):
    """Its files lie under the step's own name, the manifest maybe among them."""
    bucket = epath.Path("gs://bucket/run/checkpoints")
    finished = {10: True, 20: False}
    is_finished = lambda folder: finished[int(folder.name)]
    monkeypatch.setattr(repair.ocp.path.step, "is_path_finalized", is_finished)
    monkeypatch.setattr(repair, "fault_of", lambda folder, thorough: "")
    assert [repair.fault_of_step(bucket, step, thorough=True) for step in finished] == [
        "",
        "its save was cut short",
    ]


def test_another_vocabulary_is_another_origin(tmp_path):
    config = load_config("configs/quickstart.py")
    origins = []
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"a vocabulary: {name}")
        origins.append(origin_of(config, SmallTokenizer(path=str(tmp_path / name))))
    assert manifest.differences(*origins)[0].startswith("vocabulary is '") and len(origins[0]) > 50
    assert {key for key in origins[0] if origins[0][key] != origins[1][key]} == {"vocabulary"}


def test_the_problems_of_a_run_are_those_that_it_was_started_on(tmp_path):
    pool = [Problem(str(i), f"{i}?", str(i)) for i in range(3)]
    claim_problems(epath.Path(tmp_path), pool)
    claim_problems(epath.Path(tmp_path), list(pool))
    others = (pool[:2], pool[::-1], [*pool[:2], dataclasses.replace(pool[2], gold="3")])
    for other in others:
        with pytest.raises(ValueError, match=f"its {len(other)} training problems are not the 3 that"):
            claim_problems(epath.Path(tmp_path), other)


def test_several_damaged_ones_are_passed_over_and_none_at_all_is_refused(tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    save_all(folder, {10: Note("a", 0.5), 20: Note("a", 0.6), 30: Note("a", 0.7)})
    for step in (20, 30):
        unlink_manifest(folder / str(step))
    assert mend(epath.Path(folder)) == 10
    assert capsys.readouterr().out.count("WARNING") == 2
    save_all(folder, {20: Note("a", 0.6)})
    for step in (10, 20):
        unlink_manifest(folder / str(step))
    with pytest.raises(Damaged, match=r"none of 2 checkpoints is whole .20: manifest.json is missing"):
        mend(epath.Path(folder))
    shutil.rmtree(folder / "20")
    assert mend(epath.Path(folder)) == 0
    assert mend(epath.Path(tmp_path / "absent")) == 0
    assert "the run starts from the beginning" in capsys.readouterr().out


def test_what_is_half_done_is_removed(tmp_path):
    save_all(tmp_path, {10: Note("a", 0.5)})
    (tmp_path / "20.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (tmp_path / "removed-5" / "state").mkdir(parents=True)
    assert mend(epath.Path(tmp_path)) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["10"]


def test_a_checkpoint_of_another_dtype_shape_or_origin_is_refused(tmp_path):
    origin = {"config.seed": 0, "vocabulary": "abc"}
    with Checkpoints(tmp_path, origin=origin) as checkpoints:
        checkpoints.save(make_state(1), Note("a", 0.5))
        checkpoints.wait()
        expected = blank(make_state(1))
        assert checkpoints.restore(1, expected, origin=origin).step == 1
        other = expected.replace(params=expected.params | {"scale": jnp.zeros(16, jnp.float32)})
        said = r"'scale'\] is 'bfloat16\[16\]' there and 'float32\[16\]' here"
        for read in (checkpoints.restore, checkpoints.restore_params):
            with pytest.raises(ValueError, match=said):
                read(1, other)
        other = expected.replace(params=expected.params | {"scale": jnp.zeros(8, jnp.bfloat16)})
        with pytest.raises(ValueError, match=r"is 'bfloat16\[16\]' there and 'bfloat16\[8\]' here"):
            checkpoints.restore(1, other)
        for field in origin:
            for read in (checkpoints.restore, checkpoints.restore_params):
                with pytest.raises(ValueError, match=f"another origin .{field} is .* there and 'x' here"):
                    read(1, expected, origin=origin | {field: "x"})


def test_the_newest_and_the_best_are_kept(tmp_path):
    rewards = {10: 0.9, 20: 0.1, 30: 0.2, 40: float("nan"), 50: 0.3}
    with Checkpoints(tmp_path, keep_newest=2) as checkpoints:
        for step, reward in rewards.items():
            checkpoints.save(make_state(step, seed=step), Note("a" if step < 30 else "b", reward))
        checkpoints.wait()
        assert checkpoints.steps() == [10, 20, 40, 50]  # a's best and last; b's newest, one of them the best
        for step in checkpoints.steps():
            assert_identical(checkpoints.restore(step, blank(make_state(step))), make_state(step, seed=step))


def test_an_interim_checkpoint_makes_way_for_the_next(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(10), Note("a", 0.5))
        checkpoints.save(make_state(13), note_of("a", [0.1, 0.9], due=False))
        checkpoints.wait()
        assert checkpoints.steps() == [10, 13]
        assert (checkpoints.last("a"), checkpoints.best("a")) == (13, 10)
        assert checkpoints.window(13) == [0.1, 0.9] and checkpoints.window(10) == []
        checkpoints.save(make_state(20), Note("a", 0.4))
        checkpoints.wait()
        assert checkpoints.steps() == [10, 20]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 600 kB, which root may make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


# Orbax's threads, of which one has failed, call a loop that has ended.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_told_and_the_step_before_restores(small_disk):
    expected = make_state(1)
    told = pytest.raises(Unwritable, match=r"2: cannot be written \(.*No space left on device.*make room")
    with told, Checkpoints(small_disk / "checkpoints") as checkpoints:
        checkpoints.save(expected, Note("a", 0.5))
        checkpoints.wait()
        free = os.statvfs(small_disk)
        (small_disk / "filler").write_bytes(bytes((free.f_bavail - 1) * free.f_frsize))
        checkpoints.save(make_state(2), Note("a", 0.5))
        checkpoints.wait()
    (small_disk / "filler").unlink()
    assert mend(epath.Path(small_disk / "checkpoints")) == 1
    with Checkpoints(small_disk / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [1]
        assert_identical(checkpoints.restore(1, blank(expected)), expected)
        checkpoints.save(make_state(2), Note("a", 0.5))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space"), "No space"),
        (ValueError("a\n b"), "a b"),
        (ValueError(), "ValueError()"),
    ],
)
def test_what_could_not_be_written_is_told_in_a_line(error, text):
    with pytest.raises(Unwritable, match=re.escape(f"2: cannot be written ({text})")), writing(2, Exception):
        raise error


def test_a_save_that_fails_in_the_background_is_told(tmp_path, monkeypatch):
    """As `test_a_full_disk...`, for all."""
    save_all(tmp_path, {1: Note("a", 0.5)})

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told = pytest.raises(Unwritable, match=r"2: cannot be written \(No space left on device\)")
    with told, Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr("score_jax.checkpoint.write_manifest", full)
        checkpoints.save(make_state(2), Note("a", 0.5))
        checkpoints.wait()
    assert mend(epath.Path(tmp_path)) == 1
