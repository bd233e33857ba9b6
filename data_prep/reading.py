"""Reading source files record by record: jsonl, json and parquet, none of them held in memory as a whole."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

SUFFIXES = (".jsonl", ".json", ".parquet")
CHUNK = 1 << 20
MAX_RECORD = 1 << 26
"""Characters of a json record after which a missing end counts as broken."""

PARQUET_BATCH = 256

_BLANK = re.compile(r"[ \t\r\n]*")
_UNDECODED = re.compile("[\udc80-\udcff]")


def read_records(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The records of jsonl, json (a list of objects) or parquet files, in order.

    Args:
        paths: the files, read one after another; the suffix says which kind a file is.

    Raises: ValueError naming the file, and the row where there is one, for another suffix, broken JSON, an encoding
        other than UTF-8 and records that are no objects; OSError if a file cannot be read.
    """
    readers = {".jsonl": _jsonl_records, ".json": _json_records, ".parquet": _parquet_records}
    for path in paths:
        if path.suffix not in readers:
            raise ValueError(f"{path}: suffix {path.suffix!r} is not one of {', '.join(SUFFIXES)}")
        for number, record in enumerate(readers[path.suffix](path)):
            if not isinstance(record, dict):
                raise ValueError(f"{path}: row {number}: is a {type(record).__name__}, want an object")
            yield record


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Args:
        path: the file.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _parquet_records(path: Path) -> Iterator[Any]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH):
                yield from batch.to_pylist()
                number += batch.num_rows
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: row {number} or after: no readable parquet: {reason}") from error


def _jsonl_records(path: Path) -> Iterator[Any]:
    number = 0
    with path.open("rb") as lines:
        for line_number, line in enumerate(lines, start=1):
            if line_number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}: row {number}: not UTF-8 ({error.reason}, line {line_number}, byte {error.start + 1})"
                ) from error
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}: row {number}: broken JSON: {error.msg} (line {line_number}, column {error.colno})"
                ) from error
            yield record
            number += 1


def _json_records(path: Path) -> Iterator[Any]:
    with path.open("rb") as stream:
        window = _Window(stream)
        if window.peek() != "[":
            _require_utf8(window.peek(), path, 0)
            raise ValueError(f"{path}: holds no list of objects; if it has one object a line, name it .jsonl")
        window.position += 1
        number, separator = 0, ","
        while separator == "," and not (number == 0 and window.peek() == "]"):
            try:
                record, text = window.value()
            except json.JSONDecodeError as error:
                _require_utf8(window.text[window.position :], path, number)
                raise ValueError(f"{path}: row {number}: broken JSON: {error.msg}") from error
            _require_utf8(text, path, number)
            yield record
            separator = window.peek()
            if separator not in (",", "]"):
                _require_utf8(separator, path, number)
                raise ValueError(f"{path}: row {number}: broken JSON: want ',' or ']' after it")
            window.position += separator == ","
            number += 1
        window.position += 1
        if window.peek():
            raise ValueError(f"{path}: broken JSON: there is text after the list of {number} rows")


def _require_utf8(text: str, path: Path, number: int) -> None:
    if _UNDECODED.search(text):
        raise ValueError(f"{path}: row {number}: not UTF-8")


class _Window:
    """The part of a JSON file that is being read: ``text`` from ``position`` on, bytes that are no UTF-8 escaped."""

    def __init__(self, stream: BinaryIO) -> None:
        self.text, self.position = "", 0
        self._stream, self._ended = stream, False
        self._decode = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape").decode
        self._parse = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no blank, "" at the end of the file."""
        while True:
            blank = _BLANK.match(self.text, self.position)
            self.position = blank.end() if blank else self.position
            if self.position < len(self.text) or not self._more():
                return self.text[self.position : self.position + 1]

    def value(self) -> tuple[Any, str]:
        """The next JSON value and its text; raises JSONDecodeError if it is broken or longer than MAX_RECORD."""
        self.peek()
        while True:
            start = self.position
            try:
                value, self.position = self._parse(self.text, start)
            except json.JSONDecodeError:
                if len(self.text) - start > MAX_RECORD or not self._more():
                    raise
            else:
                return value, self.text[start : self.position]

    def _more(self) -> bool:
        """Reads on, at least as much as is waiting; False if the file has ended."""
        if self._ended:
            return False
        chunk = self._stream.read(max(CHUNK, len(self.text) - self.position))
        self._ended = not chunk
        self.text = self.text[self.position :] + self._decode(chunk, final=not chunk)
        self.position = 0
        return True
