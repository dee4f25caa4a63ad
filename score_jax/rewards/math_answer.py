r"""Reads the one final answer of an attempt at a maths problem.

The policy that is trained will look for a text that is paid whatever the question. What counts is narrow:

* An answer stands in the marker `Final Answer: The final answer is $...$` of the paper's prompts, or in
  \boxed{...}. An attempt with neither has no answer, and earns nothing.
* The last marker counts, else the last box. All markers and boxes must agree: as texts, apart from notation,
  or as numbers. If any two differ the attempt has several answers: `value` joins one of the others and the
  last by `SEVERAL`, so that it can be shown and compared with that of another attempt; the grader refuses it.
* "6 or 7" is no answer, wherever the marker or box ends in it: another value that follows the last one after
  `or` or `and`, or another number after a comma or slash, makes several.
* A box within a box belongs to it; a marker or box that is not closed says nothing.
* Whatever follows could add another answer, so nothing is decided before the attempt has ended.
"""

import bisect
import re

from score_jax.rewards import math_form
from score_jax.task import Answer

# As `score_jax.task.ANSWER`, and \$ may stand in it.
MARKER = re.compile(r"Final Answer: The final answer is \$((?:[^$\\\n]|\\[^\n])*)\$")
BOX = re.compile(r"\\(?:boxed|fbox) *\{|\\.|[{}]", re.DOTALL)
# Another value after the last one: "$ or $7$", "} and 7", "$, 7". No two \s* meet: it takes linear time.
JOINED = re.compile(
    r"\}?\s*(?:\$\s*)?(?:(?:,\s*)?(?:or|and)\s+(\$[^$\n]+|\\\([^\n]+|[-+]?\.?\d[\d.,]*)|[/,]\s*([-+]?\.?\d[\d.,]*))"
)
SEVERAL = "\n"  # in no answer that is read: `math_form.fault` refuses it


def final_answer(text: str) -> Answer | None:
    """The answer that `text` gives, or None."""
    markers = [match.span(1) for match in MARKER.finditer(text)]
    starts = [start for start, _ in markers]

    def counts(box: tuple[int, int]) -> bool:
        """It stands in no marker."""
        marker = bisect.bisect(starts, box[0]) - 1
        return marker < 0 or box[0] >= markers[marker][1]

    spans = sorted(markers + [box for box in boxes(text) if counts(box)])
    if not spans:
        return None
    values = [_value(text[start:stop]) for start, stop in spans]
    start, stop = (markers or spans)[-1]
    value = values[spans.index((start, stop))]
    other = next((v for v in dict.fromkeys(values) if not agree(v, value)), None)
    joined = JOINED.match(text, stop)
    if other is None and joined:
        more = _value((joined[1] or joined[2]).strip("$\\()").rstrip(".,"))
        other = None if agree(more, value) else more
    return Answer(value if other is None else other + SEVERAL + value, start, stop, len(text) + 1)


def boxes(text: str) -> list[tuple[int, int]]:
    """The span of what each outermost closed box holds, in one pass over `text`."""
    braces: list[int | None] = []  # the open ones: where what a box holds starts, None for other braces
    found: list[tuple[int, int]] = []
    for match in BOX.finditer(text):
        if match[0].endswith("{") and match[0] != r"\{":
            braces.append(match.end() if len(match[0]) > 1 else None)
        elif match[0] == "}" and braces and (start := braces.pop()) is not None:
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, match.start()))
    return found


def agree(one: str, other: str) -> bool:
    """Whether two answers are the same text, apart from notation, or the same number."""
    if one == other:
        return True
    if math_form.fault(one) or math_form.fault(other):
        return False
    first, second = math_form.read(one), math_form.read(other)
    return first is not None and second is not None and math_form.equal(first, second, lambda *_: False)


def _value(text: str) -> str:
    """An answer on one line, without a box that holds all of it."""
    text = " ".join(text.split())
    inner = re.fullmatch(r"\\(?:boxed|fbox) *\{(.*)\}", text)
    if inner and boxes(text) == [inner.span(1)]:
        return inner[1].strip()
    return text
