"""Rows in TransferQueue: reading fresh ones, putting replayed and padding ones, clearing them again.

The only module that touches TransferQueue.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from repo_verl.replay import Record, prompt_key
from repo_verl.trainer.fields import FRESH, FRESH_SCALE, ORIGIN, ROW_FIELDS, WEIGHT

TOKEN_FIELDS = ("prompts", "responses", "input_ids", "position_ids", "response_mask", "loss_mask")
UPDATE_FIELDS = (*TOKEN_FIELDS, "old_log_probs", "advantages", *ROW_FIELDS)
FRESH_FIELDS = ("prompts", "responses", "response_mask", "old_log_probs", "rm_scores", "extra_fields")


@dataclasses.dataclass(frozen=True)
class FreshRows:
    """The fresh rows of a step, padding left out.

    Attributes:
        keys: TransferQueue keys, in batch order.
        blocks: number of the prompt block of every row; blocks are numbered in order of appearance.
        prompt_keys: stable id of the prompt of every block.
        prompt_ids: token ids of the prompt of every block.
        responses: (T,) token ids of every row.
        masks: (T,) response mask of every row.
        log_probs: (T,) ``old_log_probs`` of every row.
        scores: (B,) summed reward of every row.
        parts: named numeric parts of the reward of every row.
        statuses: how every row's reward came about (``repo_verl.rewards.STATUSES``); "" where the reward function says
            nothing of it.
    """

    keys: list[str]
    blocks: list[int]
    prompt_keys: list[str]
    prompt_ids: list[np.ndarray]
    responses: list[torch.Tensor]
    masks: list[torch.Tensor]
    log_probs: list[torch.Tensor]
    scores: torch.Tensor
    parts: list[dict[str, float]]
    statuses: list[str]

    @property
    def lengths(self) -> list[int]:
        """Tokens of every row, prompt and response."""
        return [self.prompt_ids[b].size + r.numel() for b, r in zip(self.blocks, self.responses, strict=True)]


def read_fresh(batch: KVBatchMeta) -> FreshRows:
    """Fetch the fresh rows of a batch whose log-probs are computed."""
    keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
    split = [key.rsplit("_", 2) for key in keys]
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=list(FRESH_FIELDS))
    numbers: dict[str, int] = {}
    blocks = [numbers.setdefault(uid, len(numbers)) for uid, _, _ in split]
    first = [blocks.index(number) for number in range(len(numbers))]
    prompts = list(data["prompts"].unbind())
    prompt_ids = [prompts[row].numpy().astype(np.int32) for row in first]
    masks = list(data["response_mask"].unbind())
    rewards = [_reward_info(getattr(value, "data", value)) for value in list(data["extra_fields"])]
    return FreshRows(
        keys=keys,
        blocks=blocks,
        prompt_keys=[prompt_key(ids) for ids in prompt_ids],
        prompt_ids=prompt_ids,
        responses=list(data["responses"].unbind()),
        masks=masks,
        log_probs=list(data["old_log_probs"].unbind()),
        scores=torch.stack([row.sum() for row in data["rm_scores"].unbind()]),
        parts=[_numbers(info) for info in rewards],
        statuses=[str(info.get("status", "")) for info in rewards],
    )


def refuse_unsupported(batch: KVBatchMeta) -> None:
    """Stop where rows hold what RePO does not store: several outputs a session, images, routed experts.

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


def _reward_info(extra_fields: Any) -> Mapping[str, Any]:
    info = extra_fields.get("reward_extra_info") if isinstance(extra_fields, dict) else None
    return info or {}


def _numbers(info: Mapping[str, Any]) -> dict[str, float]:
    return {str(key): float(value) for key, value in info.items() if isinstance(value, int | float | np.number)}


def to_records(fresh: FreshRows, step: int) -> dict[int, list[Record]]:
    """Buffer records of the fresh rows, by block number."""
    records: dict[int, list[Record]] = {}
    for i, block in enumerate(fresh.blocks):
        mask = None if bool((fresh.masks[i] != 0).all()) else fresh.masks[i].numpy()
        row = Record.create(
            fresh.responses[i].numpy(),
            fresh.log_probs[i].float().numpy(),
            float(fresh.scores[i]),
            step,
            mask=mask,
            parts=fresh.parts[i],
        )
        records.setdefault(block, []).append(row)
    return records


def replayed_row(prompt_ids: np.ndarray, record: Record, advantage: float, optional: Sequence[str]) -> dict[str, Any]:
    """The fields of one replayed row.

    Its loss mask is all zeros, so that verl's token count stays that of the fresh rows; its response mask is true.

    Args:
        prompt_ids: (L,) token ids.
        record: from the buffer.
        advantage: A.
        optional: fields that fresh rows have as well, among ``rollout_is_weights`` and ``ref_log_prob``.
    """
    prompts = torch.from_numpy(prompt_ids.astype(np.int64))
    responses = torch.from_numpy(record.response_ids.astype(np.int64))
    mask = torch.from_numpy(record.mask.astype(np.int64))
    row = _text_row(prompts, responses, mask)
    row["old_log_probs"] = torch.from_numpy(record.log_probs.copy())
    row["advantages"] = mask.float() * advantage
    for name in optional:
        row[name] = torch.full(responses.shape, 1.0 if name == "rollout_is_weights" else 0.0)
    return row


def padding_row(token_id: int, optional: Sequence[str]) -> dict[str, Any]:
    """The smallest row that verl's engine takes: one prompt and one response token, masked."""
    token = torch.tensor([token_id], dtype=torch.int64)
    row = _text_row(token, token.clone(), torch.zeros(1, dtype=torch.int64))
    for name in ("old_log_probs", "advantages", *optional):
        row[name] = torch.zeros(1)
    return row


def _text_row(prompts: torch.Tensor, responses: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
    input_ids = torch.cat((prompts, responses))
    return {
        "prompts": prompts,
        "responses": responses,
        "input_ids": input_ids,
        "position_ids": torch.arange(input_ids.numel(), dtype=torch.int64),
        "response_mask": mask,
        "loss_mask": torch.zeros_like(mask),
    }


def put_rows(
    partition: str, rows: Sequence[Mapping[str, Any]], origin: int, weights: Sequence[float], scales: Sequence[float]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Store rows under keys of their own, which never begin with a fresh row's uid.

    Args:
        partition: TransferQueue partition.
        rows: from :func:`replayed_row` or :func:`padding_row`.
        origin: REPLAYED or PADDING.
        weights: w of every row.
        scales: factor of the fresh term of every row's mini-batch.

    Returns:
        keys and tags.
    """
    if not rows:
        return [], []
    uid = f"repo{uuid.uuid4().hex}"
    keys = [f"{uid}_{number}_0" for number in range(len(rows))]
    tags = [{"is_padding": True, **_length_tags(row)} for row in rows]
    columns: dict[str, torch.Tensor] = {
        name: torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged) for name in rows[0]
    }
    columns.update(_row_columns(len(rows), origin, weights, scales))
    tq.kv_batch_put(keys=keys, partition_id=partition, tags=tags, fields=TensorDict(columns, batch_size=len(rows)))
    return keys, tags


def mark_fresh(partition: str, keys: list[str], scales: Sequence[float]) -> None:
    """Give fresh rows RePO's own fields."""
    columns = _row_columns(len(keys), FRESH, [0.0] * len(keys), scales)
    tq.kv_batch_put(keys=keys, partition_id=partition, fields=TensorDict(columns, batch_size=len(keys)))


def _row_columns(size: int, origin: int, weights: Sequence[float], scales: Sequence[float]) -> dict[str, torch.Tensor]:
    return {
        ORIGIN: torch.full((size,), origin, dtype=torch.int64),
        WEIGHT: torch.tensor(list(weights), dtype=torch.float64),
        FRESH_SCALE: torch.tensor(list(scales), dtype=torch.float64),
    }


def _length_tags(row: Mapping[str, Any]) -> dict[str, int]:
    prompt, response = row["prompts"].numel(), row["responses"].numel()
    return {"prompt_len": prompt, "response_len": response, "seq_len": prompt + response}


def put_advantages(partition: str, fresh: FreshRows, advantages: torch.Tensor) -> None:
    """Replace the fresh rows' advantages and returns; ``advantages`` is (B,)."""
    rows = [mask.float() * value for mask, value in zip(fresh.masks, advantages.float(), strict=True)]
    nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    fields = TensorDict({"advantages": nested, "returns": nested.clone()}, batch_size=len(rows))
    tq.kv_batch_put(keys=fresh.keys, partition_id=partition, fields=fields)


def clear_rows(partition: str, keys: list[str]) -> None:
    """Remove rows from TransferQueue."""
    if keys:
        tq.kv_clear(keys=keys, partition_id=partition)
