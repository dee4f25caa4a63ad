"""Manifests: what a folder held when it was written, so that what rots, tears or goes missing is noticed.

    FOLDER/manifest.json   {"files": {NAME: {"bytes", "sha256"}}, "about": {...}, "sha256": of those two}

A manifest is written last. What its folder lacks, or has in another form, is a fault; what is there beside it
is not.
"""

from __future__ import annotations

import concurrent.futures
import errno
import functools
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from etils import epath

from score_jax.records import write_text

FILE = "manifest.json"
_CHUNK = 1 << 22  # bytes read at a time
_THREADS = 4
# Errors that speak of the file itself. Any other, as of a share that does not answer, is raised.
_ROTTEN = (errno.EIO, errno.EISDIR, errno.ENOTDIR)


def write_manifest(
    folder: epath.Path, about: Mapping[str, Any] | None = None, *, without: Collection[str] = ()
) -> None:
    """Writes the manifest of all files in `folder`.

    Args:
      folder: what is there has been written whole.
      about: what else is to be known of it, of JSON's own types.
      without: names of files that may still change.
    """
    names = sorted(name for name in _files(folder) if name not in (FILE, *without))
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        files = dict(zip(names, pool.map(lambda name: _seal(folder / name), names), strict=True))
    content = {"files": files, "about": dict(about or {})}
    write_text(folder / FILE, json.dumps(content | {"sha256": _digest(content)}, indent=1))


def about_of(folder: epath.Path) -> dict[str, Any]:
    """What a manifest says besides its files.

    Raises:
      ValueError: says what is wrong with the manifest.
    """
    return _read(folder)["about"]


def fault_of(folder: epath.Path, *, thorough: bool) -> str:
    """What is wrong with a folder, by its manifest; "" if nothing is.

    Args:
      folder: as `write_manifest` left it, or so one hopes.
      thorough: compare what the files hold; else only whether they are there and of the right size.

    Raises:
      OSError: it could not be looked at, which says nothing of what it holds.
    """
    try:
        files = _read(folder)["files"]
    except ValueError as error:
        return str(error)
    check = functools.partial(_fault, folder, thorough=thorough)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        faults = [fault for fault in pool.map(check, files, files.values()) if fault]
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return faults[0] + more if faults else ""


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """'FIELD is X there and Y here' for each field of two flat mappings that is not the same in both."""
    missing = object()
    return [
        f"{field} is {theirs.get(field, 'absent')!r} there and {ours.get(field, 'absent')!r} here"
        for field in sorted(theirs.keys() | ours.keys())
        if theirs.get(field, missing) != ours.get(field, missing)
    ]


def _read(folder: epath.Path) -> dict[str, Any]:
    path = folder / FILE
    try:
        content = json.loads(path.read_bytes())
        seal = content.pop("sha256")
        sound = _digest(content) == seal and content.keys() == {"files", "about"}
    except FileNotFoundError:
        empty = not folder.exists() or not list(folder.iterdir())
        raise ValueError("it is empty" if empty else f"{FILE} is missing") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{FILE} is torn ({type(error).__name__}: {error})") from error
    except OSError as error:
        if error.errno not in _ROTTEN:
            raise
        raise ValueError(f"{FILE} cannot be read ({error.strerror})") from error
    if not sound:
        raise ValueError(f"{FILE} is not as it was written")
    return content


def _fault(folder: epath.Path, name: str, seal: Mapping[str, Any], *, thorough: bool) -> str:
    """Of one file."""
    path = folder / name
    try:
        # epath's stat looks the file's owner up, whom a container need not know.
        size = path.stat().length if "://" in str(path) else os.stat(path).st_size
        if size != seal["bytes"]:
            return f"{name} has {size} bytes, and had {seal['bytes']}"
        if thorough and _seal(path) != seal:
            return f"{name} does not hold what was written (its sha256 is another)"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        if error.errno not in _ROTTEN:
            raise
        return f"{name} cannot be read ({error.strerror})"
    return ""


def _files(folder: epath.Path, before: str = "") -> Iterator[str]:
    """The names of all files in `folder` and below, relative to it."""
    for path in folder.iterdir():  # epath has no recursive glob, for the sake of buckets
        if path.is_dir():
            yield from _files(path, f"{before}{path.name}/")
        else:
            yield before + path.name


def _seal(path: epath.Path) -> dict[str, Any]:
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            digest.update(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
