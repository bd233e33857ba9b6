"""The mini-batch and the rank of every row of an update, and the fields that workers get with each row.

verl hands an update's rows to the data-parallel ranks in equal, contiguous chunks, and every rank cuts its chunk into
mini-batches of one size. A layout keeps a prompt's fresh and replayed rows in one mini-batch, gives every mini-batch
the same number of rows (padding the shorter ones) and every rank about the same work. Rows that are left out of the
update (pruned) have no place.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

# fields of an update's rows, (B,)
ORIGIN = "repo_origin"  # int64: FRESH, REPLAYED or PADDING
WEIGHT = "repo_weight"  # float64: w_i of repo_verl.losses; 0 for fresh and padding rows
FRESH_SCALE = "repo_fresh_scale"  # float64: factor of the fresh term, equal for all rows of a mini-batch
FRESH_TOKENS = "repo_fresh_tokens"  # int64: unmasked fresh tokens in the row's mini-batch on all ranks, pruned included

FRESH, REPLAYED, PADDING = 0, 1, 2
PAD = -1  # stands for a padding row in a layout's order

Partition = Callable[[list[int], int, bool], list[list[int]]]
"""(workloads, parts, equal_size) -> the indices of each part; verl's ``get_seqlen_balanced_partitions``."""


def uid_of(key: str) -> str:
    """verl's uid of a row's prompt, from the row's TransferQueue key ``{uid}_{response number}_{output}``."""
    return key.rsplit("_", 2)[0]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the rows go; ``len(order) == num_mini_batches * mini_batch_rows``."""

    order: tuple[int, ...]  # row numbers, rank by rank and mini-batch by mini-batch; PAD for padding
    num_mini_batches: int  # optimizer steps per epoch
    mini_batch_rows: int  # over all ranks, padding included
    ranks: int = 1  # data-parallel size
    micro_batch_rows: int | None = None  # rows of a forward pass; None where verl cuts micro-batches by tokens

    def mini_batch_at(self, position: int) -> int:
        """The mini-batch of a position in ``order``."""
        share = self.mini_batch_rows // self.ranks
        return position // share % self.num_mini_batches


def spread_blocks(
    blocks: Sequence[Sequence[int]], workloads: Sequence[int], parts: int, partition: Partition
) -> list[tuple[int, ...]]:
    """Spread prompts over mini-batches: about the same number of prompts and the same work in each.

    Args:
        blocks: the row numbers of every prompt; ValueError if one appears twice or not at all.
        workloads: (N,) work of every row.
        parts: optimizer steps per epoch, those that GRPO would take.
        partition: balances workloads over parts.

    Returns:
        row numbers of every mini-batch, prompt by prompt.
    """
    numbers = sorted(row for block in blocks for row in block)
    if numbers != list(range(len(workloads))):
        raise ValueError(f"blocks hold {len(numbers)} row numbers for {len(workloads)} rows, or hold one twice.")
    sums = [sum(workloads[row] for row in block) for block in blocks]
    sums += [0] * (-len(blocks) % parts)
    chosen = [range(len(blocks))] if parts == 1 else partition(sums, parts, True)
    return [
        tuple(row for number in sorted(members) if number < len(blocks) for row in blocks[number]) for members in chosen
    ]


def place_rows(
    mini_batches: Sequence[Sequence[int]],
    workloads: Sequence[int],
    ranks: int,
    micro_batch_rows: int | None,
    partition: Partition,
    padded: bool = False,
    pad_workload: int = 0,
) -> Layout:
    """Give every mini-batch the same number of rows, and spread each over the ranks.

    Args:
        mini_batches: row numbers of every mini-batch; rows that are left out of the update are in none.
        workloads: (N,) work of every row, which grows with its length.
        ranks: data-parallel size.
        micro_batch_rows: most rows of a forward pass; None where verl cuts micro-batches by tokens.
        partition: balances workloads over parts.
        padded: whether a forward pass pads its rows to the longest: a rank's rows are then ordered by falling length,
            and micro-batches chosen that need the fewest padding rows, which cost as much as others there.
        pad_workload: work of a padding row.
    """

    def spread(rows: Sequence[int]) -> list[list[int]]:
        filled = [*rows, *[PAD] * (size - len(rows))]
        work = [pad_workload if row == PAD else workloads[row] for row in filled]
        parts = [list(range(size))] if ranks == 1 else partition(work, ranks, True)
        return [[filled[i] for i in sorted(part, key=lambda i: (-work[i] if padded else 0, i))] for part in parts]

    share = max(1, max(math.ceil(len(rows) / ranks) for rows in mini_batches))
    if micro_batch_rows is not None:
        micro_batch_rows = choose_micro_batch(share, micro_batch_rows, padded)
        share = math.ceil(share / micro_batch_rows) * micro_batch_rows
    size = share * ranks
    shares = [spread(rows) for rows in mini_batches]
    order = tuple(row for rank in range(ranks) for parts in shares for row in parts[rank])
    return Layout(order, len(mini_batches), size, ranks, micro_batch_rows)


def choose_micro_batch(rows: int, most: int, padded: bool) -> int:
    """Rows of a forward pass.

    Args:
        rows: of one rank and mini-batch, at least 1.
        most: rows of a forward pass at most.
        padded: whether padding rows cost as much as others. Then the size from ``most`` down to half of it that needs
            the fewest of them, the largest such size; else the smallest size that needs no more passes than ``most``.
    """
    if not padded:
        return math.ceil(rows / math.ceil(rows / most))
    sizes = range(min(most, rows), max(1, math.ceil(most / 2)) - 1, -1) if rows > most else [rows]
    return min(sizes, key=lambda size: (math.ceil(rows / size) * size, -size))
