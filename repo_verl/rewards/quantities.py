r"""Numbers as models write them, exactly, and the units behind them: ``1,450,000``, ``4.5e3``, ``5\text{ cm}^2``.

Every ``text`` is a normalized one (:func:`repo_verl.rewards.normalize.clean`).
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from typing import NamedTuple

from repo_verl.rewards.normalize import TEXT_COMMAND, unwrap

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

_UNITS = (
    "cm centimeter centimetre, mm millimeter millimetre, km kilometer kilometre, m meter metre, in inch inche, ft "
    "foot feet, yd yard, mi mile, kg kilogram, mg milligram, g gram, lb pound, oz ounce, l liter litre L, ml mL "
    "milliliter millilitre, s sec second, min minute, h hr hour, day, week, month, euro EUR, rupee INR, yen yuan JPY "
    "CNY RMB, am AM, pm PM, year yr, mph, kph, dollar USD, cent, degree deg, radian rad, Hz hertz, N newton, J "
    "joule, W watt, K kelvin, Pa pascal, eV, mol mole"
)
_CANONICAL = {name: names.split()[0].casefold() for names in _UNITS.split(", ") for name in names.split()}
_BEFORE = {"square": "^2", "sq": "^2", "sq.": "^2", "cubic": "^3"}
_BEHIND = {"squared": "^2", "cubed": "^3"}
_POWER = r"(?:\s*\^\s*\{?\s*-?\d\s*\}?)?"
_TEXT_PART = re.compile(rf"{TEXT_COMMAND}\s*\{{[^{{}}]*\}}{_POWER}")
_BETWEEN_PARTS = re.compile(r"\s*(?:/|\\cdot|\\times)?\s*")
_EXPONENT = re.compile(r"\^\s*\{?\s*-?\d\s*\}?")
_DEGREES = re.compile(
    r"(?P<body>.*?\S)\s*(?:\^\\circ\s*(?:(?P<scale>[CF])|\\(?:text|mathrm)\{\s*(?P<styled>[CF])\s*\})?|\s(?:degrees?|deg))"
)
_PLAIN_UNIT = re.compile(
    r"(?P<body>[+-]?[\d.,]*\d\.?|[+-]?\d+/\d+|[+-]?\\frac\{\d+\}\{\d+\})\s*(?P<unit>[A-Za-z]{2,}(?:[ /][A-Za-z]+){0,3})"
    + _POWER
)
_NOT_AN_ANGLE = re.compile(r"\\circ|degree|,|\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_UNIT_WORDS = re.compile(r"[A-Za-z./ -]*")
_BODY_END = re.compile(r"[0-9)}\]a-z]\s*")
_VALUE = re.compile(r"\d|\\pi|\\sqrt")
_SENTENCE = frozenset(
    "is if are for where when otherwise mod and or hundred thousand million billion trillion dozen "
    "factorial half halves third thirds quarter quarters fourths fifths sixths sevenths eighths ninths tenths "
    "hundredths thousandths times plus minus less more pair pairs".split()
)


class ExactNumber(NamedTuple):
    """``value`` stands before a percent sign; ``decimal`` has a point or a power of ten, and may be rounded."""

    value: Fraction
    decimal: bool
    percent: bool


def is_thousands(text: str) -> bool:
    """Whether ``text`` is one number with thousands commas in groups of three, and not a list."""
    return _THOUSANDS.fullmatch(text) is not None


@functools.lru_cache(maxsize=1 << 14)
def exact_number(text: str) -> ExactNumber | None:
    r"""The value of an integer, a decimal, a simple fraction or a decimal times a power of ten; None for all else.

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
        factor, exponent = _decimal(match[1]), int(match[2] or match[3] or match[4])
        return None if factor is None else ExactNumber(factor * Fraction(10) ** exponent, True, percent)
    value = _decimal(text)
    return None if value is None else ExactNumber(value, "." in text, percent)


def _decimal(text: str) -> Fraction | None:
    match = _DECIMAL.fullmatch(text)
    if not match or not (match[2] or match[3]):
        return None
    return Fraction(f"{match[1]}{match[2].replace(',', '') or '0'}.{match[3] or '0'}")


def based_number(text: str) -> tuple[str, int] | None:
    """Digits and base of ``52_8``, ``(52)_{8}``; None for everything else, as ``92_8`` with a digit too large."""
    match = _BASED.fullmatch(text.replace(" ", ""))
    if not match:
        return None
    digits, base = match[2].upper().lstrip("0") or "0", int(match[3] or match[4])
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in digits):
        return None
    return match[1].replace("+", "") + digits, base


def same_decimal(a: Fraction, b: Fraction) -> bool:
    """Whether two numbers, one of them written as a decimal, are equal to 6 places and to 1 in 10,000 of their size.

    Math-Verify asks only for the places: to it all numbers below 5e-7 are equal.
    """
    return round(a, 6) == round(b, 6) and abs(a - b) * 10_000 <= max(abs(a), abs(b))


def equal_numbers(gold: ExactNumber, answer: ExactNumber, tolerance: float | None = None) -> bool:
    """Whether two exact numbers are the same answer; p% equals p/100, and also p where only one has the sign."""
    golds = [gold.value]
    if gold.percent != answer.percent:
        golds.append(gold.value / 100 if gold.percent else gold.value * 100)
    if tolerance is not None and any(abs(answer.value - value) <= Fraction(str(tolerance)) for value in golds):
        return True
    if gold.decimal or answer.decimal:
        return any(answer.value == value or same_decimal(answer.value, value) for value in golds)
    return answer.value in golds


@functools.lru_cache(maxsize=1 << 14)
def split_unit(text: str) -> tuple[str, str]:
    r"""The answer without its unit, and the unit in its normalized form ("" where there is none).

    A unit is the text in ``\text{}`` behind a value, a degree sign, or plain words behind a plain number: known units
    of two letters or more, and other words of four letters or more (3 apples). ``m`` in ``5m`` is a variable.
    """
    match = _DEGREES.fullmatch(text)
    if match and _VALUE.search(match["body"]) and not _NOT_AN_ANGLE.search(match["body"]):
        return match["body"], f"degree {match['scale'] or match['styled'] or ''}".strip()
    start = _unit_start(text)
    body, words = text[:start].strip(), unwrap(text[start:]).strip()
    if start < len(text) and _VALUE.search(body) and _BODY_END.match(body[-1]) and not re.search(TEXT_COMMAND, body):
        named = words.casefold().split()
        if len(named) <= 4 and _UNIT_WORDS.fullmatch(_EXPONENT.sub("", words)) and not _is_sentence(named):
            return body, canonical_unit(words)
    match = _PLAIN_UNIT.fullmatch(text)
    if match and not _is_sentence(match["unit"].casefold().split()):
        words = text[match.start("unit") :].strip()
        known = all(_singular(part) in _CANONICAL or part in _BEFORE for part in re.findall(r"[A-Za-z]{2,}", words))
        if known or all(len(part) >= 4 for part in match["unit"].split()):
            return match["body"].strip(), canonical_unit(words)
    return text, ""


def _is_sentence(words: list[str]) -> bool:
    return bool(_SENTENCE & set(words)) or words[:1] in (["squared"], ["cubed"])


def _unit_start(text: str) -> int:
    r"""Where the run of ``\text{}`` groups that ends the text begins, the signs between them included."""
    start = len(text)
    for part in reversed(list(_TEXT_PART.finditer(text))):
        if not _BETWEEN_PARTS.fullmatch(text, part.end(), start):
            break
        start = part.start()
    return start


@functools.lru_cache(maxsize=1 << 14)
def canonical_unit(words: str) -> str:
    """The normalized form: ``square centimeters``, ``cm^{2}`` and ``sq cm`` are ``cm^2``; "" for mere "units"."""
    words = words.replace("{", "").replace("}", "").replace("^ ", "^").replace(" ^", "^")
    parts = " ".join(words.split()).rstrip(".").split(" ")
    power = ""
    if len(parts) > 1 and parts[0].casefold() in _BEFORE:
        power = _BEFORE[parts.pop(0).casefold()]
    if parts[-1].casefold() in _BEHIND:
        power = _BEHIND[parts.pop().casefold()]
    names = [re.sub(r"[A-Za-z]+", lambda name: _one_name(name[0]), part) for part in parts]
    unit = re.sub(r"\s*(?:/|per)\s*", "/", " ".join(names)) + power
    return "" if unit.removesuffix("^2").removesuffix("^3") in ("", "unit") else unit


def _one_name(name: str) -> str:
    singular = _singular(name)
    return _CANONICAL.get(singular, singular.casefold())


def _singular(name: str) -> str:
    if name in _CANONICAL:
        return name
    lowered = name.casefold()
    return lowered if lowered in _CANONICAL or len(lowered) <= 2 else lowered.removesuffix("s")
