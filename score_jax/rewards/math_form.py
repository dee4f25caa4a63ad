r"""What form an answer has, and when two forms agree. Standard library alone.

Policies:

* A gold answer that is a literal number takes a literal number. `2+3`, `6/3`, `2^{10}`, `\sqrt{16}`, `7!`,
  `\binom{10}{3}`, `\gcd(12,18)`, sums, integrals, products and limits therefore earn nothing for the number
  that they come to: they restate the question. (An unreduced 4/6 is a literal for 2/3.)
* Elsewhere an answer uses only the operators of `PLAIN` and those that the gold answer uses itself.
* `1, 2` and \{1, 2\} are unordered, `6 \text{ or } 7` and 3 \pm 1 are lists of two; (1, 2) is ordered and
  its brackets count, since it may be an interval: neither stands for the other. A union is unordered.
* x = 5 and x \in S are their right sides where the gold answer is one; two names must agree. A chain such as
  2 + 3 = 5 or 7 = 5 is no answer. a < x \le b is the interval (a, b].
* A unit may be left out on either side; where both have one it must be the same one, and a word that is no
  unit ('hundred', 'or more') is not ignored. A percent sign may be left out: 50 for 50\%; so may it be
  written out: 0.5 or 1/2 for 50\%. For a gold answer without it, 50\% is 50 and never 1/2 above one, and
  50\% is 1/2 up to one: no answer has two readings.
* Words are compared without case, font and brackets: \text{(C)} is C.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from score_jax.rewards import math_notation

MAX_LENGTH = 500  # characters of an answer; the longest gold answers of MATH have about 160
MAX_DEPTH = 12  # brackets within brackets, of all kinds together
MAX_ITEMS = 32  # of a list: unordered ones are compared each with each

OPENING, CLOSING = "([{", ")]}"
NAME = re.compile(
    r"(?:\\text ?\{[\w ]+\}|\\angle ?[A-Z]+|\\[a-zA-Z]+|[A-Za-z]{1,2})(?: ?_ ?(?:\{\w+\}|\w))?'*"
    r"(?: ?\([\w, ]+\))?"
)
ORDER = re.compile(r"(<|>|\\[lg]e(?![a-zA-Z]))")
MATRIX = re.compile(r"\\begin ?\{([pb]?matrix)\}(.*)\\end ?\{\1\}")
# Operators that leave nothing to be worked out, and letters.
PLAIN = set(
    re.findall(
        r"\S+", r"\frac \sqrt \cdot \times \pi \infty \alpha \beta \gamma \delta \theta \lambda \phi \omega"
    )
)
# What else an expression may hold. The name of a function is no product of letters.
OPERATOR = re.compile(
    r"\\[a-zA-Z]+|\\.|[!|%&;:?<>=]|sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|lcm|max|min|mod|sum|prod|lim|binom|det"
)

# Tells whether two expressions (gold, answer) are equal.
Leaf = Callable[[str, str], bool]


@dataclasses.dataclass(frozen=True)
class Form:
    """An answer, read.

    Attributes:
      kind: number, based, words, list, ordered, union, matrix, named, or expression.
      text: what it was read from.
      body: kinds 'number' and 'expression': the same without its unit.
      value: kind 'number': its value; 'based': digits and base; 'named': the name; 'ordered': its brackets.
      items: what it consists of.
      unit: '' for none.
      known: anyone would know that unit.
      open: kind 'number': a division that is left to do; 'expression': an equation.
    """

    kind: str
    text: str
    value: Fraction | tuple | str | None = None
    items: tuple[Form, ...] = ()
    unit: str = ""
    known: bool = True
    open: bool = False
    body: str = ""


def fault(text: str) -> str | None:
    """Why `text` is refused before it is read, or None: the reasons that `MathGrader` counts."""
    if not text.strip():
        return "is empty"
    if len(text) > MAX_LENGTH:
        return f"has {len(text)} characters; at most {MAX_LENGTH} are read"
    if "\n" in text:
        return "has several lines"
    depth = deepest = 0
    for char in re.sub(r"\\\\", "", text):
        depth += (char in OPENING) - (char in CLOSING)
        deepest = max(deepest, depth)
        if depth < 0:
            break
    if depth:
        return "has unbalanced brackets"
    if deepest > MAX_DEPTH:
        return f"nests {deepest} brackets; at most {MAX_DEPTH} are read"
    return None


def split(text: str, separator: str) -> list[str]:
    """`text` cut at every `separator` (a pattern) that stands outside of brackets."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(rf"(?P<cut>{separator})|\\\\|[()\[\]{{}}]", text):
        if match["cut"] is not None and depth == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
        elif match["cut"] is None:
            depth += (match[0] in OPENING) - (match[0] in CLOSING)
    return [*parts, text[start:].strip()]


def closed(text: str) -> tuple[str, str, str] | None:
    """(opening, inside, closing) if one pair of brackets holds all of `text`."""
    match = re.fullmatch(r"(\\\{|[(\[])(.*?)(\\\}|[)\]])", text)
    if not match or (match[1] == "\\{") != (match[3] == "\\}"):
        return None
    depth = 0
    for char in match[2]:
        depth += (char in OPENING) - (char in CLOSING)
        if depth < 0:
            return None
    return match[1], match[2], match[3]


def read(text: str) -> Form | None:
    """The form of a text that has no `fault`; None if it is not well formed: 1,,2 or 2 3 or a = b = c."""
    return _read(math_notation.clean(text))


def _read(text: str) -> Form | None:
    # subtle: LaTeX's parser would read the digits of 1 2 as one number.
    if not text or (re.search(r"[0-9] +[.0-9]", text) and not _scalar(text)):
        return None
    listed = re.sub(r",? ?(?:\\text ?\{ ?,? ?(?:and|or) ?\}|\b(?:and|or)\b),? ?", ", ", text)
    for cut in (_scalar, _base_or_matrix):
        if form := cut(text):
            return form
    if len(parts := split(listed, "[,;]")) > 1:
        return _group("list", text, parts)
    if len(parts := split(text, r"\\cup(?![a-zA-Z])")) > 1:
        return _group("union", text, parts)
    if form := _named(text):
        return form if form.kind != "chain" else None
    if (brackets := closed(text)) and (inside := brackets[1].strip()):
        if brackets[0] == "\\{":
            items = _group("list", text, split(inside, "[,;]"))
            return items.items[0] if items and len(items.items) == 1 else items
        if len(parts := split(inside, "[,;]")) > 1:
            return _group("ordered", text, parts, brackets[0] + brackets[2])
        if brackets[0] == "(":
            return _read(inside)
    if len(parts := re.split(r"\\(?:pm|mp)(?![a-zA-Z])", text)) == 2 and "," not in text:
        return _group("list", text, ["+".join(parts).lstrip("+ "), "-".join(parts)])
    if r"\text" in text and not math_notation.unit(text)[0]:
        return Form("words", text)
    rest, unit, known = math_notation.unit(text)
    return Form("expression", text, unit=unit, known=known, body=rest.removeprefix("+"))


def _scalar(text: str) -> Form | None:
    rest, unit, known = math_notation.unit(text)
    if found := math_notation.number(rest):
        return Form("number", text, found[0], (), unit, known, found[1], rest)
    return None


def _base_or_matrix(text: str) -> Form | None:
    if found := math_notation.based(text):
        if found[1] == 10:
            return Form("number", text, Fraction(int(found[0])), body=found[0])
        return Form("based", text, found)
    if match := MATRIX.fullmatch(text):
        rows = [split(row, "&") for row in re.split(r"\\\\", match[2].strip().removesuffix("\\\\"))]
        if len({len(row) for row in rows}) == 1:
            return _group("matrix", text, [cell for row in rows for cell in row], (len(rows), len(rows[0])))
    return None


def _group(kind: str, text: str, parts: Sequence[str], value: str | tuple | None = None) -> Form | None:
    items = tuple(item for part in parts if (item := _read(part)))
    return Form(kind, text, value, items) if len(items) == len(parts) <= MAX_ITEMS else None


def _named(text: str) -> Form | None:
    """x = 5, x \\in S, x > 2, a < x \\le b, or another equation; 'chain' if it says more, None if less."""
    if len(parts := split(text, r"=|\\in(?![a-zA-Z])")) > 1:
        if not NAME.fullmatch(parts[0]) or len(parts) > 2:
            return Form("expression" if len(parts) == 2 else "chain", text, body=text, open=True)
        name, value = parts[0], _read(parts[1])
    else:
        parts = [part.strip() for part in re.split(ORDER, text)]
        match len(parts), "".join(parts[1::2]).replace("\\le", "<").replace("\\ge", ">"):
            case 3, "<":
                name, ends = parts[0], ("-\\infty", parts[2])
            case 3, ">":
                name, ends = parts[0], (parts[2], "\\infty")
            case 5, "<<":
                name, ends = parts[2], (parts[0], parts[4])
            case _:
                return None
        if not NAME.fullmatch(name):
            return None
        # The brackets: round where the sign is strict or the end infinite.
        round_left = parts[1] != ("\\ge" if len(parts) == 3 else "\\le")
        round_right = parts[-2] != "\\le"
        value = _group("ordered", text, ends, "[("[round_left] + "])"[round_right])
    return Form("named", text, name.replace(" ", ""), (value,)) if value else Form("chain", text)


def equal(gold: Form, answer: Form, leaf: Leaf) -> bool:
    """Whether `answer` is right; `leaf` compares what this module cannot, and may raise to put it off."""
    if gold.kind == answer.kind and _bare(gold.text) == _bare(answer.text) and gold.unit == answer.unit:
        return True
    if gold.kind == "words" or (answer.kind == "words" and re.fullmatch("[A-Z]", gold.text)):
        return math_notation.words(gold.text) == math_notation.words(answer.text)
    if gold.kind == answer.kind == "named":
        return gold.value == answer.value and equal(gold.items[0], answer.items[0], leaf)
    if answer.kind == "named" and not gold.open:
        return equal(gold, answer.items[0], leaf)
    if gold.kind == "named":
        # y = 2x + 3 asks for an equation, x = 5 for a value.
        return not _has_letters(gold.items[0]) and equal(gold.items[0], answer, leaf)
    if gold.kind == "number":
        return answer.kind == "number" and (gold.open or not answer.open) and _same_number(gold, answer)
    if gold.kind == "expression":
        if answer.kind not in ("expression", "number") or (answer.open and not gold.open):
            return False
        if not _units_agree(gold, answer) or not operators(answer.body) <= operators(gold.body) | PLAIN:
            return False
        return leaf(gold.body, answer.body)
    if gold.kind != answer.kind or gold.value != answer.value or len(gold.items) != len(answer.items):
        return False
    if gold.kind in ("list", "union"):
        return _same_items(gold.items, answer.items, leaf)
    return all(equal(*pair, leaf) for pair in zip(gold.items, answer.items, strict=True))


def _same_items(golds: tuple[Form, ...], answers: tuple[Form, ...], leaf: Leaf) -> bool:
    left = list(answers)
    for gold in golds:
        match = next((answer for answer in left if equal(gold, answer, leaf)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same_number(gold: Form, answer: Form) -> bool:
    if gold.unit == answer.unit:
        return gold.value == answer.value
    assert isinstance(gold.value, Fraction)  # as that of any number
    if gold.unit == "%":
        return answer.unit == "" and answer.value in (gold.value, gold.value / 100)
    if answer.unit == "%":
        return gold.unit == "" and answer.value == (gold.value if abs(gold.value) > 1 else 100 * gold.value)
    return _units_agree(gold, answer) and gold.value == answer.value


def _units_agree(gold: Form, answer: Form) -> bool:
    return gold.unit == answer.unit or not answer.unit or (not gold.unit and answer.known)


def has_expression(form: Form) -> bool:
    """Whether comparing with `form` may take more than this module."""
    return form.kind == "expression" or any(map(has_expression, form.items))


def operators(text: str) -> set[str]:
    """The commands, functions and signs of an expression, apart from its letters, digits and + - / ^ ( )."""
    return set(OPERATOR.findall(text))


def _has_letters(form: Form) -> bool:
    return form.kind == "expression" and bool(re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", form.body)))


def _bare(text: str) -> str:
    return re.sub(r"\s|\\text\b", "", text)
