"""A random sample, drawn as the paper's authors drew theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from data_prep.account import Account
from data_prep.files import ROW_GROUP


def draw(path: Path, size: int, seed: int, account: Account, name: str) -> Iterator[pa.Table]:
    """``size`` rows of a file as ``datasets.Dataset.shuffle(seed).select(range(size))`` draws them.

    The file is mapped into memory and no cache is read or written.

    Args:
        path: what is left after the filters, an Arrow stream.
        size: rows to keep.
        seed: of the shuffle; the paper's subset is seed 42, size 1024.
        account: the rows not drawn are added to it.
        name: of the file that is made, for messages.

    Raises: ValueError if size is below 1 or there are fewer rows.
    """
    import datasets

    rows = datasets.Dataset.from_file(str(path))
    if size < 1 or size > len(rows):
        raise ValueError(
            f"{name}: sample_size={size} must be from 1 to the {len(rows)} rows left; change --sample-size"
        )
    shuffled = rows.shuffle(seed=seed, keep_in_memory=True, load_from_cache_file=False).with_format("arrow")
    drawn: list[int] = []
    for start in range(0, size, ROW_GROUP):
        table = shuffled[start : min(start + ROW_GROUP, size)]
        drawn.extend(info["index"] for info in table["extra_info"].to_pylist())
        yield table
    account.keep_only(drawn)
