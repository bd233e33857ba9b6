"""What RePO adds to TransferQueue for an update: replayed and padding rows, and its own fields on the fresh ones.

Token fields of replayed rows are put while the step's responses are being generated; what depends on the fresh rows
(weights, and the advantages of ``mixed``) follows when the update is planned.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from tensordict import TensorDict

from repo_verl.replay import Record
from repo_verl.trainer.fields import FRESH_SCALE, FRESH_TOKENS, ORIGIN, ROW_FIELDS, WEIGHT

TOKEN_FIELDS = ("prompts", "responses", "input_ids", "position_ids", "response_mask", "loss_mask")
KEY_PREFIX = "repo"
"""How the keys of rows that RePO adds begin; verl's begin with a hexadecimal uid."""

UPDATE_FIELDS = (*TOKEN_FIELDS, "old_log_probs", "advantages", *ROW_FIELDS)


def replayed_row(prompt_ids: np.ndarray, record: Record) -> dict[str, Any]:
    """The fields of one replayed row.

    Its loss mask is all zeros, so that verl's token count stays that of the fresh rows; its response mask is true.

    Args:
        prompt_ids: (L,) token ids.
        record: from the buffer.
    """
    prompts = torch.from_numpy(prompt_ids.astype(np.int64))
    responses = torch.from_numpy(record.response_ids.astype(np.int64))
    mask = torch.from_numpy(record.mask.astype(np.int64))
    row = _text_row(prompts, responses, mask)
    row["old_log_probs"] = torch.from_numpy(record.log_probs.copy())
    return row


def padding_row(token_id: int) -> dict[str, Any]:
    """The smallest row that verl's engine takes: one prompt and one response token, masked."""
    token = torch.tensor([token_id], dtype=torch.int64)
    row = _text_row(token, token.clone(), torch.zeros(1, dtype=torch.int64))
    for name in ("old_log_probs", "advantages"):
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


def put_rows(partition: str, rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Store rows under keys of their own, which never begin with a fresh row's uid.

    Args:
        partition: TransferQueue partition.
        rows: from :func:`replayed_row` or :func:`padding_row`.

    Returns:
        keys and tags.
    """
    if not rows:
        return [], []
    uid = f"{KEY_PREFIX}{uuid.uuid4().hex}"
    keys = [f"{uid}_{number}_0" for number in range(len(rows))]
    tags = [{"is_padding": True, **_length_tags(row)} for row in rows]
    columns = {name: nested(row[name] for row in rows) for name in rows[0]}
    tq.kv_batch_put(keys=keys, partition_id=partition, tags=tags, fields=TensorDict(columns, batch_size=len(rows)))
    return keys, tags


def mark_rows(
    partition: str,
    keys: list[str],
    origins: Sequence[int],
    weights: Sequence[float],
    scales: Sequence[float],
    fresh_tokens: Sequence[int],
) -> None:
    """Give rows RePO's own fields; every argument has one value a row.

    Args:
        partition: TransferQueue partition.
        keys: of the rows.
        origins: FRESH, REPLAYED or PADDING.
        weights: w of :mod:`repo_verl.losses`.
        scales: factor of the fresh term of the row's mini-batch.
        fresh_tokens: fresh tokens that count in the row's mini-batch.
    """
    columns = {
        ORIGIN: torch.tensor(list(origins), dtype=torch.int64),
        WEIGHT: torch.tensor(list(weights), dtype=torch.float64),
        FRESH_SCALE: torch.tensor(list(scales), dtype=torch.float64),
        FRESH_TOKENS: torch.tensor(list(fresh_tokens), dtype=torch.int64),
    }
    tq.kv_batch_put(keys=keys, partition_id=partition, fields=TensorDict(columns, batch_size=len(keys)))


def put_values(
    partition: str, keys: list[str], masks: Sequence[torch.Tensor], values: Mapping[str, Sequence[float]]
) -> None:
    """Put fields that have one value a row on every token that counts.

    Args:
        partition: TransferQueue partition.
        keys: of the rows.
        masks: (T,) response mask of every row.
        values: one number a row, by field.
    """
    if not keys or not values:
        return
    columns = {
        name: nested(mask.float() * value for mask, value in zip(masks, column, strict=True))
        for name, column in values.items()
    }
    tq.kv_batch_put(keys=keys, partition_id=partition, fields=TensorDict(columns, batch_size=len(keys)))


def clear_rows(partition: str, keys: list[str]) -> None:
    """Remove rows from TransferQueue."""
    if keys:
        tq.kv_clear(keys=keys, partition_id=partition)


def nested(rows: Iterable[torch.Tensor]) -> torch.Tensor:
    """A jagged tensor of rows of any length."""
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def _length_tags(row: Mapping[str, Any]) -> dict[str, int]:
    prompt, response = row["prompts"].numel(), row["responses"].numel()
    return {"prompt_len": prompt, "response_len": response, "seq_len": prompt + response}
