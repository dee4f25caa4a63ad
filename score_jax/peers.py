"""Other libraries at the same work: programs with environments of their own, asked in turn with ours.

A peer is a script that speaks as `tests/peers/protocol.py` says. All take turns, call by call, so that what
else the machine does falls on all alike.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from score_jax.timing import Timing, ratio, seconds_of

CALLS = ("step", "sampling")  # a step first: how long that takes from the start on is told, too
_METADATA = "# /// script"  # of a script that says what it needs (PEP 723)
_PRIVATE_UV = Path(__file__).resolve().parents[1] / ".uv" / "venv" / "bin" / "uv"  # launch/setup.sh's


class PeerError(OSError):
    """A peer that does not start, ended or said what it should not."""


@dataclasses.dataclass(frozen=True)
class Side:
    """What one of those side by side came to.

    Attributes:
      name: of the library.
      versions: of its packages.
      startup: seconds from the start of its process to the end of its first step, None where it makes none.
      memory: the most bytes that its process, or its device, had held after its first call.
      seconds: of the calls that it can make, and of their parts.
      ratios: the median of its seconds over the first side's, turn by turn, of each call.
    """

    name: str
    versions: Mapping[str, str]
    startup: float | None
    memory: float
    seconds: Mapping[str, Timing]
    ratios: Mapping[str, float]


class Runner(Protocol):
    """One of those side by side."""

    @property
    def name(self) -> str:
        """Of the library."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of its packages."""

    def started(self) -> tuple[float | None, float]:
        """Makes a first call; `Side.startup` and `Side.memory`."""

    def seconds(self, call: str) -> Mapping[str, float] | None:
        """Those of one of `CALLS` and of its parts; None where it is not to be had."""


@dataclasses.dataclass(frozen=True)
class Ours:
    """score_jax as a side: its calls, which return arrays; a first step was made before."""

    versions: Mapping[str, str]
    startup: float
    memory: float
    calls: Mapping[str, Callable[[], Any]]
    name: str = "score_jax"

    def started(self) -> tuple[float, float]:
        return self.startup, self.memory

    def seconds(self, call: str) -> Mapping[str, float]:
        return {call: seconds_of(self.calls[call], rested=True)}


class Peer:
    """A peer's process, from `started` to the end of the `with` block; it names itself."""

    def __init__(self, script: str, shape: Mapping[str, Any]):
        """
        Args:
          script: a path.
          shape: what `Shape` of `tests/peers/protocol.py` holds.

        Raises:
          PeerError: there is no such script, or what it needs cannot be fetched.
        """
        self.name = script
        self.versions: Mapping[str, str] = {}
        self._command = [_python_of(script), script, json.dumps(shape)]
        self._process: Any = None  # subprocess.Popen, once it is started

    def started(self) -> tuple[float | None, float]:
        """
        Raises:
          PeerError: the peer does not start, has ended, or can do nothing.
        """
        began = time.perf_counter()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)
        hello = self._answer()
        self.name, self.versions = hello["peer"], hello["versions"]
        for call in CALLS:
            if self._ask(call).get("seconds") is not None:
                startup = time.perf_counter() - began if call == "step" else None
                self._ask("rest")
                return startup, self._ask("memory")["memory"]
        raise self._fault(f"it can do none of {', '.join(CALLS)}")

    def seconds(self, call: str) -> Mapping[str, float] | None:
        """
        Raises:
          PeerError: the peer has ended.
        """
        seconds = self._ask(call).get("seconds")
        self._ask("rest")
        return seconds

    def _ask(self, what: str) -> dict[str, Any]:
        try:
            self._process.stdin.write(what + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: so says `_answer`
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise self._fault(f"it ended with code {code}; above is why")
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._fault(f"{line.strip()[:80]!r} is no answer; see tests/peers/protocol.py")
        return found

    def _fault(self, what: str) -> PeerError:
        return PeerError(f"--peer={self._command[1]}: {what}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()


def side_by_side(runners: Sequence[Runner], repeats: int, say: Callable[[str], None]) -> tuple[Side, ...]:
    """Times the calls of all `runners` in turn.

    Args:
      runners: the first is the one that the others are held against, and can make all calls.
      repeats: turns.
      say: takes a line of progress.

    Raises:
      PeerError: a peer has ended.
    """
    started = [runner.started() for runner in runners]
    first: list[dict[str, float]] = [{} for _ in runners]
    turns: list[dict[str, list[float]]] = [{} for _ in runners]
    for turn in range(repeats + 1):
        for call in CALLS:
            for number, runner in enumerate(runners):
                for name, seconds in (runner.seconds(call) or {}).items():
                    if turn:
                        turns[number].setdefault(name, []).append(seconds)
                    else:
                        first[number][name] = seconds
        if turn:
            say(f"turn {turn} of {repeats}: {', '.join(map(_spoken, runners, turns))}")
    return tuple(
        Side(
            *(runner.name, dict(runner.versions), *start),
            seconds={name: Timing.of(first[number][name], found) for name, found in mine.items()},
            ratios={call: ratio(mine[call], turns[0][call]) for call in CALLS if call in mine},
        )
        for number, (runner, start, mine) in enumerate(zip(runners, started, turns, strict=True))
    )


def _spoken(runner: Runner, found: Mapping[str, Sequence[float]]) -> str:
    return f"{runner.name} " + " and ".join(f"{found[call][-1]:.3g} s" for call in CALLS if call in found)


def _python_of(script: str) -> str:
    """The interpreter with what a script says that it needs, which uv fetches; ours where it says nothing.

    Raises:
      PeerError: there is no such script, no uv, or uv cannot fetch what is needed.
    """
    try:
        text = Path(script).read_text(encoding="utf-8")
    except OSError as error:
        raise PeerError(f"--peer={script}: {error.strerror}; tests/peers has some") from error
    if _METADATA not in text.splitlines():
        return sys.executable
    uv = shutil.which("uv") or (str(_PRIVATE_UV) if _PRIVATE_UV.exists() else "")
    if not uv:
        raise PeerError(f"--peer={script} needs uv: put it on PATH, or run launch/setup.sh")
    # Apart from the start, so that what is fetched does not count.
    if subprocess.run([uv, "sync", "--quiet", "--script", script], check=False).returncode:
        raise PeerError(f"--peer={script}: uv cannot fetch what it needs; above is why")
    asked = [uv, "python", "find", "--script", script]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
