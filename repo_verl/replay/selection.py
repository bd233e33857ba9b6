"""Choosing the rows of prompts that are replayed, without their tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from repo_verl.config import RepoConfig
from repo_verl.replay.custom import Picker
from repo_verl.replay.index import Index


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """k rows of one prompt, the oldest first; k may be 0.

    Attributes:
        key: the prompt.
        serials: (k,) int64, which rows; good until a row is evicted or another state is loaded.
        scores: (k,) float64.
        steps: (k,) int64, the training steps in which they were fresh.
        uses: (k,) int64, times they were replayed before this batch.
        lengths: (k,) int64, response tokens.
        counted: (k,) int64, response tokens with the mask set.
    """

    key: str
    serials: np.ndarray
    scores: np.ndarray
    steps: np.ndarray
    uses: np.ndarray
    lengths: np.ndarray
    counted: np.ndarray

    def __len__(self) -> int:
        return self.serials.size

    @classmethod
    def nothing(cls, key: str) -> Selection:
        """No row."""
        none = np.empty(0, dtype=np.int64)
        return cls(key, none, np.empty(0), none, none, none, none)


def choose(
    index: Index,
    config: RepoConfig,
    pick: Picker,
    rng: np.random.Generator,
    keys: Sequence[str],
    step: int,
    fresh_scores: Sequence[np.ndarray] | None = None,
) -> list[Selection]:
    """One selection for each key, in order; see :meth:`repo_verl.replay.PromptReplayBuffer.select_batch`."""
    chosen = [Selection.nothing(key) for key in keys]
    if step <= config.start_step:
        return chosen
    known = [number for number, key in enumerate(keys) if key in index.slots]
    slots = np.array([index.slots[keys[number]] for number in known], dtype=np.int64)
    places, counts = index.all_of(slots)
    firsts = index.prompts["first"][slots].tolist()
    steps, uses = index.rows["step"][places], index.rows["uses"][places]
    earlier = steps < step
    allowed = earlier.copy()
    if config.max_age is not None:
        allowed &= step - steps <= config.max_age
    stop = 0
    for number, first, count in zip(known, firsts, counts.tolist(), strict=True):
        start, stop = stop, stop + count
        free = np.flatnonzero(allowed[start:stop])
        if config.max_uses is not None:
            free = free[index.rows["uses"][places[start + free]] < config.max_uses]
        if free.size and np.count_nonzero(earlier[start:stop]) >= config.min_size:
            at = places[start + free]
            ages = step - steps[start + free]
            fresh = None if fresh_scores is None else fresh_scores[number]
            picked = pick(keys[number], index.rows["score"][at], ages, config.num_replay, rng, fresh)
            before = uses[start + free[picked]]
            chosen[number] = _selection(index, keys[number], first + free[picked], at[picked], before)
            index.rows["uses"][at[picked]] += 1
    return chosen


def _selection(index: Index, key: str, serials: np.ndarray, places: np.ndarray, uses: np.ndarray) -> Selection:
    rows = index.rows
    lengths = rows["length"][places].astype(np.int64)
    return Selection(
        key=key,
        serials=serials,
        scores=rows["score"][places],
        steps=rows["step"][places].astype(np.int64),
        uses=uses.astype(np.int64),
        lengths=lengths,
        counted=lengths - np.maximum(rows["hidden"][places], 0) if "hidden" in rows else lengths,
    )


def places_of(index: Index, selections: Sequence[Selection]) -> np.ndarray:
    """Where all selected rows are in the row columns: (N,) int64.

    Raises:
        ValueError: if a row was evicted since it was selected.
    """
    slots, serials, held = locate(index, selections)
    if not held.all():
        lost = int(np.argmin(held))
        ends = np.cumsum([len(selection) for selection in selections])
        key = selections[int(np.searchsorted(ends, lost, side="right"))].key
        raise ValueError(
            f"row {serials[lost]} of prompt {key!r} was evicted after it was selected: fetch before adding rows."
        )
    return index.places(slots, serials)


def locate(index: Index, selections: Sequence[Selection]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots and serials of all selected rows, and which of them are held: (N,) each."""
    sizes = [len(selection) for selection in selections]
    slots = np.repeat([index.slots.get(selection.key, -1) for selection in selections], sizes).astype(np.int64)
    serials = np.concatenate([np.empty(0, dtype=np.int64), *(selection.serials for selection in selections)])
    held = slots >= 0
    first, count = (index.prompts[name][slots[held]] for name in ("first", "count"))
    held[held] = (first <= serials[held]) & (serials[held] < first + count)
    return slots, serials, held
