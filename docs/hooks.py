"""Markdown that GitHub and MkDocs read differently, as MkDocs wants it."""

from __future__ import annotations

import re
from typing import Any

CODE = re.compile(r"`[^`]+`")
ITEM = re.compile(r"(?:[-*]|\d+\.) ")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs' event: a page's text, before it is rendered."""
    return as_mkdocs_reads_it(markdown)


def as_mkdocs_reads_it(text: str) -> str:
    """Separates a list from the line of text before it, and unescapes bars in code in tables."""
    lines: list[str] = []
    fenced = False
    for line in text.split("\n"):
        before = lines[-1] if lines else ""
        if ITEM.match(line) and not fenced and before.strip() and not ITEM.match(before) and before[0] not in " |#":
            lines.append("")
        if line.startswith("|"):
            line = CODE.sub(lambda code: code[0].replace("\\|", "|"), line)
        fenced ^= line.startswith("```")
        lines.append(line)
    return "\n".join(lines)
