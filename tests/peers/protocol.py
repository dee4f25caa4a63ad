"""What a peer says to `python -m score_jax benchmark --peer=SCRIPT`, a line of JSON for a line of text.

SCRIPT SHAPE   SHAPE is a `Shape` as JSON; the first line out is {"peer": "its name", "versions": {...}}
sampling       single attempts of all episodes; out comes {"seconds": {"sampling": 1.2}}
step           a step with two attempts; {"seconds": {"rollout": 1.2, "update": 3.1, "step": 4.9}}
rest           {} once all is still: what a call leaves to do after its answer counts for nobody
memory         {"memory": the most bytes that the process, or its device, has held}

What the peer cannot do is answered by {"lacks": "step"}. This needs the standard library alone, as each peer
has an environment of its own.
"""

import dataclasses
import json
import pathlib
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata


@dataclasses.dataclass(frozen=True)
class Shape:
    """A Gemma 3 and a step's tokens.

    Attributes:
      vocabulary: V; width: D; hidden_width: F; head_width: H; of heads and kv_heads, each layer has so many.
      window: of the five layers of six that attend locally.
      prompt, attempt, instruction: tokens of each; all slots are filled.
      problems: Q; samples: of each, so that E = Q x samples.
      dtype: float32 | bfloat16; learning_rate: of AdamW.
    """

    vocabulary: int
    layers: int
    width: int
    hidden_width: int
    heads: int
    kv_heads: int
    head_width: int
    window: int
    prompt: int
    attempt: int
    instruction: int
    problems: int
    samples: int
    dtype: str = "float32"
    learning_rate: float = 1e-6

    @property
    def episodes(self) -> int:
        """E."""
        return self.problems * self.samples

    @property
    def second(self) -> int:
        """Tokens before attempt 2: a prompt of its own for who feeds the first turn again."""
        return self.prompt + self.attempt + self.instruction


class Watch:
    """Seconds of a call's parts, and of the whole."""

    def __init__(self):
        self.seconds = {}
        self._begin = self._last = time.perf_counter()

    def part(self, name: str) -> None:
        """What ran since the last part was this one."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def whole(self, name: str) -> None:
        """All that ran was this."""
        self.seconds[name] = time.perf_counter() - self._begin


def shape() -> Shape:
    """What the command line asks for."""
    return Shape(**json.loads(sys.argv[1]))


def serve(
    peer: str,
    packages: tuple[str, ...],
    calls: dict[str, Callable[[Watch], None]],
    memory: Callable[[], int] | None = None,
) -> None:
    """Answers until the input ends.

    Args:
      peer: its name.
      packages: whose versions are told.
      calls: by name; each marks its parts on a watch, and returns when all is done.
      memory: bytes; None for the process's.
    """
    sys.stdout, out = sys.stderr, sys.stdout  # what libraries print is no answer

    def answer(found: dict) -> None:
        print(json.dumps(found), file=out, flush=True)

    answer({"peer": peer, "versions": {name: metadata.version(name) for name in packages}})
    for line in _lines():
        if line == "memory":
            answer({"memory": (memory or most_bytes)()})
        elif line == "rest":
            rest()
            answer({})
        elif line in calls:
            watch = Watch()
            calls[line](watch)
            watch.whole(line)
            answer({"seconds": watch.seconds})
        else:
            answer({"lacks": line})


def rest(quiet: float = 0.05) -> None:
    """Waits until no thread of this process works: some free a call's memory after it has returned, in the
    time of whoever is asked next.

    Args:
      quiet: seconds for which all have to be still; if they never are, it ends after a hundred times as long.
    """
    for _ in range(100):
        before = time.process_time()
        time.sleep(quiet)
        if time.process_time() - before < quiet / 10:
            return


def _lines() -> Iterator[str]:
    while line := sys.stdin.readline():
        yield line.strip()


def most_bytes() -> int:
    """Peak resident size of this process."""
    status = pathlib.Path("/proc/self/status")  # Linux: getrusage counts the parent's from before
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
