"""Fresh rows in TransferQueue: reading what an update needs of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from transfer_queue import KVBatchMeta

from repo_verl.replay import prompt_key
from repo_verl.trainer.guards import NonFiniteError, not_finite

FRESH_FIELDS = ("prompts", "response_mask", "rm_scores")


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

    @property
    def sessions(self) -> list[int]:
        """Which response to its prompt every row is, from 0; batch order is the order in which rows finished."""
        return [int(key.rsplit("_", 2)[1]) for key in self.keys]


def read_fresh(batch: KVBatchMeta) -> FreshRows:
    """Fetch what an update needs of a batch that has its rewards.

    Scores are summed over the same padded rows as verl's advantages are, so that both round alike.

    Raises:
        ValueError: if two rows of one uid have different prompts.
    """
    held = [row for row, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
    keys = [batch.keys[row] for row in held]
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(FRESH_FIELDS))
    prompts, masks = list(data["prompts"].unbind()), list(data["response_mask"].unbind())
    counted = (data["response_mask"].to_padded_tensor(0) != 0).sum(dim=-1).tolist()
    first: dict[str, int] = {}
    for row, key in zip(held, keys, strict=True):
        start = first.setdefault(_uid(key), row)
        if not torch.equal(prompts[row], prompts[start]):
            raise ValueError(
                f"row {key!r} has another prompt ({prompts[row].numel()} tokens) than the first row of its uid "
                f"({prompts[start].numel()}): RePO needs an agent loop that starts all responses to a "
                "prompt from the same tokens."
            )
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
    number = fresh.sessions[row]
    text = repr(tokenizer.decode(fresh.prompt_ids[block]))
    return f"response {number} of prompt {text if len(text) <= 80 else text[:77] + '...'}: {float(fresh.scores[row])}"
