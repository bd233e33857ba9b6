r"""Normalized text of answers: one form for what LaTeX offers in several ways, without what carries no meaning.

Linear in the length of the text, since no limit of time holds here. Every ``text`` is a cleaned one.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable

TEXT_COMMAND = r"\\(?:text(?:bf|it|rm|sf|tt|sc|up|normal)?|math(?:rm|bf|it|sf)|emph|mbox|hbox|rm|bf)"

_SIGNS = str.maketrans(
    {
        "−": "-", "–": "-", "‐": "-", "×": r"\times ", "·": r"\cdot ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
        "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "°": r"^\circ ", "±": r"\pm ", "∅": r"\emptyset ",
        "∠": r"\angle ", "√": r"\sqrt ", "∛": r"\sqrt[3] ", "′": "'", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    }
    | {chr(code): f"\\{unicodedata.name(chr(code)).split()[-1].lower()} " for code in range(0x3B1, 0x3CA)}
    | {"λ": r"\lambda ", "ο": "o", "ς": r"\sigma "}
)  # fmt: skip
_ROOT_SIGN = re.compile(r"([√∛])\s*(?:\(([^()]*)\)|([0-9]+(?:\.[0-9]+)?))")
_SQUARE_METERS = re.compile(r"(?<=[0-9])\s+m(?=[²³]\s*\.?\s*$)")
_CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
_AMOUNT = r"([+-]?[0-9](?:[0-9.,]|\\!|\{,\})*)"
_RUPEES = re.compile(rf"(?:{TEXT_COMMAND}\s*\{{\s*|\b)Rs\b\.?\s*\}}?(?=\s*[0-9])")
_SIGN = r"(?:\\\$|[€£¥₹])"
_MONEY = re.compile(rf"\$?\s*(?:{_SIGN}\s*{_AMOUNT}|{_AMOUNT}\s*{_SIGN})\s*\$?|\$\s*{_AMOUNT}|{_AMOUNT}\s*\$")

_END = r"(?![A-Za-z])"
_MACROS = {
    "langle": "⟨", "rangle": "⟩", "lbrace": r"\{", "rbrace": r"\}", "lt": "<", "less": "<", "gt": ">",
    "varnothing": r"\emptyset ", "neq": r"\ne ", "ne": r"\ne ", "degree": r"^\circ ", "degrees": r"^\circ ",
    **dict.fromkeys(("geqslant", "geq", "ge"), r"\ge "), **dict.fromkeys(("leqslant", "leq", "le"), r"\le "),
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac"), **dict.fromkeys(("left", "right", "middle"), ""),
    **dict.fromkeys(("quad", "qquad", "displaystyle", "limits", "textstyle"), " "),
    **{f"{b}ig{g}{j}": "" for b in "bB" for g in ("", "g") for j in ("", "l", "r", "m")},
}  # fmt: skip
_TOKEN = rf"[0-9A-Za-z]|\\(?:pi|alpha|beta|theta|lambda|mu|phi|omega){_END}"
_ANSWER = r"\s*(?:[Tt]he )?(?:[Ff]inal )?[Aa]nswer(?: is|:)\s*"
_ORDINAL = r"(?:st|nd|rd|th)"
_OPENED = rf"\s*(?:{TEXT_COMMAND}\s*\{{\s*)?"
_WHERE = rf"[ ,]*(?:{TEXT_COMMAND}\s*\{{[ ,]*(?:for|where|with) ?\}}|(?<![A-Za-z])(?:for|where|with){_END})?"
_INTEGERS = rf"{TEXT_COMMAND}\s*\{{ ?(?:for|where) (?:positive )?integers? ?\}} ?[kmnl]"
_QUANTIFIER = rf"[,;]?\s*(?:\\text\s*\{{\s*,?\s*)?(?:\bfor (?:all|every|any)\b|\\forall{_END})"
_BREAK = re.compile(
    rf"([,;]|(?:{TEXT_COMMAND}\s*\{{\s*)?"
    r"\b(?:and|or|but|except|if|unless|when|while|whereas|otherwise|else|plus|minus|times|not|as)\b)"
)
_RELATION = re.compile(rf"\\(?:in|ne|ge|le){_END}|[<>]")
_NO_DOMAIN = re.compile(rf"[=+/.]|\\(?:lor|vee|land|wedge|cup|cap){_END}")
_VARIABLE = re.compile(r"\s*\}?\s*[A-Za-z](?:_\w)?\s*\}?\s*")
_SET_OF_NUMBERS = re.compile(r"\\in\s*\\mathbb\s*\{?[A-Z]\}?\s*")


def _without_domain(match: re.Match[str]) -> str:
    """What is left of a quantifier and all behind it: nothing where that is only variables and their ranges."""
    first, *rest = _BREAK.split(match[1].removesuffix(")"))
    closed = ")" if match[1].endswith(")") else ""
    ranged, bare = bool(_RELATION.search(first)), _VARIABLE.fullmatch(_SET_OF_NUMBERS.sub("", first))
    if _NO_DOMAIN.search(first):
        return match[0]
    for clause in filter(str.strip, rest[1::2]):
        variable = _VARIABLE.match(clause)
        has_range = variable is not None and _RELATION.match(clause, variable.end()) is not None
        bare_name = variable is not None and variable.end() == len(clause) and not ranged
        if not (has_range or bare_name) or _NO_DOMAIN.search(clause):
            return "".join(rest) + closed if bare else match[0]
        ranged = ranged or has_range
    return closed


def _repeating(match: re.Match[str]) -> str:
    r"""``0.1\overline{6}`` as a fraction."""
    whole, once, period = match[1] or "0", match[2], match[3] or match[4]
    upper = int(whole + once + period) - int(whole + once)
    return rf"\frac{{{upper}}}{{{(10 ** len(period) - 1) * 10 ** len(once)}}}"


_REPLACEMENTS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<!\\)((?:\\\\)*)\\\s*$", r"\1"),  # what is left of a space at the end
        (r"(?<!\\)(?:\\\$|\$|(?<![0-9])[€£¥₹]|[€£¥₹](?![0-9])|\\[()]|\\\[|\\\])", ""),
        (r"^\s*\*\*([^*]+)\*\*[\s.]*$", r"\1"),  # Markdown's bold
        (r"\\not\s*=", r"\\ne "),
        (r"\*\*\s*(-?[0-9]+(?:\.[0-9]+)?|[A-Za-z])(?!\s*\*\*)", r"^{\1}"),
        (r"\*\*\s*(?=\()", "^"),
        (rf"\\(?:textcolor|color)\s*\{{[^{{}}]*\}}|\\(?:boldsymbol|bm|pmb|underline){_END}", "¤"),
        (r"¤\s*(?:\{([^{}]*)\})?", r"\1"),
        (rf"\{{\s*\\(?:bf|rm|it|sf|tt|em|bfseries|itshape){_END}\s*([^{{}}\\]*)\}}", r"\\text{\1}"),
        (r"\\(?:left|right)\s*\.", ""),
        (r"\\([A-Za-z]+)", lambda match: _MACROS.get(match[1], match[0])),
        (r"\^\s*\{?\s*((?:\\prime\s*)+)\}?", lambda match: "'" * match[1].count("prime")),
        (r",\s*(?<!\\)\\!\s*", ","),
        (rf"\\(sqrt(?:\s*\[[^\[\]]*\])?)\s*({_TOKEN})", r"\\\1{\2}"),
        (rf"\\frac\s*({_TOKEN})(?=\s*(?:\{{|(?:{_TOKEN})(?![0-9])))", r"\\frac{\1}"),
        (rf"(\\frac\{{[^{{}}]*(?:\{{[^{{}}]*\}}[^{{}}]*)*\}})\s*({_TOKEN})(?![0-9])", r"\1{\2}"),
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\[,;: ]|~", " "),
        (r"\{,\}", ","),
        (r"\\%|\bpercent\b", "%"),
        (r"\\\{\s*\\\}", r"\\emptyset "),
        (rf"\^\s*\{{?\s*\\circ{_END}\s*\}}?", r"^\\circ "),
        (r"(?<![A-Za-z\\])\+?\b(?:infinity|Infinity|infinite|Infinite)\b", r"\\infty "),
        (rf"(?<![A-Za-z\\])(pi){_END}", r"\\\1 "),
        (rf"(?<![A-Za-z\\])(?<!name\{{)(ln|log|exp|sin|cos|tan|cot){_END}(?=\s*[\\({{^_0-9A-Za-z])", r"\\\1 "),
        (rf"^(\s*[0-9]+)\s*\^?\s*(?:{TEXT_COMMAND}\s*)?\{{\s*{_ORDINAL}\s*\}}{_END}", r"\1"),
        (rf"^(\s*[0-9]+)\s*\^?\s*\{{\s*{TEXT_COMMAND}\s*\{{\s*{_ORDINAL}\s*\}}\s*\}}", r"\1"),
        (rf"^({_OPENED}[0-9]+)(?:(?<=1)st|(?<=2)nd|(?<=3)rd|(?<=[0-9])th){_END}(?! *(?:root|power))", r"\1"),
        (r"\\begin ?\{cases\}([^&]*?)\\end ?\{cases\}", lambda match: ", ".join(match[1].strip(" \\").split(r"\\"))),
        (r"\s+", " "),
        (
            r"(?<![0-9./}^_])([0-9]+) ([0-9]{1,9})/([0-9]{1,9})(?![0-9.])",  # 3 1/4; 4 10/3 is no mixed number
            lambda match: (
                rf"{match[1]}\frac{{{match[2]}}}{{{match[3]}}}" if int(match[2]) < int(match[3]) else match[0]
            ),
        ),
        (
            r"(?<![0-9,])([0-9]{0,40})\.([0-9]{0,40})\\(?:overline ?\{([0-9]{1,40})\}|dot ?\{?([0-9])\}?)(?![0-9\\])",
            _repeating,
        ),
        (r"([ap])\.\s?m\.?", r"\1m"),
        (rf"^(?:{TEXT_COMMAND}\s*\{{{_ANSWER}\}}|({TEXT_COMMAND}\s*\{{)?{_ANSWER})", r"\1"),
        (rf"(?<=[0-9])\s*{TEXT_COMMAND}\s*\{{\s*([A-Za-z]+),? and\s*\}}\s*(?=[0-9])", r"\\text{ \1}, "),
        (rf"{TEXT_COMMAND}\s*\{{\s*(?!not)([A-Za-z]+):\s*\}}\s*([0-9]+)", r"\2\\text{ \1}"),
        (rf"(?<=[^ ,]){_WHERE}(?:[ ,(]|(?<=\}}))(?<![A-Za-z\\])[A-Za-z]\s*\\in\s*\\mathbb\s*\{{?R\}}?\s*\)?$", ""),
        (
            rf"^((?:(?!\\[lgn]e|[<>]).)*[^ ,(]){_WHERE}(?:[ (]*([kmnl]) ?\\in ?\\mathbb ?\{{?Z\}}? ?\)?|{_INTEGERS})$",
            lambda match: match[1] if not match[2] or match[2] in letters(match[1]) else match[0],
        ),
        (r"^([A-Za-z])\s*\\in\s*\\mathbb\s*\{?R\}?\s*,\s*(?=\1\s*(?:\\(?:ne|le|ge)|<|>))", ""),
        (rf"{_QUANTIFIER}((?:(?!{_QUANTIFIER}).)*)", _without_domain),
    )
)

_TEXT_GROUP = re.compile(TEXT_COMMAND + r"\s*\{([^{}]*)\}")
ONLY_TEXT = re.compile(rf"(?:{TEXT_COMMAND}\s*\{{[^{{}}]*\}}\s*)+")
_CONNECTIVE = re.compile(
    rf"\s*,?\s*(?:{TEXT_COMMAND}\s*\{{\s*(?:,\s*)?(?:and|or)\s*\}}|(?<![A-Za-z\\])(?:and|or){_END})\s*"
)
_OR = re.compile(
    rf"\s*,?\s*(?:\\(?:text|mathrm|textrm)\s*\{{\s*or\s*\}}|(?<![A-Za-z\\])or{_END}|\\(?:lor|vee){_END})\s*"
)
_PLAIN_WORDS = re.compile(r"[A-Za-z]{4,}(?:[ -][A-Za-z]+){0,4}|[A-Za-z]{2,}(?:[ -][A-Za-z]+){1,4}")
TRUTH_WORDS = frozenset({"yes", "no", "true", "false"})
_SHORT_WORDS = frozenset({"yes", "no", "odd", "all", "any", "dne", "one", "two", "six", "ten"})
_TEXT_WORDS = re.compile(r"[A-Za-z][A-Za-z'-]+(?: [A-Za-z'-]+){0,4}")
_CHOICE = re.compile(r"(?:[Oo]ption|[Cc]hoice)?\s*\(?([A-Z])\)?[.:]?")
_CHOICE_WITH_CONTENT = re.compile(
    rf"(?:{TEXT_COMMAND}\s*\{{)?\s*(?:\(([A-Z])\)\s*[:.]?|([A-Z])\s*[):])\s*\}}?(?!\s*[-+*/^_=(,])(.*)", re.DOTALL
)
_LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_DEFINED = re.compile(r"[A-Za-z]'*\s*\(\s*([A-Za-z])\s*\)\s*=")
_PERIODS = re.compile(r"[klmn]\s*\\pi(?![A-Za-z])")
_CONSTANT = re.compile(r"[a-z].*\+ ?[CK]$")
_LONE_CAPITAL = re.compile(r"(?<![A-Za-z\\])[A-Z](?![A-Za-z])")
_SINGLE_GROUP = re.compile(r"([\^_])\{([^{}\\])\}")
_LIST_COMMA = re.compile(r"(?<=[0-9]),\s(?=[0-9]{3}(?![0-9]))")

_BUILDER = re.compile(r"\\\{\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\\mid|\\vert|\\middle\||\||:)(.*)\\\}")
_INEQUALITY = re.compile(r"\s*(<|>|\\(?:le|ge|ne)(?![A-Za-z]))\s*")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}


def clean(answer: str) -> str:
    r"""The answer with one spelling for signs, spaces, brackets and relations; still LaTeX, with the same meaning.

    Dollar signs go, an amount of money gets a unit. ``and`` and ``or`` between answers become commas, ``or`` between
    inequalities a union.

    Example:
        >>> clean(r"$\left( \dfrac{1}{2},\, 3 \right)$.")
        '( \\frac{1}{2}, 3 )'
    """
    if answer.isascii() and answer.isdigit():
        return answer
    text = answer if answer.isascii() else _latex(answer)
    text = _RUPEES.sub("₹", text.replace(r"\pounds", "£"))
    if money := _MONEY.fullmatch(text.strip()):
        sign = next((sign for sign in _CURRENCIES if sign != "$" and sign in text), "$")
        text = rf"{next(filter(None, money.groups()))}\text{{ {_CURRENCIES[sign]}}}"
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    text = _CONNECTIVE.sub(", ", _solution_set(text)).strip()
    return text.rstrip(".").strip() if not text.endswith("..") else text


def _latex(text: str) -> str:
    """Unicode as LaTeX: NFKC, save for what it would take the meaning from, as superscripts and fractions."""
    text = _SQUARE_METERS.sub(r"\\text{ m}", text)
    text = _ROOT_SIGN.sub(lambda match: match[1].translate(_SIGNS).strip() + f"{{{match[2] or match[3]}}}", text)
    parts = []
    for tag, run in itertools.groupby(
        text.translate(_SIGNS), lambda char: unicodedata.decomposition(char).split(" ")[0]
    ):
        plain = [unicodedata.normalize("NFKC", char).translate(_SIGNS) for char in run]
        if tag == "<fraction>":
            parts += [r"\frac{{{}}}{{{}}}".format(*number.split("⁄")) for number in plain]
        elif tag == "<circle>":
            parts.append(", ".join(f"({number})" for number in plain))
        elif tag in ("<super>", "<sub>"):
            joined = "".join(plain)
            parts.append(r"^\circ " if joined == "o" else f"{'^' if tag == '<super>' else '_'}{{{joined}}}")
        else:
            parts += plain
    return "".join(parts)


def _solution_set(text: str) -> str:
    r"""``\{x | x < 1\}``, or inequalities with ``or`` between them, as a union of intervals; else the text."""
    builder = _BUILDER.fullmatch(text)
    parts = _OR.split((builder[2] if builder else text).strip())
    if (not builder and len(parts) < 2) or (builder and builder[1] in "klmn" and "mathbb" not in text):
        return text
    name = builder[1] if builder else next(filter(re.compile("[A-Za-z]").fullmatch, _INEQUALITY.split(parts[0])), "")
    found = [_interval(_INEQUALITY.split(part), name) for part in parts]
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


def letters(text: str) -> set[str]:
    r"""The letters of a cleaned text, none of ``\pi``'s."""
    return {found for found in _LETTER.findall(text) if len(found) == 1}


def renamed(answer: str, gold: str) -> str:
    r"""The answer with the one letter that only one of the two has named as in the gold answer, if it is free.

    That is the argument of ``f(t) = 2t``, the integer of ``k\pi``, and C and K as constants of integration.
    """
    heads = [_DEFINED.match(text) for text in (gold, answer)]
    bodies = [text[head.end() :] if head else text for text, head in zip((gold, answer), heads, strict=True)]
    old, new = letters(bodies[1]) - letters(bodies[0]), letters(bodies[0]) - letters(bodies[1])
    if len(old) != 1 or len(new) != 1:
        return answer
    pair = old | new
    bound = [head[1] if head else None for head in heads]
    free = pair <= set("xyztus") and bound[1] in old and bound[0] in new | {None}
    free = free or all(len(_PERIODS.findall(body)) == len(letters(body) & set("klmn")) == 1 for body in bodies)
    free = free or (pair == {"C", "K"} and all(_CONSTANT.search(body) for body in bodies))
    return _LETTER.sub(lambda match: min(new) if match[0] in old else match[0], answer) if free else answer


def unwrap(text: str) -> str:
    r"""Text without its ``\text{...}`` and font commands, their content kept."""
    return _TEXT_GROUP.sub(r"\1", text)


@functools.lru_cache(maxsize=1 << 14)
def compact(text: str) -> str:
    r"""The form in which two texts are compared: no spaces or fonts, ``^{2}`` as ``^2``."""
    text = _LIST_COMMA.sub(";", unwrap(text))
    return _SINGLE_GROUP.sub(r"\1\2", text).replace(" ", "")


def word(text: str) -> str | None:
    r"""The words of an answer that is nothing but words, in lower case; None for everything else.

    Words are the content of ``\text{}`` (two letters or more) and plain letters where no product of variables would be
    written so: four letters or more, several words, and a few short ones (yes, no, odd, ...).
    """
    if ONLY_TEXT.fullmatch(text):
        text = " ".join(unwrap(text).split()).rstrip(".")
        return text.casefold() if _TEXT_WORDS.fullmatch(text) else None
    return text.casefold() if _PLAIN_WORDS.fullmatch(text) or text.casefold() in _SHORT_WORDS else None


def choice(text: str, with_content: bool = False) -> str | None:
    r"""The letter of a multiple-choice answer: ``C``, ``(C)``, ``\text{(C)}``, ``C.``; None for everything else.

    ``with_content`` also reads ``\textbf{(C)} 12``, where the letter in brackets comes first and by itself.
    """
    if match := _CHOICE.fullmatch(unwrap(text).strip()):
        return match[1]
    match = _CHOICE_WITH_CONTENT.fullmatch(text) if with_content else None
    return match[1] or match[2] if match and not _LONE_CAPITAL.search(unwrap(match[3])) else None
