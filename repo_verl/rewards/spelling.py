r"""One spelling for answers: what LaTeX offers in several ways and what carries no meaning.

Pure functions on strings, standard library only, linear in the length of their input.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
        "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "°": r"^\circ ", "±": r"\pm ", "∅": r"\emptyset ",
        "，": ",", "（": "(", "）": ")", "％": "%", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
    }
)  # fmt: skip

_END = r"(?![A-Za-z])"
_REPLACEMENTS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<!\\)((?:\\\\)*)\\\s*$", r"\1"),  # what is left of a space at the end
        (r"(?<!\\)(?:\\\$|\$|\\[()]|\\\[|\\\])", ""),
        (rf"\\(?:left|right)\s*\.|\\(?:left|right|[bB]igg?[lrm]?){_END}\s*", ""),
        (r"\^\s*\{?\s*((?:\\prime\s*)+)\}?", lambda match: "'" * match[1].count("prime")),
        (r",\s*(?<!\\)\\!\s*", ","),
        (rf"\\[dtc]frac{_END}", r"\\frac"),
        (r"(?<!\\)\\!", ""),
        (rf"(?<!\\)\\[,;: ]|~|\\q?quad{_END}|\\(?:displaystyle|limits|textstyle){_END}", " "),
        (r"\{,\}", ","),
        (r"\\%|\bpercent\b", "%"),
        (rf"\\langle{_END}\s*", "⟨"),
        (rf"\\rangle{_END}", "⟩"),
        (rf"\\lbrace{_END}", r"\\{"),
        (rf"\\rbrace{_END}", r"\\}"),
        (rf"\\(?:geqslant|geq|ge){_END}", r"\\ge "),
        (rf"\\(?:leqslant|leq|le){_END}", r"\\le "),
        (rf"\\(?:neq|ne){_END}", r"\\ne "),
        (rf"\\(?:lt|less){_END}", "<"),
        (rf"\\gt{_END}", ">"),
        (rf"\\varnothing{_END}|\\\{{\s*\\\}}", r"\\emptyset "),
        (rf"\^\s*\{{?\s*\\circ{_END}\s*\}}?|\\degrees?{_END}", r"^\\circ "),
        (r"(?<![A-Za-z\\])[+-]?\b(?:infinity|Infinity|infinite|Infinite)\b", r"\\infty "),
        (r"\s+", " "),
        (rf"[,;]?\s*(?:\\text\s*\{{\s*,?\s*)?(?:\bfor (?:all|every|any)\b|\\forall{_END}).*", ""),
    )
)

TEXT_COMMAND = r"\\(?:textbf|textit|textrm|textsf|text|mathrm|mathbf|mathit|mathsf|mbox|hbox|rm|bf)"
_TEXT_GROUP = re.compile(TEXT_COMMAND + r"\s*\{([^{}]*)\}")
_ONLY_TEXT = re.compile(rf"(?:{TEXT_COMMAND}\s*\{{[^{{}}]*\}}\s*)+")
_CONNECTIVE = re.compile(
    rf"\s*,?\s*(?:{TEXT_COMMAND}\s*\{{\s*(?:,\s*)?(?:and|or)\s*\}}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*"
)
_PLAIN_WORDS = re.compile(r"[A-Za-z]{4,}(?:[ -][A-Za-z]+){0,4}|[A-Za-z]{2,}(?:[ -][A-Za-z]+){1,4}")
TRUTH_WORDS = frozenset({"yes", "no", "true", "false"})
_SHORT_WORDS = frozenset({"yes", "no", "odd", "all", "any", "dne"})
_TEXT_WORDS = re.compile(r"[A-Za-z][A-Za-z'-]+(?: [A-Za-z'-]+){0,4}")
_CHOICE = re.compile(r"\(?([A-Z])\)?[.:]?")
_CHOICE_WITH_CONTENT = re.compile(
    rf"(?:{TEXT_COMMAND}\s*\{{)?\s*\(([A-Z])\)\s*[:.]?\s*\}}?(?!\s*[-+*/^_=(,])(.*)", re.DOTALL
)
_LONE_CAPITAL = re.compile(r"(?<![A-Za-z\\])[A-Z](?![A-Za-z])")
_SINGLE_GROUP = re.compile(r"([\^_])\{([^{}\\])\}")
_LIST_COMMA = re.compile(r"(?<=[0-9]),\s(?=[0-9]{3}(?![0-9]))")
_SHORT_FRACTION = re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)")


def clean(answer: str) -> str:
    r"""The answer with one spelling for signs, spaces, brackets and relations; still LaTeX, with the same meaning.

    Dollar signs go, as math delimiters and as currency. ``and`` and ``or`` between answers become commas.

    Args:
        answer: a gold answer, or the content of a box.

    Example:
        >>> clean(r"$\left( \dfrac{1}{2},\, 3 \right)$.")
        '( \\frac{1}{2}, 3 )'
    """
    text = answer.translate(_UNICODE)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    text = _CONNECTIVE.sub(", ", text).strip()
    return text.rstrip(".").strip() if not text.endswith("..") else text


def unwrap(text: str) -> str:
    r"""Text without its ``\text{...}`` and font commands, their content kept."""
    return _TEXT_GROUP.sub(r"\1", text)


def only_text(text: str) -> bool:
    r"""Whether a text is nothing but ``\text{}`` groups."""
    return _ONLY_TEXT.fullmatch(text) is not None


@functools.lru_cache(maxsize=1 << 14)
def compact(text: str) -> str:
    r"""The form in which two texts are compared: no spaces or fonts, ``^{2}`` as ``^2``, ``\frac12`` in braces.

    Args:
        text: a cleaned text.
    """
    text = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", unwrap(text))
    text = _LIST_COMMA.sub(";", text)
    return _SINGLE_GROUP.sub(r"\1\2", text).replace(" ", "")


def word(text: str) -> str | None:
    r"""The words of an answer that is nothing but words, in lower case; None for everything else.

    Words are the content of ``\text{}`` (two letters or more) and plain letters where no product of variables would be
    written so: four letters or more, several words, and a few short ones (yes, no, odd, ...).

    Args:
        text: a cleaned text.

    Example:
        >>> word(r"\text{Evelyn}"), word("abc")
        ('evelyn', None)
    """
    if _ONLY_TEXT.fullmatch(text):
        content = " ".join(unwrap(text).split()).rstrip(".")
        return content.casefold() if _TEXT_WORDS.fullmatch(content) else None
    if _PLAIN_WORDS.fullmatch(text) or text.casefold() in _SHORT_WORDS:
        return text.casefold()
    return None


def choice(text: str, with_content: bool = False) -> str | None:
    r"""The letter of a multiple-choice answer: ``C``, ``(C)``, ``\text{(C)}``, ``C.``; None for everything else.

    Args:
        text: a cleaned text.
        with_content: also read ``\textbf{(C)} 12``, where the letter in brackets comes first and alone.
    """
    match = _CHOICE.fullmatch(unwrap(text).strip())
    if match is None and with_content:
        match = _CHOICE_WITH_CONTENT.fullmatch(text)
        if match and _LONE_CAPITAL.search(unwrap(match[2])):
            return None
    return match.group(1) if match else None
