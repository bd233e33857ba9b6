"""Writing verl parquet files and their account, whole or not at all, and drawing a sample of rows."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.account import Account
from data_prep.schema import SCHEMA, Row

_TEMPORARY = re.compile(r"\.data_prep\.([1-9]\d{0,8})\.tmp")

ROW_GROUP = 4096
"""Rows of a parquet row group, and of a table in memory."""


def tables(rows: Iterable[Row]) -> Iterator[pa.Table]:
    """Rows as tables of :data:`ROW_GROUP` rows, the last one shorter."""
    remaining = iter(rows)
    while batch := list(islice(remaining, ROW_GROUP)):
        yield pa.Table.from_pylist(batch, schema=SCHEMA)


def write_parquet(parts: Iterable[pa.Table], path: Path) -> None:
    """Writes tables as one parquet file, each a row group; the same tables give the same bytes.

    Not with ``datasets.Dataset.to_parquet``, which adds its own metadata and chooses the compression itself.
    """
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for part in parts:
            writer.write_table(part, row_group_size=ROW_GROUP)


def draw(
    parts: Iterable[pa.Table], size: int, seed: int, scratch: Path, account: Account, name: str
) -> Iterator[pa.Table]:
    """``size`` rows as the paper's authors drew theirs: ``datasets.Dataset.shuffle(seed).select(range(size))``.

    The rows are mapped into memory from the file ``scratch``; no cache is read or written. The account gets those not
    drawn. The paper's subset is seed 42, size 1024. Raises ValueError, with ``name``, if there are fewer rows.
    """
    import datasets

    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for part in parts:
            writer.write_table(part)
    rows = datasets.Dataset.from_file(str(scratch))
    if size > len(rows):
        most = f"the {len(rows)} rows left"
        raise ValueError(f"{name}: sample_size={size} must be from 1 to {most}; change --sample-size")
    drawn = rows.shuffle(seed=seed, keep_in_memory=True, load_from_cache_file=False).select(range(size))
    account.keep_only(info["index"] for info in drawn["extra_info"])
    yield from drawn.with_format("arrow").iter(ROW_GROUP)


class Staging:
    """Files that appear in a folder, which is made if need be, together or not at all.

    They are written in a hidden folder beside their names and renamed when the ``with`` block ends; if it ends with an
    error, or an interrupt, they are removed. What a process that is no more left in the folder is removed at the start.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._temporary = folder / f".data_prep.{os.getpid()}.tmp"
        self._names: list[str] = []

    def path(self, name: str) -> Path:
        """Where to write a file for now; an older file of its name is replaced at the end."""
        self._names.append(name)
        return self.scratch(name)

    def scratch(self, name: str) -> Path:
        """Where to write a file that is removed at the end."""
        self._temporary.mkdir(parents=True, exist_ok=True)
        return self._temporary / name

    def write_json(self, content: Mapping[str, Any], name: str) -> None:
        """Writes a JSON object, keys as given."""
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        self.path(name).write_bytes(text.encode("utf-8", "backslashreplace"))  # half a surrogate pair as JSON spells it

    def __enter__(self) -> Self:
        for path in self._folder.glob(".data_prep.*.tmp"):
            match = _TEMPORARY.fullmatch(path.name)
            if match and not _is_alive(int(match.group(1))):
                shutil.rmtree(path, ignore_errors=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Renames what was written if all went well, and removes the rest; ValueError if a folder is in the way."""
        try:
            if kind is None:
                for name in self._names:
                    if (self._folder / name).is_dir():
                        raise ValueError(f"{self._folder / name}: is a folder where a file is to be written; remove it")
                    with (self._temporary / name).open("rb") as stream:
                        os.fsync(stream.fileno())  # so that the name never stands for less than the whole
                for name in self._names:
                    os.replace(self._temporary / name, self._folder / name)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
