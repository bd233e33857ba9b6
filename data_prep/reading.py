"""The records of source files (jsonl, json, csv, parquet, arrow), one by one.

Text files are not read with ``datasets.load_dataset``, which guesses types and fills gaps without a word: an answer
``2020-01-01`` becomes a date, ``025`` in csv the number 25, ``NA`` and a missing field null, an integer of 20 digits a
float; a csv row of another length is accepted, and a type that changes late in a file refuses the whole file.
"""

import codecs
import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.prompts import is_conversation

TABLES = (".parquet", ".arrow")
SUFFIXES = (".jsonl", ".json", ".csv", *TABLES)
"""The kinds of files; the text ones may be compressed (``.jsonl.gz``)."""

_BATCH = 256  # rows of a parquet or arrow file that are Python objects at a time
_LFS = b"version https://git-lfs"
_BLANK = re.compile(r"[ \t\r\n]*")


class _BrokenError(ValueError):
    """What is wrong with a source, and where; ``{number}`` in the place is the record that was to come."""

    def __init__(self, reason: str, place: str = "row {number}: ") -> None:
        super().__init__(reason)
        self.place = place


def read_records(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The records of files, in order; of a json file the text is held in memory, of the others a few records.

    A json file is a list of objects, a csv file has a header and gives every cell as the text that it is. A record that
    is a list of messages, as in Open-Reasoner-Zero's files, is given as its ``messages``.

    Raises: ValueError naming the file, and the row where there is one, for another suffix, an empty file, a Git LFS
        pointer, broken content, an encoding other than UTF-8, two columns or fields of one name and records that are no
        objects; OSError if a file cannot be opened.
    """
    for path in paths:
        if not kind(path):
            raise ValueError(f"{path}: its suffix is not one of {', '.join(SUFFIXES)}, or .gz behind one of text")
        number = 0
        try:
            _require_content(path)
            for record in _READERS[kind(path)](path):
                if is_conversation(record):
                    record = {"messages": record}
                if not isinstance(record, dict):
                    raise _BrokenError(f"is a {type(record).__name__}, want an object")
                yield record
                number += 1
        except _BrokenError as error:
            raise ValueError(f"{path}: {error.place.format(number=number)}{error}") from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: no readable gzip file: {error}") from error


def kind(path: Path) -> str:
    """Which of :data:`SUFFIXES` a file has, "" if none; ``.gz`` behind the suffix of a text file does not count."""
    inner = unzipped(path).suffix
    return inner if inner in SUFFIXES and (inner == path.suffix or inner not in TABLES) else ""


def unzipped(path: Path) -> Path:
    """A path without ``.gz`` at its end."""
    return path.with_suffix("") if path.suffix == ".gz" else path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _require_content(path: Path) -> None:
    """Refuses a file that is empty, a Git LFS pointer, or in UTF-16 or UTF-32, whose JSON starts with NULs."""
    with path.open("rb") as stream:
        start = stream.read(len(_LFS))
    if not start:
        raise _BrokenError("is empty", "")
    if start == _LFS:
        raise _BrokenError(
            "is a Git LFS pointer, not the data; run `git lfs pull` in its repository, or download the file", ""
        )
    if kind(path) not in TABLES:
        with _opened(path) as stream:
            if b"\0" in stream.read(4):
                raise _BrokenError("not UTF-8 (NUL bytes, as UTF-16 has them); save it as UTF-8")


def _require_unique(names: Sequence[str], what: str = "columns") -> None:
    """Refuses two columns or fields of one name, of which only the last would be read."""
    if len(set(names)) < len(names):
        repeated = next(name for name, count in Counter(names).items() if count > 1)
        raise _BrokenError(f"has two {what} named {repeated!r}; rename or remove one of them", "")


# --- json ------------------------------------------------------------------------------------------------------------


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(fields)
    if len(record) < len(fields):
        _require_unique([name for name, _ in fields], "fields")
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _skip_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _place(text: str, at: int, line: int = 0) -> str:
    """Line and column, from 1; ``text`` is line ``line`` of the file, or all of it."""
    return f"line {line or text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)}"


def _value(text: str, at: int, line: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at a position, and where it ends."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        reason, at = f"broken JSON: {error.msg}", error.pos
    except RecursionError:
        reason = "its lists and objects are nested too deeply"
    except _BrokenError as error:
        reason = str(error)
    except ValueError as error:
        reason = f"it has a number that is too long: {str(error).partition(';')[0]}"
    raise _BrokenError(f"{reason} ({_place(text, at, line)})")


def _jsonl(path: Path) -> Iterator[Any]:
    with _opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise _BrokenError(f"not UTF-8 ({error.reason}, line {number}, byte {error.start + 1})") from error
            record, end = _value(text, _skip_blank(text, 0), number)
            end = _skip_blank(text, end)
            if end < len(text):
                raise _BrokenError(f"broken JSON: Extra data ({_place(text, end, number)})")
            yield record


def _json(path: Path) -> Iterator[Any]:
    with _opened(path) as stream:
        data = stream.read()
    try:
        text, undecoded = data.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:  # the rows before it are read
        text = data[: error.start].decode("utf-8-sig")
        undecoded = f"not UTF-8 ({error.reason}, byte {error.start + 1} of the file)"
    del data
    try:
        yield from _listed(text)
    except _BrokenError:
        if not undecoded:
            raise
    if undecoded:
        raise _BrokenError(undecoded)


def _listed(text: str) -> Iterator[Any]:
    at = _skip_blank(text, 0)
    if not text.startswith("[", at):
        raise _BrokenError(_no_list(text, at), "")
    at = _skip_blank(text, at + 1)
    number, separator = 0, "" if text.startswith("]", at) else ","
    while separator == ",":
        record, at = _value(text, at)
        yield record
        at = _skip_blank(text, at)
        separator = text[at : at + 1]
        if separator not in (",", "]"):
            raise _BrokenError(f"broken JSON: want ',' or ']' after it ({_place(text, at)})", f"row {number}: ")
        number += 1
        at = _skip_blank(text, at + 1)
    at = at if number else _skip_blank(text, at + 1)
    if at < len(text):
        raise _BrokenError(f"broken JSON: there is text after the list of {number} rows ({_place(text, at)})", "")


def _no_list(text: str, at: int) -> str:
    """What is wrong with a json file that does not begin with a list; an object around the list is named."""
    try:
        value, at = _value(text, at)
    except _BrokenError:
        value = None
    inner = [key for key, part in value.items() if part and isinstance(part, list)] if isinstance(value, dict) else []
    if len(inner) == 1 and _skip_blank(text, at) == len(text):
        return f"is one object with a list in its field {inner[0]!r}; save only that list, as a file of its own"
    return "holds no list of objects; if it has one object a line, name it .jsonl"


# --- columns ---------------------------------------------------------------------------------------------------------


def _csv(path: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(1 << 26)  # characters of a cell
    with _opened(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines, strict=True)
        try:
            header = next(rows, [])
            _require_unique(header)
            for cells in filter(None, rows):
                if len(cells) != len(header):
                    raise _BrokenError(
                        f"has {len(cells)} cells, but the header has {len(header)} (line {rows.line_num}); quote the "
                        "cells that hold commas"
                    )
                yield dict(zip(header, cells, strict=True))
        except UnicodeDecodeError as error:
            raise _BrokenError(f"not UTF-8 ({error.reason})", "row {number} or after: ") from error
        except csv.Error as error:
            raise _BrokenError(f"broken csv: {error} (line {rows.line_num})") from error


def _table(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for batch in _batches(path):
            singles = [field for field in batch.schema if "float" in str(field.type)]  # Arrow's half and single
            for record in batch.to_pylist():
                yield record | {field.name: shortened(record[field.name], field.type) for field in singles}
    except _BrokenError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _BrokenError(f"no readable {path.suffix[1:]}: {reason}", "row {number} or after: ") from error


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Of a parquet file, of a stream, as ``datasets`` writes it, or of Arrow's file format."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            _require_unique(file.schema_arrow.names)
            yield from file.iter_batches(batch_size=_BATCH)
        return
    with pa.memory_map(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        _require_unique(reader.schema.names)
        for batch in map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader:
            yield from (batch.slice(start, _BATCH) for start in range(0, batch.num_rows, _BATCH))


def shortened(value: Any, kind: pa.DataType) -> Any:
    """A value of a column with numbers of half and single precision as short as they were written; whole numbers stay.

    Python would show them with the digits of a double, 0.1 as 0.10000000149011612.
    """
    if value is None:
        return None
    if kind in (pa.float16(), pa.float32()):
        return value if value.is_integer() else float(str(kind.to_pandas_dtype()(value)))
    if pa.types.is_struct(kind):
        return {field.name: shortened(value[field.name], field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [shortened(part, kind.value_type) for part in value]
    return value


_READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _table, ".arrow": _table,
}  # fmt: skip
