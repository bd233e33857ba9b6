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
from transfer_queue import KVBatchMeta

from repo_verl.replay import Record
from repo_verl.trainer.fields import FRESH_SCALE, FRESH_TOKENS, ORIGIN, ROW_FIELDS, WEIGHT

TOKEN_FIELDS = ("prompts", "responses", "input_ids", "position_ids", "response_mask", "loss_mask")
KEY_PREFIX = "repo"
"""How the keys of rows that RePO adds begin; verl's begin with a hexadecimal uid."""

PAD_LENGTH = 2
"""Tokens of a padding row."""

OPTIONAL_FIELDS = {"rollout_is_weights": 1.0, "ref_log_prob": 0.0}
"""Fields that fresh rows may have, and what replayed and padding rows hold there: nothing that acts on them."""

FLOAT_FIELDS = ("old_log_probs", "advantages", "returns", *OPTIONAL_FIELDS)
"""Fields of floats that verl puts for fresh rows and RePO for others too, or again."""

UPDATE_FIELDS = (*TOKEN_FIELDS, "old_log_probs", "advantages", *ROW_FIELDS)


class FloatTypes:
    """The dtypes of verl's float fields, which the rows that RePO adds have to share.

    TransferQueue takes one dtype per field. verl's old log-probs have the dtype of the engine's forward pass, bfloat16
    for some, which shows once a step's fresh rows have them. Until then (first step of a process) such values wait.
    """

    def __init__(self) -> None:
        self._known: dict[str, torch.dtype] = {}
        self._waiting: dict[str, dict[str, torch.Tensor]] = {}

    def learn(self, batch: KVBatchMeta) -> None:
        """Look at a fresh row for the dtypes that are not known yet; ``batch`` has advantages."""
        names = [name for name in FLOAT_FIELDS if name in (batch.fields or ()) and name not in self._known]
        if names:
            data = tq.kv_batch_get(keys=batch.keys[:1], partition_id=batch.partition_id, select_fields=names)
            self._known.update({name: data[name].dtype for name in names})

    def cast(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """A value of a float field in the dtype of verl's; KeyError for a field whose dtype is not known."""
        return value.to(self._known[name])

    def split(self, keys: Sequence[str], rows: Sequence[Mapping[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        """What can be put of new rows now, cast; the rest waits for :meth:`put_waiting`.

        Args:
            keys: of the rows.
            rows: the fields of each, the same ones.
        """
        late = [name for name in FLOAT_FIELDS if name not in self._known]
        ready = []
        for key, row in zip(keys, rows, strict=True):
            waiting = {name: row[name] for name in late if name in row}
            if waiting:
                self._waiting[key] = waiting
            ready.append({n: self.cast(n, v) if n in self._known else v for n, v in row.items() if n not in waiting})
        return ready

    def put_waiting(self, partition: str, keys: Sequence[str]) -> None:
        """Put what waits for rows of an update; what waits for others is dropped."""
        waiting, self._waiting = self._waiting, {}
        for names in sorted({tuple(waiting[key]) for key in keys if key in waiting}):
            chosen = [key for key in keys if tuple(waiting.get(key, ())) == names]
            columns = {name: nested(self.cast(name, waiting[key][name]) for key in chosen) for name in names}
            data = TensorDict(columns, batch_size=len(chosen))
            tq.kv_batch_put(keys=chosen, partition_id=partition, fields=data)


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


def put_rows(
    partition: str, rows: Sequence[Mapping[str, Any]], floats: FloatTypes
) -> tuple[list[str], list[dict[str, Any]]]:
    """Store rows under keys of their own, which never begin with a fresh row's uid.

    Args:
        partition: TransferQueue partition.
        rows: from :func:`replayed_row` or :func:`padding_row`.
        floats: the dtypes of verl's fields.

    Returns:
        keys and tags.
    """
    if not rows:
        return [], []
    uid = f"{KEY_PREFIX}{uuid.uuid4().hex}"
    keys = [f"{uid}_{number}_0" for number in range(len(rows))]
    tags = [{"is_padding": True, **_length_tags(row)} for row in rows]
    ready = floats.split(keys, rows)
    columns = {name: nested(row[name] for row in ready) for name in ready[0]}
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
    partition: str,
    keys: list[str],
    masks: Sequence[torch.Tensor],
    values: Mapping[str, Sequence[float]],
    floats: FloatTypes,
) -> None:
    """Put fields that have one value a row on every token that counts.

    Args:
        partition: TransferQueue partition.
        keys: of the rows.
        masks: (T,) response mask of every row.
        values: one number a row, by field.
        floats: the dtypes of verl's fields.
    """
    if not keys or not values:
        return
    columns = {
        name: nested(floats.cast(name, mask.double() * value) for mask, value in zip(masks, column, strict=True))
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
