r"""Equality of expressions by Math-Verify and SymPy. Runs in a judge process, which a clock may kill.

Importing this module imports SymPy and Math-Verify.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TypeAlias

import sympy
from math_verify import grader
from math_verify.parser import NormalizationConfig, normalize_latex, parse_latex_cached
from sympy.core.evalf import PrecisionExhausted

from repo_verl.rewards.bounds import Refused, check_text, check_tree
from repo_verl.rewards.quantities import same_decimal

_NORMALIZATION = NormalizationConfig(malformed_operators=True, nits=True, boxed="last")
_SCIENTIFIC = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)[eE]([+-]?[0-9]{1,3})")
_PRIMES = re.compile(r"([A-Za-z])('+)")
_NO_SYMBOL = re.compile(
    r"(?:(?<![A-Za-z\\])([EeIi])(?=_)|\\gamma(?![A-Za-z]|\s*(?:\\left|\()))(?:_\s*\{?(\w+)\}?)?"
)  # as it reads them
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DEGREES = re.compile(r"([0-9.]+|[A-Za-z])\s*\^\s*\{?\\circ\s*\}?")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_CASELESS = frozenset("cC")
_DIGITS = 30
_MAX_DIGITS = 100
_APART = sympy.Float("1e-90")
_LONG = (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative)

Expression: TypeAlias = "sympy.Basic | sympy.MatrixBase"


class GoldUnparseable(ValueError):
    """The engine finds no expression in a gold answer, so no verdict is possible."""


def equal(gold: str, answer: str, tolerance: float | None = None) -> bool:
    """Whether two expressions, LaTeX without units, have the same value; an answer without an expression has not.

    ``tolerance`` is the largest absolute difference that is still right, where both are numbers.

    Raises: GoldUnparseable; Refused where judging could take without bound.
    """
    wanted, found = parse_gold(gold), parse(answer)
    if found is None:
        return False
    sides = wanted, found
    numbers = _number(sides[0]), _number(sides[1])
    if numbers[0] is not None and numbers[1] is not None:
        if tolerance is not None and abs(numbers[0] - numbers[1]) <= Fraction(str(tolerance)):
            return True
        if any(side.atoms(sympy.Float) for side in sides):
            return same_decimal(numbers[0], numbers[1])
    if _says_nothing(sides[1]) or _other_case(gold, answer):
        return False
    if _same_value(*sides):
        return True
    return any(_same_value(*read) for read in (_imaginary(*sides), _split_roots(*sides)) if read != sides)


def _says_nothing(expression: Expression) -> bool:
    """Whether an answer is a relation that always holds, as ``x = x``."""
    return expression == sympy.true or (isinstance(expression, sympy.Eq) and expression.lhs == expression.rhs)


def _other_case(gold: str, answer: str) -> bool:
    """Whether the answer has a letter, save for c, that the gold answer has only in the other case.

    Math-Verify knows no cases; ``c`` and ``C`` are both constants of integration.
    """
    wanted, found = (set(_COMMAND.sub("", text)) - _CASELESS for text in (gold, answer))
    return any(c.isalpha() and c not in wanted and c.swapcase() in wanted - found for c in found)


def _same_value(gold: Expression, answer: Expression) -> bool:
    """Math-Verify's verdict, save where it takes a tiny difference for none."""
    six_places, digits = 6, 15  # Math-Verify's defaults
    return not _apart(gold, answer) and bool(grader.sympy_expr_eq(gold, answer, six_places, digits, True))


def _apart(gold: Expression, answer: Expression) -> bool:
    """Whether two expressions certainly differ; False decides nothing.

    Rationals are compared exactly, other constants to 100 digits, expressions in symbols at one point.
    Decimals are left out: they may be rounded.
    """
    sides = gold, answer
    if any(not isinstance(side, sympy.Expr) or side.has(sympy.Float, *_LONG) for side in sides):
        return False
    names = sorted({str(symbol).casefold() for side in sides for symbol in side.free_symbols})
    if not names:
        exact = [side.doit() for side in sides]
        if all(isinstance(value, sympy.Rational) for value in exact):
            return bool(exact[0] != exact[1])
    point = {name: sympy.Rational(17 + 31 * place, 23) for place, name in enumerate(names)} | {"e": sympy.E}
    values = [{symbol: point[str(symbol).casefold()] for symbol in side.free_symbols} for side in sides]
    try:
        one, other = (
            side.evalf(_MAX_DIGITS, maxn=2 * _MAX_DIGITS, subs=at, strict=True)
            for side, at in zip(sides, values, strict=True)
        )
    except PrecisionExhausted:
        return False
    if not all(value.is_number and value.is_finite for value in (one, other)):
        return False
    return bool(abs(one - other) > _APART * max(abs(one), abs(other)))


_NUMERIC_EQ, _SOLVE_AND_COMPARE = grader.sympy_numeric_eq, grader.sympy_solve_and_compare


def _numeric_eq(gold: Expression, answer: Expression, *precision: int) -> bool:
    """Math-Verify's, for entries and sides of relations too, save where it takes a tiny difference for none."""
    numbers = (grader.is_atomic_or_pct_atomic(side, sympy.Number) for side in (gold, answer))
    return bool(_NUMERIC_EQ(gold, answer, *precision)) and (any(numbers) or not _apart(gold, answer))


def _solve_and_compare(gold: Expression, answer: Expression, *precision: int) -> bool:
    """Math-Verify's, to which all equations without a solution are the same."""
    if isinstance(gold, sympy.Eq) and not sympy.solve(gold, gold.free_symbols):
        return False
    return bool(_SOLVE_AND_COMPARE(gold, answer, *precision))


grader.sympy_numeric_eq = _numeric_eq
grader.sympy_solve_and_compare = _solve_and_compare


def _imaginary(gold: Expression, answer: Expression) -> tuple[Expression, Expression]:
    """Both with ``i`` as the imaginary unit, where Math-Verify read a symbol in either, and all other symbols real."""
    symbols = gold.free_symbols | answer.free_symbols
    if "i" not in map(str, symbols):
        return gold, answer
    units = {one: sympy.I if str(one) == "i" else sympy.Symbol(str(one), real=True) for one in symbols}
    return gold.xreplace(units), answer.xreplace(units)


def _split_roots(gold: Expression, answer: Expression) -> tuple[Expression, Expression]:
    r"""Both with roots of products as products of roots, as for positive factors; ``\sqrt{x^2}`` stays."""
    if not isinstance(gold, sympy.Expr) or not isinstance(answer, sympy.Expr):
        return gold, answer
    return gold.replace(_is_root, _split_root), answer.replace(_is_root, _split_root)


def _is_root(node: sympy.Basic) -> bool:
    if not isinstance(node, sympy.Pow) or not node.exp.is_Rational or node.exp.is_Integer or not node.free_symbols:
        return False
    return isinstance(node.base, sympy.Mul) or (isinstance(node.base, sympy.Pow) and bool(node.base.exp.is_negative))


def _split_root(root: sympy.Pow) -> sympy.Expr:
    factors = (factor.as_base_exp() for factor in sympy.Mul.make_args(root.base))
    return sympy.Mul(*((b**-e) ** -root.exp if e.is_negative else (b**e) ** root.exp for b, e in factors))


def parse_gold(gold: str) -> Expression:
    """The expression of a gold answer; GoldUnparseable where there is none, or where it is outside the bounds."""
    try:
        expression = parse(gold)
    except MemoryError:
        raise
    except Exception as error:
        raise GoldUnparseable(f"{type(error).__name__}: {error}") from error
    if expression is None:
        raise GoldUnparseable("no expression found")
    return expression


def parse(text: str) -> Expression | None:
    """Math-Verify's reading of a text; None where it finds no expression, Refused for one outside the bounds.

    This is what its ``parse`` and ``verify`` call for one expression. Their string readings, to which ``f(z)=c`` and
    ``f(z)=m`` can be equal, and their time-outs, which the judge process has, are left out.
    """
    check_text(text)
    text = _PRIMES.sub(lambda found: rf"{found[1]}_{{p{len(found[2])}}}", text)  # Math-Verify would drop them
    text = _NO_SYMBOL.sub(
        lambda found: rf"\mathrm{{{found[1] or 'g'}}}_{{{'' if found[1] else 'gamma'}{found[2] or ''}}}", text
    )
    if _TRIGONOMETRIC.search(text):
        text = _DEGREES.sub(r"\\frac{\1\\pi}{180}", text)
    if "'" in text:
        raise Refused("a prime behind something other than a letter")
    if match := _SCIENTIFIC.fullmatch(text.replace(" ", "")):
        text = rf"{match[1]} \times 10^{{{match[2]}}}"
    latex = normalize_latex(rf"\boxed{{{text}}}", _NORMALIZATION)
    try:
        expression = parse_latex_cached(latex)
    except MemoryError:
        raise
    except Exception:  # of the parser, which knows no other way to say that it finds nothing
        return None
    check_tree(expression)
    return expression


def _number(expression: Expression) -> Fraction | None:
    """The value of a real constant to 30 digits; None for everything else."""
    if not isinstance(expression, sympy.Expr) or expression.free_symbols:
        return None
    value = expression.doit().evalf(_DIGITS)
    if not isinstance(value, sympy.Float | sympy.Rational) or not value.is_finite:
        return None
    return Fraction(str(value))
