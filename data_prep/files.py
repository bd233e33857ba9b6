"""Reading source files and writing verl parquet files, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.schema import SCHEMA, Row, validate_row

SUFFIXES = (".jsonl", ".json", ".parquet")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a jsonl, json (a list of objects) or parquet file, in order.

    Args:
        path: the file; its suffix says which kind it is.

    Raises: ValueError naming the file, and the row where there is one, for another suffix, broken JSON, an encoding
        other than UTF-8 and records that are no objects; OSError if it cannot be read.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: suffix {path.suffix!r} is not one of {', '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        for batch in pq.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
        return
    try:
        yield from _json_records(path) if path.suffix == ".json" else _jsonl_records(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from error


def _jsonl_records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}: row {number}: broken JSON: {error}") from error
            yield _checked(record, path, number)


def _json_records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: broken JSON: {error}") from error
    if not isinstance(loaded, list):
        raise ValueError(f"{path}: holds a {type(loaded).__name__}, want a list of objects")
    for number, record in enumerate(loaded):
        yield _checked(record, path, number)


def _checked(record: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(f"{path}: row {number}: is a {type(record).__name__}, want an object")
    return record


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Args:
        path: the file.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Writes rows as parquet under a temporary name and renames it; the same rows give the same bytes.

    Args:
        rows: checked one by one with :func:`data_prep.schema.validate_row`.
        path: the file; an older one is replaced.

    Raises: ValueError if there are none, or naming file, row and field of a bad one.
    """
    if not rows:
        raise ValueError(f"{path}: no rows are left to write; loosen the filters or check the input")
    for number, row in enumerate(rows):
        validate_row(row, path.name, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), temporary, compression="zstd")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Writes a JSON object, keys as given, under a temporary name and renames it.

    Args:
        content: the object.
        path: the file; an older one is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
