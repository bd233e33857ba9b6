"""Choosing the rows of a prompt that are replayed, without their tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from repo_verl.config import RepoConfig
from repo_verl.replay.contents import NO_ROWS, Prompt
from repo_verl.replay.own_strategy import Picker

NOTHING = np.empty(0, dtype=np.int64)


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
        counted: (k,) int64, unmasked response tokens.
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
        return cls(key, NOTHING, np.empty(0), NOTHING, NOTHING, NOTHING, NOTHING)

    @classmethod
    def of(cls, key: str, first: int, rows: np.ndarray, places: np.ndarray, uses: np.ndarray) -> Selection:
        """The rows at these places, (k,) int.

        Args:
            key: the prompt.
            first: serial of its oldest row.
            rows: (n,) :data:`repo_verl.replay.record.ROW`, all that it holds.
            places: which of them.
            uses: (n,) int64, their use counts to report.
        """
        lengths = rows["length"][places]
        return cls(
            key=key,
            serials=first + places,
            scores=rows["score"][places],
            steps=rows["step"][places],
            uses=uses[places],
            lengths=lengths,
            counted=lengths - rows["masked_out"][places],
        )


def choose(
    key: str,
    rows: np.ndarray,
    config: RepoConfig,
    pick: Picker,
    step: int,
    rng: np.random.Generator,
    fresh_scores: np.ndarray | None,
) -> np.ndarray:
    """Which rows of a prompt are replayed: (k,) int64 places, sorted, 0 = oldest.

    See :meth:`repo_verl.replay.PromptReplayBuffer.select_batch`; ``rows`` is all that the prompt holds.
    """
    if step <= config.start_step:
        return NOTHING
    ages = step - rows["step"]
    allowed = ages > 0
    if np.count_nonzero(allowed) < config.min_size:
        return NOTHING
    if config.max_age is not None:
        allowed &= ages <= config.max_age
    if config.max_uses is not None:
        allowed &= rows["uses"] < config.max_uses
    free = allowed.nonzero()[0]
    if not free.size:
        return NOTHING
    return free[pick(key, rows["score"][free], ages[free], config.num_replay, rng, fresh_scores)]


def rows_of(selection: Selection, prompts: Mapping[str, Prompt]) -> np.ndarray:
    """The rows of a selection, (k,) :data:`repo_verl.replay.contents.ROW`.

    Raises:
        ValueError: if one was evicted since it was selected.
    """
    if not len(selection):
        return NO_ROWS
    prompt = prompts.get(selection.key)
    if prompt is None or selection.serials[0] < prompt.first:  # the oldest row goes first
        raise ValueError(
            f"row {selection.serials[0]} of prompt {selection.key!r} was evicted after it was selected: fetch before "
            f"adding rows."
        )
    return prompt.rows.take(selection.serials - prompt.first)
