"""A look at the gold answers before a run: one whose answers cannot be judged would train on zeros."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repo_verl.config import RepoConfigError, lookup
from repo_verl.trainer.shared_prompts import find_shared_prompts

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

OUR_REWARDS = "pkg://repo_verl.rewards"
SAMPLE = 128
"""Gold answers looked at, evenly spread over a file."""


def check_golds(config: Any) -> None:
    """Look at the gold answers in local parquet files of ``data.train_files``; other files are left to verl.

    Stops a run that is graded by ``repo_verl.rewards`` and whose gold answers mostly can't be parsed. Warns where RePO
    replays and prompts occur with different gold answers, whichever the reward function.

    Args:
        config: verl's whole configuration.

    Raises:
        RepoConfigError: naming the file, the share, and three of the answers.
    """
    _check_verifiable(config)
    for line in find_shared_prompts(config):
        logger.warning("RePO: %s", line)


def _check_verifiable(config: Any) -> None:
    path = str(lookup(config, "reward.custom_reward_function.path", "")).removesuffix(".score")
    if path != OUR_REWARDS or lookup(config, "data.custom_cls.path") is not None:
        return
    files = lookup(config, "data.train_files", [])
    for file in [files] if isinstance(files, str) else list(files):
        local = Path(str(file)).expanduser()
        if local.suffix == ".parquet" and local.is_file():
            _check_file(local)


def _check_file(file: Path) -> None:
    golds = read_golds(file, SAMPLE)
    unparseable = _unverifiable(golds)
    if len(unparseable) * 2 > len(golds):
        examples = ", ".join(repr(gold)[:80] for gold in unparseable[:3])
        raise RepoConfigError(
            f"data.train_files={file}: {len(unparseable)} of {len(golds)} gold answers looked at can't be parsed by "
            f"repo_verl.rewards ({examples}), so they would reward nothing: prepare the file with "
            "`python -m data_prep SET --filter-unverifiable`, or set another reward.custom_reward_function."
        )


def read_golds(file: Path, count: int) -> list[Any]:
    """Gold answers of a verl parquet file, ``count`` of them evenly spread, or all where there are fewer.

    Args:
        file: a parquet file with the column ``reward_model``.
        count: how many.

    Raises:
        RepoConfigError: if the file has no such column or no rows, or can't be read.
    """
    import pyarrow

    try:
        return _read(file, count)
    except RepoConfigError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RepoConfigError(
            f"data.train_files={file} is no readable parquet ({reason}): prepare the file with "
            "`python -m data_prep SET`."
        ) from error


def _read(file: Path, count: int) -> list[Any]:
    import pyarrow.parquet as pq

    if pq.read_schema(file).names.count("reward_model") != 1:
        raise RepoConfigError(
            f"data.train_files={file} has no column reward_model, or several, which repo_verl.rewards needs: "
            "prepare the file with `python -m data_prep SET`."
        )
    column = pq.read_table(file, columns=["reward_model"])["reward_model"]
    if not len(column):
        raise RepoConfigError(f"data.train_files={file} has no rows: prepare it with `python -m data_prep SET`.")
    rows = range(len(column)) if len(column) <= count else [n * len(column) // count for n in range(count)]
    found = [column[row].as_py() for row in rows]
    return [row.get("ground_truth") if isinstance(row, dict) else None for row in found]


def _unverifiable(golds: Sequence[Any]) -> list[Any]:
    from repo_verl.rewards import gold_is_verifiable
    from repo_verl.rewards.pool import shared_pool

    try:
        return [gold for gold in golds if not gold_is_verifiable(gold)]
    finally:
        shared_pool().close()
