r"""Solution sets as intervals: ``\{x | 1 < x \le 2\}`` is ``(1,2]``."""

from __future__ import annotations

import re

_BUILDER = re.compile(r"\\\{\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\\mid|\\vert|\\middle\||\||:)(.*)\\\}")
_OR = re.compile(
    r"\s*,?\s*(?:\\(?:text|mathrm|textrm)\s*\{\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z]))\s*"
)
_SIGN = re.compile(r"\s*(<|>|\\(?:le|ge|ne)(?![A-Za-z]))\s*")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}


def solution_set(text: str) -> str:
    r"""A set builder of real numbers, or inequalities with ``or`` between them, as a union of intervals.

    Args:
        text: a cleaned text, ``or`` still in it.

    Returns: The intervals; every other text as it is, a lone inequality too.

    Example:
        >>> solution_set(r"\{x | x < 1\}"), solution_set("x < 1")
        ('(-\\infty,1)', 'x < 1')
    """
    builder = _BUILDER.fullmatch(text)
    parts = _OR.split((builder[2] if builder else text).strip())
    if (not builder and len(parts) < 2) or (builder and builder[1] in "klmn" and "mathbb" not in text):
        return text
    name = builder[1] if builder else next(filter(re.compile("[A-Za-z]").fullmatch, _SIGN.split(parts[0])), "")
    found = [_interval(_SIGN.split(part), name) for part in parts]
    return r"\cup ".join(filter(None, found)) if all(found) else text


def _interval(sides: list[str], name: str) -> str | None:
    """The interval of ``1 < x``, ``x > 1`` or ``1 < x < 2``, split at its signs; None for everything else."""
    if any("," in side or not side.strip() for side in sides) or len(sides) not in (3, 5):
        return None
    if sides[1] in (">", r"\ge") or (len(sides) == 3 and sides[1] == r"\ne" and sides[2] == name):
        sides = [_FLIPPED.get(side, side) for side in reversed(sides)]
    if len(sides) == 3 and sides[1] != r"\ne":
        sides = [*sides, "<", r"\infty"] if sides[2] == name else [r"-\infty", "<", *sides]
    if sides[1] == r"\ne":
        return rf"(-\infty,{sides[2]})\cup ({sides[2]},\infty)" if sides[0] == name and len(sides) == 3 else None
    if sides[2] != name or not {sides[1], sides[3]} <= {"<", r"\le"}:
        return None
    return f"{'(['[sides[1] != '<']}{sides[0]},{sides[4]}{')]'[sides[3] != '<']}"
