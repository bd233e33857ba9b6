"""The per-prompt replay buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repo_verl.config import RepoConfig, RepoConfigError
from repo_verl.replay import checks, packing, restore, state
from repo_verl.replay.custom import picker
from repo_verl.replay.eviction import hold_at_most
from repo_verl.replay.index import Index
from repo_verl.replay.record import Record
from repo_verl.replay.selection import Selection, choose, locate, places_of
from repo_verl.replay.store import BlobStore, HostStore

Arrays = Mapping[str, np.ndarray]

SETTINGS = (
    "capacity", "min_size", "num_replay", "strategy", "start_step", "max_age", "max_uses", "max_tokens", "seed",
    "log_prob_dtype",
)  # fmt: skip


class PromptReplayBuffer:
    """Keeps the last ``capacity`` responses of every prompt and picks some of them for replay.

    First in, first out a prompt; nothing is consumed by being replayed. The buffer holds, a strategy picks. Scores,
    steps and use counts are numpy columns (:mod:`repo_verl.replay.index`); tokens are in a store, one blob a prompt and
    visit. Insertion and eviction take constant time a row, and what a prompt's retrieval takes does not depend on how
    many others are held. Scores' parts are float32, NaN for absent. Not thread-safe: the trainer's driver owns it.

    Args:
        capacity: rows kept a prompt.
        min_size: rows a prompt must hold before it replays.
        num_replay: rows replayed a visit.
        strategy: name of the strategy, or ``package.module:function``, which is imported now.
        start_step: no replay in steps up to and including this one.
        max_age: steps; older rows are held but not replayed. None for no limit.
        max_uses: rows replayed this often are held but not replayed. None for no limit.
        max_tokens: response tokens held of all prompts together: beyond them the prompts visited longest ago go, with
            all their rows. Prompt tokens are not counted: they are kept once a prompt. None for no limit.
        seed: seeds the generator that the strategy draws from.
        log_prob_dtype: ``float32``, or ``bfloat16``, which rounds the log-probs; rows always come back in float32.
        store: where tokens and prompt ids are kept, this process holding none; None to keep them here. A store other
            than :class:`HostStore` keeps the rows of a visit until the last of them is evicted.

    Raises:
        RepoConfigError: for settings that contradict each other, or a function that can't be imported.

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
        max_tokens: int | None = None,
        seed: int = 42,
        log_prob_dtype: str = "float32",
        store: BlobStore | None = None,
    ) -> None:
        self._config = RepoConfig(
            strategy=strategy, num_replay=num_replay, capacity=capacity, min_size=min_size, start_step=start_step,
            max_age=max_age, max_uses=max_uses, max_tokens=max_tokens, seed=seed, log_prob_dtype=log_prob_dtype,
        )  # fmt: skip
        self._narrow = log_prob_dtype == "bfloat16"
        self._store: BlobStore = HostStore() if store is None else store
        self._index = Index(capacity)
        self._rng = np.random.default_rng(seed)
        self._pick = picker(strategy)

    @classmethod
    def from_config(cls, config: RepoConfig, store: BlobStore | None = None) -> PromptReplayBuffer:
        """The buffer that the settings describe.

        Raises:
            RepoConfigError: if ``config.storage`` is ``distributed`` and no store is given.
        """
        if config.storage == "distributed" and store is None:
            raise RepoConfigError("algorithm.repo.storage='distributed' needs a store: pass one, or set it to host.")
        return cls(**{name: getattr(config, name) for name in SETTINGS}, store=store)

    def __len__(self) -> int:
        return self._index.held

    def __contains__(self, key: str) -> bool:
        return key in self._index.slots

    def rows(self, key: str) -> Sequence[Record]:
        """The rows held of a prompt, the oldest first; empty for an unknown prompt."""
        slots = np.array([self._index.slots[key]] if key in self else [], dtype=np.int64)
        return tuple(packing.read_records(self._index, self._store, self._index.all_of(slots)[0], self._narrow))

    def add(self, key: str, prompt_ids: Sequence[int] | np.ndarray, rows: Iterable[Record]) -> None:
        """Append fresh rows of a prompt, in order; the oldest rows beyond ``capacity`` go.

        Args:
            key: from :func:`repo_verl.replay.record.prompt_key`.
            prompt_ids: (L,) token ids of the prompt, kept once.
            rows: what :meth:`Record.create` made.

        Raises:
            ValueError: if the key is held with other token ids.
        """
        self.add_batch([(key, np.asarray(prompt_ids, dtype=np.int32), list(rows))])

    def add_batch(self, items: Iterable[tuple[str, np.ndarray, Sequence[Record]]]) -> int:
        """:meth:`add` for every (key, prompt ids, rows), in order, with one call of the store to put the rows.

        All keys count as visited now, in the order of the keys, which does not depend on when responses finished. Then
        ``max_tokens`` holds: prompts of earlier visits go first, then of these, if they alone are over it.

        Returns:
            prompts evicted for ``max_tokens``.

        Raises:
            ValueError: if a key is held, or comes twice, with other token ids; nothing is added then.
        """
        self._index.visit(sorted(packing.insert(items, self._index, self._store, self._narrow)))
        return hold_at_most(self._index, self._store, self._config.max_tokens)[0]

    def select_batch(
        self, keys: Sequence[str], step: int, fresh_scores: Sequence[np.ndarray] | None = None
    ) -> list[Selection]:
        """Choose the rows to replay in a training step, one selection for each key, in order; reads no tokens.

        A selection is empty until the prompt holds ``min_size`` rows of earlier steps and ``step`` is past
        ``start_step``. Rows of this step, rows over ``max_age`` and rows over ``max_uses`` are never picked. The use of
        a selected row counts at once: a key that comes twice is chosen for twice, within ``max_uses``.

        Args:
            keys: prompts.
            step: the current training step; age = step - the step in which the row was fresh.
            fresh_scores: (G_on,) scores of the fresh rows of each key, for a user's strategy that asks for them; None
                where they are not known.

        Raises:
            StrategyError: if a function of the user's fails.
        """
        return choose(self._index, self._config, self._pick, self._rng, keys, step, fresh_scores)

    def fetch(self, selections: Sequence[Selection]) -> list[list[Record]]:
        """The rows of selections with their tokens, the oldest first, by one call of the store.

        Arrays are read-only copies or views that later changes of the buffer don't touch.

        Raises:
            ValueError: if a row was evicted since it was selected.
        """
        places = places_of(self._index, selections)
        records = iter(packing.read_records(self._index, self._store, places, self._narrow))
        return [[next(records) for _ in range(len(selection))] for selection in selections]

    def mark_used(self, selections: Sequence[Selection]) -> None:
        """Nothing: uses count when rows are selected. Goes with its last caller."""

    def release(self, selections: Sequence[Selection]) -> None:
        """Take back one use of each selected row. Goes with its last caller."""
        slots, serials, held = locate(self._index, selections)
        np.add.at(self._index.rows["uses"], self._index.places(slots[held], serials[held]), -1)

    def sample(self, key: str, step: int) -> list[Record]:
        """:meth:`select_batch` and :meth:`fetch` of one prompt: its rows, the oldest first.

        Args:
            key: the prompt.
            step: the current training step.
        """
        return self.fetch(self.select_batch([key], step))[0]

    def stats(self) -> dict[str, int]:
        """``prompts``, ``rows``, response ``tokens`` and ``bytes``, in constant time.

        ``bytes`` are those of all rows, wherever their tokens are: ids, log-probs, masks, prompt ids, columns.
        """
        index = self._index
        tokens = index.tokens * (6 if self._narrow else 8) + (index.mask_tokens + 7) // 8
        return {
            "prompts": len(index.slots),
            "rows": index.held,
            "tokens": index.tokens,
            "bytes": tokens + 4 * index.prompt_tokens + index.rows.row_bytes * index.held,
        }

    def state_dict(self) -> dict[str, Any]:
        """Rows, prompts and the generator as arrays and JSON-ready values, copied once; see ``replay.state``."""
        return {"meta": self.meta(), "arrays": state.columns(self._index, self._store, self._narrow)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Replace all rows and the generator by copies of what :meth:`state_dict` gave.

        A smaller ``capacity`` than the saved one keeps the newest rows. Log-probs saved in float32 are rounded where
        this buffer keeps bfloat16; those saved in bfloat16 are exact in float32.

        Raises:
            ValueError: if the state is of another version or its parts don't fit together; nothing changes then.
        """
        checks.check(saved)
        self.replace([saved["arrays"]], saved["meta"])

    @property
    def settings(self) -> dict[str, Any]:
        """What the buffer was made with, JSON-ready."""
        return {name: getattr(self._config, name) for name in SETTINGS}

    def shards(self, most_bytes: int) -> tuple[int, Iterator[dict[str, np.ndarray]]]:
        """All bytes, and the arrays of :meth:`state_dict` by ranges of prompts."""
        return state.shards(self._index, self._store, self._narrow, most_bytes)

    def meta(self) -> dict[str, Any]:
        """The JSON-ready values of :meth:`state_dict`."""
        return state.meta_of(self._index, self._narrow, self._rng.bit_generator.state)

    def replace(self, shards: Iterable[Arrays], meta: Mapping[str, Any], in_order: bool = True) -> tuple[int, int]:
        """Replace all rows and the generator by shards of columns that were checked; nothing changes if that fails.

        Args:
            shards: each as :func:`repo_verl.replay.checks.check_columns` wants it.
            meta: as :func:`repo_verl.replay.checks.check_meta` wants it.
            in_order: whether prompts are as they were visited; otherwise the step of their newest row decides.

        Returns:
            prompts and rows left out for ``max_tokens``.

        Raises:
            DamagedStateError: if a prompt is in two shards.
        """
        rng, index = checks.generator(meta["rng"]), Index(self._config.capacity, self._index.inserted)
        bound = self._config.max_tokens
        evicted = restore.fill(shards, meta["part_names"], index, self._store, self._narrow, bound, in_order)
        held, self._index, self._rng = self._index.handles(), index, rng
        if held:
            self._store.drop(held)
        return evicted
