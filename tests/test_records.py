"""Records on disk: what cannot be written or read is told by its name; what was written is on the disk."""

import errno
import os
from pathlib import Path

import pytest
from etils import epath

from score_jax import records


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("write", [records.append_jsonl, lambda path, row: records.append_text(path, "x\n")])
def test_a_full_disk_is_told_by_the_file_that_grows(write):
    with pytest.raises(records.Unwritable, match=r"^/dev/full: cannot be written .No space left on device"):
        write("/dev/full", {"step": 1})


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
        assert [place for place, _ in done] == [tmp_path / "x.json.tmp", tmp_path]


def test_a_bucket_has_nothing_to_bring_to_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("synced"))
    records.to_disk("gs://bucket/x")
