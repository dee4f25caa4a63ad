"""Reads the text of a program that XLA has compiled: its computations, and what stands in them."""

from __future__ import annotations

import dataclasses
import math
import re

_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}
_BITS |= {f"{kind}{bits}": bits for kind in "su" for bits in (2, 4, 8, 16, 32, 64)}
_BITS |= {f"f{bits}": bits for bits in (16, 32, 64)}


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array's.

    Attributes:
      dtype: as XLA writes it.
      dims: its sizes.
      space: where it lies; 0 is the device's main memory, others are on the chip.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int

    @property
    def bytes(self) -> float:
        """All of it, wherever it lies."""
        bits = 8 if self.dtype.startswith("f8") else _BITS.get(self.dtype, 0)  # a token has none
        return math.prod(self.dims) * bits / 8

    @property
    def stored(self) -> float:
        """Bytes in the device's main memory."""
        return 0.0 if self.space else self.bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in its computation.
      shapes: of its result; several where that is a tuple.
      opcode: what it does.
      operands: names of the instructions that it reads.
      argument: what stands in the brackets: the operands, or a constant's value.
      rest: the attributes.
      root: whether its result is the computation's.
    """

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    argument: str
    rest: str
    root: bool

    @property
    def source(self) -> str:
        """The path of named scopes in the source, "" for what the compiler made up."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    def called(self, attribute: str) -> str:
        """The computation that an attribute names, or ""."""
        found = re.search(rf"\b{attribute}=%?([\w.-]+)", self.rest)
        return found[1] if found else ""

    @property
    def bytes(self) -> float:
        """Of all its results."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def stored(self) -> float:
        """Bytes of its results in the device's main memory."""
        return sum(shape.stored for shape in self.shapes)


Computation = dict[str, Instruction]  # by name, in the order in which they run


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
      computations: by name.
      entry: the name of the one that runs first.
    """

    computations: dict[str, Computation]
    entry: str


def read(text: str) -> Program:
    """The computations of a program's text, `jax.stages.Compiled.as_text()`.

    Raises:
      ValueError: it is no such text.
    """
    computations: dict[str, Computation] = {}
    entry = name = ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
            name = head[2]
            entry = name if head[1] else entry
            computations[name] = {}
        elif name and (instruction := _instruction(line)):
            computations[name][instruction.name] = instruction
    if not entry:
        raise ValueError("this is not the text of a compiled program: it has no ENTRY")
    return Program(computations, entry)


def _instruction(line: str) -> Instruction | None:
    """`ROOT %name = f32[2,3]{1,0} opcode(%operand, %operand), attribute=value`, or another line: None."""
    head = re.match(r"\s+(ROOT )?%?([\w.-]+) = ", line)
    if not head:
        return None
    shape, rest = _first_word(line[head.end() :])
    code = matched(re.match(r"\s*([\w-]+)\(", rest), line)
    argument, rest = _first_word(rest[code.end() - 1 :])
    return Instruction(
        name=head[2],
        shapes=_shapes(shape),
        opcode=code[1],
        operands=tuple(re.findall(r"%([\w.-]+)", argument)),
        argument=argument[1:-1],
        rest=rest,
        root=bool(head[1]),
    )


def matched(match: re.Match[str] | None, text: str) -> re.Match[str]:
    """What a search met in a program's text; ValueError where it met nothing."""
    if match is None:
        raise ValueError(f"cannot read this of a compiled program: {text[:80]!r}")
    return match


def _first_word(text: str) -> tuple[str, str]:
    """The first word, or all between the first bracket and its fellow; and what stands after it."""
    if not text.startswith("("):
        word = matched(re.match(r"\S+", text), text)[0]
        return word, text[len(word) :]
    depth = 0
    for bracket in re.finditer(r"[()]", text):
        depth += 1 if bracket[0] == "(" else -1
        if not depth:
            return text[: bracket.end()], text[bracket.end() :]
    raise ValueError(f"a bracket without its fellow in the text of a compiled program: {text[:80]!r}")


def _shapes(text: str) -> tuple[Shape, ...]:
    """`f32[2,3]{1,0:T(8,128)S(1)}`, or a tuple of such."""
    shapes = []
    for dtype, dims, layout in re.findall(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?", text):
        space = re.search(r"S\((\d+)\)", layout)
        sizes = tuple(int(size) for size in dims.split(",") if size)
        shapes.append(Shape(dtype, sizes, int(space[1]) if space else 0))
    return tuple(shapes)
