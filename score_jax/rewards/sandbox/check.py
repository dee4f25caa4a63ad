"""`python -m score_jax sandbox-check`: which layers hold on this machine, and whether attacks do."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from score_jax.rewards.sandbox.canaries import CANARIES
from score_jax.rewards.sandbox.job import Job, Layer, SandboxError
from score_jax.rewards.sandbox.pool import Sandbox


def sandbox_check(say: Callable[[str], object], mode: str = "strict") -> bool:
    """Says which layers hold and runs the canary attacks; takes about a second.

    Args:
      mode: "unsafe" runs the attacks also where a required layer does not hold.

    Returns:
      whether every required layer holds, every attack failed, and an honest program passed after each.
    """
    begin = time.monotonic()
    try:
        box = Sandbox(workers=1, mode=mode, say=say)
    except SandboxError as error:
        for layer in error.layers:
            say(_line(layer))
        say(f"The sandbox cannot be used: {error}")
        return False
    with box:
        layers = box.layers()
        for layer in layers:
            say(_line(layer))
        broken = _attack(box)
    for name, status in broken:
        say(f"  LEAK     {name}: this attack ended as {status!r}")
    safe = not broken and all(layer.holds for layer in layers if layer.required)
    say(
        f"{len(CANARIES) - len(broken)} of {len(CANARIES)} attacks failed, as they must "
        f"({time.monotonic() - begin:.1f} s). The sandbox {'holds' if safe else 'DOES NOT HOLD'}."
    )
    return safe


def _attack(box: Sandbox) -> list[tuple[str, str]]:
    """The attacks that did not fail, with their verdicts. An honest program follows each."""
    honest = Job(
        program="def add(a, b): return a + b",
        groups={"sums": "assert add(2, 3) == 5"},
        entry=("add",),
        timeout_s=5.0,
    )
    jobs = [job for canary in CANARIES for job in (canary.job(secrets.token_hex(8)), honest)]
    verdicts = box.run(jobs)
    return [
        (canary.name, attack.status if after.status == "passed" else f"{attack.status}, and the worker broke")
        for canary, attack, after in zip(CANARIES, verdicts[::2], verdicts[1::2], strict=True)
        if not canary.holds(attack) or after.status != "passed"
    ]


def _line(layer: Layer) -> str:
    state = "holds" if layer.holds else "MISSING" if layer.required else "absent"
    return f"  {state:8} {layer.name:20} {layer.note}"
