r"""The answer of a solution text: what stands in its last box. Linear in the length of the text."""

from __future__ import annotations

import re

from repo_verl.rewards.normalize import TRUTH_WORDS, clean, word

MAX_ANSWER_CHARS = 512
"""Longer answers are not judged: the longest gold answer of DeepMath's sample has 161 characters."""

TEMPLATES = ("boxed", "think")

_BOX_OR_MENTION = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BOX = re.compile(
    _BOX_OR_MENTION.pattern
    + r"(?!\s|\{[\s.…]*\}|[A-Za-z]{2,}(?![\w=^(+*/-])|[aI] +[A-Za-z]|\.(?![0-9])|[^\w.{\\(\[|+√−€£¥-]|$)"
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_ANSWER = re.compile(r"[^\s$]+")


def extract_answer(solution: str, template: str = "boxed") -> str | None:
    """The answer that a template asks for, with ``think`` behind the last ``</think>``; None where there is none."""
    if template == "think":
        _, tag, solution = solution.rpartition("</think>")
        if not tag:
            return None
    return extract_boxed(solution)


def well_formed(solution: str, template: str = "boxed") -> bool:
    """Whether a solution with an answer keeps the template's form: with ``think``, one pair of tags at its start."""
    tags = solution.count("<think>"), solution.count("</think>")
    return template != "think" or (tags == (1, 1) and solution.lstrip().startswith("<think>"))


def extract_boxed(solution: str, max_chars: int = MAX_ANSWER_CHARS) -> str | None:
    r"""The content of the last ``\boxed{...}`` or ``\fbox{...}``, braces balanced.

    Escaped braces (``\{``) do not count. ``\boxed 5`` and ``\boxed5`` are read up to the next space or ``$``. A box
    inside a box is the later one, so the innermost wins. A mention behind a box ("in \boxed as asked", ``\boxed{}``) is
    none.

    Args:
        solution: any text.
        max_chars: where reading stops: a longer answer comes back cut at ``max_chars + 1`` characters.

    Returns: The content without outer spaces (it may be empty); None without a box, or when the last one is not
        closed.

    Example:
        >>> extract_boxed(r"so \boxed{1}, no: \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
    """
    start = _last(solution, _BOX) or _last(solution, _BOX_OR_MENTION)  # a mention counts where there is no box
    if start is None:
        return None
    if solution.startswith("{", start):
        return _braced(solution, start + 1, max_chars)
    bare = _BARE_ANSWER.match(solution, start, start + max_chars + 1)
    return bare.group().rstrip(".,;:") if bare else None


def _last(solution: str, box: re.Pattern[str]) -> int | None:
    """Where the content of the last match begins, its brace included."""
    ends = []
    for command in ("\\boxed", "\\fbox"):
        position = len(solution)
        while (position := solution.rfind(command, 0, position)) >= 0:
            if match := box.match(solution, position):
                ends.append(match.end())
                break
    return max(ends, default=None)


def _braced(text: str, start: int, max_chars: int) -> str | None:
    """The text from ``start`` up to the brace that closes the group opened before ``start``; None if none does."""
    depth, end = 1, start + max_chars
    for brace in _BRACE.finditer(text, start, end + 1):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if depth == 0:
            return text[start : brace.start()].strip()
    return text[start : end + 1] if len(text) > end else None


def truth_word(answer: str) -> str | None:
    """Yes, no, true or false, in lower case, when that is all the answer says; else None."""
    found = word(clean(answer))
    return found if found in TRUTH_WORDS else None
