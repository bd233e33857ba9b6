"""The per-prompt replay buffer in host memory."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from repo_verl.config import RepoConfig
from repo_verl.replay import state
from repo_verl.replay.record import Record
from repo_verl.replay.strategies import select


@dataclasses.dataclass(slots=True)
class Entry:
    """The rows of one prompt, the oldest first."""

    prompt_ids: np.ndarray
    rows: deque[Record]


class PromptReplayBuffer:
    """Keeps the last ``capacity`` responses of every prompt and picks some of them for replay.

    First in, first out a prompt; nothing is consumed by being replayed. The buffer holds, a strategy picks
    (:mod:`repo_verl.replay.strategies`). Not thread-safe: the trainer's driver process owns it.

    Args:
        capacity: rows kept a prompt.
        min_size: rows a prompt must hold before it replays.
        num_replay: rows replayed a visit.
        strategy: name of the strategy.
        start_step: no replay in steps up to and including this one.
        max_age: steps; older rows are held but not replayed. None for no limit.
        max_uses: rows replayed this often are held but not replayed. None for no limit.
        seed: seeds the generator that ``random`` draws from.

    Raises:
        RepoConfigError: for settings that contradict each other.

    Example:
        >>> buffer = PromptReplayBuffer(capacity=2, min_size=1, num_replay=1)
        >>> buffer.add("a", [7, 8], [Record.create([1, 2], [-0.5, -0.1], score=1.0, step=1)])
        >>> [row.score for row in buffer.sample("a", step=2)]
        [1.0]
    """

    def __init__(
        self,
        *,
        capacity: int = 16,
        min_size: int = 16,
        num_replay: int = 8,
        strategy: str = "recency",
        start_step: int = 0,
        max_age: int | None = None,
        max_uses: int | None = None,
        seed: int = 42,
    ) -> None:
        self._config = RepoConfig(
            strategy=strategy,
            num_replay=num_replay,
            capacity=capacity,
            min_size=min_size,
            start_step=start_step,
            max_age=max_age,
            max_uses=max_uses,
            seed=seed,
        )
        self._entries: dict[str, Entry] = {}
        self._rng = np.random.default_rng(seed)

    @classmethod
    def from_config(cls, config: RepoConfig) -> PromptReplayBuffer:
        """The buffer that the settings describe."""
        names = ("capacity", "min_size", "num_replay", "strategy", "start_step", "max_age", "max_uses", "seed")
        return cls(**{name: getattr(config, name) for name in names})

    def __len__(self) -> int:
        return sum(len(entry.rows) for entry in self._entries.values())

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def rows(self, key: str) -> Sequence[Record]:
        """The rows held of a prompt, the oldest first; empty for an unknown prompt."""
        return tuple(self._entries[key].rows) if key in self._entries else ()

    def add(self, key: str, prompt_ids: Sequence[int] | np.ndarray, rows: Iterable[Record]) -> None:
        """Append fresh rows of a prompt, in order; the oldest rows beyond ``capacity`` go.

        Args:
            key: from :func:`repo_verl.replay.record.prompt_key`.
            prompt_ids: (L,) token ids of the prompt, kept once.
            rows: what :meth:`Record.create` made.

        Raises:
            ValueError: if the key is held with other token ids.
        """
        ids = np.asarray(prompt_ids, dtype=np.int32)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry(ids.copy(), deque(maxlen=self._config.capacity))
        elif not np.array_equal(entry.prompt_ids, ids):
            raise ValueError(f"prompt key {key!r} is held with other token ids: keys come from prompt_key(prompt_ids).")
        entry.rows.extend(rows)

    def sample(self, key: str, step: int) -> list[Record]:
        """The rows of a prompt to replay in a training step, the oldest first; their use counts go up.

        Empty until the prompt holds ``min_size`` rows of earlier steps and ``step`` is past ``start_step``. Rows of
        this step, rows over ``max_age`` and rows over ``max_uses`` are never picked.

        Args:
            key: the prompt.
            step: the current training step; age = step - the step in which the row was fresh.
        """
        config, entry = self._config, self._entries.get(key)
        if entry is None or step <= config.start_step:
            return []
        earlier = [row for row in entry.rows if row.step < step]
        if len(earlier) < config.min_size:
            return []
        allowed = [row for row in earlier if self._allowed(row, step)]
        if not allowed:
            return []
        scores = np.fromiter((row.score for row in allowed), dtype=np.float64, count=len(allowed))
        ages = np.fromiter((step - row.step for row in allowed), dtype=np.int64, count=len(allowed))
        chosen = [allowed[i] for i in select(config.strategy, scores, ages, config.num_replay, self._rng)]
        for row in chosen:
            row.uses += 1
        return chosen

    def _allowed(self, row: Record, step: int) -> bool:
        config = self._config
        young = config.max_age is None or step - row.step <= config.max_age
        return young and (config.max_uses is None or row.uses < config.max_uses)

    def stats(self) -> dict[str, int]:
        """``prompts``, ``rows``, response ``tokens``, and ``bytes`` of all token arrays (prompts included)."""
        rows = [row for entry in self._entries.values() for row in entry.rows]
        prompt_bytes = sum(entry.prompt_ids.nbytes for entry in self._entries.values())
        return {
            "prompts": len(self._entries),
            "rows": len(rows),
            "tokens": sum(row.response_ids.size for row in rows),
            "bytes": prompt_bytes + sum(row.nbytes for row in rows),
        }

    def state_dict(self) -> dict[str, Any]:
        """Rows, prompts and the generator as numpy arrays and JSON-ready values; see :mod:`repo_verl.replay.state`."""
        rows = [(key, entry.prompt_ids, entry.rows) for key, entry in self._entries.items()]
        return state.pack(rows, self._rng.bit_generator.state)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Replace all rows and the generator by copies of what :meth:`state_dict` gave.

        A smaller ``capacity`` than the saved one keeps the newest rows.

        Raises:
            ValueError: if the state is of another version or its parts don't fit together.
        """
        prompts, rng_state = state.unpack(saved)
        entries = {}
        for key, prompt_ids, rows in prompts:
            entries[key] = Entry(prompt_ids, deque(rows, maxlen=self._config.capacity))
        self._rng.bit_generator.state = rng_state
        self._entries = entries
