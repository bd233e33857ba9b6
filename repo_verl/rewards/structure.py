r"""What kind of answer a text is: words, a set, an ordered group, an equation, or one expression.

A bare comma list and ``\{ \}`` are sets; round, square and angle brackets keep order and kind, as in tuples and
intervals. All else is a :class:`Scalar`, whose meaning the symbolic engine knows. Every ``text`` is a cleaned one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from repo_verl.rewards.normalize import ONLY_TEXT, compact, unwrap, word
from repo_verl.rewards.quantities import is_thousands

MAX_DEPTH = 12

_OPEN, _CLOSE = "([{⟨", ")]}⟩"
_BRACKETED = re.compile(r"(\\\{|[⟨(\[])(.*)(\\\}|[⟩)\]])", re.DOTALL)
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_NAME = (
    r"(?:\\(?:overline|overrightarrow|vec|widehat)\s*\{\s*[A-Za-z]+\s*\}|\\?[A-Za-z]+(?:(?:\s+\\?|\\)[A-Za-z]+)*)(?:\s*_\s*(?:\{[^{}]*\}|\w))?'*(?:\^\s*\{?(?:-1|\\prime|\*)\}?)?"
    r"(?:\s*(?:\([^()=]{1,24}\)|\[[^\[\]=]{1,24}\]))?"
)
_SIMPLE_NAME = re.compile(rf"{_NAME}|\(\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\)|\|\s*{_NAME}\s*\|")
_DEFINITION = re.compile(rf"{_NAME}\s*=")
_FUNCTION = re.compile(r"\\operatorname\*?\s*\{\s*([A-Za-z]+)\s*\}")
_ARGUMENTS = re.compile(r"\(\\?[A-Za-z]+(?:,\\?[A-Za-z]+)*\)$")
_MATRIX = re.compile(r"\\begin\s*\{([pbvBV]?matrix)\}(.*)\\end\s*\{\1\}", re.DOTALL)
_MEMBER = re.compile(rf"({_NAME})\s*\\in(?![A-Za-z])(.*)", re.DOTALL)
_RELATION = re.compile(
    r"(?<![<>!:])=(?!=)|[<>]|\\(?:le|ge|ne|equiv|approx|sim|in|subset|implies|to|Rightarrow|iff)(?![A-Za-z])"
)
_THOUSANDS_IN_LIST = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_THOUSANDS_FACTOR = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?=\s*(?:\\|[A-Za-z]))")
_MODULUS = re.compile(r"\(?\s*\\?[pb]?mod(?![A-Za-z])\s*(?:\{([^{}]*)\}|([^{}()]*))\s*\)?")
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
MAX_SPREADS = 4
_TIME = re.compile(r"[0-9]{1,2}:[0-9]{2}")
_NO_QUOTIENT = re.compile(r"^0$|[%'&]|\\text|[0-9] *[A-Za-z]{2}")
_SET_BUILDER = re.compile(r"\\(?:mid|vert)(?![A-Za-z])|\||:")


class TooDeep(ValueError):
    """Brackets are nested deeper than any answer needs."""


@dataclass(frozen=True)
class Scalar:
    """One expression, as cleaned LaTeX."""

    text: str


@dataclass(frozen=True)
class Words:
    """Nothing but words, in lower case."""

    text: str


@dataclass(frozen=True)
class Group:
    """Several answers: ordered with the kind of brackets as ``brackets``, or a set with ``brackets`` empty."""

    brackets: str
    items: tuple[Node, ...]
    text: str


@dataclass(frozen=True)
class Equation:
    """A name and what it equals: ``y = 2x + 3``."""

    name: str
    value: Node
    text: str


@dataclass(frozen=True)
class Chain:
    """Expressions said to be equal: ``2 + 3 = 5``."""

    items: tuple[Node, ...]
    text: str


Node = Scalar | Words | Group | Equation | Chain


def read(text: str, depth: int = 0) -> Node:
    r"""The structure of a text with ``depth`` brackets around it; TooDeep for more than 12.

    Example:
        >>> read("(1, 2)").brackets, read("1, 2").brackets
        ('()', '')
    """
    text = text.strip()
    while text.startswith("{") and text.endswith("}") and _spans(text, 1):
        text = text[1:-1].strip()
    if depth > MAX_DEPTH:
        raise TooDeep(f"brackets nested more than {MAX_DEPTH} deep")
    words = word(text)
    if words is not None:
        return Scalar(str(_NUMBER_WORDS.index(words))) if words in _NUMBER_WORDS else Words(words)
    if ONLY_TEXT.fullmatch(text):
        text = unwrap(text).strip()  # \text{36 dollars}
    if is_thousands(text):
        return Scalar(text)
    if congruence := _congruence(text, depth):
        return congruence
    rows = [split_top(row, ",") for row in split_top(text, ";")]
    if len(rows) > 1 and len(rows[0]) > 1 and all(_DEFINITION.match(part) for row in rows for part in row):
        return Group("", tuple(_set(row, ", ".join(row), depth) for row in rows), text)  # p = 5, q = 2; p = 7, q = 2
    parts = split_top(without_thousands_commas(text), ",;")
    if len(parts) > 1 and all(parts):
        return _set(parts, text, depth)
    text = parts[0] if len(parts) == 1 else text
    found = _bracketed(text, depth) or _spread(text, depth) or _named(text, depth) or _ratio(text, depth)
    return found or Scalar(text)


def without_thousands_commas(text: str) -> str:
    r"""No thousands commas where a list's own are followed by spaces (``1,000, 2,000``), or before a factor."""
    if ", " in text:
        text = _THOUSANDS_IN_LIST.sub(lambda match: match.group().replace(",", ""), text)
    factor = _THOUSANDS_FACTOR.match(text)
    return factor.group().replace(",", "") + text[factor.end() :] if factor else text


def _bracketed(text: str, depth: int) -> Node | None:
    match = _BRACKETED.fullmatch(text)
    if not match or not _spans(text, len(match[1])):
        return None
    opened, inner, closed = match[1], match[2].strip(), match[3]
    parts = split_top(inner, ",;")
    if not all(parts):
        return None
    if opened == "\\{":
        if closed != "\\}" or _SET_BUILDER.search(inner):
            return None
        return _set(parts, text, depth)
    if len(parts) == 1:
        return read(inner, depth + 1) if (opened, closed) == ("(", ")") else None
    items = _read_all(parts, depth)
    brackets = "()" if opened + closed == "⟨⟩" else opened + closed
    spread = [item.items if isinstance(item, Group) and _PLUS_MINUS.search(item.text) else (item,) for item in items]
    if brackets == "()" and any(len(values) > 1 for values in spread):
        if r"\mp" in inner or len(_PLUS_MINUS.findall(inner)) > MAX_SPREADS:
            return _spread(text, depth)
        return Group("", tuple(Group(brackets, row, text) for row in itertools.product(*spread)), text)
    return Group(brackets, items, text)


def _congruence(text: str, depth: int) -> Node | None:
    r"""``n \equiv 7, 11 \pmod 6`` as its left side, its least residues and its modulus."""
    left, sign, right = unwrap(text).partition(r"\equiv")
    match = _MODULUS.search(right)
    if not sign or not match or match.end() < len(right):
        return None
    modulus = (match[1] or match[2] or "").strip()
    residues = split_top(right[: match.start()], ",")
    if modulus.isdigit() and int(modulus):
        residues = [str(int(one) % int(modulus)) if re.fullmatch("-?[0-9]+", one) else one for one in residues]
    return Group("≡", (read(left, depth + 1), _set(residues, right, depth), read(modulus)), text)


def _set(parts: list[str], text: str, depth: int) -> Node:
    flat = tuple(value for item in _read_all(parts, depth) for value in _values(item))
    return flat[0] if len(flat) == 1 else Group("", flat, text)


def _values(item: Node) -> tuple[Node, ...]:
    r"""Both values of ``a \pm b``; every other answer by itself."""
    if isinstance(item, Group) and not item.brackets and _PLUS_MINUS.search(item.text):
        return item.items
    return (item,)


def _read_all(parts: Iterable[str], depth: int) -> tuple[Node, ...]:
    return tuple(read(part, depth + 1) for part in parts)


def _spread(text: str, depth: int) -> Node | None:
    r"""``a \pm b`` as the set of both values."""
    if not _PLUS_MINUS.search(text):
        return None
    both = (text.replace(r"\pm", one).replace(r"\mp", other) for one, other in ("+-", "-+"))
    return Group("", _read_all(both, depth), text)


def _named(text: str, depth: int) -> Node | None:
    member = _MEMBER.fullmatch(text)
    if member:
        return read(member[2], depth + 1)
    parts = split_top(text, "=")
    if len(parts) < 2 or not all(parts) or any(_RELATION.search(part) for part in parts):
        return None
    named = [_SIMPLE_NAME.fullmatch(_FUNCTION.sub(r"\1", unwrap(part)).strip()) is not None for part in parts]
    if not named[0]:
        return Chain(_read_all(parts, depth), text)
    count = len(parts) - 1 if all(named[:-1]) and not named[-1] else 1  # x = y = z = 1
    rest = _read_all(parts[count:], depth)
    name = "=".join(_ARGUMENTS.sub("", compact(part)) for part in parts[:count])
    return Equation(name, rest[0] if len(rest) == 1 else Chain(rest, text), text)


def _ratio(text: str, depth: int) -> Node | None:
    """``3:4``, which is no quotient and no set builder."""
    parts = split_top(text, ":")
    if len(parts) < 2 or not all(parts) or "\\" in text and _SET_BUILDER.search(text.replace(":", "")):
        return None
    return Group(":", _read_all(parts, depth), text)


def quotients(node: Group) -> tuple[Scalar, ...]:
    """The quotients of neighbours in a ratio of plain expressions that are not 0; none for all else, as a time."""
    if node.brackets != ":" or _TIME.fullmatch(node.text):
        return ()
    if not all(isinstance(item, Scalar) and not _NO_QUOTIENT.search(item.text) for item in node.items):
        return ()
    return tuple(Scalar(rf"\frac{{{upper.text}}}{{{lower.text}}}") for upper, lower in itertools.pairwise(node.items))


def vector(text: str) -> tuple[Node, ...] | None:
    r"""The entries of a matrix of one row or one column; None for everything else."""
    match = _MATRIX.fullmatch(text.strip())
    rows = [row.split("&") for row in match[2].split(r"\\") if row.strip()] if match else []
    if not match or (len(rows) > 1 and any(len(row) > 1 for row in rows)):
        return None
    return tuple(read(cell) for row in rows for cell in row)


def split_top(text: str, separators: str) -> list[str]:
    """The parts between separators (one character each) outside all brackets; ``[`` may be closed by ``)``."""
    parts, depth, start, escaped = [], 0, 0, False
    for position, char in enumerate(text):
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth = max(depth - 1, 0)
        elif char in separators and depth == 0 and not escaped:
            parts.append(text[start:position].strip())
            start = position + 1
        escaped = char == "\\"
    parts.append(text[start:].strip())
    return parts


def _spans(text: str, opened: int) -> bool:
    """Whether the bracket of so many characters that opens the text is closed by its last one."""
    depth = 0
    for position, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if depth == 0 and position >= opened - 1:
            return position == len(text) - 1
    return False


def leaves(node: Node) -> list[Scalar | Words]:
    """The expressions and words of an answer, in order."""
    if isinstance(node, Group | Chain):
        return [leaf for item in node.items for leaf in leaves(item)]
    return leaves(node.value) if isinstance(node, Equation) else [node]
