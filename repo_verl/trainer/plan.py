"""What an update with replayed rows consists of: advantages, weights and the place of every row. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from repo_verl.advantages import block_advantages
from repo_verl.config import RepoConfig
from repo_verl.losses import group_row_weights, uniform_row_weights
from repo_verl.trainer.layout import Block, Layout, Partition, plan_layout


@dataclasses.dataclass(frozen=True)
class UpdateShape:
    """verl's settings that shape an update.

    Attributes:
        prompts: P, prompts a mini-batch (``ppo_mini_batch_size``).
        rows: fresh rows a mini-batch, verl's ``global_batch_size`` (P * ``rollout.n``).
        num_mini_batches: optimizer steps an epoch.
        ranks: data-parallel size.
        rows_multiple: rows of one rank's mini-batch must be a multiple of this.
        loss_agg_mode: verl's.
        scale_factor: verl's ``loss_scale_factor``; 1 where unset.
        norm_by_std: verl's ``norm_adv_by_std_in_grpo``.
    """

    prompts: int
    rows: int
    num_mini_batches: int
    ranks: int
    rows_multiple: int
    loss_agg_mode: str
    scale_factor: float = 1.0
    norm_by_std: bool = True


@dataclasses.dataclass(frozen=True)
class UpdatePlan:
    """A planned update over B fresh and N replayed rows; row numbers count fresh rows first.

    Attributes:
        layout: order of rows.
        fresh_advantages: (B,) float.
        replayed_advantages: (N,) float.
        weights: (N,) float64, w of :mod:`repo_verl.losses`.
        scales: factor of the fresh term of every mini-batch.
        row_mini_batch: the mini-batch of every row.
    """

    layout: Layout
    fresh_advantages: torch.Tensor
    replayed_advantages: torch.Tensor
    weights: torch.Tensor
    scales: tuple[float, ...]
    row_mini_batch: tuple[int, ...]


def plan_advantages(
    config: RepoConfig,
    scores: torch.Tensor,
    blocks: Sequence[int],
    replayed_scores: torch.Tensor,
    replayed_blocks: Sequence[int],
    norm_by_std: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages of fresh and of replayed rows: normalised apart (``split``) or together (``mixed``).

    Args:
        config: the settings.
        scores: (B,) float, of fresh rows.
        blocks: (B,) prompt block of every fresh row.
        replayed_scores: (N,) float.
        replayed_blocks: (N,) prompt block of every replayed row.
        norm_by_std: verl's ``norm_adv_by_std_in_grpo``.

    Returns:
        (B,) and (N,) advantages.
    """
    fresh_ids, replayed_ids = torch.tensor(list(blocks)), torch.tensor(list(replayed_blocks))
    if config.advantage == "mixed":
        both = block_advantages(
            torch.cat((scores, replayed_scores)),
            torch.cat((fresh_ids, replayed_ids)),
            config.advantage_eps,
            norm_by_std,
        )
        return both[: len(scores)], both[len(scores) :]
    return (
        block_advantages(scores, fresh_ids, config.advantage_eps, norm_by_std),
        block_advantages(replayed_scores, replayed_ids, config.advantage_eps, norm_by_std),
    )


def plan_update(
    config: RepoConfig,
    shape: UpdateShape,
    blocks: Sequence[int],
    lengths: Sequence[int],
    tokens: Sequence[int],
    scores: torch.Tensor,
    replayed_blocks: Sequence[int],
    partition: Partition,
) -> UpdatePlan:
    """Plan an update.

    Args:
        config: RePO's settings.
        shape: verl's.
        blocks: (B,) prompt block of every fresh row, numbered from 0.
        lengths: (B + N,) tokens of every row, prompt and response.
        tokens: (B + N,) response tokens that count, of every row.
        scores: (B + N,) float rewards.
        replayed_blocks: (N,) prompt block of every replayed row.
        partition: balances workloads over parts.

    Returns:
        an :class:`UpdatePlan`.
    """
    total = len(blocks)
    advantages = plan_advantages(config, scores[:total], blocks, scores[total:], replayed_blocks, shape.norm_by_std)
    members = _blocks(blocks, replayed_blocks)
    layout = plan_layout(members, lengths, shape.num_mini_batches, shape.ranks, shape.rows_multiple, partition)
    row_mini_batch = [0] * len(lengths)
    weights = torch.zeros(len(replayed_blocks), dtype=torch.float64)
    scales = []
    for number, chosen in enumerate(layout.mini_batches):
        fresh_rows = [row for block in chosen for row in members[block].fresh]
        replayed = [row for block in chosen for row in members[block].replayed]
        for row in (*fresh_rows, *replayed):
            row_mini_batch[row] = number
        index = torch.tensor([row - total for row in replayed], dtype=torch.int64)
        counted = torch.tensor([tokens[row] for row in replayed], dtype=torch.int64)
        ids = torch.tensor([replayed_blocks[row - total] for row in replayed], dtype=torch.int64)
        weights[index], scale = _weights(config, shape, counted, ids, sum(tokens[row] for row in fresh_rows))
        scales.append(scale)
    return UpdatePlan(layout, *advantages, weights, tuple(scales), tuple(row_mini_batch))


def _weights(
    config: RepoConfig, shape: UpdateShape, counted: torch.Tensor, ids: torch.Tensor, fresh_tokens: int
) -> tuple[torch.Tensor, float]:
    mode, coef = shape.loss_agg_mode, config.off_policy_coef
    if config.normalize == "rows":
        return uniform_row_weights(counted, shape.rows, fresh_tokens, mode, coef, shape.scale_factor)
    return group_row_weights(counted, ids, shape.prompts, mode, coef, shape.scale_factor), 1.0


def _blocks(blocks: Sequence[int], replayed_blocks: Sequence[int]) -> list[Block]:
    fresh: dict[int, list[int]] = {}
    replayed: dict[int, list[int]] = {}
    for row, block in enumerate(blocks):
        fresh.setdefault(block, []).append(row)
    for row, block in enumerate(replayed_blocks, start=len(blocks)):
        replayed.setdefault(block, []).append(row)
    return [Block(tuple(fresh[block]), tuple(replayed.get(block, ()))) for block in sorted(fresh)]
