"""Writing verl parquet files and their account, whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.schema import SCHEMA, Row, validate_row

_TEMPORARY = re.compile(r"\.[\w-]+\.(parquet|arrow|json)\.([1-9]\d{0,8})\.tmp")

ROW_GROUP = 4096
"""Rows of a parquet row group, and of a table in memory."""


def tables(rows: Iterable[Row], file: str) -> Iterator[pa.Table]:
    """Rows as tables of :data:`ROW_GROUP` rows, the last one shorter.

    Args:
        rows: checked one by one with :func:`data_prep.schema.validate_row`.
        file: the file they are meant for, for messages.

    Raises: ValueError naming file, row and field of a bad row.
    """
    left = iter(rows)
    number = 0
    while batch := list(islice(left, ROW_GROUP)):
        for row in batch:
            validate_row(row, file, number)
            number += 1
        yield pa.Table.from_pylist(batch, schema=SCHEMA)


def write_parquet(parts: Iterable[pa.Table], path: Path) -> None:
    """Writes tables as one parquet file, each a row group; the same tables give the same bytes.

    Args:
        parts: in :data:`data_prep.schema.SCHEMA`.
        path: the file.
    """
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for part in parts:
            writer.write_table(part, row_group_size=ROW_GROUP)


def write_arrow(parts: Iterable[pa.Table], path: Path) -> None:
    """Writes tables as an Arrow stream, which can be mapped into memory.

    Args:
        parts: in :data:`data_prep.schema.SCHEMA`.
        path: the file.
    """
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for part in parts:
            writer.write_table(part)


class Staging:
    """Files that appear together or not at all.

    They are written beside their names and renamed when the ``with`` block ends; if it ends with an error, or an
    interrupt, they are removed. What a process that is no more left in the folder is removed at the start.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is written yet.

        Args:
            folder: where the files go; made if it is not there.
        """
        self._folder = folder
        self._finals: dict[Path, Path] = {}
        self._scratch: list[Path] = []

    def path(self, name: str) -> Path:
        """Where to write a file for now.

        Args:
            name: its name in the folder; an older file of this name is replaced at the end.
        """
        temporary = self._beside(name)
        self._finals[temporary] = self._folder / name
        return temporary

    def scratch(self, name: str) -> Path:
        """Where to write a file that is removed at the end.

        Args:
            name: what it is for.
        """
        self._scratch.append(self._beside(name))
        return self._scratch[-1]

    def write_json(self, content: Mapping[str, Any], name: str) -> None:
        """Writes a JSON object, keys as given.

        Args:
            content: the object.
            name: its name in the folder.
        """
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        self.path(name).write_bytes(text.encode("utf-8", "backslashreplace"))  # half a surrogate pair as JSON spells it

    def __enter__(self) -> Staging:
        """Itself; removes what dead processes left."""
        for path in self._folder.glob(".*.tmp"):
            match = _TEMPORARY.fullmatch(path.name)
            if match and not _is_alive(int(match.group(2))):
                path.unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Renames what was written if all went well, and removes the rest; ValueError if a folder is in the way."""
        try:
            if kind is None:
                for temporary, final in self._finals.items():
                    if final.is_dir():
                        raise ValueError(f"{final}: is a folder where a file is to be written; remove it")
                    _sync(temporary)
                for temporary, final in self._finals.items():
                    os.replace(temporary, final)
        finally:
            for path in (*self._finals, *self._scratch):
                path.unlink(missing_ok=True)

    def _beside(self, name: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f".{name}.{os.getpid()}.tmp"


def _sync(path: Path) -> None:
    """Waits until a file is on the disk, so that its new name never stands for less than the whole."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
