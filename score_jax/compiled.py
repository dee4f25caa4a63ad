"""Programs compiled for a TPU slice: the memory that they take and what they do, kept by their content."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from score_jax.program_cost import Cost, Region, regions
from score_jax.programs import Traced
from score_jax.records import read_json, write_json

_FORMAT = 1  # of what is kept of a compiled program; higher when it, or how it is counted, changes
DECODE = "decode"  # the phase whose loops end when all attempts have
# Of each program: the phase that an instruction is counted in, from the path of its named scopes.
PHASES: dict[str, Callable[[str], str]] = {
    "rollout": lambda source: DECODE if "draw_tokens" in source else "prefill",
    "update": lambda source: "reference" if re.search(r"\breference\b", source) else "update",
}


@dataclasses.dataclass(frozen=True)
class Counted:
    """A compiled program.

    Attributes:
      name: rollout | update.
      times: how often it runs in a step.
      stays: bytes that lie on a chip before it runs, its arguments among them.
      temporary: bytes that it takes while it runs, its results among them.
      regions: what it does; () where it does not fit, as the compiler stops there.
    """

    name: str
    times: int
    stays: float
    temporary: float
    regions: tuple[Region, ...]


def counted(program: Traced, target: str, cache: epath.Path, say: Callable[[str], None]) -> Counted:
    """Compiles and counts a program, unless that was done before.

    Args:
      program: what to compile.
      target: the devices that it was traced for, and their compiler's version.
      cache: where the counts are kept, by content.
      say: takes a line of progress.
    """
    content = json.dumps([_FORMAT, target, jax.__version__, program.lowered.as_text()])
    path = cache / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.json"
    found = read_json(path)
    if not found:
        say(f"Compiling the {program.name} for {target}; this takes minutes for a large model ...")
        found = compile_and_count(program.lowered, PHASES[program.name])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, found)
        except OSError as error:
            say(f"WARNING: {cache} cannot be written ({error.strerror or error}): nothing is kept there.")
    read = [Region(**region | {"cost": Cost(**region["cost"])}) for region in found["regions"]]
    return Counted(
        name=program.name,
        times=program.times,
        stays=program.stays,
        temporary=found["temporary"],
        regions=tuple(read),
    )


def compile_and_count(lowered: jax.stages.Lowered, phase_of: Callable[[str], str]) -> dict[str, Any]:
    """Bytes of a chip that a program takes while it runs, and its regions.

    Where it does not fit, the compiler tells no more than the bytes.
    """
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = re.search(r"total memory required[^(]*\(([\d.]+)([KMG])\) exceeds", str(error))
        if needed is None:
            raise
        size = float(needed[1]) * 2 ** {"K": 10, "M": 20, "G": 30}[needed[2]]
        return {"temporary": size, "regions": []}
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if memory is None or text is None:
        raise ValueError("this platform's compiler tells nothing of its programs: plan for another one")
    found = regions(text, phase_of)
    return {
        "temporary": memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes,
        "regions": [dataclasses.asdict(region) for region in found],
    }


def cache_folder() -> epath.Path:
    """Where the counts of compiled programs are kept between commands."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return epath.Path(home) / "score_jax" / "plan"
