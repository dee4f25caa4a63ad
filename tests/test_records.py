"""Records on disk: what cannot be written or read is told by its name; what was written is on the disk."""

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from score_jax import records

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("write", [records.append_jsonl, lambda path, row: records.append_text(path, "x\n")])
def test_a_full_disk_is_told_by_the_file_that_grows(write):
    with pytest.raises(records.Unwritable, match=r"^/dev/full: cannot be written .No space left on device"):
        write("/dev/full", {"step": 1})


def test_a_log_that_has_gone_is_not_begun_anew(tmp_path):
    """Its folder may be there again: orbax makes what it lacks on its way to a checkpoint."""
    log = tmp_path / "run" / "metrics.jsonl"
    log.parent.mkdir()
    records.write_jsonl(log, [{"step": 1}])
    records.append_jsonl(log, {"step": 2})
    assert records.read_jsonl(log) == [{"step": 1}, {"step": 2}]
    log.unlink()
    with pytest.raises(records.Unwritable, match=r"metrics.jsonl: cannot be written .it is gone.; make room"):
        records.append_jsonl(log, {"step": 3})
    assert not log.exists()


def test_a_draft_that_cannot_grow_says_so(tmp_path, monkeypatch):
    draft = records.Draft(tmp_path / "drafts" / "x.jsonl", {"seed": 1}, total=3)
    monkeypatch.setattr(draft, "_path", epath.Path(tmp_path))  # a folder
    with pytest.raises(records.Unwritable, match="Is a directory"):
        draft.extend([{"row": 1}])


def test_on_a_disk_a_librarys_errors_are_its_own_and_in_a_bucket_they_are_the_buckets():
    with pytest.raises(RuntimeError), records.writing("runs/x"):
        raise RuntimeError("unavailable")
    told = pytest.raises(records.Unwritable, match=r"^gs://bucket/x: cannot be written .unavailable")
    with told, records.writing("gs://bucket/x"):
        raise RuntimeError("unavailable")


def test_what_could_not_be_read_is_told_by_name():
    told = pytest.raises(records.Unreadable, match=r"^runs/x: cannot be read .Stale file handle")
    with told, records.reading("runs/x"):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    with pytest.raises(records.Unreadable, match=r"a{80} \.\.\. b{160}"), records.reading("runs/x"):
        raise ValueError("a" * 200 + "b" * 200)


def test_a_file_is_on_the_disk_before_it_takes_the_old_ones_place(tmp_path, monkeypatch):
    path, done, sync = tmp_path / "x.json", [], os.fsync

    def noted(descriptor):
        place = Path(f"/proc/self/fd/{descriptor}").resolve() if Path("/proc").exists() else None
        done.append((place, path.read_text()))
        sync(descriptor)

    path.write_text("old")
    monkeypatch.setattr(os, "fsync", noted)
    records.write_text(path, "new")
    assert [text for _, text in done] == ["old", "new"]
    if Path("/proc/self/fd").exists():
        assert [place for place, _ in done] == [tmp_path / f"x.json.{os.getpid()}.tmp", tmp_path]


def test_processes_that_write_the_same_file_do_not_get_in_each_others_way(tmp_path):
    code = "import sys; from score_jax.records import write_text\n"
    code += "for _ in range(200): write_text(sys.argv[1], sys.argv[2] * 100_000)"
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(subprocess.Popen([*command, sign], cwd=ROOT)) for sign in "ab"]
        while any(writer.poll() is None for writer in writers):
            if (tmp_path / "x").exists():
                assert (tmp_path / "x").read_text() in ("a" * 100_000, "b" * 100_000)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_could_not_be_written_leaves_no_draft(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    records.write_text(tmp_path / "x", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(records.Unwritable, match="No space left"):
        records.write_text(tmp_path / "x", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "old")]


def test_a_folder_that_cannot_be_brought_to_disk_is_let_be(tmp_path, monkeypatch):
    def invalid(_):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", invalid)
    records.write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new"


def test_a_bucket_has_nothing_to_bring_to_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("synced"))
    records.to_disk("gs://bucket/x")
