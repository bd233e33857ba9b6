"""Texts and values of unknown origin, made safe to print: one line, nothing that a terminal acts on, not long."""

from __future__ import annotations


def printable(text: str, most: int | None = None) -> str:
    """A text on one line, cut after ``most`` characters, with what can't be shown (control characters, ...) escaped.

    Example:
        >>> printable("abc" + chr(27) + "[2J", 4)
        'abc\\\\x1b ... (3 characters more)'
    """
    cut = "" if most is None or len(text) <= most else f" ... ({len(text) - most} characters more)"
    kept = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:most])
    return "".join(kept) + cut


def shown(value: object, most: int = 100) -> str:
    """A value as messages have it: its ``repr`` on one line of at most ``most`` characters, the rest left out.

    Example:
        >>> shown("a" * 20, 10), shown([1, None])
        ("'aaaaaa...", '[1, None]')
    """
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."
