"""Fresh rows in TransferQueue: reading what an update needs of them, and what the buffer keeps."""

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
from transfer_queue import KVBatchMeta

from repo_verl.replay import Record, prompt_key
from repo_verl.trainer.guards import SKIP, NonFiniteError, listed, not_finite
from repo_verl.trainer.versions import Written, behaviour_log_probs, written_by

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

FRESH_FIELDS = ("prompts", "response_mask", "rm_scores")
TEXT_FIELDS = ("responses", "old_log_probs", "extra_fields")
SAMPLED = "rollout_log_probs"


@dataclasses.dataclass(frozen=True)
class FreshRows:
    """What an update needs to know of a step's fresh rows, padding left out.

    Attributes:
        keys: TransferQueue keys, in batch order.
        tags: TransferQueue tag of every row.
        uids: verl's uid of every prompt block.
        blocks: number of the prompt block of every row; blocks are numbered in order of appearance.
        prompt_keys: stable id of the prompt of every block.
        prompt_ids: token ids of the prompt of every block.
        masks: (T,) response mask of every row.
        tokens: response tokens that count, of every row.
        scores: (B,) summed reward of every row.
    """

    keys: list[str]
    tags: list[dict[str, Any]]
    uids: list[str]
    blocks: list[int]
    prompt_keys: list[str]
    prompt_ids: list[np.ndarray]
    masks: list[torch.Tensor]
    tokens: list[int]
    scores: torch.Tensor

    @property
    def lengths(self) -> list[int]:
        """Tokens of every row, prompt and response."""
        return [self.prompt_ids[b].size + mask.numel() for b, mask in zip(self.blocks, self.masks, strict=True)]


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


def read_fresh(batch: KVBatchMeta) -> FreshRows:
    """Fetch what an update needs of a batch that has its rewards.

    Scores are summed over the same padded rows as verl's advantages are, so that both round alike.
    """
    held = [row for row, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
    keys = [batch.keys[row] for row in held]
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(FRESH_FIELDS))
    prompts, masks = list(data["prompts"].unbind()), list(data["response_mask"].unbind())
    counted = (data["response_mask"].to_padded_tensor(0) != 0).sum(dim=-1).tolist()
    first: dict[str, int] = {}
    for row, key in zip(held, keys, strict=True):
        first.setdefault(_uid(key), row)
    numbers = {uid: number for number, uid in enumerate(first)}
    prompt_ids = [prompts[row].numpy().astype(np.int32) for row in first.values()]
    return FreshRows(
        keys=keys,
        tags=[batch.tags[row] for row in held],
        uids=list(first),
        blocks=[numbers[_uid(key)] for key in keys],
        prompt_keys=[prompt_key(ids) for ids in prompt_ids],
        prompt_ids=prompt_ids,
        masks=[masks[row] for row in held],
        tokens=[counted[row] for row in held],
        scores=data["rm_scores"].to_padded_tensor(0.0).sum(dim=-1)[held],
    )


def _uid(key: str) -> str:
    return key.rsplit("_", 2)[0]


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


def refuse_unsupported(batch: KVBatchMeta, multi_modal: bool) -> None:
    """Stop where rows hold what RePO does not store: several outputs a session, images, routed experts.

    Args:
        batch: with advantages.
        multi_modal: whether the model has a processor for other inputs than text, so that rows must be looked into.

    Raises:
        ValueError: naming the first such row.
    """
    several = [key for key in batch.keys if key.rsplit("_", 1)[1] != "0"]
    if several:
        raise ValueError(
            f"row {several[0]!r} is one of several outputs of its session: RePO needs an agent loop with one output."
        )
    fields = batch.fields or []
    if "routed_experts" in fields:
        raise ValueError("rows hold routed_experts, which RePO does not store: switch rollout routing replay off.")
    if not multi_modal:
        return
    first = tq.kv_batch_get(keys=batch.keys[:1], partition_id=batch.partition_id, select_fields=["position_ids"])[
        "position_ids"
    ][0]
    if first.dim() != 1:
        raise ValueError(
            f"position_ids of a row have {first.dim()} dimensions, as in a vision-language model: train a text model."
        )
    if "multi_modal_inputs" in fields:
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["multi_modal_inputs"])
        inputs = [getattr(value, "data", value) for value in list(data["multi_modal_inputs"])]
        filled = [key for key, value in zip(batch.keys, inputs, strict=True) if value]
        if filled:
            raise ValueError(f"row {filled[0]!r} has multi-modal inputs, which RePO does not store: train on text.")


def leave_out_nonfinite(batch: KVBatchMeta) -> tuple[KVBatchMeta, int]:
    """Take rows whose score is not finite out of a batch and of TransferQueue.

    Args:
        batch: with rewards, not padded yet.

    Returns:
        the batch without them, and how many they are.

    Raises:
        NonFiniteError: if no row is left.
    """
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores"])
    bad = set(not_finite(data["rm_scores"].to_padded_tensor(0.0).sum(dim=-1)))
    if not bad:
        return batch, 0
    kept = [row for row in range(len(batch.keys)) if row not in bad]
    if not kept:
        raise NonFiniteError(f"none of {len(bad)} rows has a finite score: mend the reward function and resume.")
    tq.kv_clear(keys=[batch.keys[row] for row in sorted(bad)], partition_id=batch.partition_id)
    return batch.select_keys([batch.keys[row] for row in kept]), len(bad)


def describe_row(fresh: FreshRows, row: int, tokenizer: Any) -> str:
    """A row in a message: which response to which prompt, and its score."""
    block = fresh.blocks[row]
    number = row - fresh.blocks.index(block)
    text = repr(tokenizer.decode(fresh.prompt_ids[block]))
    return f"response {number} of prompt {text if len(text) <= 80 else text[:77] + '...'}: {float(fresh.scores[row])}"


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
    for i, block in enumerate(fresh.blocks):
        counted = fresh.masks[i] != 0
        if not bool(torch.isfinite(texts.log_probs[i][counted]).all()):
            bad.append(f"response {i - fresh.blocks.index(block)} of prompt {fresh.prompt_keys[block]}")
            continue
        row = Record.create(
            texts.responses[i].numpy(),
            texts.log_probs[i].float().numpy(),
            float(fresh.scores[i]),
            step if written is None else written[i].step,
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
