"""Reading source files record by record: jsonl, json, csv, parquet and arrow, none held in memory as a whole."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from data_prep.chats import is_conversation
from data_prep.columns import csv_records, table_records
from data_prep.json_window import DECODER, RepeatedFieldError, Window

TABLES = (".parquet", ".arrow")
SUFFIXES = (".jsonl", ".json", ".csv", *TABLES)
"""The kinds of files; the text ones may be compressed (``.jsonl.gz``)."""

CHUNK = 1 << 20
MAX_RECORD = 1 << 26
"""Characters of a json record after which a missing end counts as broken."""

_LFS = b"version https://git-lfs"
_UNDECODED = re.compile("[\udc80-\udcff]")


def read_records(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The records of jsonl, json (a list of objects), csv, parquet or arrow files, in order.

    A record that is a list of messages, as in Open-Reasoner-Zero's files, is given as its ``messages``.

    Args:
        paths: the files, read one after another; the suffix says which kind a file is.

    Raises: ValueError naming the file, and the row where there is one, for another suffix, an empty file, a Git LFS
        pointer, broken content, an encoding other than UTF-8, two columns or fields of one name and records that are no
        objects; OSError if a file cannot be opened.
    """
    for path in paths:
        if not kind(path):
            raise ValueError(f"{path}: its suffix is not one of {', '.join(SUFFIXES)}, or .gz behind one of text")
        try:
            _require_content(path)
            for number, record in enumerate(_records(path)):
                if is_conversation(record):
                    record = {"messages": record}
                if not isinstance(record, dict):
                    raise ValueError(f"{path}: row {number}: is a {type(record).__name__}, want an object")
                yield record
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: no readable gzip file: {error}") from error


def kind(path: Path) -> str:
    """Which of :data:`SUFFIXES` a file has, "" if none.

    Args:
        path: ``.gz`` behind the suffix of a text file does not count.

    Example:
        >>> kind(Path("x.jsonl.gz")), kind(Path("x.parquet")), kind(Path("x.parquet.gz"))
        ('.jsonl', '.parquet', '')
    """
    inner = unzipped(path).suffix
    return inner if inner in SUFFIXES and (inner == path.suffix or inner not in TABLES) else ""


def unzipped(path: Path) -> Path:
    """A path without ``.gz`` at its end.

    Args:
        path: of a file.
    """
    return path.with_suffix("") if path.suffix == ".gz" else path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Args:
        path: the file.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _require_content(path: Path) -> None:
    """ValueError for a file that is empty, a Git LFS pointer, or in UTF-16 or UTF-32, whose JSON starts with NULs."""
    with path.open("rb") as stream:
        start = stream.read(len(_LFS))
    if not start:
        raise ValueError(f"{path}: is empty")
    if start == _LFS:
        raise ValueError(
            f"{path}: is a Git LFS pointer, not the data; run `git lfs pull` in its repository, or download the file"
        )
    if kind(path) not in TABLES:
        with _opened(path) as stream:
            if b"\0" in stream.read(4):
                raise ValueError(f"{path}: row 0: not UTF-8 (NUL bytes, as UTF-16 has them); save it as UTF-8")


def _records(path: Path) -> Iterator[Any]:
    if kind(path) in TABLES:
        yield from table_records(path)
        return
    with _opened(path) as stream:
        if kind(path) == ".csv":
            yield from csv_records(stream, path, MAX_RECORD)
        else:
            yield from (_jsonl_records if kind(path) == ".jsonl" else _json_records)(stream, path)


def _jsonl_records(lines: BinaryIO, path: Path) -> Iterator[Any]:
    number = 0
    for line_number, line in enumerate(lines, start=1):
        if line_number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        try:
            record = DECODER.decode(line.decode("utf-8"))
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


def _json_records(stream: BinaryIO, path: Path) -> Iterator[Any]:
    window = Window(stream, CHUNK, MAX_RECORD)
    if window.peek() != "[":
        _require_utf8(window.peek(), path, 0)
        raise ValueError(f"{path}: {_no_list(window)}")
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


def _no_list(window: Window) -> str:
    """What is wrong with a json file that does not begin with a list; an object around the list is named."""
    try:
        value, _ = window.value()
    except (ValueError, RecursionError):
        value = None
    inner = [key for key, part in value.items() if part and isinstance(part, list)] if isinstance(value, dict) else []
    if len(inner) == 1 and not window.peek():
        return f"is one object with a list in its field {inner[0]!r}; save that list alone, as a file of its own"
    return "holds no list of objects; if it has one object a line, name it .jsonl"


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
    """What JSON that is well written can still have too much of: levels, digits of an integer, or a field's name."""
    if isinstance(error, RepeatedFieldError):
        return str(error)
    if isinstance(error, RecursionError):
        return "its lists and objects are nested too deeply"
    return f"it has a number that is too long: {str(error).partition(';')[0]}"


def _require_utf8(text: str, path: Path, number: int) -> None:
    if _UNDECODED.search(text):
        raise ValueError(f"{path}: row {number}: not UTF-8")
