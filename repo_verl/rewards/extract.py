r"""The answer of a solution text, and the cheap normal forms of an answer (text, exact number, truth word).

Pure functions on strings, standard library only. All are linear in the length of their input.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

MAX_ANSWER_CHARS = 512
"""Longer answers are not judged: the longest gold answer of DeepMath's sample has 161 characters."""

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BARE_ANSWER = re.compile(r"[^\s$]+")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_SPACES = re.compile(r"\\[,!;: ]|~|\s+")
_WORDS = frozenset({"yes", "no", "true", "false"})

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = re.compile(rf"([+-]?)({_INTEGER}?)(?:\.(\d*))?")
_FRACTION = re.compile(
    rf"([+-]?)(?:\\[dt]?frac(?:\{{([+-]?{_INTEGER})\}}\{{([+-]?{_INTEGER})\}}|(\d)(\d))|({_INTEGER})/({_INTEGER}))"
)


class ExactNumber(NamedTuple):
    """A number read off its digits.

    ``value`` is what stands before a percent sign, ``percent`` whether there was one, ``decimal`` whether it was
    written with a decimal point, so that it may be rounded.
    """

    value: Fraction
    decimal: bool
    percent: bool


def extract_boxed(solution: str, max_chars: int = MAX_ANSWER_CHARS) -> str | None:
    r"""The content of the last ``\boxed{...}`` or ``\fbox{...}``, braces balanced.

    Escaped braces (``\{``) do not count. ``\boxed 5`` and ``\boxed5`` are read up to the next space or ``$``. A box
    inside a box is the later one, so the innermost wins.

    Args:
        solution: any text.
        max_chars: where reading stops: a longer answer comes back cut at ``max_chars + 1`` characters.

    Returns: The content without outer spaces (it may be empty); None without a box, or when the last one is not
        closed.

    Example:
        >>> extract_boxed(r"so \boxed{1}, no: \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
    """
    start = -1
    for box in _BOX.finditer(solution):
        start = box.end()
    if start < 0:
        return None
    if solution[start : start + 1] == "{":
        return _braced(solution, start + 1, max_chars)
    bare = _BARE_ANSWER.match(solution, start, start + max_chars + 1)
    return bare.group().rstrip(".,;:") if bare else None


def _braced(text: str, start: int, max_chars: int) -> str | None:
    """The text from ``start`` up to the brace that closes the group opened before ``start``; None if none does."""
    depth, position, skip = 1, start, False
    while position < len(text):
        char = text[position]
        if skip:
            skip = False
        elif char == "\\":
            skip = True
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return text[start:position].strip()
        position += 1
        if position - start > max_chars:
            return text[start:position]
    return None


def normalize_text(answer: str) -> str:
    r"""The answer without what carries no meaning: outer ``$``, ``\( \)``, spaces, ``\text{}``, a final full stop.

    Example:
        >>> normalize_text(r"$ \text{Yes} $.")
        'Yes'
    """
    text = answer.strip().rstrip(".").strip()
    if text.startswith("\\(") and text.endswith("\\)"):
        text = text[2:-2]
    text = _TEXT_COMMAND.sub(r"\1", text.strip("$"))
    return _SPACES.sub("", text)


def truth_word(answer: str) -> str | None:
    """Yes, no, true or false, in lower case, when that is all the answer says; else None.

    "Yes" and "True" are different words: a gold answer names the one that its question asked for.
    """
    word = normalize_text(answer).lower()
    return word if word in _WORDS else None


def exact_number(answer: str) -> ExactNumber | None:
    r"""The value of an integer, a decimal or a simple fraction; None for everything else, ``1e9`` and ``5/0`` too.

    Thousands commas are read in groups of three (also ``{,}``); leading zeros do not count.

    Example:
        >>> exact_number("1,450,000").value
        Fraction(1450000, 1)
        >>> exact_number(r"-\frac{2}{4}").value
        Fraction(-1, 2)
    """
    text = normalize_text(answer).replace("{,}", ",")
    percent = text.endswith("%")
    text = text.removesuffix("%").removesuffix("\\")
    match = _FRACTION.fullmatch(text)
    if match:
        sign, *parts = match.groups()
        upper, lower = (int(part.replace(",", "")) for part in parts if part is not None)
        if lower == 0:
            return None
        return ExactNumber(Fraction(upper, lower) * (-1 if sign == "-" else 1), False, percent)
    match = _DECIMAL.fullmatch(text)
    if not match:
        return None
    sign, whole, digits = match.groups()
    if not whole and not digits:
        return None
    value = Fraction(f"{whole.replace(',', '') or '0'}.{digits or '0'}")
    return ExactNumber(-value if sign == "-" else value, digits is not None, percent)
