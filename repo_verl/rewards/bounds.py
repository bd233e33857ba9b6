r"""What the symbolic engine need not be given: expressions whose evaluation is known to run away.

The judge process has a clock and a memory limit; this only spares it from spending them on powers of powers. The text
is looked at before it is parsed, and the tree, which SymPy keeps unevaluated, before it is compared.
"""

from __future__ import annotations

import math
import re
from typing import Any

import sympy

MAX_DEPTH = 12
MAX_DIGITS = 256
MAX_NODES = 400
MAX_BITS = 100_000.0
MAX_ARGUMENT = 10_000
MAX_SUM_POWER = 256
MAX_FUNCTION_DEPTH = 4

_ENVIRONMENT = r"\\begin\s*\{(?![pbvBV]?(?:small)?matrix\}|cases\}|array\})"
_EAGER = r"^(?=.*\d{6}).*(?:\\(?:[dt]?binom|choose|gcd|lcm|det)(?![A-Za-z])|operatorname\{(?:gcd|lcm|det)\})"
_UNREAD = {
    re.compile(_ENVIRONMENT): "an environment that is no matrix and no cases",
    re.compile(rf"\d{{{MAX_DIGITS + 1},}}"): f"a number of more than {MAX_DIGITS} digits",
    re.compile(r"\d[eE][+-]?\d{4,}"): "a decimal exponent of four digits or more",
    re.compile(_EAGER, re.DOTALL): "a binomial, gcd, lcm or det, which is evaluated, beside a number of six digits",
}  # texts that are not parsed, and why
_ELEMENTARY = frozenset(
    "Abs re im conjugate sign floor ceiling log exp sin cos tan cot sec csc asin acos atan acot asec acsc "
    "sinh cosh tanh coth asinh acosh atanh Min Max sqrt".split()
)


class Refused(ValueError):
    """An answer that is not judged, because judging it could take unbounded time or memory."""


def check_text(text: str) -> None:
    """Raises Refused for an answer or gold answer that must not be parsed."""
    depth = deepest = 0
    for char in text:
        depth += (char in "{([") - (char in "})]")
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise Refused(f"nested {deepest} deep, limit {MAX_DEPTH}")
    for pattern, reason in _UNREAD.items():
        if pattern.search(text):
            raise Refused(reason)


def check_tree(expression: sympy.Basic | sympy.MatrixBase) -> None:
    """Raises Refused for a parsed expression or matrix, evaluated or not, that must not be compared.

    That is one of more than 400 nodes, with numbers of more than 100,000 bits (towers, factorials), large powers of
    sums (their expansion), or special functions of large numbers.
    """
    if isinstance(expression, sympy.MatrixBase):
        expression = sympy.Tuple(*expression)
    for count, node in enumerate(sympy.preorder_traversal(expression), start=1):
        if count > MAX_NODES:
            raise Refused(f"more than {MAX_NODES} nodes")
        if isinstance(node, sympy.Pow):
            _check_power(node)
        if isinstance(node, sympy.Function) and type(node).__name__ not in _ELEMENTARY:
            numbers = [part for part in node.args if hasattr(part, "args") and not part.free_symbols]
            if any(log2_size(number) > math.log2(MAX_ARGUMENT) for number in numbers):
                raise Refused(f"{type(node).__name__} of a number above {MAX_ARGUMENT}")
        if isinstance(node, sympy.Expr) and not node.free_symbols and log2_size(node) > MAX_BITS:
            raise Refused(f"a number of more than {MAX_BITS:.0f} bits")
    if _function_depth(expression) > MAX_FUNCTION_DEPTH:
        raise Refused(f"functions nested more than {MAX_FUNCTION_DEPTH} deep")


def _check_power(node: sympy.Pow) -> None:
    power = log2_size(node.exp)
    large = power > math.log2(MAX_SUM_POWER)
    if node.base.free_symbols and isinstance(node.base, (sympy.Add, sympy.Mul)) and large:
        if not node.exp.free_symbols:
            raise Refused(f"a power of {MAX_SUM_POWER} or more of a sum or product")
    elif isinstance(node.base, sympy.Add) and len(node.base.args) > 2 and large:
        raise Refused(f"a power of {MAX_SUM_POWER} or more of three terms or more")
    elif not node.exp.free_symbols and power > math.log2(MAX_BITS):
        raise Refused("a power with an exponent above 100,000")


def _function_depth(node: Any) -> int:
    deepest = max((_function_depth(argument) for argument in getattr(node, "args", ())), default=0)
    return deepest + isinstance(node, sympy.Function)


def log2_size(node: Any) -> float:
    r"""An upper estimate of log2 of the magnitude of ``node``, without evaluating it; symbols count as 1.

        size(a b) = size(a) + size(b)        size(a + b) = max(size(a), size(b)) + 1
        size(a^b) = max(size(a), 1) 2^size(b)   size(n!) = n log2 n

    Both a number and its inverse count as large: the digits are what costs. It is inf where it does not fit a float.
    """
    if isinstance(node, sympy.Rational):
        return float(max(abs(node.p).bit_length(), node.q.bit_length()))
    if isinstance(node, sympy.Float):
        return abs(float(math.frexp(float(node))[1])) if math.isfinite(float(node)) else math.inf
    if not isinstance(node, sympy.Expr) or not node.args:
        return 1.0
    sizes = [log2_size(argument) for argument in node.args]
    if isinstance(node, (sympy.Pow, sympy.exp)):
        base, exponent = (sizes[0], sizes[1]) if isinstance(node, sympy.Pow) else (1.5, sizes[0])
        return max(base, 1.0) * 2.0**exponent if exponent < 1000 else math.inf
    if isinstance(node, (sympy.factorial, sympy.gamma)):
        return (2.0 ** sizes[0]) * max(sizes[0], 1.0) if sizes[0] < 1000 else math.inf
    return sum(sizes) if isinstance(node, sympy.Mul) else max(sizes) + 1.0
