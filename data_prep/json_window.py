"""Reading a large JSON file piece by piece."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from typing import Any, BinaryIO


class RepeatedFieldError(ValueError):
    """An object has two fields of one name, of which only the last would be read."""


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(fields)
    if len(record) < len(fields):
        [(name, _)] = Counter(name for name, _ in fields).most_common(1)
        raise RepeatedFieldError(f"has two fields named {name!r}; rename or remove one of them")
    return record


DECODER = json.JSONDecoder(object_pairs_hook=_object)
"""Reads JSON as ``json.loads`` does, but raises RepeatedFieldError for an object with two fields of one name."""

_BLANK = re.compile(r"[ \t\r\n]*")


class Window:
    """The part of a JSON file that is being read: ``text`` from ``position`` on, bytes that are no UTF-8 escaped."""

    def __init__(self, stream: BinaryIO, chunk: int, longest: int) -> None:
        """Nothing is read yet.

        Args:
            stream: the file.
            chunk: bytes to read at once, at least.
            longest: characters of a value after which a missing end counts as broken.
        """
        self.text, self.position = "", 0
        self._stream, self._ended = stream, False
        self._chunk, self._longest = chunk, longest
        self._lines = self._columns = 0
        self._decode = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape").decode
        self._parse = DECODER.raw_decode

    def peek(self) -> str:
        """The next character that is no blank, "" at the end of the file."""
        while True:
            blank = _BLANK.match(self.text, self.position)
            self.position = blank.end() if blank else self.position
            if self.position < len(self.text) or not self._more():
                return self.text[self.position : self.position + 1]

    def value(self) -> tuple[Any, str]:
        """The next JSON value and its text.

        Raises: JSONDecodeError if it is broken or too long, RecursionError if it is nested too deeply, ValueError for
            an integer of too many digits, RepeatedFieldError for two fields of one name.
        """
        self.peek()
        while True:
            start = self.position
            try:
                value, self.position = self._parse(self.text, start)
            except json.JSONDecodeError:
                if len(self.text) - start > self._longest or not self._more():
                    raise
            else:
                return value, self.text[start : self.position]

    def place(self, position: int) -> str:
        """Line and column in the file, from 1, as messages have them.

        Args:
            position: in ``text``.
        """
        lines, columns = self._counted(position)
        return f"line {lines + 1}, column {columns + 1}"

    def _counted(self, position: int) -> tuple[int, int]:
        """Line breaks before a position in ``text``, and characters since the last."""
        start = self.text.rfind("\n", 0, position)
        columns = position - start - 1 if start >= 0 else self._columns + position
        return self._lines + self.text.count("\n", 0, position), columns

    def _more(self) -> bool:
        """Reads on, at least as much as is waiting; False if the file has ended."""
        if self._ended:
            return False
        chunk = self._stream.read(max(self._chunk, len(self.text) - self.position))
        self._ended = not chunk
        self._lines, self._columns = self._counted(self.position)
        self.text = self.text[self.position :] + self._decode(chunk, final=not chunk)
        self.position = 0
        return True
