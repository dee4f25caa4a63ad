r"""Whether two mathematical expressions are equal, by math-verify behind a guard. Runs in worker processes.

Policies, on top of those of `math_form`:

* Equality is exact: decimals are rational numbers, nothing is rounded.
* Nothing may be left to work out: an answer with `2 + 3`, `2 \cdot 3`, `2^{10}`, `\sqrt{16}` or like terms
  in it (2x + x, \sqrt{8} + \sqrt{2}) is unfinished, unless the gold answer has such a place too.
* A polynomial is in the gold answer's form, up to a numeric factor: a sum for a sum, and for a product of
  sums a product with as many factors; a fraction is cancelled as far as the gold answer. 'Expand', 'factor'
  and 'simplify' otherwise reward the question itself.
* An equation is the gold's times a constant. (One solved for a letter is compared by its right side.)
"""

import functools
import logging
import random
import re

import sympy
from latex2sympy2_extended.latex2sympy2 import (
    ConversionConfig,
    NormalizationConfig,
    latex2sympy,
    normalize_latex,
)
from math_verify import verify
from math_verify.grader import should_treat_as_complex

from score_jax.rewards import math_form

# math-verify warns that its own time limit is off. It is made of signals; the pool keeps a better one.
logging.getLogger("math_verify").setLevel(logging.ERROR)

# No units (math-verify takes 5d for 5) and no boxes: `math_form` has dealt with both.
NORMALISATION = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=False, boxed="none")
CONVERSION = ConversionConfig(lowercase_symbols=False)
# Decimals to which two values are compared before they are compared symbolically: as many as can be written.
DIGITS = math_form.MAX_LENGTH


@functools.lru_cache(maxsize=4096)  # parsing is half of the cost, and the samples of a problem share its gold
def parse(text: str, is_complex: bool = False) -> sympy.Basic:
    """The expression as it is written: nothing is evaluated. Raises any exception if it cannot be read."""
    expression = latex2sympy(
        normalize_latex(text, NORMALISATION),
        is_real=not is_complex,
        convert_degrees=False,
        conversion_config=CONVERSION,
        normalization_config=None,
    )
    if not isinstance(expression, sympy.Basic):
        raise ValueError("no expression")
    floats = {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
    return expression.xreplace(floats) if floats else expression


def equal(gold: str, answer: str) -> bool:
    """Whether `answer` is as right as `gold`. May take for ever, or all memory."""
    is_complex = should_treat_as_complex(gold) or bool(re.search(r"(?<![a-zA-Z\\])i(?![a-zA-Z])", gold))
    try:
        golden = parse(gold, is_complex)
        given = parse(answer, is_complex)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return False
    if isinstance(golden, sympy.Eq) or isinstance(given, sympy.Eq):
        return isinstance(golden, sympy.Eq) and isinstance(given, sympy.Eq) and same_equation(golden, given)
    if not unfinished(golden) and unfinished(given):
        return False
    if not isinstance(golden, sympy.Expr) or not isinstance(given, sympy.Expr):
        return False
    if differ(golden, given) or not same_shape(golden, given):
        return False
    return verify(golden, given, timeout_seconds=None)


def terms(expression: sympy.Basic) -> list[sympy.Basic]:
    """The terms of a sum as written, a minus sign before brackets resolved."""
    if isinstance(expression, sympy.Add):
        return [term for arg in expression.args for term in terms(arg)]
    if isinstance(expression, sympy.Mul) and sympy.S.NegativeOne in expression.args:
        rest = list(expression.args)
        rest.remove(sympy.S.NegativeOne)
        if len(rest) == 1:
            return terms(rest[0])
    return [expression]


def factors(product: sympy.Mul) -> list[sympy.Basic]:
    """The factors of a product as written."""
    return [f for arg in product.args for f in (factors(arg) if isinstance(arg, sympy.Mul) else [arg])]


def unfinished(expression: sympy.Basic) -> bool:
    """Whether something is left to work out. Powers first: what they refuse is never evaluated."""
    nodes = list(sympy.preorder_traversal(expression))
    return (
        any(_open_power(node) for node in nodes if isinstance(node, sympy.Pow))
        or any(_open_product(node) for node in nodes if isinstance(node, sympy.Mul))
        or any(_open_sum(node) for node in nodes if isinstance(node, sympy.Add))
    )


def _open_power(power: sympy.Pow) -> bool:
    """2^{10}, 3^{-2}, \\sqrt{16}; not 1/3, 2^x, \\sqrt{8}."""
    base, exponent = power.args
    if base.is_Rational and exponent.is_Integer:
        return exponent != -1 and abs(base) != 1
    return bool(base.is_Rational and exponent.is_Rational and abs(exponent) < 1 and power.doit().is_Rational)


def _open_product(product: sympy.Mul) -> bool:
    """2 \\cdot 3 x, two numbers below the line, x^2/x; 2x/3 and -x are finished."""
    over = [f for f in factors(product) if f.is_Integer and abs(f) != 1]
    under = [f for f in factors(product) if f.is_Rational and not f.is_Integer]
    under += [f for f in factors(product) if isinstance(f, sympy.Pow) and f.exp == -1 and f.base.is_Rational]
    written = [f for f in factors(product) if f.free_symbols]
    if any(f.is_Pow and f.exp.is_negative for f in written):
        left = [f for f in sympy.Mul.make_args(product.doit()) if f.free_symbols]
        if len(left) < len(written):
            return True
    return len(over) > 1 or len(under) > 1


def _open_sum(total: sympy.Add) -> bool:
    """2 + 3 + x, 2x + x, \\sqrt{8} + \\sqrt{2}: fewer terms once it is evaluated."""
    return len(terms(total)) > len(sympy.Add.make_args(total.doit()))


def shape(expression: sympy.Expr) -> tuple[int, int | None]:
    """(degree below the line, how many factors with letters: 0 for a sum, None where that says nothing)."""
    letters = expression.free_symbols
    over, under = sympy.fraction(sympy.together(expression.doit()))
    if not letters or not over.is_polynomial(*letters) or not under.is_polynomial(*letters):
        return 0, None
    degree = sympy.Poly(under, *letters).total_degree()
    _, body = over.as_coeff_Mul()
    powers = [factor.as_base_exp() for factor in sympy.Mul.make_args(body)]
    if degree or not any(base.is_Add for base, _ in powers):
        return degree, None  # a monomial has but one form
    return degree, 0 if body.is_Add else sum(int(exponent) for _, exponent in powers)


def same_shape(gold: sympy.Expr, answer: sympy.Expr) -> bool:
    """Whether `answer` is written out, factored and cancelled as far as `gold`, and has no other letters."""
    (gold_degree, gold_factors), (degree, number) = shape(gold), shape(answer)
    if degree > gold_degree or not answer.free_symbols <= gold.free_symbols:
        return False
    if gold_factors is None or number is None:
        return True
    return number >= gold_factors if gold_factors else number == 0


def differ(gold: sympy.Expr, answer: sympy.Expr) -> bool:
    """Whether the two differ at a random point. Cheap, where `simplify` is not, and closer than `verify`."""
    letters = sorted(gold.free_symbols | answer.free_symbols, key=str)
    source = random.Random(0)
    point = {letter: sympy.Rational(source.randint(200, 999), 331) for letter in letters}
    try:
        difference = (gold.doit() - answer.doit()).subs(point)
        if difference.is_Rational:
            return difference != 0
        return bool(abs(difference.evalf(15, maxn=2 * DIGITS)) > sympy.Float(10) ** -DIGITS)
    except (TypeError, ValueError, AttributeError):
        return False


def same_equation(gold: sympy.Eq, answer: sympy.Eq) -> bool:
    """Whether one equation is the other times a constant."""
    ratio = sympy.simplify((gold.lhs - gold.rhs).doit() / (answer.lhs - answer.rhs).doit())
    return ratio.is_number and ratio.is_finite and not ratio.is_zero
