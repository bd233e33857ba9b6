"""What the buffer knows of its prompts and rows without their tokens, and which rows of a prompt are replayed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from repo_verl.config import RepoConfig
from repo_verl.replay.own_strategy import Picker
from repo_verl.replay.record import ROW

NOTHING = np.empty(0, dtype=np.int64)
NO_ROWS = np.empty(0, dtype=ROW)


@dataclasses.dataclass(slots=True)
class Prompt:
    """The rows held of a prompt, the oldest first."""

    handle: int  # of its token ids in the store
    length: int  # its tokens
    checksum: int  # hash of the bytes of its token ids, (L,) int32; differs between processes
    first: int  # serial of the oldest row; the serials of a prompt count up and are never given twice
    table: bytearray = dataclasses.field(default_factory=bytearray)  # an array for each would take 400 bytes more

    @property
    def rows(self) -> np.ndarray:
        """(n,) :data:`ROW`, a view that can be written to."""
        return np.frombuffer(self.table, dtype=ROW)

    @property
    def next(self) -> int:
        """Serial of the next row."""
        return self.first + len(self.table) // ROW.itemsize


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """k rows of one prompt, the oldest first, in (k,) arrays, scores in float64 and the others in int64; k may be 0."""

    key: str
    serials: np.ndarray  # which rows; good until a row is evicted or another state is loaded
    scores: np.ndarray
    steps: np.ndarray  # in which they were fresh
    uses: np.ndarray  # before this batch
    lengths: np.ndarray  # response tokens
    counted: np.ndarray  # unmasked response tokens

    def __len__(self) -> int:
        return self.serials.size


class Contents:
    """Prompts by key, the one visited longest ago first, and totals over their rows; tokens are those of responses.

    ``part_names`` are those of the parts of scores, in the order of their first row.
    """

    def __init__(self, capacity: int, first_serial: int = 0) -> None:
        self.capacity = capacity
        self.prompts: dict[str, Prompt] = {}
        self.part_names: list[str] = []
        self.rows = self.tokens = self.mask_bytes = self.prompt_tokens = 0
        self._first_serial = first_serial

    def add_prompt(self, key: str, ids: np.ndarray, handle: int) -> None:
        """Hold a new prompt with its token ids, (L,) int32, without rows."""
        self.prompts[key] = Prompt(handle, ids.size, hash(ids.tobytes()), self._first_serial)
        self.prompt_tokens += ids.size

    def append(self, key: str, rows: np.ndarray) -> np.ndarray:
        """Append at most ``capacity`` rows of a prompt, (n,) :data:`ROW`, and return the oldest ones, which go.

        The totals are the caller's to :meth:`count`.
        """
        prompt = self.prompts[key]
        over = max(0, len(prompt.table) // ROW.itemsize + rows.size - self.capacity)
        gone = np.frombuffer(prompt.table[: over * ROW.itemsize], dtype=ROW)
        prompt.table = prompt.table[over * ROW.itemsize :] + rows.tobytes()
        prompt.first += over
        return gone

    def visit(self, keys: Iterable[str]) -> None:
        """Make these prompts, in this order, the ones visited last."""
        for key in keys:
            self.prompts[key] = self.prompts.pop(key)

    def evict(self, most_tokens: int | None) -> tuple[int, int, list[int]]:
        """Remove the prompts visited longest ago until at most so many response tokens are held; None for no limit.

        Returns prompts and rows removed, and the handles of their bytes.
        """
        keys, tokens = [], self.tokens
        for key, prompt in self.prompts.items():
            if most_tokens is None or tokens <= most_tokens:
                break
            keys.append(key)
            tokens -= int(prompt.rows["length"].sum())
        gone = [self.prompts.pop(key) for key in keys]
        self.prompt_tokens -= sum(prompt.length for prompt in gone)
        rows = table(*(prompt.rows for prompt in gone))
        self.count(rows, -1)
        self._first_serial = max([self._first_serial, *(prompt.next for prompt in gone)])  # no serial twice for a key
        return len(gone), rows.size, handles_of(gone)

    def first_unused_serial(self) -> int:
        """Above every serial given out."""
        return max([self._first_serial, *(prompt.next for prompt in self.prompts.values())])

    def order_by_newest_row(self) -> None:
        """Take the step of each prompt's newest row for its last visit, where no order of visits was saved."""
        newest = {key: int(prompt.rows["step"][-1]) if prompt.rows.size else -1 for key, prompt in self.prompts.items()}
        self.visit(sorted(newest, key=lambda key: (newest[key], key)))

    def count(self, rows: np.ndarray, sign: int) -> None:
        """Add rows to the totals, or with ``sign=-1`` take them off."""
        self.rows += sign * rows.size
        self.tokens += sign * int(rows["length"].sum())
        self.mask_bytes += sign * int(mask_sizes(rows).sum())


def choose(
    key: str,
    rows: np.ndarray,
    config: RepoConfig,
    pick: Picker,
    step: int,
    rng: np.random.Generator,
    fresh_scores: np.ndarray | None,
) -> np.ndarray:
    """Which of all rows of a prompt are replayed (``select_batch``): (k,) int64 places, sorted, 0 = oldest."""
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
    """The rows of a selection, (k,) :data:`ROW`; ValueError if one was evicted since it was selected."""
    if not len(selection):
        return NO_ROWS
    prompt = prompts.get(selection.key)
    if prompt is None or selection.serials[0] < prompt.first:  # the oldest row goes first
        raise ValueError(
            f"row {selection.serials[0]} of prompt {selection.key!r} was evicted after it was selected: fetch before "
            f"adding rows."
        )
    return prompt.rows.take(selection.serials - prompt.first)


def handles_of(prompts: Iterable[Prompt]) -> list[int]:
    """Handles of everything that prompts have in the store."""
    return [handle for prompt in prompts for handle in (prompt.handle, *prompt.rows["handle"].tolist())]


def table(*pieces: np.ndarray) -> np.ndarray:
    """A table of its own, (n,) :data:`ROW`, of pieces of tables one after the other."""
    return np.frombuffer(bytearray(b"".join(pieces)), dtype=ROW)  # type: ignore[arg-type]  # arrays have buffers


def mask_sizes(rows: np.ndarray) -> np.ndarray:
    """(n,) bytes of each row's mask bits; 0 where the mask is all ones."""
    return (rows["length"] + 7) // 8 * (rows["masked_out"] > 0)
