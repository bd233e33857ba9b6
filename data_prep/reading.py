"""Reading source files record by record: jsonl, json and parquet, none of them held in memory as a whole."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.json_window import Window
from data_prep.singles import has_singles, shortened

SUFFIXES = (".jsonl", ".json", ".parquet")
CHUNK = 1 << 20
MAX_RECORD = 1 << 26
"""Characters of a json record after which a missing end counts as broken."""

PARQUET_BATCH = 256

_UNDECODED = re.compile("[\udc80-\udcff]")


def read_records(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The records of jsonl, json (a list of objects) or parquet files, in order.

    Args:
        paths: the files, read one after another; the suffix says which kind a file is.

    Raises: ValueError naming the file, and the row where there is one, for another suffix, an empty file, broken
        JSON or parquet, an encoding other than UTF-8 and records that are no objects; OSError if a file cannot be
        opened.
    """
    readers = {".jsonl": _jsonl_records, ".json": _json_records, ".parquet": _parquet_records}
    for path in paths:
        if path.suffix not in readers:
            raise ValueError(f"{path}: suffix {path.suffix!r} is not one of {', '.join(SUFFIXES)}")
        _require_text(path)
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


def _require_text(path: Path) -> None:
    """ValueError for a file that is empty, or in UTF-16 or UTF-32, which have NUL bytes at the start of any JSON."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if not start:
        raise ValueError(f"{path}: is empty")
    if b"\0" in start and path.suffix != ".parquet":
        raise ValueError(f"{path}: row 0: not UTF-8 (NUL bytes, as UTF-16 has them); save it as UTF-8")


def _parquet_records(path: Path) -> Iterator[Any]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            single = [field for field in file.schema_arrow if has_singles(field.type)]
            for batch in file.iter_batches(batch_size=PARQUET_BATCH):
                for record in batch.to_pylist():
                    for field in single:
                        record[field.name] = shortened(record[field.name], field.type)
                    yield record
                    number += 1
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
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
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}: row {number}: {_too_much(error)} (line {line_number})") from error
            yield record
            number += 1


def _json_records(path: Path) -> Iterator[Any]:
    with path.open("rb") as stream:
        window = Window(stream, CHUNK, MAX_RECORD)
        if window.peek() != "[":
            _require_utf8(window.peek(), path, 0)
            raise ValueError(f"{path}: holds no list of objects; if it has one object a line, name it .jsonl")
        window.position += 1
        number, separator = 0, ","
        while separator == "," and not (number == 0 and window.peek() == "]"):
            record = _json_record(window, path, number)
            yield record
            separator = window.peek()
            if separator not in (",", "]"):
                _require_utf8(separator, path, number)
                place = window.place(window.position)
                raise ValueError(f"{path}: row {number}: broken JSON: want ',' or ']' after it ({place})")
            window.position += separator == ","
            number += 1
        window.position += 1
        if window.peek():
            place = window.place(window.position)
            raise ValueError(f"{path}: broken JSON: there is text after the list of {number} rows ({place})")


def _json_record(window: Window, path: Path, number: int) -> Any:
    try:
        record, text = window.value()
    except json.JSONDecodeError as error:
        _require_utf8(window.text[window.position :], path, number)
        raise ValueError(f"{path}: row {number}: broken JSON: {error.msg} ({window.place(error.pos)})") from error
    except (ValueError, RecursionError) as error:
        place = window.place(window.position)
        raise ValueError(f"{path}: row {number}: {_too_much(error)} (at {place})") from error
    _require_utf8(text, path, number)
    return record


def _too_much(error: ValueError | RecursionError) -> str:
    """What JSON that is well written can still have too much of: levels, or digits of an integer."""
    if isinstance(error, RecursionError):
        return "its lists and objects are nested too deeply"
    return f"it has a number that is too long: {str(error).partition(';')[0]}"


def _require_utf8(text: str, path: Path, number: int) -> None:
    if _UNDECODED.search(text):
        raise ValueError(f"{path}: row {number}: not UTF-8")
