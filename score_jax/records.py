"""Records on disk: JSON files, replaced as a whole, and logs of one JSON object per line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

_writes = [True]


class Unwritable(OSError):
    """Something could not be written: the disk is full, read-only, or gone."""

    def __init__(self, what: object, cause: object):
        super().__init__(
            f"{what}: cannot be written ({cause}); make room, or see that the folder is there and may be "
            "written to, and give the same command again: it goes on from the last checkpoint"
        )


class Unreadable(OSError):
    """Something is there and sound, and yet could not be read."""

    def __init__(self, what: object, cause: object):
        super().__init__(
            f"{what}: cannot be read ({cause}); see that the disk or the bucket answers, and give the same "
            "command again"
        )


@contextlib.contextmanager
def writing(what: object, kinds: type[Exception] = OSError) -> Iterator[None]:
    """What goes wrong in here is raised as Unwritable, with the name of `what`.

    Args:
      what: is being written.
      kinds: the errors that say so. Libraries have many of their own: there Exception is all of them, and
        so it is in a bucket.
    """
    try:
        yield
    except Unwritable:
        raise
    except Exception as error:
        if not isinstance(error, kinds) and "://" not in str(what):
            raise
        raise Unwritable(what, _cause(error)) from error


@contextlib.contextmanager
def reading(what: object) -> Iterator[None]:
    """What goes wrong in here, whatever it is, is raised as Unreadable, with the name of `what`."""
    try:
        yield
    except Exception as error:
        raise Unreadable(what, _cause(error)) from error


def _cause(error: Exception) -> str:
    text = " ".join((str(getattr(error, "strerror", "") or error) or repr(error)).split())
    # Of a library's long story the end has the system's word.
    return text if len(text) < 300 else f"{text[:80]} ... {text[-160:]}"


def write_files(here: bool) -> None:
    """Whether this process writes at all: of several hosts with one work directory only the first does."""
    _writes[0] = here


def writes() -> bool:
    """See `write_files`."""
    return _writes[0]


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes all at once: a reader sees the old file or the new one, never a part."""
    write_bytes(path, text.encode())


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """As `write_text`."""
    if not writes():
        return
    path = epath.Path(path)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # two processes may write the same file
    with writing(path):
        try:
            draft.write_bytes(content)
            to_disk(draft)
            draft.replace(path)
        except Exception:
            with contextlib.suppress(Exception):
                draft.unlink()
            raise
        to_disk(path.parent)


def to_disk(path: epath.PathLike) -> None:
    """Until a file, or what a folder is said to hold, outlasts a loss of power; of a bucket all that is
    written does."""
    if "://" in str(path) or not writes():
        return
    with writing(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some shared folders cannot bring a folder to disk
                raise
        finally:
            os.close(descriptor)


def read_json(path: epath.PathLike) -> dict[str, Any]:
    """A JSON file's object; {} if there is none.

    Raises:
      ValueError: names the file that is not JSON.
    """
    path = epath.Path(path)
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text())
        if not isinstance(value, dict):
            raise ValueError("no object")
        return value
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); write it again or delete it") from error


def write_json(path: epath.PathLike, value: Mapping[str, Any]) -> None:
    """Writes a JSON file."""
    write_text(path, json.dumps(value, indent=1))


def append_jsonl(path: epath.PathLike, row: Mapping[str, Any]) -> None:
    """Appends one line to a file that is there."""
    append_text(path, json.dumps(row) + "\n")


def append_text(path: epath.PathLike, text: str) -> None:
    """Appends to a file that is there. One that has gone is not begun anew, without what it held."""
    if not writes():
        return
    path = epath.Path(path)
    with writing(path):
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "it is gone")
        with path.open("a") as file:
            file.write(text)


def write_jsonl(path: epath.PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes all rows."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_jsonl(path: epath.PathLike, notes: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a file; [] if there is none.

    A torn last line (its writer was stopped, or is still writing) is left out, and said in `notes`.

    Raises:
      ValueError: names the file and the line, if one before the last is not a row.
    """
    path = epath.Path(path)
    if not path.exists():
        return []
    numbered = [(i, line) for i, line in enumerate(path.read_text().split("\n"), 1) if line.strip()]
    rows = []
    for number, line in numbered:
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not an object")
            rows.append(row)
        except ValueError as error:
            if number != numbered[-1][0]:
                raise ValueError(
                    f"{path}:{number}: not a row ({error}); delete this line and start again"
                ) from error
            if notes is not None:
                notes.append(f"{path.name}: its last line is unfinished and was left out (1 line).")
    return rows


class Draft:
    """Rows of a long piece of work, kept as they are made, so that the same work goes on after a stop.

    Attributes:
      rows: those that an earlier try at the same work left, and those added since.
    """

    def __init__(self, path: epath.PathLike, stamp: Mapping[str, Any], *, total: int, multiple: int = 1):
        """Opens the draft at `path`.

        Args:
          path: of a JSONL file, whose first row is `stamp`.
          stamp: all that the rows depend on, in JSON's own types; a draft with another one is dropped.
          total: how many rows it comes to.
          multiple: rows come in batches of so many; those of an unfinished batch are dropped.
        """
        self._total = total
        self._path = epath.Path(path)
        found = read_jsonl(path)
        rows = found[1:] if found[:1] == [stamp] else []
        self.rows = rows if len(rows) == total else rows[: len(rows) // multiple * multiple]
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, [stamp, *self.rows])

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return len(self.rows) == self._total

    def extend(self, rows: Sequence[dict[str, Any]]) -> None:
        """Adds rows."""
        append_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self.rows += rows

    def delete(self) -> None:
        """The work is done and its rows lie elsewhere."""
        if writes():
            self._path.unlink()
