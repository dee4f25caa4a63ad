"""Manifests: every way in which a folder can be other than it was written is noticed, and nothing else is."""

import errno
import json
import os
import pwd
import types

import pytest
from etils import epath

from score_jax import manifest
from score_jax.manifest import FILE, about_of, differences, fault_of, write_manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "array").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "later").write_text("may change")
    path = epath.Path(tmp_path)
    write_manifest(path, {"note": [1, 2.5]}, without=("later",))
    return path


def test_an_untouched_folder_has_no_fault(folder):
    (folder / "later").write_text("has changed")
    (folder / "new").write_text("came later")
    assert fault_of(folder, thorough=True) == fault_of(folder, thorough=False) == ""
    assert about_of(folder) == {"note": [1, 2.5]}
    assert set(json.loads((folder / FILE).read_text())["files"]) == {"deep/er/array", "empty"}


def test_the_files_may_belong_to_somebody_whom_the_system_does_not_know(folder, monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert fault_of(folder, thorough=True) == fault_of(folder, thorough=False) == ""


@pytest.mark.parametrize("place", [0, 12_345, 25_599])
def test_a_flipped_bit_is_found_by_a_thorough_look(folder, place):
    content = bytearray((folder / "deep/er/array").read_bytes())
    content[place] ^= 1
    (folder / "deep/er/array").write_bytes(content)
    assert fault_of(folder, thorough=False) == ""
    assert "deep/er/array does not hold what was written" in fault_of(folder, thorough=True)


@pytest.mark.parametrize("thorough", [False, True])
def test_missing_bytes_and_files_are_found_at_a_glance(folder, thorough):
    content = (folder / "deep/er/array").read_bytes()
    (folder / "deep/er/array").write_bytes(content[:-1])
    assert fault_of(folder, thorough=thorough) == "deep/er/array has 25599 bytes, and had 25600"
    (folder / "empty").unlink()
    assert fault_of(folder, thorough=thorough).endswith(", and 1 more")
    (folder / "deep/er/array").write_bytes(content)
    assert fault_of(folder, thorough=thorough) == "empty is missing"


def test_a_torn_manifest_is_found_wherever_it_is_torn(folder):
    whole = (folder / FILE).read_bytes()
    for size in range(0, len(whole), 7):
        (folder / FILE).write_bytes(whole[:size])
        assert f"{FILE} is torn" in fault_of(folder, thorough=False)
    (folder / FILE).write_bytes(whole.replace(b"2.5", b"2.4"))
    assert fault_of(folder, thorough=False) == f"{FILE} is not as it was written"
    with pytest.raises(ValueError, match="not as it was written"):
        about_of(folder)
    (folder / FILE).unlink()
    assert fault_of(folder, thorough=False) == f"{FILE} is missing"


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.ESTALE, errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize("method", ["read_bytes", "stat", "open"])
def test_what_cannot_be_looked_at_is_not_called_damaged(folder, monkeypatch, method, number):
    def fail(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    if method == "stat":
        monkeypatch.setattr(manifest, "os", types.SimpleNamespace(stat=fail))
    else:
        monkeypatch.setattr(type(folder), method, fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        fault_of(folder, thorough=True)


def test_a_bad_sector_is_damage(folder, monkeypatch):
    def fail(path, *_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(type(folder), "open", fail)
    assert "cannot be read (Input/output error)" in fault_of(folder, thorough=True)


def test_an_empty_folder_is_called_so(tmp_path):
    assert fault_of(epath.Path(tmp_path), thorough=False) == "it is empty"


def test_differences_name_both_sides():
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == [
        "b is 2 there and 3 here",
        "c is 'absent' there and 4 here",
    ]
    assert differences({"a": None}, {}) == ["a is None there and 'absent' here"]
    assert not differences({"a": [1]}, {"a": [1]})
