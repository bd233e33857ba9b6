"""What the buffer keeps of fresh rows: reading it from TransferQueue, and the records made of it."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transfer_queue as tq

from repo_verl.replay import Record
from repo_verl.trainer.guards import SKIP, NonFiniteError, listed
from repo_verl.trainer.rows import FreshRows
from repo_verl.trainer.versions import Written, behaviour_log_probs, written_by

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

TEXT_FIELDS = ("responses", "old_log_probs", "extra_fields")
SAMPLED = "rollout_log_probs"


@dataclasses.dataclass(frozen=True)
class FreshTexts:
    """What the buffer keeps of a step's fresh rows, in the order of :class:`FreshRows`.

    Attributes:
        responses: (T,) token ids of every row.
        log_probs: (T,) log π_b of every row.
        parts: named numeric parts of the reward of every row.
        statuses: how every row's reward came about (``repo_verl.rewards.STATUSES``); "" where the reward function says
            nothing of it.
    """

    responses: list[torch.Tensor]
    log_probs: list[torch.Tensor]
    parts: list[dict[str, float]]
    statuses: list[str]


def read_texts(partition: str, keys: list[str]) -> FreshTexts:
    """Fetch what the buffer keeps of fresh rows that were sampled with the weights of the old log-probs."""
    data = tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=list(TEXT_FIELDS))
    return _texts(data, list(data["old_log_probs"].unbind()))


def read_versioned_texts(partition: str, fresh: FreshRows, step: int) -> tuple[FreshTexts, list[Written]]:
    """Fetch what the buffer keeps of fresh rows of an asynchronous trainer, and which model versions wrote each.

    Args:
        partition: TransferQueue partition.
        fresh: the step's rows.
        step: the training step.

    Raises:
        ValueError: if rows have no versions or no log-probs of the rollout engine.
    """
    written = [written_by(key, tag, step) for key, tag in zip(fresh.keys, fresh.tags, strict=True)]
    data = tq.kv_batch_get(keys=fresh.keys, partition_id=partition, select_fields=[*TEXT_FIELDS, SAMPLED])
    if SAMPLED not in data.keys():
        raise ValueError(
            f"rows of step {step} have no {SAMPLED}, which are the log-probs of rows that older model versions wrote: "
            "use an agent loop that returns response_logprobs."
        )
    forward, sampled = (list(data[name].unbind()) for name in ("old_log_probs", SAMPLED))
    return _texts(data, behaviour_log_probs(written, step, forward, sampled)), written


def _texts(data: Any, log_probs: list[torch.Tensor]) -> FreshTexts:
    rewards = [_reward_info(getattr(value, "data", value)) for value in list(data["extra_fields"])]
    return FreshTexts(
        responses=list(data["responses"].unbind()),
        log_probs=log_probs,
        parts=[_numbers(info) for info in rewards],
        statuses=[str(info.get("status", "")) for info in rewards],
    )


def _reward_info(extra_fields: Any) -> Mapping[str, Any]:
    info = extra_fields.get("reward_extra_info") if isinstance(extra_fields, dict) else None
    return info or {}


def _numbers(info: Mapping[str, Any]) -> dict[str, float]:
    """The numeric parts of a reward; an integer that no float can hold is left out."""
    return {
        str(key): float(value)
        for key, value in info.items()
        if isinstance(value, int | float | np.number)
        and not (isinstance(value, int) and abs(value) > sys.float_info.max)
    }


def to_records(
    fresh: FreshRows, texts: FreshTexts, step: int, skip: bool = False, written: Sequence[Written] | None = None
) -> list[tuple[str, np.ndarray, list[Record]]]:
    """Buffer records of the fresh rows: key, token ids and records of every prompt block.

    Within a block they are ordered by the version that wrote them and then by response number. Batch order is the order
    in which rows finished, short ones first: in it the buffer's newest rows, which `recency` replays, ties favour and
    eviction spares, would be the longest.

    Args:
        fresh: the step's rows.
        texts: what is stored of them.
        step: the training step.
        skip: leave out rows with a log-prob that is not finite, instead of raising.
        written: (B,) the model versions of every row, from which ages are counted; None to count them from this step.

    Raises:
        NonFiniteError: for such rows, naming them.
    """
    records: list[list[Record]] = [[] for _ in fresh.prompt_keys]
    bad: list[str] = []
    sessions = fresh.sessions
    versions = [step] * len(sessions) if written is None else [one.step for one in written]
    for i in sorted(range(len(sessions)), key=lambda row: (versions[row], sessions[row])):
        block = fresh.blocks[i]
        counted = fresh.masks[i] != 0
        if not bool(torch.isfinite(texts.log_probs[i][counted]).all()):
            bad.append(f"response {sessions[i]} of prompt {fresh.prompt_keys[block]}")
            continue
        row = Record.create(
            texts.responses[i].numpy(),
            texts.log_probs[i].float().numpy(),
            float(fresh.scores[i]),
            versions[i],
            mask=None if bool(counted.all()) else fresh.masks[i].numpy(),
            parts=texts.parts[i],
        )
        records[block].append(row)
    if bad and not skip:
        raise NonFiniteError(
            f"step {step}: old log-probs are not finite in {len(bad)} row(s) ({listed(bad)}): the policy has diverged, "
            f"so resume from the last checkpoint with a smaller learning rate, or {SKIP} to leave such rows out."
        )
    if bad:
        logger.warning("RePO: step %d: %d row(s) with log-probs that are not finite are not stored", step, len(bad))
    return list(zip(fresh.prompt_keys, fresh.prompt_ids, records, strict=True))
