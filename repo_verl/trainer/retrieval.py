"""Which rows a step replays: chosen once the fresh scores are known, planned with the fresh rows, and read.

All of it happens in the trainer's background thread, beside verl's old log-probs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

from repo_verl.config import RepoConfig
from repo_verl.replay import PromptReplayBuffer, Record, Selection
from repo_verl.trainer.minibatches import UpdatePlan, UpdateRows, UpdateShape, plan_advantages, plan_update
from repo_verl.trainer.rollouts import FreshRows

GROUP_TOKENS = 1 << 20
"""Response tokens read and put at a time: bounds what the driver holds of them, at about 100 bytes each."""

PAD_LENGTH = 2
"""Tokens of a padding row: one of the prompt, one of the response."""


@dataclasses.dataclass(frozen=True)
class Update:
    """The B fresh and N replayed rows of a step; row numbers count fresh rows first.

    Attributes:
        fresh: the step's own rows.
        selections: the buffer's rows that every prompt block replays; empty where none was asked for.
        fresh_advantages: (B,) float.
        replayed_advantages: (N,) float.
        plan: None where verl's batch is left as it is.
    """

    fresh: FreshRows
    selections: Sequence[Selection]
    fresh_advantages: torch.Tensor
    replayed_advantages: torch.Tensor
    plan: UpdatePlan | None = None

    @property
    def replayed_blocks(self) -> list[int]:
        """(N,) prompt block of every replayed row."""
        return [block for block, selection in enumerate(self.selections) for _ in range(len(selection))]

    @property
    def lengths(self) -> list[int]:
        """(B + N,) tokens of every row, prompt and response."""
        prompts = [self.fresh.prompt_ids[block].size for block in self.replayed_blocks]
        responses = self.column("lengths")
        return self.fresh.lengths + [a + int(b) for a, b in zip(prompts, responses, strict=True)]

    @property
    def tokens(self) -> list[int]:
        """(B + N,) unmasked response tokens of every row."""
        return [*self.fresh.tokens, *map(int, self.column("counted"))]

    @property
    def kept(self) -> Sequence[bool]:
        """(B + N,) whether each row is part of the update."""
        return self.plan.kept if self.plan else [True] * len(self.lengths)

    @property
    def pruned_tokens(self) -> tuple[int, int]:
        """Unmasked response tokens of pruned rows: of fresh and of replayed ones."""
        left = [0 if kept else count for kept, count in zip(self.kept, self.tokens, strict=True)]
        return sum(left[: len(self.fresh.keys)]), sum(left[len(self.fresh.keys) :])

    def column(self, name: str) -> list[float]:
        """(N,) a value of every replayed row: ``scores``, ``steps``, ``uses`` (before this replay), ``counted``, ..."""
        return [value for selection in self.selections for value in getattr(selection, name).tolist()]


def choose_rows(buffer: PromptReplayBuffer, fresh: FreshRows, step: int) -> list[Selection]:
    """Choose what every prompt block replays; reads no tokens, counts the uses.

    Strategies draw from the buffer's generator in the order of the prompts' keys (then of the fresh scores), which does
    not depend on the order in which responses finished.

    Args:
        buffer: the replay buffer, without this step's rows.
        fresh: the step's rows.
        step: the training step.

    Returns:
        one selection per prompt block, empty where nothing is replayed.
    """
    scores = fresh.block_scores
    order = sorted(range(len(scores)), key=lambda block: (fresh.prompt_keys[block], scores[block].tolist()))
    chosen = buffer.select_batch([fresh.prompt_keys[b] for b in order], step, [scores[b] for b in order])
    by_block = dict(zip(order, chosen, strict=True))
    return [by_block[block] for block in range(len(scores))]


def plan_step(
    config: RepoConfig,
    shape: UpdateShape,
    prune: bool,
    keys: Sequence[str],
    fresh: FreshRows,
    selections: Sequence[Selection],
) -> Update:
    """Plan the update of a batch; without a plan where nothing is replayed and nothing is to be pruned.

    Args:
        config: RePO's settings.
        shape: verl's.
        prune: leave out rows whose advantage is exactly 0.
        keys: of the whole batch, verl's padding included, in dispatch order.
        fresh: its rows.
        selections: what every prompt block replays.
    """
    update = Update(fresh, selections, torch.zeros(0), torch.zeros(0))
    scores = torch.tensor(update.column("scores"), dtype=fresh.scores.dtype)
    rows = UpdateRows(
        blocks=fresh.blocks,
        replayed_blocks=update.replayed_blocks,
        workloads=row_workloads(update.lengths),
        tokens=update.tokens,
        scores=torch.cat((fresh.scores, scores)),
        stock_mini_batches=shape.stock_mini_batches(keys, fresh.keys),
        pad_workload=row_workloads([PAD_LENGTH])[0],
    )
    plan = plan_update(config, shape, rows, prune, get_seqlen_balanced_partitions)
    used = plan if rows.replayed_blocks or not all(plan.kept) else None
    return Update(fresh, selections, plan.fresh_advantages, plan.replayed_advantages, used)


def without_replay(config: RepoConfig, shape: UpdateShape, fresh: FreshRows) -> Update:
    """A step that replays and prunes nothing: ``strategy: none``, or verl's critic warm-up.

    Scores that are not finite, with which plain GRPO goes on, count as numbers.
    """
    none = torch.zeros(0)
    values, _ = plan_advantages(config, torch.nan_to_num(fresh.scores), fresh.blocks, none, [], shape.norm_by_std)
    return Update(fresh, [], values, none)


def row_workloads(lengths: Sequence[int]) -> list[int]:
    """verl's measure of the work of rows, attention included, by which it balances its ranks.

    Args:
        lengths: (N,) tokens of every row, prompt and response, as in verl's tag ``seq_len``.
    """
    return [int(work) for work in calculate_workload(torch.tensor(lengths, dtype=torch.int64)).tolist()]


def read_kept(buffer: PromptReplayBuffer, update: Update) -> Iterator[list[tuple[int, np.ndarray, Record]]]:
    """Read the replayed rows that are part of an update, in groups of about :data:`GROUP_TOKENS` tokens.

    Args:
        buffer: as it was when the rows were chosen.
        update: with a plan.

    Yields:
        row number, prompt ids and record of every row of a group.
    """
    wanted: list[tuple[int, list[int], Selection]] = []
    first = len(update.fresh.keys)
    for block, selection in enumerate(update.selections):
        index = [i for i in range(len(selection)) if update.kept[first + i]]
        if index:
            wanted.append((block, [first + i for i in index], _subset(selection, index)))
        first += len(selection)
    for group in _groups([int(selection.lengths.sum()) for _, _, selection in wanted]):
        records = buffer.fetch([selection for _, _, selection in wanted[group]])
        yield [
            (row, update.fresh.prompt_ids[block], record)
            for (block, rows, _), found in zip(wanted[group], records, strict=True)
            for row, record in zip(rows, found, strict=True)
        ]


def _groups(tokens: list[int]) -> Iterator[slice]:
    """Neighbours of at most :data:`GROUP_TOKENS` together, at least one in each group."""
    start, held = 0, 0
    for stop, size in enumerate(tokens):
        if stop > start and held + size > GROUP_TOKENS:
            yield slice(start, stop)
            start, held = stop, 0
        held += size
    if tokens:
        yield slice(start, len(tokens))


def _subset(selection: Selection, index: list[int]) -> Selection:
    arrays: dict[str, Any] = {
        field.name: getattr(selection, field.name)[index]
        for field in dataclasses.fields(selection)
        if isinstance(getattr(selection, field.name), np.ndarray)
    }
    return dataclasses.replace(selection, **arrays)
