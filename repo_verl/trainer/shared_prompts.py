"""Prompts of the training files that occur with different gold answers, and so share a replay buffer."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_verl.config import RepoConfig, lookup

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

GOLD = "reward_model.ground_truth"
BATCH = 4096
"""Rows decoded at a time."""
MOST_SHOWN = 120
_AS_TEXT = json.JSONEncoder(sort_keys=True, default=repr).encode


def find_shared_prompts(config: Any) -> Iterator[str]:
    """A sentence on prompts with different golds, where RePO replays and the files are local parquet files.

    The buffer knows a prompt by a hash of its token ids. One chat template turns equal messages into equal ids, so the
    messages are compared, before any tokenizer is there. Each file is read once, in batches, and 16 bytes a row are
    kept; the prompt that is named is read again. What can't be read is left to verl.

    Args:
        config: verl's whole configuration.
    """
    if lookup(config, "algorithm.adv_estimator") != "repo" or lookup(config, "data.custom_cls.path") is not None:
        return
    if not RepoConfig.from_mapping(lookup(config, "algorithm.repo")).active:
        return
    files = lookup(config, "data.train_files", [])
    places = [Path(str(file)).expanduser() for file in ([files] if isinstance(files, str) else files)]
    column = str(lookup(config, "data.prompt_key", "prompt"))
    readable = [(place, hashes) for place in places if (hashes := _hashes(place, column)) is not None]
    if not readable:
        return
    found = find_conflicts(np.concatenate([hashes for _, hashes in readable]))
    if found[0]:
        ends = np.cumsum([len(hashes) for _, hashes in readable])
        rows = [_row(readable, ends, number, column) for number in found[1:]]
        yield (
            f"prompts with different gold answers in data.train_files: {found[0]}, such as {_short(_text(rows[0][0]))} "
            f"with {_short(rows[0][1])} and {_short(rows[1][1])}; equal messages are one prompt with one replay "
            "buffer, so that scores by one gold are replayed for the other: drop such rows (`python -m data_prep SET "
            "--deduplicate`), or write into the prompt what tells them apart."
        )


def find_conflicts(hashes: np.ndarray) -> tuple[int, int, int]:
    """How many prompts have more than one gold, and the first row of the first one and its first row with another gold.

    Args:
        hashes: (N, 2) uint64, of the prompt and the gold of every row.
    """
    prompts, first, group = np.unique(hashes[:, 0], return_index=True, return_inverse=True)
    differs = hashes[:, 1] != hashes[first[group], 1]  # from the gold of the prompt's first row
    if not differs.any():
        return 0, -1, -1
    one = int(first[group[differs]].min())
    other = int(np.flatnonzero(differs & (hashes[:, 0] == hashes[one, 0]))[0])
    return len(np.unique(group[differs])), one, other


def _hashes(file: Path, column: str) -> np.ndarray | None:
    """(N, 2) uint64; None for a file that has no such columns, or can't be read."""
    if file.suffix != ".parquet" or not file.is_file():
        return None
    import pyarrow
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file)
        if not _has_columns(opened.schema_arrow, column):
            return None
        pieces = [
            np.array([(_hash(_chat(chat)), _hash(gold)) for chat, gold in _pairs(batch, column)], dtype=np.uint64)
            for batch in opened.iter_batches(batch_size=BATCH, columns=[column, GOLD])
        ]
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        logger.debug("RePO: %s is not looked at for prompts with different golds: %s", file, error)
        return None
    return np.concatenate([np.empty((0, 2), dtype=np.uint64), *(piece for piece in pieces if len(piece))])


def _has_columns(schema: Any, column: str) -> bool:
    names = schema.names
    if names.count(column) != 1 or names.count("reward_model") != 1:
        return False
    held = schema.field("reward_model").type
    return hasattr(held, "get_field_index") and held.get_field_index("ground_truth") >= 0


def _pairs(table: Any, column: str) -> Iterator[tuple[Any, Any]]:
    """Messages and gold of every row of a batch or table."""
    golds = (held and held["ground_truth"] for held in table.column("reward_model").to_pylist())
    return zip(table.column(column).to_pylist(), golds, strict=True)


def _chat(messages: Any) -> Any:
    """Messages without keys that are null: a file has every key of any of its messages."""
    if not isinstance(messages, list):
        return messages
    return [{k: v for k, v in m.items() if v is not None} if isinstance(m, dict) else m for m in messages]


def _text(messages: Any) -> str:
    held = messages if isinstance(messages, list) else [messages]
    return " ".join(str(one.get("content") if isinstance(one, dict) else one) for one in held)


def _hash(value: Any) -> int:
    return int.from_bytes(hashlib.blake2b(_AS_TEXT(value).encode(), digest_size=8).digest(), "little")


def _row(readable: Sequence[tuple[Path, np.ndarray]], ends: np.ndarray, number: int, column: str) -> tuple[Any, Any]:
    """Messages and gold of a row, numbered through the files."""
    import pyarrow.parquet as pq

    file = int(np.searchsorted(ends, number, side="right"))
    opened = pq.ParquetFile(readable[file][0])
    at = number - int(ends[file]) + len(readable[file][1])
    for group in range(opened.num_row_groups):
        size = opened.metadata.row_group(group).num_rows
        if at < size:
            return next(_pairs(opened.read_row_group(group, columns=[column, GOLD]).slice(at, 1), column))
        at -= size
    raise ValueError(f"{readable[file][0]} has fewer rows than before: leave data.train_files alone during a start.")


def _short(value: Any) -> str:
    text = repr(value)
    half = MOST_SHOWN // 2
    return text if len(text) <= MOST_SHOWN else f"{text[:half]} ... {text[-half:]}"
