"""A step's fresh rows: read from TransferQueue once they are scored, and the records that the buffer keeps of them."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import transfer_queue as tq
from transfer_queue import KVBatchMeta

from repo_verl.replay import Record, prompt_key
from repo_verl.trainer.guards import SKIP, NonFiniteError, listed, not_finite
from repo_verl.trainer.layout import uid_of

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

FRESH_FIELDS = ("prompts", "responses", "response_mask", "rm_scores", "extra_fields")
FORWARD, SAMPLED = "old_log_probs", "rollout_log_probs"


@dataclasses.dataclass(frozen=True)
class FreshRows:
    """The B fresh rows of a step in batch order, without verl's padding; blocks are numbered in order of appearance."""

    keys: list[str]  # in TransferQueue
    tags: list[dict[str, Any]]
    blocks: list[int]  # number of every row's prompt block
    prompt_keys: list[str]  # of every block
    prompt_ids: list[np.ndarray]  # (L,) int32 token ids of every block
    responses: list[torch.Tensor]  # (T,) token ids of every row
    masks: list[torch.Tensor]  # (T,) response mask of every row
    tokens: list[int]  # unmasked response tokens of every row
    scores: torch.Tensor  # (B,) summed rewards
    parts: list[dict[str, float]]  # numeric parts of every reward
    statuses: list[str]  # of repo_verl.rewards.STATUSES; "" where the reward function gives none

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
        found, sessions = [], self.sessions
        for row in not_finite(self.scores):
            text = repr(tokenizer.decode(self.prompt_ids[self.blocks[row]]))
            text = text if len(text) <= 80 else text[:77] + "..."
            found.append(f"response {sessions[row]} of prompt {text}: {float(self.scores[row])}")
        return found


def read_fresh(batch: KVBatchMeta) -> FreshRows:
    """Fetch the rows of a scored batch; ValueError if two rows of one uid have different prompts."""
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
    """Raise ValueError where rows hold what RePO does not store: several outputs per session, images, routed experts.

    ``multi_modal``: the model has a processor for other inputs than text, so that rows must be looked into.
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
    some = tq.kv_batch_get(keys=batch.keys[:1], partition_id=batch.partition_id, select_fields=["position_ids"])
    first = some["position_ids"][0]
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


class Written(NamedTuple):
    """The model versions that generated a row's first and last token; version v is the weights after step v."""

    oldest: int  # or an older one than that of the first token
    newest: int

    @property
    def step(self) -> int:
        """The step in which the oldest version was the current one, from which the row's age is counted.

        Step s has version s - 1; in verl's synchronous trainer this is the step in which the row was fresh.
        """
        return self.oldest + 1


def written_by(key: str, tag: Mapping[str, Any], step: int) -> Written:
    """The versions in verl's tag of a row of an asynchronous trainer (docs/async.md).

    Raises:
        ValueError: if the tag has no versions, or not versions that can have written a row of this step.
    """
    oldest, newest = tag.get("min_global_steps"), tag.get("max_global_steps")
    if not (isinstance(oldest, int) and isinstance(newest, int) and 0 <= oldest <= newest < step):
        raise ValueError(
            f"row {key!r} of step {step} was generated by model versions {oldest} to {newest}, not by ones from 0 to "
            f"{step - 1}, so that its age is not known: use an agent loop that keeps the rollout server's extra_fields."
        )
    return Written(oldest, newest)


def behavior_log_probs(
    written: Sequence[Written], step: int, forward: Sequence[torch.Tensor], sampled: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """(T,) log π_b of every row: of the behavior policy of each token.

    Where the version of the actor's forward pass, ``step`` - 1, wrote the whole row these are the forward pass's
    (verl's ``old_log_probs``), as in the synchronous trainer; otherwise those that the rollout engine sampled with.
    """
    current = Written(step - 1, step - 1)
    rows = zip(written, forward, sampled, strict=True)
    return [own if versions == current else engine for versions, own, engine in rows]


class Behavior(NamedTuple):
    """The behavior policy of every fresh row."""

    log_probs: list[torch.Tensor]  # (T,) log π_b
    steps: list[int]  # from which the row's age is counted


def read_behavior(partition: str, fresh: FreshRows, step: int, asynchronous: bool) -> Behavior:
    """Fetch the log-probs of fresh rows, once verl has computed the old ones.

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
    Rows with a log-prob that is not finite are left out with ``skip``, and raise NonFiniteError otherwise.
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
