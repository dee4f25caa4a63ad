r"""LaTeX answers as text: one spelling for each notation, exact numbers, units. Standard library alone.

Policies, each of which an answer can rely on and none of which depends on the machine:

* Numbers are exact. Integers, decimals, fractions, mixed numbers, `0.\overline{3}` and `2.5 \times 10^{3}`
  are read as rational numbers and compared as such: nothing is rounded, 0.33 is not 1/3, and 1.414 is no
  answer for \sqrt{2}. A gold decimal is the number that it writes.
* Thousands may be grouped in threes: 10,080 and 10,\!080 and 10{,}080 and 10\,080. With a space after the
  comma it is a list: 10, 080.
* Units come last, money first. They are words of \text{...}, a percent or degree sign, or a plain word of
  `UNITS`; nothing is converted (60 minutes is not 1 hour, 90 degrees not pi/2).
* Numbers in another base carry it: 52_8. The digits and the base must both agree.
"""

import re
from fractions import Fraction

# A command that only sets type, or a way to write something that has another, and what stands for it.
_SPELLINGS = [
    (r"−|–", "-"),
    (r"×", r"\\times "),
    (r"π", r"\\pi "),
    (r"°|\\degree(?![a-zA-Z])|\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![a-zA-Z])", r"^\\circ "),
    (r"∞|\binfinity\b", r"\\infty "),
    (r"∪", r"\\cup "),
    (r"≤|\\leq(?:slant)?(?![a-zA-Z])", r"\\le "),
    (r"≥|\\geq(?:slant)?(?![a-zA-Z])", r"\\ge "),
    (r"(?<=[0-9]),\s*\\!\s*(?=[0-9]{3})|(?<=[0-9])\{,\}(?=[0-9]{3})", ""),
    (r"(?<=[0-9])(?:\\,)(?=[0-9]{3}(?![0-9]))", ""),
    (r"\\!", ""),
    (r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~", " "),
    (r"\\(?:displaystyle|limits|bf|rm)(?![a-zA-Z])", " "),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\m?(?:left|right|[bB]igg?[lr]?)\s*(?=[()\[\]|.]|\\[{}|]|\\[lr]?vert)", ""),
    (r"\\lbrace(?![a-zA-Z])", r"\\{"),
    (r"\\rbrace(?![a-zA-Z])", r"\\}"),
    (r"\\(?:mbox|mathrm|mathbf|mathit|textbf|textit|textrm|textnormal|mathsf)(?![a-zA-Z])", r"\\text"),
    (r"\\text\s*\{\s*(?:\\%|%|percent|per cent)\s*\}|(?<!\\)%|\bpercent\b", r"\\%"),
    (r"\\text\s*\{\s*\}", ""),
    (r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
    (r"\\frac\s*([0-9])\s*\{", r"\\frac{\1}{"),
    (r"\\frac\s*\{(-?[0-9]+)\}\s*([0-9])", r"\\frac{\1}{\2}"),
    (r"\s+", " "),
]
SPELLINGS = [(re.compile(pattern), plain) for pattern, plain in _SPELLINGS]

# Canonical unit: the words for it. A plural in -s or -es is understood.
UNITS = {
    "mm": "mm millimeter millimetre",
    "cm": "cm centimeter centimetre",
    "m": "meter metre",
    "km": "km kilometer kilometre",
    "inch": "in inch",
    "foot": "ft foot feet",
    "yard": "yd yard",
    "mile": "mi mile",
    "mg": "mg milligram",
    "g": "gram gm",
    "kg": "kg kilogram",
    "lb": "lb pound",
    "ounce": "oz ounce",
    "liter": "liter litre",
    "ml": "ml milliliter millilitre",
    "gallon": "gal gallon",
    "second": "sec second",
    "minute": "min minute",
    "hour": "hr hour",
    "mph": "mph mi/h",
    "km/h": "km/h kmh kph",
    "m/s": "m/s",
    "$": "dollar",
    "cent": "cent",
    "euro": "euro",
    "°": "deg degree",
    "radian": "rad radian",
}
# Things that are counted, or measured in themselves.
COUNTED = """
    unit day week month year way time student person people child children man men woman women boy girl
    apple coin ball book card digit integer number point solution root value triangle square face edge
    vertex vertices side diagonal page ticket marble game team player cup slice piece tile step term factor
    divisor arrangement combination permutation outcome possibility choice zero
"""
UNIT_OF = {word: unit for unit, words in UNITS.items() for word in words.split()} | {
    word: word for word in COUNTED.split()
}

INTEGER = r"[0-9]+"
FRACTION = rf"\\frac ?\{{ ?([-+]?{INTEGER}) ?\}} ?\{{ ?([-+]?{INTEGER}) ?\}}"
NUMBERS = {
    "decimal": re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)"),
    "thousands": re.compile(r"([1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?|[1-9][0-9]{0,2}(?: [0-9]{3})+)"),
    "repeating": re.compile(r"([0-9]*)\.([0-9]*)\\overline ?\{([0-9]+)\}"),
    "fraction": re.compile(FRACTION),
    "slashed": re.compile(rf"({INTEGER}) ?/ ?({INTEGER})"),
    "mixed": re.compile(rf"({INTEGER}) ?\\frac ?\{{({INTEGER})\}} ?\{{({INTEGER})\}}"),
    "mixed slashed": re.compile(rf"({INTEGER}) ({INTEGER})/({INTEGER})"),
    "scientific": re.compile(
        r"([0-9](?:\.[0-9]+)?) ?\\(?:times|cdot) ?10 ?\^ ?(?:\{ ?(-?[0-9]{1,3}) ?\}|([0-9]))"
    ),
}
BASE_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
BASED = re.compile(r"([0-9A-F]+) ?_ ?(?:\{ ?(?:\\text ?\{ ?)?([0-9]{1,2}|[a-z]+) ?\}? ?\}|([0-9]))")
EXPONENT = r"(?:\^ ?(?:\{ ?([23]) ?\}|([23])))?"
TEXT_LAST = re.compile(rf"(.*?) ?\\text ?\{{([^{{}}]*)\}} ?{EXPONENT}$")
WORD_LAST = re.compile(rf"(.*?[0-9}})]) ?([a-z]{{2,}}(?: [a-z]+)?) ?{EXPONENT}$")
# A degree sign is part of what a function takes, not a unit of what it gives.
ANGLES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)\b")


def clean(text: str) -> str:
    """`text` with one spelling for each notation, without the dollars and full stop around it."""
    text = text.strip()
    for pattern, plain in SPELLINGS:
        text = pattern.sub(plain, text)
    text = text.strip().rstrip(".,; ")
    if len(text) > 1 and text[0] == text[-1] == "$" and text[-2] != "\\":
        text = text[1:-1]
    return text.strip()


def words(text: str) -> str:
    """The words of a text: no type commands, brackets or case; spaces single."""
    bare = re.sub(r"\\text\b|[{}()$\\*\"']", " ", text)
    return " ".join(re.sub(r" ?([,;:]) ?", r"\1", bare).casefold().split()).strip(".,; ")


def number(text: str) -> tuple[Fraction, bool] | None:
    """The number that `text` writes, and whether it is a division left open (6/3, but not 4/6); or None."""
    sign = -1 if text.startswith("-") else 1
    text = text.removeprefix("-").removeprefix("+").strip() if text[:1] in "+-" else text
    kind, match = next(((k, m) for k, p in NUMBERS.items() if (m := p.fullmatch(text))), ("", None))
    if match is None:
        return None
    parts = match.groups()
    try:
        if kind in ("fraction", "slashed"):
            value = Fraction(int(parts[0]), int(parts[1]))
            return sign * value, value.denominator == 1
        if kind.startswith("mixed"):
            ones, over, under = map(int, parts)
            # 2 3/2 may be a sum or a product: neither is read.
            return (sign * (ones + Fraction(over, under)), False) if over < under else None
        if kind == "repeating":
            whole, head, tail = parts
            nines = 10 ** len(head) * (10 ** len(tail) - 1)
            value = int(whole + head or "0") / Fraction(10 ** len(head)) + Fraction(int(tail), nines)
        elif kind == "scientific":
            value = Fraction(parts[0]) * Fraction(10) ** int(parts[1] or parts[2])
        else:
            value = Fraction(re.sub("[, ]", "", parts[0]))
    except ZeroDivisionError:
        return None
    return sign * value, False


def based(text: str) -> tuple[str, int] | None:
    """(digits, base) of a number like 52_8; or None."""
    match = BASED.fullmatch(text)
    if not match:
        return None
    name = match[2] or match[3]
    base = BASE_WORDS.get(name) or (int(name) if name.isdigit() else 0)
    if 2 <= base <= 16 and all(int(digit, 16) < base for digit in match[1]):
        return match[1].lstrip("0") or "0", base
    return None


def unit_named(name: str, power: str | None = None) -> tuple[str, bool]:
    """The unit that words name, and whether `UNITS` or `COUNTED` has it."""
    said = words(name)
    power_word = re.match(r"(square|sq\.?|cubic|cu\.?) ", said)
    prefix, noun = (power_word[1], said[power_word.end() :]) if power_word else ("", said)
    for stem in (noun, noun.removesuffix("s"), noun.removesuffix("es")):
        if stem in UNIT_OF:
            power = power or {"s": "2", "c": "3"}.get(prefix[:1])
            return UNIT_OF[stem] + (f"^{power}" if power else ""), True
    if re.fullmatch(r"[a-z]{1,2}", noun):  # m, s, L, ...: only as written, inside \text
        return noun + (f"^{power}" if power else ""), noun in ("m", "g", "s", "h", "l")
    return said + (f"^{power}" if power else ""), False


def unit(text: str) -> tuple[str, str, bool]:
    """`text` without its unit, the unit ('' for none), and whether that is a unit that anyone would know."""
    if re.match(r"-? ?(?:\\\$|\$)", text):
        return re.sub(r"^(-?) ?(?:\\\$|\$) ?", r"\1", text), "$", True
    if text.endswith(r"\%"):
        return text[:-2].strip(), "%", True
    if match := re.fullmatch(r"(.*?) ?\^\\circ ?(?:\\text ?\{ ?)?([CF])?\}?", text):
        return (text, "", True) if ANGLES.search(text) else (match[1], "°" + (match[2] or ""), True)
    if match := TEXT_LAST.fullmatch(text):
        return match[1], *unit_named(match[2], match[3] or match[4])
    if match := WORD_LAST.fullmatch(text):
        name, known = unit_named(match[2], match[3] or match[4])
        return (match[1], name, True) if known else (text, "", True)
    return text, "", True
