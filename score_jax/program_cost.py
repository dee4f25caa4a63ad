"""What a compiled program costs a device: operations, bytes of memory, bytes sent to other devices.

XLA's own cost analysis counts the body of a loop once. Here each loop is a region of its own that says how
often it runs, so that a sampler's time can be told from how many tokens it draws.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence

from score_jax.hlo import Instruction, Program, matched, read
from score_jax.hlo_loops import walk

_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# They move nothing, or only what other instructions are counted for.
_FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "opt-barrier", "domain"),
    *("while", "conditional", "call", "after-all", "partition-id", "replica-id"),
    *("copy-done", "slice-done", "async-update", "async-done", *(f"{name}-done" for name in _COLLECTIVES)),
}
_SLICES = ("slice", "dynamic-slice", "gather")


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one device.

    Attributes:
      flops: of matrix products, a multiplication and an addition counted as two.
      memory: bytes read from and written to the device's main memory.
      network: bytes that it sends to other devices if collectives run in rings.
    """

    flops: float = 0.0
    memory: float = 0.0
    network: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.memory + other.memory, self.network + other.network)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.flops * times, self.memory * times, self.network * times)


@dataclasses.dataclass(frozen=True)
class Region:
    """A stretch of a program that runs so often: its top, or the body of a loop without the loops inside.

    Attributes:
      phase: what the source calls this part of its work.
      loop: the source's name of the loop, "" at the top.
      runs: how often it runs if every loop goes to its limit, or on average.
      cost: of one run.
    """

    phase: str
    loop: str
    runs: int | float
    cost: Cost


def regions(text: str, phase_of: Callable[[str], str]) -> list[Region]:
    """What a compiled program does on each device.

    Args:
      text: `jax.stages.Compiled.as_text()`, of a scheduled program.
      phase_of: from the path of an instruction's named scopes to the phase that it is counted in.

    Raises:
      ValueError: a loop whose number of rounds cannot be read.
    """
    counter = _Counter(read(text))
    totals: dict[tuple[str, str, int], Cost] = collections.defaultdict(Cost)
    moved = lambda instruction, name: _Counter(counter.program).cost(instruction, name).memory
    for loop, runs, instruction, name in walk(counter.program, moved):
        totals[phase_of(instruction.source or loop), loop, runs] += counter.cost(instruction, name)
    return [Region(*key, cost) for key, cost in totals.items() if cost != Cost()]


def total(found: Sequence[Region]) -> Cost:
    """Of all regions, each as often as it runs."""
    return functools.reduce(Cost.__add__, (region.cost * region.runs for region in found), Cost())


class _Counter:
    """Counts a program's instructions, each collective once.

    An asynchronous collective stands in several fusions, in those of loops too that run beside it, and is
    one all the same: its channel tells.
    """

    def __init__(self, program: Program):
        self.program = program
        self._seen: set[str] = set()  # channels

    def cost(self, instruction: Instruction, name: str) -> Cost:
        """Of one run of an instruction of the computation `name`, with what is fused into it."""
        flops = network = 0.0
        memory = _moved(self.program, instruction, name)
        for inner, outer in _within(self.program, instruction, name):
            flops += _flops(self.program, inner, outer)
            kind = inner.opcode.removesuffix("-start")
            if kind in _COLLECTIVES and self._is_new(inner):
                network += _sent(self.program, inner, outer, kind)
                if inner is not instruction:  # the fusion around it does not count its arrays
                    memory += inner.stored
        return Cost(flops, memory, network)

    def _is_new(self, collective: Instruction) -> bool:
        channel = re.search(r"channel_id=(\d+)", collective.rest)
        if channel is None:
            return True
        new = channel[1] not in self._seen
        self._seen.add(channel[1])
        return new


def _within(program: Program, instruction: Instruction, name: str) -> Iterator[tuple[Instruction, str]]:
    """An instruction, or those that are fused into it, each with its computation."""
    if instruction.opcode in ("fusion", "async-start"):
        inner = instruction.called("calls")
        for fused in program.computations[inner].values():
            yield from _within(program, fused, inner)
    else:
        yield instruction, name


# --- Operations ---


def _flops(program: Program, instruction: Instruction, name: str) -> float:
    """Of a matrix product; the rest of a transformer's arithmetic hides behind its memory."""
    if instruction.opcode not in ("dot", "convolution"):
        return 0.0
    rest = instruction.rest
    left, right = (program.computations[name][x].shapes[0].dims for x in instruction.operands[:2])
    out = instruction.shapes[0].dims
    if instruction.opcode == "dot":
        axes = matched(re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest), rest)[1]
        return 2.0 * math.prod(out) * math.prod(left[int(axis)] for axis in axes.split(",") if axis)
    # The TPU's compiler writes most products as convolutions.
    labels = matched(re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", rest), rest)
    groups = re.search(r"batch_group_count=(\d+)", rest)
    batch = out[labels[3].index("b")] * out[labels[3].index("f")] / (int(groups[1]) if groups else 1)
    count = 2.0 * batch * right[labels[2].index("i")]
    for axis, window in enumerate(_windows(rest)):
        count *= window.meetings(left[labels[1].index(str(axis))], out[labels[3].index(str(axis))])
    return count


@dataclasses.dataclass(frozen=True)
class _Window:
    """Of a convolution along one axis; `base` and `dilate` are the steps between its inputs and weights."""

    size: int
    stride: int
    low: int
    base: int
    dilate: int

    def meetings(self, length: int, out: int) -> int:
        """How many pairs of a place in the output and one in the window meet a number, and not padding."""
        if self == _Window(1, 1, 0, 1, 1):
            return out
        reach = (length - 1) * self.base
        places = (
            place * self.stride + inside * self.dilate - self.low
            for place in range(out)
            for inside in range(self.size)
        )
        return sum(0 <= at <= reach and at % self.base == 0 for at in places)


def _windows(rest: str) -> list[_Window]:
    """One for each spatial axis, from `window={size=1x8 pad=0_0x7_7 rhs_reversal=...}`."""
    found = re.search(r"window=\{([^}]*)\}", rest)
    fields = dict(field.split("=") for field in found[1].split()) if found else {}
    each = {key: value.split("x") for key, value in fields.items()}

    def number(key: str, axis: int, default: int) -> int:
        return int(each[key][axis].partition("_")[0]) if key in each else default

    return [
        _Window(
            size=number("size", axis, 1),
            stride=number("stride", axis, 1),
            low=number("pad", axis, 0),
            base=number("lhs_dilate", axis, 1),
            dilate=number("rhs_dilate", axis, 1),
        )
        for axis in range(len(each.get("size", ())))
    ]


# --- Bytes between devices ---


def _sent(program: Program, instruction: Instruction, name: str, kind: str) -> float:
    """Bytes that a device sends in a ring."""
    group = _group_size(instruction.rest)
    size = sum(program.computations[name][x].bytes for x in instruction.operands)
    if kind == "collective-permute":
        return size
    if kind == "all-gather":
        return size * (group - 1)
    # A sum of which each device keeps a part alone is compiled as one of which it would keep all.
    both_ways = kind == "all-reduce" and not name.startswith("all-reduce-scatter")
    return size * (group - 1) / group * (2 if both_ways else 1)


def _group_size(rest: str) -> int:
    """How many devices take part in a collective, in each of the ways in which XLA writes it."""
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(listed[1].split(","))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(iota[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", named[2]))
    return 1


def _is_collective(instruction: Instruction) -> bool:
    """Whether it exchanges data between devices, or begins or ends such an exchange."""
    kind = instruction.opcode.removesuffix("-start").removesuffix("-done")
    return kind in _COLLECTIVES or 'custom_call_target="AsyncCollective' in instruction.rest


# --- Bytes of memory ---


def _moved(program: Program, instruction: Instruction, name: str) -> float:
    """Bytes of the device's main memory that an instruction reads and writes."""
    code = instruction.opcode
    if code in _FREE:
        return 0.0
    operands = [program.computations[name][operand] for operand in instruction.operands]
    if code in _SLICES:
        return instruction.stored + (instruction.bytes if operands[0].stored else 0.0)
    if code == "dynamic-update-slice":
        return operands[1].stored + (operands[1].bytes if instruction.stored else 0.0)
    if code == "scatter":
        return 2 * operands[-1].bytes if instruction.stored else operands[-1].stored
    if code in ("copy-start", "slice-start"):  # the result, what it is made of, and a signal
        to = instruction.shapes[1 if code == "slice-start" and len(instruction.shapes) > 2 else 0]
        return to.stored + (to.bytes if operands[0].stored else 0.0)
    if code == "fusion":
        inner = instruction.called("calls")
        read = sum(_read_by(program, inner, n) for n, x in enumerate(operands) if x.stored)
        return read + _written_by(program, inner, instruction)
    return instruction.stored + sum(operand.stored for operand in operands)


def _read_by(program: Program, name: str, number: int) -> float:
    """Bytes that a fusion reads of a parameter: of one that it only slices, the slices."""
    computation = program.computations[name].values()
    parameter = next(x for x in computation if x.opcode == "parameter" and int(x.argument) == number)
    return min(_read_of(program, name, parameter.name), parameter.bytes)


def _read_of(program: Program, name: str, value: str) -> float:
    computation, read = program.computations[name], 0.0
    if computation[value].root:
        return computation[value].bytes  # it is handed on to the fusion around this one
    for user in computation.values():
        for place, operand in enumerate(user.operands):
            if operand != value:
                continue
            if user.opcode in _SLICES and place == 0:
                read += user.bytes
            elif user.opcode == "dynamic-update-slice" and place == 0:
                continue  # it is changed where it lies
            elif _is_collective(user):
                continue  # counted with its channel
            elif user.opcode == "bitcast":
                read += _read_of(program, name, user.name)
            elif user.opcode == "fusion":
                read += _read_by(program, user.called("calls"), place)
            else:
                return computation[value].bytes
    return read


def _written_by(program: Program, name: str, fusion: Instruction) -> float:
    """Bytes that a fusion writes: of an array that it changes in place, the part that changes."""
    computation = program.computations[name]
    results = [x for x in computation.values() if x.root]
    if results and results[0].opcode == "tuple":
        results = [computation[operand] for operand in results[0].operands]
    if len(results) != len(fusion.shapes):
        return fusion.stored
    written = 0.0
    for result, shape in zip(results, fusion.shapes, strict=True):
        while result.opcode == "bitcast":
            result = computation[result.operands[0]]
        if _is_collective(result):
            continue
        if result.opcode == "dynamic-update-slice":
            written += computation[result.operands[1]].bytes if shape.stored else 0.0
        else:
            written += shape.stored
    return written
