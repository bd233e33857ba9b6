"""Docstrings as mkdocstrings reads them: what ours have beside Google's sections."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":\w+:`~?([^`]+)`")
ONE_LINE = re.compile(r"^( *)(Raises|Returns): (?=\S)", re.MULTILINE)
EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Roles become code; ``Example:`` the section that shows code; a section on one line a paragraph."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Griffe's event: an object was read from its module.

        Args:
            obj: with its docstring.
        """
        if obj.docstring is not None:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(r"\1Examples:", ONE_LINE.sub(r"\1**\2**: ", text))
