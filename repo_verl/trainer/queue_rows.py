"""What RePO adds to TransferQueue for an update and removes: replayed and padding rows, its own fields on fresh rows.

Rows are put while verl computes the old log-probs, except what depends on these: dtypes and optional fields.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from repo_verl.replay import Record
from repo_verl.trainer.guards import NonFiniteError, not_finite
from repo_verl.trainer.layout import FRESH, FRESH_SCALE, FRESH_TOKENS, ORIGIN, PAD, PADDING, REPLAYED, WEIGHT
from repo_verl.trainer.retrieval import Update

KEY_PREFIX = "repo"  # of rows that RePO adds; verl's keys begin with a hexadecimal uid

OPTIONAL_FIELDS = {"rollout_is_weights": 1.0, "ref_log_prob": 0.0}
"""Fields that fresh rows may have, and what replayed and padding rows hold there: nothing that acts on them."""

FLOAT_FIELDS = ("old_log_probs", "advantages", *OPTIONAL_FIELDS)  # verl puts them for fresh rows, RePO for the others
UPDATE_FIELDS = (
    "prompts", "responses", "input_ids", "position_ids", "response_mask", "loss_mask", "old_log_probs", "advantages",
    ORIGIN, WEIGHT, FRESH_SCALE, FRESH_TOKENS,
)  # fmt: skip

Row = dict[str, torch.Tensor]
Placed = tuple[str, dict[str, Any]]  # key and tag of a row in TransferQueue


class QueuedUpdate:
    """The rows of a planned update in TransferQueue.

    TransferQueue takes one dtype per field. verl's old log-probs have the dtype of the engine's forward pass, bfloat16
    for some, which shows once a step's fresh rows have them. Until then (first step of a process) floats wait.

    Args:
        partition: TransferQueue partition.
        update: with a plan.
        dtypes: of verl's float fields, as far as they are known; kept by the caller from step to step, and filled here.

    Attributes:
        added: (T,) response mask of every row that RePO put there, by key.
        places: key and tag of every row, by row number; without padding rows.
    """

    def __init__(self, partition: str, update: Update, dtypes: dict[str, torch.dtype]) -> None:
        assert update.plan is not None
        self._partition, self._plan, self._dtypes = partition, update.plan, dtypes
        self._total = len(update.fresh.keys)
        self._ordered: list[Placed] = []
        self._waiting: dict[str, Row] = {}
        self.added: dict[str, torch.Tensor] = {}
        self.places: dict[int, Placed] = dict(enumerate(zip(update.fresh.keys, update.fresh.tags, strict=True)))

    def put_replayed(self, group: Sequence[tuple[int, np.ndarray, Record]]) -> None:
        """Put replayed rows; each has a row number, prompt ids and a record."""
        values = self._plan.replayed_advantages
        rows = [replayed_row(ids, record, float(values[row - self._total])) for row, ids, record in group]
        self.places.update(zip((row for row, _, _ in group), self._put_new(rows), strict=True))

    def put_padding_and_fields(self, pad_token: int) -> None:
        """Put padding rows of this token id, and RePO's own fields of every row."""
        order = self._plan.layout.order
        pads = iter(self._put_new([padding_row(pad_token) for _ in range(order.count(PAD))]))
        self._ordered = [next(pads) if row == PAD else self.places[row] for row in order]
        numbers = [self._plan.layout.mini_batch_at(position) for position in range(len(order))]
        kinds = [PADDING if row == PAD else FRESH if row < self._total else REPLAYED for row in order]
        weights = [float(self._plan.weights[row - self._total]) if row >= self._total else 0.0 for row in order]
        columns = {
            ORIGIN: torch.tensor(kinds, dtype=torch.int64),
            WEIGHT: torch.tensor(weights, dtype=torch.float64),
            FRESH_SCALE: torch.tensor([self._plan.scales[number] for number in numbers], dtype=torch.float64),
            FRESH_TOKENS: torch.tensor([self._plan.fresh_tokens[number] for number in numbers], dtype=torch.int64),
        }
        fields = TensorDict(columns, batch_size=len(order))
        tq.kv_batch_put(keys=[key for key, _ in self._ordered], partition_id=self._partition, fields=fields)

    def make_batch(self, batch: KVBatchMeta) -> KVBatchMeta:
        """Put what depends on verl's own fields, and return the update's batch; ``batch`` is verl's with advantages."""
        self._read_dtypes(batch)
        waiting = [{name: self._cast(name, value) for name, value in row.items()} for row in self._waiting.values()]
        _put(self._partition, list(self._waiting), waiting)
        optional = [name for name in OPTIONAL_FIELDS if name in (batch.fields or ())]
        if optional:
            rows = [
                {name: self._cast(name, mask.double() * OPTIONAL_FIELDS[name]) for name in optional}
                for mask in self.added.values()
            ]
            _put(self._partition, list(self.added), rows)
        return KVBatchMeta(
            partition_id=self._partition,
            keys=[key for key, _ in self._ordered],
            tags=[tag for _, tag in self._ordered],
            fields=[*UPDATE_FIELDS, *optional],
            extra_info=batch.extra_info,
        )

    def _read_dtypes(self, batch: KVBatchMeta) -> None:
        """Look at a fresh row for the dtypes that are not known yet."""
        names = [name for name in FLOAT_FIELDS if name in (batch.fields or ()) and name not in self._dtypes]
        if names:
            data = tq.kv_batch_get(keys=batch.keys[:1], partition_id=batch.partition_id, select_fields=names)
            self._dtypes.update({name: data[name].dtype for name in names})

    def _cast(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """A field's value; floats in the dtype of verl's, which must be known."""
        return value.to(self._dtypes[name]) if name in FLOAT_FIELDS else value

    def _put_new(self, rows: Sequence[Row]) -> list[Placed]:
        """Put rows under keys that never begin with a fresh row's uid; returns the key and tag of each."""
        uid = f"{KEY_PREFIX}{uuid.uuid4().hex}"
        keys = [f"{uid}_{number}_0" for number in range(len(rows))]
        tags = [{"is_padding": True, **_length_tags(row)} for row in rows]
        unknown = [name for name in FLOAT_FIELDS if name not in self._dtypes]
        ready = [{name: self._cast(name, row[name]) for name in row if name not in unknown} for row in rows]
        _put(self._partition, keys, ready, tags)
        for key, row in zip(keys, rows, strict=True):
            self.added[key] = row["response_mask"]
            late = {name: row[name] for name in row if name in unknown}
            if late:
                self._waiting[key] = late
        return list(zip(keys, tags, strict=True))


def clear_rows(partition: str, keys: list[str]) -> None:
    """Remove rows from TransferQueue."""
    if keys:
        tq.kv_clear(keys=keys, partition_id=partition)


def leave_out_nonfinite(batch: KVBatchMeta) -> tuple[KVBatchMeta, int]:
    """Take rows whose score is not finite out of a scored batch and of TransferQueue (``on_nonfinite: skip``).

    Returns the batch without them, and how many they are; NonFiniteError if no row is left.
    """
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores"])
    bad = set(not_finite(data["rm_scores"].to_padded_tensor(0.0).sum(dim=-1)))
    if not bad:
        return batch, 0
    kept = [row for row in range(len(batch.keys)) if row not in bad]
    if not kept:
        raise NonFiniteError(f"none of {len(bad)} rows has a finite score: fix the reward function and resume.")
    clear_rows(batch.partition_id, [batch.keys[row] for row in sorted(bad)])
    return batch.select_keys([batch.keys[row] for row in kept]), len(bad)


def replayed_row(prompt_ids: np.ndarray, record: Record, advantage: float) -> Row:
    """The fields of one replayed row; ``prompt_ids`` is (L,).

    Its loss mask is all zeros, so that verl's token count stays that of the fresh rows; its response mask is true.
    """
    prompts = torch.from_numpy(prompt_ids.astype(np.int64))
    responses = torch.from_numpy(record.response_ids.astype(np.int64))
    mask = torch.from_numpy(record.mask.astype(np.int64))
    return _row(prompts, responses, mask, torch.from_numpy(record.log_probs.copy()), mask.float() * advantage)


def padding_row(token_id: int) -> Row:
    """The smallest row that verl's engine takes: one prompt and one response token, masked."""
    token = torch.tensor([token_id], dtype=torch.int64)
    return _row(token, token.clone(), torch.zeros(1, dtype=torch.int64), torch.zeros(1), torch.zeros(1))


def _row(
    prompts: torch.Tensor,
    responses: torch.Tensor,
    mask: torch.Tensor,
    log_probs: torch.Tensor,
    advantages: torch.Tensor,
) -> Row:
    input_ids = torch.cat((prompts, responses))
    return {
        "prompts": prompts,
        "responses": responses,
        "input_ids": input_ids,
        "position_ids": torch.arange(input_ids.numel(), dtype=torch.int64),
        "response_mask": mask,
        "loss_mask": torch.zeros_like(mask),
        "old_log_probs": log_probs,
        "advantages": advantages,
    }


def _length_tags(row: Row) -> dict[str, int]:
    prompt, response = row["prompts"].numel(), row["responses"].numel()
    return {"prompt_len": prompt, "response_len": response, "seq_len": prompt + response}


def _put(partition: str, keys: list[str], rows: Sequence[Mapping[str, torch.Tensor]], tags: Any = None) -> None:
    if not keys:
        return
    columns = {
        name: torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged) for name in rows[0]
    }
    tq.kv_batch_put(keys=keys, partition_id=partition, tags=tags, fields=TensorDict(columns, batch_size=len(keys)))
