"""A dozen attacks that `sandbox-check` runs for real on this machine, one or two for each layer.

They change nothing if they succeed. The tests hold a corpus ten times as large.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from score_jax.rewards.sandbox.job import Job, Verdict


@dataclasses.dataclass(frozen=True)
class Canary:
    """An attack.

    Attributes:
      name: what it tries.
      program: defines attack(), which returns the list of what it could do, or add(), which is wrong.
      held: the verdicts that show that the sandbox held.
      timeout_s: ample, as a slow machine is no leak; short for what will not end by itself.
    """

    name: str
    program: str
    held: frozenset[str]
    timeout_s: float = 5.0

    def job(self, secret: str) -> Job:
        """Its job; `secret` stands among the expected values alone, where no program may find it."""
        if "passed" in self.held:
            tests, entry = _REFUSED, "attack"
        else:
            tests, entry = f"assert add(2, 3) == 5\nassert add('', '') == {secret!r}", "add"
        return Job(program=self.program, groups={"attack": tests}, entry=(entry,), timeout_s=self.timeout_s)

    def holds(self, verdict: Verdict) -> bool:
        return verdict.status in self.held and verdict.seconds < self.timeout_s + 2


_REFUSED = "assert attack() == []"

_PRELUDE = """
import ctypes, os, socket
worked = []
def attempt(name, act):
    try:
        act()
    except OSError:
        return
    worked.append(name)
"""

# Held when everything is refused, and attack() lives to say so.
_ACCESS: Mapping[str, str] = {
    "read files": """
def attack():
    for path in ("/etc/passwd", "/proc/self/environ", f"/proc/{os.getppid()}/environ", "/proc/1/environ"):
        attempt(path, lambda: open(path).read())
    attempt("list", lambda: os.listdir("/"))
    return worked
""",
    "see the environment": """
def attack():
    return list(os.environ)
""",
    "write files": """
def attack():
    for folder in ("/tmp", "/dev/shm", "."):
        attempt(folder, lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR))
    return worked
""",
    "open sockets": """
def attack():
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
        attempt(family, lambda: socket.socket(family, socket.SOCK_DGRAM))
    return worked
""",
    "start processes": """
def attack():
    def fork():
        if os.fork() == 0:
            os._exit(0)
    attempt("fork", fork)
    attempt("exec", lambda: os.execv("/bin/true", ["true"]))
    return worked
""",
    "signal and trace other processes": """
def attack():
    attempt("kill", lambda: os.kill(os.getppid(), 0))
    libc = ctypes.CDLL(None)
    if libc.ptrace(0x4206, os.getppid(), None, None) == 0:
        worked.append("ptrace")
    return worked
""",
    "become root": """
def attack():
    attempt("setuid", lambda: os.setuid(0))
    return worked + [uid for uid in (os.getuid(), os.geteuid(), os.getgid()) if uid == 0]
""",
    "take memory": """
def attack():
    try:
        bytearray(1 << 33)
    except MemoryError:
        return worked
    return ["8 GiB"]
""",
}

# Held when the verdict is anything but "passed".
_REWARD: Mapping[str, str] = {
    "end early": "import os\nos._exit(0)",
    "end in a call": "def add(a, b): raise SystemExit(0)",
    "equal everything": """
class Same:
    def __eq__(self, other): return True
def add(a, b): return Same()
""",
    "forge the verdict": """
import os
for fd in range(64):
    try:
        os.write(fd, b'["started"]\\n[0, "passed", ""]\\n')
    except OSError:
        pass
os._exit(0)
""",
    "find the expected values": """
import gc, sys
def add(a, b):
    if a == 2:
        return 5
    frame, texts = sys._getframe(), []
    while frame:
        texts += [*frame.f_locals.values(), *frame.f_globals.values()]
        frame = frame.f_back
    texts += [text for thing in gc.get_objects() if type(thing) in (list, tuple) for text in thing]
    for text in texts:
        if type(text) is str and "add('', '') ==" in text and "gc" not in text:
            return text.split("'")[-2]
""",
}

_ENDLESS = """
def add(a, b):
    while True:
        try:
            while True: pass
        except BaseException: pass
"""

_NOT_PASSED = frozenset({"failed", "error", "crashed", "timeout"})

CANARIES = (
    *(Canary(name, _PRELUDE + text, frozenset({"passed"})) for name, text in _ACCESS.items()),
    *(Canary(name, text, _NOT_PASSED) for name, text in _REWARD.items()),
    Canary("run for ever", _ENDLESS, frozenset({"timeout"}), timeout_s=0.2),
)
