"""Checks the ground truths (gold answers) of the training files before a run.

A reward function that can't parse them would train on zeros; a prompt that occurs with two of them is one prompt with
one replay buffer. Only local parquet files are looked at; others are left to verl.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repo_verl import ESTIMATOR, OUR_REWARDS
from repo_verl.config import RepoConfig, RepoConfigError, lookup

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

SAMPLE = 128  # gold answers that are parsed, evenly spread over a file
GOLD = "reward_model.ground_truth"
BATCH = 4096  # rows decoded at a time
MOST_SHOWN = 120
_AS_TEXT = json.JSONEncoder(sort_keys=True, default=repr).encode


def check_golds(config: Any) -> None:
    """Stop a run that ``repo_verl.rewards`` grades and whose gold answers mostly can't be parsed (RepoConfigError).

    Warns where RePO replays and prompts occur with different gold answers, whichever the reward function.
    """
    if str(lookup(config, "reward.custom_reward_function.path", "")).removesuffix(".score") == OUR_REWARDS:
        for file in _train_files(config):
            _check_parseable(file)
    for line in find_shared_prompts(config):
        logger.warning("RePO: %s", line)


def _train_files(config: Any) -> list[Path]:
    if lookup(config, "data.custom_cls.path") is not None:
        return []
    files = lookup(config, "data.train_files", [])
    places = [Path(str(file)).expanduser() for file in ([files] if isinstance(files, str) else files)]
    return [place for place in places if place.suffix == ".parquet" and place.is_file()]


def _check_parseable(file: Path) -> None:
    from repo_verl.rewards import gold_is_verifiable
    from repo_verl.rewards.pool import shared_pool

    golds = read_golds(file, SAMPLE)
    try:
        bad = [gold for gold in golds if not gold_is_verifiable(gold)]
    finally:
        shared_pool().close()
    if len(bad) * 2 > len(golds):
        examples = ", ".join(repr(gold)[:80] for gold in bad[:3])
        raise RepoConfigError(
            f"data.train_files={file}: {len(bad)} of {len(golds)} gold answers checked can't be parsed by "
            f"repo_verl.rewards ({examples}), so their responses would all score 0: prepare the file with "
            "`python -m data_prep SET --filter-unverifiable`, or set another reward.custom_reward_function."
        )


def read_golds(file: Path, count: int) -> list[Any]:
    """Gold answers of a verl parquet file, ``count`` of them evenly spread, or all where there are fewer.

    RepoConfigError if the file has no column ``reward_model`` or no rows, or can't be read.
    """
    import pyarrow
    import pyarrow.parquet as pq

    try:
        known = pq.read_schema(file).names.count("reward_model") == 1
        column = pq.read_table(file, columns=["reward_model"])["reward_model"] if known else []
        rows = range(len(column)) if len(column) <= count else [n * len(column) // count for n in range(count)]
        found = [column[row].as_py() for row in rows]
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RepoConfigError(
            f"data.train_files={file} is no readable parquet ({reason}): prepare the file with "
            "`python -m data_prep SET`."
        ) from error
    if not known:
        raise RepoConfigError(
            f"data.train_files={file} has no column reward_model, or several, which repo_verl.rewards needs: "
            "prepare the file with `python -m data_prep SET`."
        )
    if not found:
        raise RepoConfigError(f"data.train_files={file} has no rows: prepare it with `python -m data_prep SET`.")
    return [row.get("ground_truth") if isinstance(row, dict) else None for row in found]


def find_shared_prompts(config: Any) -> Iterator[str]:
    """A sentence on prompts with different golds, where RePO replays.

    The buffer knows a prompt by a hash of its token ids. One chat template turns equal messages into equal ids, so the
    messages are compared, before any tokenizer is there. Each file is read once, in batches, and hashes are kept; the
    rows that are named are read again. What has no such columns or can't be read is left to verl.
    """
    replays = lookup(config, "algorithm.adv_estimator") == ESTIMATOR
    if not replays or not RepoConfig.from_mapping(lookup(config, "algorithm.repo")).active:
        return
    import pyarrow

    column = str(lookup(config, "data.prompt_key", "prompt"))
    first: dict[int, int] = {}  # hash of a prompt -> hash of its first gold
    shared: set[int] = set()
    readable: list[Path] = []
    for file in _train_files(config):
        try:
            hashes = [(_hash(chat), _hash(gold)) for chat, gold in _rows(file, column)]
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            logger.debug("RePO: %s is not searched for prompts with different golds: %s", file, error)
            continue
        readable.append(file)
        shared |= {prompt for prompt, gold in hashes if first.setdefault(prompt, gold) != gold}
    if shared:
        one = next(prompt for prompt in first if prompt in shared)
        rows = [row for file in readable for row in _rows(file, column) if _hash(row[0]) == one]
        chat, gold = rows[0]
        other = next(other for _, other in rows if _hash(other) != _hash(gold))
        yield (
            f"prompts with different gold answers in data.train_files: {len(shared)}, such as {_short(_text(chat))} "
            f"with {_short(gold)} and {_short(other)}; equal messages are one prompt with one replay buffer, so that "
            "scores by one gold are replayed for the other: drop such rows (`python -m data_prep SET --deduplicate`), "
            "or write into the prompt what distinguishes them."
        )


def _rows(file: Path, column: str) -> Iterator[tuple[Any, Any]]:
    """Messages and gold of every row; ValueError where the file has no such columns."""
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file)
    schema = opened.schema_arrow
    held: Any = schema.field("reward_model").type if schema.names.count("reward_model") == 1 else None
    known = hasattr(held, "get_field_index") and held.get_field_index("ground_truth") >= 0
    if not known or schema.names.count(column) != 1:
        raise ValueError(f"no columns {column} and {GOLD}")
    for batch in opened.iter_batches(batch_size=BATCH, columns=[column, GOLD]):
        golds = (one and one["ground_truth"] for one in batch.column("reward_model").to_pylist())
        for chat, gold in zip(batch.column(column).to_pylist(), golds, strict=True):
            yield _without_nulls(chat), gold


def _without_nulls(chat: Any) -> Any:
    """Messages without keys that are null: a file has every key of any of its messages."""
    if not isinstance(chat, list):
        return chat
    return [{k: v for k, v in m.items() if v is not None} if isinstance(m, dict) else m for m in chat]


def _text(chat: Any) -> str:
    messages = chat if isinstance(chat, list) else [chat]
    return " ".join(str(one.get("content") if isinstance(one, dict) else one) for one in messages)


def _hash(value: Any) -> int:
    return int.from_bytes(hashlib.blake2b(_AS_TEXT(value).encode(), digest_size=8).digest(), "little")


def _short(value: Any) -> str:
    text = repr(value)
    half = MOST_SHOWN // 2
    return text if len(text) <= MOST_SHOWN else f"{text[:half]} ... {text[-half:]}"
