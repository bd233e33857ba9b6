"""Pieces of HTML; whatever comes from logs, settings and folder names goes through `text`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def text(value: object) -> str:
    """The value as HTML shows it."""
    return html.escape(str(value), quote=True)


def table(head: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "numbers") -> str:
    """A table that scrolls in its own box where it is wider than the page.

    Args:
        head: of the columns.
        rows: of cells, the first a row's head.
        kind: ``numbers`` or ``text``.

    Returns:
        HTML.
    """
    columns = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    lines = (
        f'<tr><th scope="row">{text(row[0])}</th>{"".join(f"<td>{text(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="table by {text(head[0])}"><table class="{kind}">'
        f"<thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
