"""In which mini-batch and on which rank every row of an update lies.

verl hands an update's rows to the data-parallel ranks in equal, contiguous chunks, and every rank cuts its chunk into
mini-batches of one size. A layout keeps a prompt's fresh and replayed rows in one mini-batch, gives every mini-batch
the same number of rows (padding the shorter ones) and every rank about the same number of tokens.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

PAD = -1
"""Stands for a padding row in a layout's order."""

Partition = Callable[[list[int], int, bool], list[list[int]]]
"""(workloads, parts, equal_size) -> indices a part; verl's ``get_seqlen_balanced_partitions``."""


@dataclasses.dataclass(frozen=True)
class Block:
    """The rows of one prompt in this batch.

    Attributes:
        fresh: row numbers of its fresh rows.
        replayed: row numbers of its replayed rows.
    """

    fresh: tuple[int, ...]
    replayed: tuple[int, ...]

    @property
    def rows(self) -> tuple[int, ...]:
        """Row numbers of all its rows, fresh ones first."""
        return self.fresh + self.replayed


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the rows go.

    Attributes:
        order: row numbers in dispatch order, rank by rank and mini-batch by mini-batch; :data:`PAD` for padding.
        mini_batches: block numbers of every mini-batch.
        mini_batch_rows: rows of every mini-batch over all ranks, padding included.
        ranks: data-parallel size.
    """

    order: tuple[int, ...]
    mini_batches: tuple[tuple[int, ...], ...]
    mini_batch_rows: int
    ranks: int = 1

    def mini_batch_at(self, position: int) -> int:
        """The mini-batch of a position in ``order``."""
        share = self.mini_batch_rows // self.ranks
        return position // share % len(self.mini_batches)


def plan_layout(
    blocks: Sequence[Block],
    lengths: Sequence[int],
    num_mini_batches: int,
    ranks: int,
    rows_multiple: int,
    partition: Partition,
    pad_length: int = 2,
) -> Layout:
    """Spread prompts over mini-batches, and each mini-batch's rows over ranks.

    Args:
        blocks: the prompts, with row numbers into ``lengths``.
        lengths: (N,) tokens of every row, prompt and response.
        num_mini_batches: optimizer steps an epoch, those that GRPO would take.
        ranks: data-parallel size.
        rows_multiple: rows of one rank's mini-batch must be a multiple of this (the micro-batch size).
        partition: balances workloads over parts.
        pad_length: tokens of a padding row.

    Returns:
        a :class:`Layout`; ``len(order) == num_mini_batches * mini_batch_rows``.

    Raises:
        ValueError: if a row number appears twice or not at all.
    """
    numbers = sorted(row for block in blocks for row in block.rows)
    if numbers != list(range(len(lengths))):
        raise ValueError(f"blocks hold {len(numbers)} row numbers for {len(lengths)} rows, or hold one twice.")
    mini_batches = _spread_blocks(blocks, lengths, num_mini_batches, partition)
    counts = [sum(len(blocks[number].rows) for number in members) for members in mini_batches]
    multiple = ranks * rows_multiple
    size = max(1, math.ceil(max(counts) / multiple)) * multiple
    shares = [_spread_rows(blocks, lengths, members, size, ranks, partition, pad_length) for members in mini_batches]
    order = tuple(row for rank in range(ranks) for share in shares for row in share[rank])
    return Layout(order, tuple(tuple(members) for members in mini_batches), size, ranks)


def _spread_blocks(
    blocks: Sequence[Block], lengths: Sequence[int], parts: int, partition: Partition
) -> list[list[int]]:
    if parts == 1:
        return [list(range(len(blocks)))]
    workloads = [sum(lengths[row] for row in block.rows) for block in blocks]
    workloads += [0] * (-len(blocks) % parts)
    chosen = partition(workloads, parts, True)
    return [sorted(number for number in members if number < len(blocks)) for members in chosen]


def _spread_rows(
    blocks: Sequence[Block],
    lengths: Sequence[int],
    members: Sequence[int],
    size: int,
    ranks: int,
    partition: Partition,
    pad_length: int,
) -> list[list[int]]:
    rows = [row for number in members for row in blocks[number].rows]
    rows += [PAD] * (size - len(rows))
    if ranks == 1:
        return [rows]
    shares = partition([pad_length if row == PAD else lengths[row] for row in rows], ranks, True)
    return [[rows[i] for i in sorted(share)] for share in shares]
