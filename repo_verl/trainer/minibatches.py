"""What an update consists of: the advantage, the weight and the mini-batch of every row. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from repo_verl.advantages import block_advantages
from repo_verl.config import RepoConfig
from repo_verl.losses import group_row_weights, uniform_row_weights
from repo_verl.trainer.layout import Layout, Partition, place_rows, spread_blocks


@dataclasses.dataclass(frozen=True)
class UpdateShape:
    """verl's settings that shape an update."""

    prompts: int  # P, of a mini-batch (ppo_mini_batch_size)
    rows: int  # fresh rows of a mini-batch, verl's global_batch_size (P * rollout.n)
    num_mini_batches: int  # optimizer steps per epoch
    ranks: int  # data-parallel size
    micro_batch_rows: int | None  # most rows of a forward pass; None where verl cuts micro-batches by tokens
    loss_agg_mode: str
    scale_factor: float = 1.0  # verl's loss_scale_factor; 1 where unset
    norm_by_std: bool = True  # verl's norm_adv_by_std_in_grpo
    padded: bool = False  # whether a forward pass pads its rows to the longest (no use_remove_padding)

    @classmethod
    def of(cls, config: Any, batch_rows: int, ranks: int) -> UpdateShape:
        """The shape of an update by verl's configuration; ``batch_rows`` counts verl's padding."""
        actor = config.actor_rollout_ref.actor
        mini_rows = actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
        return cls(
            prompts=actor.ppo_mini_batch_size,
            rows=mini_rows,
            num_mini_batches=batch_rows // mini_rows,
            ranks=ranks,
            micro_batch_rows=None if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu,
            loss_agg_mode=actor.loss_agg_mode,
            scale_factor=actor.loss_scale_factor or 1.0,
            norm_by_std=config.algorithm.get("norm_adv_by_std_in_grpo", True),
            padded=not config.actor_rollout_ref.model.get("use_remove_padding", False),
        )

    def stock_mini_batches(self, all_keys: Sequence[str], keys: Sequence[str]) -> list[int]:
        """The mini-batch in which verl would put the rows of ``keys``: equal chunks to ranks, cut into mini-batches.

        ``all_keys`` are those of the whole batch, verl's padding included, in dispatch order.
        """
        share, mini_share = len(all_keys) // self.ranks, self.rows // self.ranks
        place = {key: position for position, key in enumerate(all_keys)}
        return [place[key] % share // mini_share for key in keys]


@dataclasses.dataclass(frozen=True)
class UpdateRows:
    """The B fresh and N replayed rows of an update; row numbers count fresh rows first."""

    blocks: Sequence[int]  # (B,) prompt block of every fresh row, numbered from 0
    replayed_blocks: Sequence[int]  # (N,) prompt block of every replayed row
    workloads: Sequence[int]  # (B + N,) in verl's measure, by which mini-batches and ranks are balanced
    tokens: Sequence[int]  # (B + N,) unmasked response tokens
    scores: torch.Tensor  # (B + N,) float rewards
    # (B,) where verl would put every fresh row, which is kept where nothing is replayed; None to spread prompts
    stock_mini_batches: Sequence[int] | None = None
    pad_workload: int = 0  # of a padding row


@dataclasses.dataclass(frozen=True)
class UpdatePlan:
    """A planned update over B fresh and N replayed rows; row numbers count fresh rows first."""

    layout: Layout  # of the kept rows
    kept: tuple[bool, ...]  # (B + N,) part of the update; a row that is not has an advantage of exactly 0
    fresh_advantages: torch.Tensor  # (B,) float
    replayed_advantages: torch.Tensor  # (N,) float
    weights: torch.Tensor  # (N,) float64, w of repo_verl.losses; pruned rows count in every normaliser
    scales: tuple[float, ...]  # factor of the fresh term of every mini-batch
    fresh_tokens: tuple[int, ...]  # unmasked fresh tokens of every mini-batch, those of pruned rows included
    row_mini_batch: tuple[int, ...]  # (B + N,)


def plan_advantages(
    config: RepoConfig,
    scores: torch.Tensor,
    blocks: Sequence[int],
    replayed_scores: torch.Tensor,
    replayed_blocks: Sequence[int],
    norm_by_std: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B,) and (N,) advantages of fresh and replayed rows: normalised separately (``split``) or together (``mixed``).

    Args:
        config: the settings.
        scores: (B,) float, of fresh rows.
        blocks: (B,) prompt block of every fresh row.
        replayed_scores: (N,) float.
        replayed_blocks: (N,) prompt block of every replayed row.
        norm_by_std: verl's ``norm_adv_by_std_in_grpo``.
    """

    def normalise(rewards: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return block_advantages(rewards, ids, config.advantage_eps, norm_by_std)

    fresh_ids, replayed_ids = torch.tensor(list(blocks)), torch.tensor(list(replayed_blocks))
    if config.advantage == "mixed":
        both = normalise(torch.cat((scores, replayed_scores)), torch.cat((fresh_ids, replayed_ids)))
        return both[: len(scores)], both[len(scores) :]
    return normalise(scores, fresh_ids), normalise(replayed_scores, replayed_ids)


def plan_update(
    config: RepoConfig, shape: UpdateShape, rows: UpdateRows, prune: bool, partition: Partition
) -> UpdatePlan:
    """Plan an update.

    Which mini-batch a row belongs to, and every weight and normaliser, is the same with and without pruning.

    Args:
        config: RePO's settings.
        shape: verl's.
        rows: what is known of the rows.
        prune: leave out rows whose advantage is exactly 0.
        partition: balances workloads over parts.
    """
    total = len(rows.blocks)
    fresh, replayed = plan_advantages(
        config, rows.scores[:total], rows.blocks, rows.scores[total:], rows.replayed_blocks, shape.norm_by_std
    )
    members = _mini_batches(rows, shape.num_mini_batches, partition)
    row_mini_batch = [0] * len(rows.workloads)
    weights = torch.zeros(len(rows.replayed_blocks), dtype=torch.float64)
    scales, fresh_tokens = [], []
    for number, chosen in enumerate(members):
        for row in chosen:
            row_mini_batch[row] = number
        again = [row for row in chosen if row >= total]
        index = torch.tensor([row - total for row in again], dtype=torch.int64)
        tokens = torch.tensor([rows.tokens[row] for row in again], dtype=torch.int64)
        ids = torch.tensor([rows.replayed_blocks[row - total] for row in again], dtype=torch.int64)
        fresh_tokens.append(sum(rows.tokens[row] for row in chosen if row < total))
        weights[index], scale = _weights(config, shape, tokens, ids, fresh_tokens[-1])
        scales.append(scale)
    kept = [not prune or value != 0 for value in (*fresh.tolist(), *replayed.tolist())]
    layout = place_rows(
        [[row for row in chosen if kept[row]] for chosen in members],
        rows.workloads,
        shape.ranks,
        shape.micro_batch_rows,
        partition,
        shape.padded,
        rows.pad_workload,
    )
    return UpdatePlan(
        layout, tuple(kept), fresh, replayed, weights, tuple(scales), tuple(fresh_tokens), tuple(row_mini_batch)
    )


def _mini_batches(rows: UpdateRows, parts: int, partition: Partition) -> list[tuple[int, ...]]:
    if rows.replayed_blocks or rows.stock_mini_batches is None:
        by_prompt = _group([*rows.blocks, *rows.replayed_blocks], len(set(rows.blocks)))
        return spread_blocks(by_prompt, rows.workloads, parts, partition)
    return _group(rows.stock_mini_batches, parts)


def _group(numbers: Sequence[int], groups: int) -> list[tuple[int, ...]]:
    """The rows of every group, from the number of every row's group."""
    members: list[list[int]] = [[] for _ in range(groups)]
    for row, number in enumerate(numbers):
        members[number].append(row)
    return list(map(tuple, members))


def _weights(
    config: RepoConfig, shape: UpdateShape, tokens: torch.Tensor, ids: torch.Tensor, fresh_tokens: int
) -> tuple[torch.Tensor, float]:
    mode, coef = shape.loss_agg_mode, config.off_policy_coef
    if config.normalize == "rows":
        return uniform_row_weights(tokens, shape.rows, fresh_tokens, mode, coef, shape.scale_factor)
    return group_row_weights(tokens, ids, shape.prompts, mode, coef, shape.scale_factor), 1.0
