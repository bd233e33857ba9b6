"""A step's fresh rows: read from TransferQueue once they are scored, and the records that the buffer keeps of them."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from transfer_queue import KVBatchMeta

from repo_verl.replay import Record, prompt_key
from repo_verl.trainer.guards import SKIP, NonFiniteError, listed, not_finite
from repo_verl.trainer.layout import uid_of
from repo_verl.trainer.versions import behavior_log_probs, written_by

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

FRESH_FIELDS = ("prompts", "responses", "response_mask", "rm_scores", "extra_fields")
FORWARD, SAMPLED = "old_log_probs", "rollout_log_probs"


@dataclasses.dataclass(frozen=True)
class FreshRows:
    """The B fresh rows of a step, verl's padding left out; prompt blocks are numbered in order of appearance.

    Attributes:
        keys: TransferQueue key of every row, in batch order.
        tags: TransferQueue tag of every row.
        blocks: number of the prompt block of every row.
        prompt_keys: stable id of the prompt of every block.
        prompt_ids: (L,) int32 token ids of the prompt of every block.
        responses: (T,) token ids of every row.
        masks: (T,) response mask of every row.
        tokens: unmasked response tokens of every row.
        scores: (B,) summed reward of every row.
        parts: named numeric parts of the reward of every row.
        statuses: how every row's reward came about (``repo_verl.rewards.STATUSES``); "" where the reward function does
            not say.
    """

    keys: list[str]
    tags: list[dict[str, Any]]
    blocks: list[int]
    prompt_keys: list[str]
    prompt_ids: list[np.ndarray]
    responses: list[torch.Tensor]
    masks: list[torch.Tensor]
    tokens: list[int]
    scores: torch.Tensor
    parts: list[dict[str, float]]
    statuses: list[str]

    @property
    def lengths(self) -> list[int]:
        """Tokens of every row, prompt and response."""
        return [self.prompt_ids[b].size + mask.numel() for b, mask in zip(self.blocks, self.masks, strict=True)]

    @property
    def sessions(self) -> list[int]:
        """Which response to its prompt every row is, from 0; batch order is the order in which rows finished."""
        return [int(key.rsplit("_", 2)[1]) for key in self.keys]

    @property
    def block_scores(self) -> list[np.ndarray]:
        """(G_on,) float64 scores of every prompt block, by response number."""
        found: list[list[float]] = [[] for _ in self.prompt_keys]
        scores, sessions = self.scores.tolist(), self.sessions
        for row in sorted(range(len(scores)), key=sessions.__getitem__):
            found[self.blocks[row]].append(scores[row])
        return [np.array(values, dtype=np.float64) for values in found]

    def list_nonfinite(self, tokenizer: Any) -> list[str]:
        """The rows whose score is not finite, for a message: which response to which prompt, and the score."""
        found = []
        for row in not_finite(self.scores):
            text = repr(tokenizer.decode(self.prompt_ids[self.blocks[row]]))
            text = text if len(text) <= 80 else text[:77] + "..."
            found.append(f"response {self.sessions[row]} of prompt {text}: {float(self.scores[row])}")
        return found


def read_fresh(batch: KVBatchMeta) -> FreshRows:
    """Fetch a batch's rows once they are scored; their log-probs follow by :func:`read_behavior`.

    Args:
        batch: of scored rows, verl's padding among them.

    Raises:
        ValueError: if two rows of one uid have different prompts.
    """
    held = [row for row, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
    keys = [batch.keys[row] for row in held]
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=list(FRESH_FIELDS))
    prompts = list(data["prompts"].unbind())
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        start = first.setdefault(uid_of(key), row)
        if not torch.equal(prompts[row], prompts[start]):
            raise ValueError(
                f"row {key!r} has another prompt ({prompts[row].numel()} tokens) than the first row of its uid "
                f"({prompts[start].numel()}): RePO needs an agent loop that starts all responses to a "
                "prompt from the same tokens."
            )
    numbers = {uid: number for number, uid in enumerate(first)}
    prompt_ids = [prompts[row].numpy().astype(np.int32) for row in first.values()]
    rewards = [_reward_info(getattr(value, "data", value)) for value in list(data["extra_fields"])]
    return FreshRows(
        keys=keys,
        tags=[batch.tags[row] for row in held],
        blocks=[numbers[uid_of(key)] for key in keys],
        prompt_keys=[prompt_key(ids) for ids in prompt_ids],
        prompt_ids=prompt_ids,
        responses=list(data["responses"].unbind()),
        masks=list(data["response_mask"].unbind()),
        tokens=(data["response_mask"].to_padded_tensor(0) != 0).sum(dim=-1).tolist(),
        scores=data["rm_scores"].to_padded_tensor(0.0).sum(dim=-1),
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


def refuse_unsupported(batch: KVBatchMeta, multi_modal: bool) -> None:
    """Stop where rows hold what RePO does not store: several outputs per session, images, routed experts.

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
    """Take rows whose score is not finite out of a batch and of TransferQueue (``on_nonfinite: skip``).

    Args:
        batch: with rewards, before verl balances and pads it.

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
        raise NonFiniteError(f"none of {len(bad)} rows has a finite score: fix the reward function and resume.")
    tq.kv_clear(keys=[batch.keys[row] for row in sorted(bad)], partition_id=batch.partition_id)
    return batch.select_keys([batch.keys[row] for row in kept]), len(bad)


@dataclasses.dataclass(frozen=True)
class Behavior:
    """The behavior policy of every fresh row.

    Attributes:
        log_probs: (T,) log π_b of every row.
        steps: the step from which every row's age is counted.
    """

    log_probs: list[torch.Tensor]
    steps: list[int]


def read_behavior(partition: str, fresh: FreshRows, step: int, asynchronous: bool) -> Behavior:
    """Fetch the log-probs of fresh rows, once verl has computed the old ones.

    Args:
        partition: TransferQueue partition.
        fresh: the step's rows.
        step: the training step.
        asynchronous: whether older model versions than that of the old log-probs may have written a row.

    Raises:
        ValueError: if rows of an asynchronous trainer have no versions or no log-probs of the rollout engine.
    """
    names = [FORWARD, SAMPLED] if asynchronous else [FORWARD]
    data = tq.kv_batch_get(keys=fresh.keys, partition_id=partition, select_fields=names)
    forward = list(data[FORWARD].unbind())
    if not asynchronous:
        return Behavior(forward, [step] * len(forward))
    written = [written_by(key, tag, step) for key, tag in zip(fresh.keys, fresh.tags, strict=True)]
    if SAMPLED not in data.keys():
        raise ValueError(
            f"rows of step {step} have no {SAMPLED}, which are the log-probs of rows that older model versions "
            "sampled: use an agent loop that returns response_logprobs."
        )
    log_probs = behavior_log_probs(written, step, forward, list(data[SAMPLED].unbind()))
    return Behavior(log_probs, [one.step for one in written])


def to_records(
    fresh: FreshRows, behavior: Behavior, step: int, skip: bool = False
) -> list[tuple[str, np.ndarray, list[Record]]]:
    """Rollout records for the buffer: key, token ids and records of every prompt block.

    Within a block they are ordered by the version that sampled them and then by response number, not in batch order.
    Rows of a batch come in the order in which they finished, short ones first, so the buffer's newest rows (which
    `recency` replays, ties favour and eviction spares) would be the longest.

    Args:
        fresh: the step's rows.
        behavior: their behavior policy.
        step: the training step.
        skip: leave out rows with a log-prob that is not finite, instead of raising.

    Raises:
        NonFiniteError: for such rows, naming them.
    """
    records: list[list[Record]] = [[] for _ in fresh.prompt_keys]
    bad: list[str] = []
    sessions = fresh.sessions
    for i in sorted(range(len(sessions)), key=lambda row: (behavior.steps[row], sessions[row])):
        block = fresh.blocks[i]
        unmasked = fresh.masks[i] != 0
        if not bool(torch.isfinite(behavior.log_probs[i][unmasked]).all()):
            bad.append(f"response {sessions[i]} of prompt {fresh.prompt_keys[block]}")
            continue
        row = Record.create(
            fresh.responses[i].numpy(),
            behavior.log_probs[i].float().numpy(),
            float(fresh.scores[i]),
            behavior.steps[i],
            mask=None if bool(unmasked.all()) else fresh.masks[i].numpy(),
            parts=fresh.parts[i],
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
