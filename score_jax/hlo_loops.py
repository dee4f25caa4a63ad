"""How often each instruction of a compiled program runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from score_jax.hlo import Instruction, Program, matched

# Where a computation's parameters come from: the loop or call that runs it, in which computation, and that
# one's own.
_Caller = tuple[Instruction, str, "_Caller"] | None


def walk(
    program: Program,
    size: Callable[[Instruction, str], float],
    name: str = "",
    loop: str = "",
    runs: int = 1,
    caller: _Caller = None,
) -> Iterator[tuple[str, int, Instruction, str]]:
    """Every instruction that runs by itself, in the order of the program.

    Args:
      program: the compiled program.
      size: of an instruction of a computation. Of a conditional's branches none is known to be taken: the
        one of the largest size is walked.
      name, loop, runs, caller: the computation to begin with, and the loop around it.

    Yields:
      The source's name of the innermost loop around it ("" outside of loops), how often it runs if every
      loop goes to its limit, the instruction, and its computation's name.

    Raises:
      ValueError: a loop whose number of rounds cannot be read.
    """
    name = name or program.entry
    for instruction in program.computations[name].values():
        if instruction.opcode == "while":
            inside = (instruction, name, caller)
            rounds = runs * _rounds(program, inside)
            title = instruction.source or loop or "loop"
            for part in ("condition", "body"):
                yield from walk(program, size, instruction.called(part), title, rounds, inside)
        elif instruction.opcode == "conditional":
            names = re.findall(r"%([\w.-]+)", instruction.rest.partition("metadata=")[0])
            branches = [branch for branch in names if branch in program.computations]
            heavy = lambda branch: sum(size(i, n) for *_, i, n in walk(program, size, branch))
            yield from walk(program, size, max(branches, key=heavy), loop, runs)
        elif instruction.opcode == "call":
            inside = (instruction, name, caller)
            yield from walk(program, size, instruction.called("to_apply"), loop, runs, inside)
        else:
            yield loop, runs, instruction, name


def _rounds(program: Program, inside: tuple[Instruction, str, _Caller]) -> int:
    """From where a loop's counter starts to the bound that its condition compares it with."""
    loop = inside[0]
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
        return int(known[1])
    for left, right, name in _comparisons(program, loop.called("condition")):
        start, bound = (_number(program, operand, name, inside) for operand in (left, right))
        if start is not None and bound is not None:
            return max(bound - start, 0)
    raise ValueError(f"cannot tell how often the loop {loop.source or loop.name!r} runs")


def _comparisons(program: Program, name: str) -> Iterator[tuple[str, str, str]]:
    """The operands of each x < y of a condition, also where it was wrapped in a fusion."""
    for instruction in program.computations[name].values():
        if instruction.opcode == "compare" and "direction=LT" in instruction.rest:
            left, right = instruction.operands
            yield left, right, name
        elif instruction.opcode == "fusion":
            inner = instruction.called("calls")
            for left, right, where in _comparisons(program, inner):
                if where == inner:
                    left = _outside(program, left, inner, instruction)
                    yield left, _outside(program, right, inner, instruction), name


def _outside(program: Program, operand: str, inner: str, fusion: Instruction) -> str:
    """What a fusion's parameter is called outside of it; a constant of its own keeps its name."""
    instruction = program.computations[inner][operand]
    if instruction.opcode == "parameter":
        return fusion.operands[int(instruction.argument)]
    return f"{inner}/{operand}"


def _number(program: Program, operand: str, name: str, caller: _Caller) -> int | None:
    """The integer that an operand is when a loop begins; None where the text does not tell."""
    where, _, inner = operand.rpartition("/")
    instruction, name, caller = _origin(program, inner, where or name, caller)
    if instruction.opcode == "constant":
        value = instruction.argument.strip()
        return int(value) if re.fullmatch(r"-?\d+", value) else None
    if instruction.opcode == "get-tuple-element":
        index = int(matched(re.search(r"index=(\d+)", instruction.rest), instruction.rest)[1])
        source, name, caller = _origin(program, instruction.operands[0], name, caller)
        if source.opcode == "parameter" and caller:
            loop, outer, above = caller
            source, name, caller = _origin(program, loop.operands[0], outer, above)
        if source.opcode == "tuple":
            return _number(program, source.operands[index], name, caller)
    return None


def _origin(program: Program, operand: str, name: str, caller: _Caller) -> tuple[Instruction, str, _Caller]:
    """What an operand is a copy of, or a call was given for it; its computation, and what runs that."""
    instruction = program.computations[name][operand]
    if instruction.opcode in ("copy", "bitcast"):
        return _origin(program, instruction.operands[0], name, caller)
    if instruction.opcode == "parameter" and caller and caller[0].opcode == "call":
        call, outer, above = caller
        return _origin(program, call.operands[int(instruction.argument)], outer, above)
    return instruction, name, caller
