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
MAX_BITS = 100_000.0
MAX_ARGUMENT = 10_000

_EAGER = re.compile(
    r"^(?=.*\d{6}).*(?:\\(?:[dt]?binom|choose|gcd|lcm|det)(?![A-Za-z])|operatorname\{(?:gcd|lcm|det)\})", re.DOTALL
)
_COSTLY = (sympy.factorial, sympy.binomial, sympy.gamma)


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
    if _EAGER.search(text):
        raise Refused("a binomial, gcd, lcm or det, which the parser evaluates, beside a number of six digits")


def check_tree(expression: sympy.Basic | sympy.MatrixBase) -> None:
    """Raises Refused for a parsed expression or matrix, evaluated or not, that must not be compared.

    That is one with numbers of more than 100,000 bits (towers, factorials), or factorials and the like of large ones.
    """
    if isinstance(expression, sympy.MatrixBase):
        expression = sympy.Tuple(*expression)
    for node in sympy.preorder_traversal(expression):
        if isinstance(node, sympy.Pow) and _is_above(MAX_BITS, node.exp):
            raise Refused("a power with an exponent above 100,000")
        if isinstance(node, _COSTLY) and any(_is_above(MAX_ARGUMENT, argument) for argument in node.args):
            raise Refused(f"{type(node).__name__} of a number above {MAX_ARGUMENT}")
        if isinstance(node, sympy.Expr) and not node.free_symbols and log2_size(node) > MAX_BITS:
            raise Refused(f"a number of more than {MAX_BITS:.0f} bits")


def _is_above(limit: float, number: sympy.Expr) -> bool:
    return not number.free_symbols and log2_size(number) > math.log2(limit)


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
