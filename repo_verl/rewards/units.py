r"""The unit at the end of an answer: ``5\text{ cm}^2`` is 5 with the unit cm^2."""

from __future__ import annotations

import functools
import re

from repo_verl.rewards.normalize import TEXT_COMMAND, unwrap

_UNITS = (
    "cm centimeter centimetre, mm millimeter millimetre, km kilometer kilometre, m meter metre, in inch inche, ft "
    "foot feet, yd yard, mi mile, kg kilogram, mg milligram, g gram, lb pound, oz ounce, l liter litre L, ml mL "
    "milliliter millilitre, s sec second, min minute, h hr hour, day, week, month, euro EUR, rupee INR, yen yuan JPY "
    "CNY RMB, am AM, pm PM, year yr, mph, kph, dollar USD, cent, degree deg, radian rad, Hz hertz, N newton, J "
    "joule, W watt, K kelvin, Pa pascal, eV, mol mole"
)
_CANONICAL = {name: names.split()[0].casefold() for names in _UNITS.split(", ") for name in names.split()}
_MEANINGLESS = frozenset({"", "unit", "square unit", "cubic unit", "sq unit"})

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
_SQUARES = {"square": "2", "sq": "2", "sq.": "2", "cubic": "3"}


@functools.lru_cache(maxsize=1 << 14)
def split_unit(text: str) -> tuple[str, str]:
    r"""The answer without its unit, and the unit in one spelling ("" where there is none).

    A unit is the text in ``\text{}`` behind a value, a degree sign, or plain words behind a plain number: known units
    of two letters or more, and other words of four letters or more (3 apples). A plain single letter is a variable.

    Args:
        text: a cleaned text.

    Example:
        >>> split_unit(r"15\mbox{ cm}^2"), split_unit("5m")
        (('15', 'cm^2'), ('5m', ''))
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
        known = all(_singular(part) in _CANONICAL or part in _SQUARES for part in re.findall(r"[A-Za-z]{2,}", words))
        if known or all(len(part) >= 4 for part in match["unit"].split()):
            return match["body"].strip(), canonical_unit(words)
    return text, ""


def _is_sentence(words: list[str]) -> bool:
    return bool(_SENTENCE & set(words)) or words[0] in ("squared", "cubed")


def _unit_start(text: str) -> int:
    r"""Where the run of ``\text{}`` groups that ends the text begins, the signs between them included."""
    start = len(text)
    for part in reversed(list(_TEXT_PART.finditer(text))):
        if not _BETWEEN_PARTS.fullmatch(text, part.end(), start):
            break
        start = part.start()
    return start


def radians(body: str, unit: str) -> tuple[str, str]:
    """An angle without its unit (``degree``, ``radian`` or none), in radians."""
    return (rf"\frac{{{body}\pi}}{{180}}" if unit == "degree" else body), ""


@functools.lru_cache(maxsize=1 << 14)
def canonical_unit(words: str) -> str:
    """One spelling of a unit: ``square centimeters``, ``cm^{2}`` and ``sq cm`` are ``cm^2``; "" for mere "units"."""
    words = words.replace("{", "").replace("}", "").replace("^ ", "^").replace(" ^", "^")
    parts = " ".join(words.split()).rstrip(".").split(" ")
    power = ""
    if len(parts) > 1 and parts[0].casefold() in _SQUARES:
        power, parts = "^" + _SQUARES[parts[0].casefold()], parts[1:]
    if parts[-1].casefold() in {"squared", "cubed"}:
        power, parts = "^2" if parts[-1].casefold() == "squared" else "^3", parts[:-1]
    names = [re.sub(r"[A-Za-z]+", lambda name: _one_name(name[0]), part) for part in parts]
    unit = re.sub(r"\s*(?:/|per)\s*", "/", " ".join(names)) + power
    return "" if unit.removesuffix("^2").removesuffix("^3") in _MEANINGLESS else unit


def _one_name(name: str) -> str:
    singular = _singular(name)
    return _CANONICAL.get(singular, singular.casefold())


def _singular(name: str) -> str:
    if name in _CANONICAL:
        return name
    lowered = name.casefold()
    return lowered if lowered in _CANONICAL or len(lowered) <= 2 else lowered.removesuffix("s")
