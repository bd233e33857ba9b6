"""The per-prompt replay buffer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repo_verl.config import RepoConfig, RepoConfigError
from repo_verl.replay import state, state_checks
from repo_verl.replay.contents import NO_ROWS, Contents, Selection, choose, handles_of, rows_of, table
from repo_verl.replay.own_strategy import picker
from repo_verl.replay.record import ROW, BlobStore, HostStore, Record, encode_records, read_records, table_of

Visits = dict[str, tuple[np.ndarray, list[Record]]]

SETTINGS = (
    "capacity", "min_size", "num_replay", "strategy", "start_step", "max_age", "max_uses", "max_tokens", "seed",
    "log_prob_dtype",
)  # fmt: skip


class PromptReplayBuffer:
    """Keeps the last ``capacity`` responses of every prompt and picks some of them for replay.

    First in, first out per prompt; nothing is consumed by being replayed. The buffer holds, a strategy picks. Scores,
    steps and use counts are one numpy table per prompt (:mod:`repo_verl.replay.contents`); tokens are in a store, one
    blob per row. What the insertion and the retrieval of a prompt take does not depend on how many others are held.
    Scores' parts are float32. Not thread-safe: the trainer's driver owns it.

    Args:
        store: where tokens and prompt ids are kept; None to keep them in this process.
        **settings: ``capacity``, ``min_size``, ``num_replay``, ``strategy``, ``start_step``, ``max_age``, ``max_uses``,
            ``max_tokens``, ``seed`` and ``log_prob_dtype`` of :class:`repo_verl.config.RepoConfig`, with its defaults.
            A function of yours is imported now. Log-probs come back in float32, whatever they are kept in.

    Raises:
        TypeError: for another setting.
        RepoConfigError: for settings that contradict each other, or a function that can't be imported.

    Example:
        >>> buffer = PromptReplayBuffer(capacity=2, min_size=1, num_replay=1)
        >>> buffer.add("a", [7, 8], [Record.create([1, 2], [-0.5, -0.1], score=1.0, step=1)])
        >>> [row.score for row in buffer.sample("a", step=2)]
        [1.0]
    """

    def __init__(self, *, store: BlobStore | None = None, **settings: Any) -> None:
        if unknown := sorted(settings.keys() - set(SETTINGS)):
            raise TypeError(f"{unknown[0]} is no setting of the buffer: use {', '.join(SETTINGS)}.")
        self._config = RepoConfig(**settings)
        self._narrow = self._config.log_prob_dtype == "bfloat16"
        self._store: BlobStore = HostStore() if store is None else store
        self._contents = Contents(self._config.capacity)
        self._rng = np.random.default_rng(self._config.seed)
        self._pick = picker(self._config.strategy)

    @classmethod
    def from_config(cls, config: RepoConfig, store: BlobStore | None = None) -> PromptReplayBuffer:
        """The buffer that the settings describe; RepoConfigError for distributed storage without a store."""
        if config.storage == "distributed" and store is None:
            raise RepoConfigError("algorithm.repo.storage='distributed' needs a store: pass one, or set it to host.")
        return cls(**{name: getattr(config, name) for name in SETTINGS}, store=store)

    def __len__(self) -> int:
        return self._contents.rows

    def __contains__(self, key: str) -> bool:
        return key in self._contents.prompts

    def rows(self, key: str) -> Sequence[Record]:
        """The rows held of a prompt, the oldest first; empty for an unknown prompt."""
        return tuple(self._read(self._contents.prompts[key].rows)) if key in self else ()

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
        ``max_tokens`` holds: prompts of earlier visits go first, then of these, if these are over it by themselves.

        Returns:
            prompts evicted for ``max_tokens``.

        Raises:
            ValueError: if a key is held, or comes twice, with other token ids; nothing is added then.
        """
        contents = self._contents
        visits = self._by_key(items)
        new = [key for key in visits if key not in contents.prompts]
        rows = [row for _, visit in visits.values() for row in visit]
        unknown = {name for row in rows for name in row.parts}.difference(contents.part_names)
        names = [*contents.part_names, *sorted(unknown)]
        blobs = [*(visits[key][0].tobytes() for key in new), *encode_records(rows, names, self._narrow)]
        handles = self._store.put(blobs) if blobs else []
        contents.part_names = names
        for key, handle in zip(new, handles, strict=False):
            contents.add_prompt(key, visits[key][0], handle)
        fresh, stop = table_of(rows, handles[len(new) :]), 0
        gone = []
        for key, (_, visit) in visits.items():
            start, stop = stop, stop + len(visit)
            gone.append(contents.append(key, fresh[start:stop]))
        over_capacity = table(*gone)
        contents.count(fresh, 1)
        contents.count(over_capacity, -1)
        contents.visit(sorted(visits))
        prompts, _, evicted = contents.evict(self._config.max_tokens)
        if over_capacity.size or evicted:
            self._store.drop([*over_capacity["handle"].tolist(), *evicted])
        return prompts

    def _by_key(self, items: Iterable[tuple[str, np.ndarray, Sequence[Record]]]) -> Visits:
        """Token ids, (L,) int32, and the newest ``capacity`` rows of each key."""
        visits: Visits = {}
        for key, prompt_ids, rows in items:
            ids = np.ascontiguousarray(prompt_ids, dtype=np.int32)
            first, visit = visits.setdefault(key, (ids, []))
            if first is not ids and not np.array_equal(first, ids):
                raise ValueError(f"prompt key {key!r} comes with two lists of token ids: keys come from prompt_key.")
            visit.extend(rows)
            del visit[: -self._config.capacity]
            held = self._contents.prompts.get(key)
            if held and (held.length, held.checksum) != (ids.size, hash(ids.tobytes())):
                raise ValueError(
                    f"prompt key {key!r} is held with other token ids: keys come from prompt_key(prompt_ids)."
                )
        return visits

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
        uses_before: dict[str, np.ndarray] = {}
        known = [None] * len(keys) if fresh_scores is None else fresh_scores
        chosen = []
        for key, fresh in zip(keys, known, strict=True):
            prompt = self._contents.prompts.get(key)
            first, rows = (0, NO_ROWS) if prompt is None else (prompt.first, prompt.rows)
            places = choose(key, rows, self._config, self._pick, step, self._rng, fresh)
            before, lengths = uses_before.setdefault(key, rows["uses"].copy()), rows["length"][places]
            chosen.append(
                Selection(
                    key=key,
                    serials=first + places,
                    scores=rows["score"][places],
                    steps=rows["step"][places],
                    uses=before[places],
                    lengths=lengths,
                    counted=lengths - rows["masked_out"][places],
                )
            )
            rows["uses"][places] += 1
        return chosen

    def fetch(self, selections: Sequence[Selection]) -> list[list[Record]]:
        """The rows of selections with their tokens, the oldest first, by one call of the store.

        Arrays are read-only copies or views that later changes of the buffer don't touch.

        Raises:
            ValueError: if a row was evicted since it was selected.
        """
        records = self._read(table(*(rows_of(selection, self._contents.prompts) for selection in selections)))
        ends = itertools.accumulate(map(len, selections))
        return [records[end - len(selection) : end] for selection, end in zip(selections, ends, strict=True)]

    def _read(self, rows: np.ndarray) -> list[Record]:
        return read_records(rows, self._store, self._contents.part_names, self._narrow)

    def sample(self, key: str, step: int) -> list[Record]:
        """:meth:`select_batch` and :meth:`fetch` of one prompt in a training step: its rows, the oldest first."""
        return self.fetch(self.select_batch([key], step))[0]

    def stats(self) -> dict[str, int]:
        """``prompts``, ``rows``, response ``tokens`` and ``bytes``, in constant time.

        ``bytes`` are those of all rows, wherever their tokens are: ids, log-probs, masks, prompt ids, columns.
        """
        held = self._contents
        tokens = held.tokens * (6 if self._narrow else 8) + held.mask_bytes + 4 * held.prompt_tokens
        beside = ROW.itemsize + 4 * len(held.part_names)
        return {
            "prompts": len(held.prompts),
            "rows": held.rows,
            "tokens": held.tokens,
            "bytes": tokens + beside * held.rows,
        }

    def state_dict(self) -> dict[str, Any]:
        """Rows, prompts and the generator as arrays and JSON-ready values, copied once; see ``replay.state``."""
        keys = list(self._contents.prompts)
        return {"meta": self.meta(), "arrays": state.columns(self._contents, self._store, self._narrow, keys)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Replace all rows and the generator by copies of what :meth:`state_dict` gave.

        A smaller ``capacity`` than the saved one keeps the newest rows. Log-probs saved in float32 are rounded where
        this buffer keeps bfloat16; those saved in bfloat16 are exact in float32.

        Raises:
            ValueError: if it is of another version, or damaged; nothing changes then.
        """
        state_checks.check(saved)
        self.replace([saved["arrays"]], saved["meta"])

    @property
    def settings(self) -> dict[str, Any]:
        """What the buffer was made with, JSON-ready."""
        return {name: getattr(self._config, name) for name in SETTINGS}

    def shards(self, most_bytes: int) -> tuple[int, Iterator[dict[str, np.ndarray]]]:
        """All bytes, and the arrays of :meth:`state_dict` by ranges of prompts."""
        return state.shards(self._contents, self._store, self._narrow, most_bytes)

    def meta(self) -> dict[str, Any]:
        """The JSON-ready values of :meth:`state_dict`."""
        return {
            "version": state.VERSION,
            "part_names": sorted(self._contents.part_names),
            "log_prob_dtype": self._config.log_prob_dtype,
            "rng": dict(self._rng.bit_generator.state),
        }

    def replace(
        self,
        shards: Iterable[state.Arrays],
        meta: Mapping[str, Any],
        limits: state.RowLimits = state.NO_LIMITS,
        in_order: bool = True,
    ) -> tuple[list[int], int, int]:
        """Replace all rows and the generator by checked shards and meta of a state; nothing changes if that fails.

        Rows over the limits are left out. Unless prompts are ``in_order`` of their visits, the step of their newest row
        decides.

        Returns:
            rows left out for their prompt, their response, and both together; prompts and rows left out for
            ``max_tokens``.

        Raises:
            DamagedStateError: if a prompt is in two shards.
        """
        rng = state_checks.generator(meta["rng"])
        contents = Contents(self._config.capacity, self._contents.first_unused_serial())
        contents.part_names = list(meta["part_names"])
        seen: set[bytes] = set()
        too_long = np.zeros(3, dtype=np.int64)
        prompts = rows = 0
        try:
            for arrays in shards:
                keys = set(map(bytes, arrays["prompt_key"]))
                for key in keys & seen:
                    raise state_checks.DamagedStateError(f"prompt key {key.hex()} occurs twice.")
                seen |= keys
                too_long += state.unpack(arrays, contents, self._store.put, self._narrow, limits)
                if not in_order:
                    contents.order_by_newest_row()
                gone = contents.evict(self._config.max_tokens)
                prompts, rows = prompts + gone[0], rows + gone[1]
                self._store.drop(gone[2])
        except BaseException:
            self._store.drop(handles_of(contents.prompts.values()))
            raise
        self._store.drop(handles_of(self._contents.prompts.values()))
        self._contents, self._rng = contents, rng
        return too_long.tolist(), prompts, rows
