"""Reading files that have columns: parquet, arrow and csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.singles import has_singles, shortened

BATCH = 256
"""Rows of a parquet or arrow file that are Python objects at a time."""


class ColumnError(ValueError):
    """Columns that cannot be told apart; the message is whole."""


def table_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a parquet or arrow file (a stream, as ``datasets`` writes it, or Arrow's file format).

    Args:
        path: the file; the suffix says which kind it is.

    Raises: ValueError naming the file if it is broken or has two columns of one name.
    """
    number = 0
    try:
        for batch in _parquet_batches(path) if path.suffix == ".parquet" else _arrow_batches(path):
            single = [field for field in batch.schema if has_singles(field.type)]
            for record in batch.to_pylist():
                for field in single:
                    record[field.name] = shortened(record[field.name], field.type)
                yield record
                number += 1
    except ColumnError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: row {number} or after: no readable {path.suffix[1:]}: {reason}") from error


def csv_records(stream: BinaryIO, path: Path, longest: int) -> Iterator[dict[str, str]]:
    """The rows of a csv file with a header, every cell as the text that it is (``025`` stays ``025``).

    Args:
        stream: the file's bytes, in UTF-8.
        path: for messages.
        longest: characters that a cell may have.

    Raises: ValueError naming the file, and the row where there is one, for two columns of one name, a row of another
        length than the header, broken quotes and an encoding other than UTF-8.
    """
    csv.field_size_limit(longest)
    number = 0
    with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines, strict=True)
        try:
            header = next(rows, [])
            _require_unique(header, path)
            for cells in filter(None, rows):
                if len(cells) != len(header):
                    raise ValueError(
                        f"{path}: row {number}: has {len(cells)} cells, but the header has {len(header)} "
                        f"(line {rows.line_num}); quote the cells that hold commas"
                    )
                yield dict(zip(header, cells, strict=True))
                number += 1
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: row {number} or after: not UTF-8 ({error.reason})") from error
        except csv.Error as error:
            raise ValueError(f"{path}: row {number}: broken csv: {error} (line {rows.line_num})") from error


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        _require_unique(file.schema_arrow.names, path)
        yield from file.iter_batches(batch_size=BATCH)


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        _require_unique(reader.schema.names, path)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        for batch in batches:
            yield from (batch.slice(start, BATCH) for start in range(0, batch.num_rows, BATCH))


def _require_unique(names: Iterable[str], path: Path) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ColumnError(f"{path}: has two columns named {name!r}; rename or remove one of them")
        seen.add(name)
