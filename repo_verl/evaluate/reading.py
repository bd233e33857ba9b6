"""Files that anyone may have written: parquet row by row, JSON, and the fields that an evaluation takes from them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from repo_verl.safe_text import shown

BATCH = 256
NAME_LENGTH = 64
ID_LENGTH = 512


def brief(error: BaseException) -> str:
    """What an error says, on one line and not long.

    Args:
        error: of a library.
    """
    return " ".join(str(error).split())[:300] or type(error).__name__


def parquet_rows(file: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, a batch in memory at a time.

    Args:
        file: the file.
        columns: that it must have; others are not read.
        optional: that are read too, where it has them.

    Raises: ValueError naming the file if it is no readable parquet, has a column twice or lacks one.
    """
    number = 0
    try:
        with pq.ParquetFile(file) as content:
            names = content.schema_arrow.names
            _check_columns(file, names, columns)
            for batch in content.iter_batches(BATCH, columns=[name for name in names if name in {*columns, *optional}]):
                for row in batch.to_pylist():
                    yield row
                    number += 1
    except _Columns:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{file}: row {number} or after is no readable parquet ({brief(error)}): make it again."
        ) from error


class _Columns(ValueError):
    """The columns of a file are not those wanted."""


def _check_columns(file: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    for name in columns:
        if names.count(name) != 1:
            found = f"has {names.count(name)} columns {name!r}" if name in names else f"has no column {name!r}"
            raise _Columns(f"{file} {found}: it must have one each of {', '.join(columns)}.")


def json_value(text: str | bytes) -> Any:
    """The value that a text spells as JSON.

    Args:
        text: in UTF-8, if it is bytes.

    Raises: ValueError, also where the text is nested too deeply or no UTF-8.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def benchmark_name(value: Any) -> str:
    """The name of a benchmark: it is printed, and names a file.

    Args:
        value: of a row.

    Raises: ValueError without the place, which the caller knows.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > NAME_LENGTH:
        raise ValueError(f"the benchmark {shown(value)} must be printable text of 1 to {NAME_LENGTH} characters")
    return value


def problem_id(value: Any) -> str:
    """The id of a problem as text; a whole number is one too.

    Args:
        value: of a row.

    Raises: ValueError without the place.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else value
    if not isinstance(text, str) or not text or not text.isprintable() or len(text) > ID_LENGTH:
        raise ValueError(
            f"the problem {shown(value)} must be a number or printable text of at most {ID_LENGTH} characters"
        )
    return text


def text(value: Any, name: str) -> str:
    """A field that must be text.

    Args:
        value: of a row.
        name: of the field.

    Raises: ValueError without the place.
    """
    return str(_of_type(value, name, str, "text"))


def whole_number(value: Any, name: str) -> int:
    """A field that must be a whole number of 0 or more that fits into 31 bits; ``3.0`` is one, as pandas writes it.

    Args:
        value: of a row.
        name: of the field.

    Raises: ValueError without the place.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**31 and value == int(value):
        return int(value)
    raise ValueError(f"field {name!r} is {shown(value)}, want a whole number of 0 or more")


def is_missing(value: Any) -> bool:
    """Whether a field says nothing: null, or the NaN that pandas makes of it.

    Args:
        value: of a row.
    """
    return value is None or isinstance(value, float) and math.isnan(value)


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    """A field that must be a mapping.

    Args:
        value: of a row.
        name: of the field.

    Raises: ValueError without the place.
    """
    found: Mapping[str, Any] = _of_type(value, name, Mapping, "a mapping")
    return found


def _of_type(value: Any, name: str, kind: type, wanted: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"field {name!r} is {shown(value)}, want {wanted}")
    return value
