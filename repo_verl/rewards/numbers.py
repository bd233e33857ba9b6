r"""Exact values of numbers as models write them: digits, thousands commas, fractions, percent, powers of ten."""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from typing import NamedTuple

MAX_EXPONENT = 400
"""Powers of ten beyond it are left to the symbolic engine."""

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL_TEXT = rf"{_DIGITS}?(?:\.[0-9]*)?"
_DECIMAL = re.compile(rf"([+-]?)({_DIGITS}?)(?:\.([0-9]*))?")
_FRACTION = re.compile(
    rf"([+-]?)(?:\\frac(?:\{{([+-]?{_DECIMAL_TEXT})\}}\{{([+-]?{_DECIMAL_TEXT})\}}|([0-9])([0-9]))"
    rf"|({_DECIMAL_TEXT})/({_DECIMAL_TEXT}))"
)
_POWER_OF_TEN = re.compile(r"(.+?)(?:[eE]([+-]?[0-9]{1,3})|\\(?:times|cdot)10\^(?:\{([+-]?[0-9]{1,3})\}|([0-9])))")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?%?")
_BASED = re.compile(r"([+-]?)\(?([0-9A-Za-z]+)\)?_(?:\{([0-9]+)\}|([0-9]+))")


class ExactNumber(NamedTuple):
    """A number read off its digits.

    ``value`` is what stands before a percent sign, ``percent`` whether there was one, ``decimal`` whether it was
    written with a decimal point or a power of ten, so that it may be rounded.
    """

    value: Fraction
    decimal: bool
    percent: bool


def is_thousands(text: str) -> bool:
    """Whether ``text`` is one number with thousands commas in groups of three, and not a list."""
    return _THOUSANDS.fullmatch(text) is not None


@functools.lru_cache(maxsize=1 << 14)
def exact_number(text: str) -> ExactNumber | None:
    r"""The value of an integer, a decimal, a simple fraction or a decimal times a power of ten; None for all else.

    Thousands commas are read in groups of three; leading zeros do not count. ``5/0`` is no number. The text is cleaned.

    Example:
        >>> exact_number("1,450,000").value, exact_number("4.5e3").value
        (Fraction(1450000, 1), Fraction(4500, 1))
    """
    text = text.replace(" ", "")
    percent = text.endswith("%")
    text = text.removesuffix("%")
    if match := _FRACTION.fullmatch(text):
        sign, *parts = match.groups()
        upper, lower = (_decimal(part) for part in parts if part is not None)
        if upper is None or not lower:
            return None
        return ExactNumber(-upper / lower if sign == "-" else upper / lower, False, percent)
    if match := _POWER_OF_TEN.fullmatch(text):
        factor, exponent = _decimal(match.group(1)), int(match.group(2) or match.group(3) or match.group(4))
        if factor is None or abs(exponent) > MAX_EXPONENT:
            return None
        return ExactNumber(factor * Fraction(10) ** exponent, True, percent)
    value = _decimal(text)
    return None if value is None else ExactNumber(value, "." in text, percent)


def based_number(text: str) -> tuple[str, int] | None:
    r"""Digits and base of ``52_8``, ``(52)_{8}``; None for everything else, digits that the base lacks too.

    Example:
        >>> based_number("52_{8}"), based_number("92_8")
        (('52', 8), None)
    """
    match = _BASED.fullmatch(text.replace(" ", ""))
    if not match:
        return None
    sign, digits, base = match[1], match[2].upper().lstrip("0") or "0", int(match[3] or match[4])
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in digits):
        return None
    return sign.replace("+", "") + digits, base


def _decimal(text: str) -> Fraction | None:
    match = _DECIMAL.fullmatch(text)
    if not match:
        return None
    sign, whole, digits = match.groups()
    if not whole and not digits:
        return None
    return Fraction(f"{sign}{whole.replace(',', '') or '0'}.{digits or '0'}")


def same_decimal(a: Fraction, b: Fraction) -> bool:
    """Whether two numbers, one of them written as a decimal, are equal up to rounding.

    They are when they agree to 6 places behind the point, as in Math-Verify, and to 1 in 10,000 of their size, which
    Math-Verify does not ask: to it all numbers below 5e-7 are equal.

    Example:
        >>> same_decimal(Fraction("0.333333"), Fraction(1, 3)), same_decimal(Fraction("1e-8"), Fraction("2e-8"))
        (True, False)
    """
    return round(a, 6) == round(b, 6) and abs(a - b) * 10_000 <= max(abs(a), abs(b))


def equal_numbers(gold: ExactNumber, answer: ExactNumber, tolerance: float | None = None) -> bool:
    """Whether two exact numbers are the same answer.

    p% equals p/100, and also p where only one of the two carries the sign.

    Args:
        gold: the gold answer.
        answer: the model's.
        tolerance: the largest absolute difference that is still right; None asks for equality.
    """
    golds = [gold.value]
    if gold.percent != answer.percent:
        golds.append(gold.value / 100 if gold.percent else gold.value * 100)
    if tolerance is not None and any(abs(answer.value - value) <= Fraction(str(tolerance)) for value in golds):
        return True
    if gold.decimal or answer.decimal:
        return any(answer.value == value or same_decimal(answer.value, value) for value in golds)
    return answer.value in golds
