"""The bound on the whole buffer: prompts that were visited longest ago go, with all their rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from repo_verl.replay.index import Index

LOOKED_AT = 256
"""Prompts whose tokens are summed at a time to find those that go."""


class Dropping(Protocol):
    """The part of a store that eviction needs."""

    def drop(self, handles: Sequence[int]) -> None:
        """Forget blobs."""


def hold_at_most(index: Index, store: Dropping, tokens: int | None) -> tuple[int, int]:
    """Evict prompts, those visited longest ago, until at most ``tokens`` response tokens are held.

    Args:
        index: prompts and rows.
        store: their tokens.
        tokens: the bound; None for none.

    Returns:
        how many prompts and how many rows went.
    """
    if tokens is None or index.tokens <= tokens:
        return 0, 0
    held = index.held
    keys = visited_longest_ago(index, index.tokens - tokens)
    store.drop(index.remove(keys))
    return len(keys), held - index.held


def visited_longest_ago(index: Index, tokens: int) -> list[str]:
    """The fewest prompts, from the one visited longest ago on, that hold ``tokens`` response tokens or more."""
    found: list[str] = []
    prompts = iter(index.slots)
    while tokens > 0:
        keys = list(itertools.islice(prompts, LOOKED_AT))
        places, counts = index.all_of(index.slots_of(keys))
        held = np.concatenate([[0], np.cumsum(index.rows["length"][places], dtype=np.int64)])[np.cumsum(counts)]
        found += keys[: int(np.searchsorted(held, tokens)) + 1]
        tokens -= int(held[-1])
    return found


def order_by_newest_row(index: Index) -> None:
    """Take the step of each prompt's newest row for its last visit, where no order of visits was saved."""
    keys = list(index.slots)
    slots = index.slots_of(keys)
    counts = index.prompts["count"][slots].astype(np.int64)
    steps = np.full(len(keys), -1, dtype=np.int64)
    some = counts > 0
    newest = index.prompts["first"][slots][some] + counts[some] - 1
    steps[some] = index.rows["step"][index.places(slots[some], newest)]
    index.visit(key for _, key in sorted(zip(steps.tolist(), keys, strict=True)))
