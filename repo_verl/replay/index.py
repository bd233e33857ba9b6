"""What the buffer knows of its prompts and rows without their tokens: numpy columns, and where each row's blob is.

Every prompt has a slot and a ring of row numbers. The ring grows by extents of 8, 8, 16, 32, ... rows up to the
capacity, so a prompt with few rows has few row numbers, and no row moves. The rows of a prompt have serials that count
up and are never given twice: the row with serial s is at place ``s % capacity`` of the ring.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from repo_verl.replay.columns import Columns

FIRST_EXTENT = 8
PART = "parts/"
UNMASKED = -1

ROW_COLUMNS = {
    "score": np.float64,
    "step": np.int32,
    "uses": np.int32,
    "length": np.int32,  # response tokens
    "start": np.int32,  # number of its first token in its visit's blob
    "handle": np.int32,  # of that blob; int64 once a store gives out larger ones
}


@dataclasses.dataclass(frozen=True)
class Evicted:
    """What an insertion pushed out.

    Attributes:
        handles: blobs without a row that is held.
        cut: handle and first token in use of every blob that has lost its oldest rows.
    """

    handles: list[int]
    cut: list[tuple[int, int]]


def spans(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``starts[i] .. starts[i] + counts[i]`` for every i, one after the other: (sum of counts,) int64."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(counts) else 0
    return np.repeat(starts - ends + counts, counts) + np.arange(total)


def checksum(ids: np.ndarray) -> int:
    """64 bits of BLAKE2b of (L,) int32 token ids."""
    return int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=8).digest(), "little")


class Index:
    """Columns of prompts and rows.

    Row columns: :data:`ROW_COLUMNS`; ``hidden`` (int32, masked-out tokens, -1 in a visit without masks) once there is a
    mask; and ``parts/NAME`` (float32, NaN where absent) for each name seen.

    Args:
        capacity: rows kept a prompt.
        first_serial: serial of the first row of every prompt, rounded up to a multiple of ``capacity``.

    Attributes:
        slots: slot of every prompt key, the prompt that was visited longest ago first.
        tokens, mask_tokens, prompt_tokens: response tokens of rows held, those in visits with masks, prompt tokens.
        inserted: above every serial given out.
    """

    def __init__(self, capacity: int, first_serial: int = 0) -> None:
        self.capacity = capacity
        self.slots: dict[str, int] = {}
        self.rows = Columns(**ROW_COLUMNS)
        self._starts = _extent_starts(capacity)
        self.prompts = Columns(
            first=np.int64, count=np.int32, handle=np.int32, length=np.int32, checksum=np.uint64,
            extents=(np.int64, len(self._starts)),
        )  # fmt: skip
        self._first_serial = -(-first_serial // capacity) * capacity
        self._used = 0
        self._ended = 0  # above every slot given out
        self._free: list[int] = []  # slots without a prompt, which keep their rings
        self.held = 0
        self.tokens = self.mask_tokens = self.prompt_tokens = 0
        self.inserted = self._first_serial

    @property
    def part_names(self) -> list[str]:
        """Names of the parts of scores, sorted."""
        return sorted(name.removeprefix(PART) for name in self.rows if name.startswith(PART))

    def check(self, key: str, ids: np.ndarray) -> bool:
        """Whether a prompt is held.

        Raises:
            ValueError: if it is held with other token ids (another length or checksum).
        """
        slot = self.slots.get(key)
        if slot is None:
            return False
        if self.prompts["length"][slot] != ids.size or int(self.prompts["checksum"][slot]) != checksum(ids):
            raise ValueError(f"prompt key {key!r} is held with other token ids: keys come from prompt_key(prompt_ids).")
        return True

    def register(self, keys: Sequence[str], ids: Sequence[np.ndarray], handles: Sequence[int]) -> None:
        """Give prompts that are new, with their token ids and the blobs of these, slots."""
        if not keys:
            return
        new = self._take_slots(len(keys))
        self.prompts.widen("handle", max(handles))
        self.slots.update(zip(keys, new.tolist(), strict=True))
        self.prompts["first"][new] = self._first_serial
        self.prompts["count"][new] = 0
        self.prompts["handle"][new] = handles
        self.prompts["length"][new] = [piece.size for piece in ids]
        self.prompts["checksum"][new] = np.array([checksum(piece) for piece in ids], dtype=np.uint64)
        self.prompt_tokens += sum(piece.size for piece in ids)

    def _take_slots(self, count: int) -> np.ndarray:
        again = [self._free.pop() for _ in range(min(count, len(self._free)))]
        start, self._ended = self._ended, self._ended + count - len(again)
        self.prompts.reserve(self._ended)
        self.prompts["extents"][start : self._ended] = -1
        return np.array([*again, *range(start, self._ended)], dtype=np.int64)

    def visit(self, keys: Iterable[str]) -> None:
        """Have prompts that are held be those that were visited last, in this order."""
        for key in keys:
            self.slots[key] = self.slots.pop(key)

    def remove(self, keys: Sequence[str]) -> list[int]:
        """Forget prompts with all their rows; returns the blobs that they had."""
        slots = np.array([self.slots.pop(key) for key in keys], dtype=np.int64)
        places, _ = self.all_of(slots)
        handles = [*self.prompts["handle"][slots].tolist(), *set(self.rows["handle"][places].tolist())]
        self._count(places, -1)
        self.prompt_tokens -= int(self.prompts["length"][slots].sum(dtype=np.int64))
        self.prompts["count"][slots] = 0
        self._free += slots.tolist()
        self._first_serial = -(-self.inserted // self.capacity) * self.capacity  # no serial twice for a key
        return handles

    def insert(self, slots: np.ndarray, counts: np.ndarray, values: Mapping[str, np.ndarray]) -> Evicted:
        """Append rows to prompts, the oldest beyond ``capacity`` go.

        Args:
            slots: (P,) int, none twice.
            counts: (P,) int, rows for each, at most ``capacity``.
            values: (sum of counts,) for every row column, prompt by prompt; NaN for parts that are not given,
                :data:`UNMASKED` for ``hidden``.
        """
        if not values["length"].size:
            return Evicted([], [])
        first, held = self.prompts["first"][slots], self.prompts["count"][slots].astype(np.int64)
        out = np.maximum(held + counts - self.capacity, 0)
        evicted = self._evict(slots, first, held, out)
        self._grow(slots, held + counts - out)
        self._add_columns(values)
        place = self.numbers(slots, first + held, counts)
        for name in self.rows:
            self.rows[name][place] = values.get(name, UNMASKED if name == "hidden" else np.nan)
        self.prompts["first"][slots] = first + out
        self.prompts["count"][slots] = held + counts - out
        self.inserted = max(self.inserted, int((first + held + counts).max()))
        self._count(place, 1)
        return evicted

    def _add_columns(self, values: Mapping[str, np.ndarray]) -> None:
        for name in values:
            if name == "hidden":
                self.rows.add(name, np.int32, UNMASKED)
            elif name.startswith(PART):
                self.rows.add(name, np.float32, np.nan)
        self.rows.widen("handle", int(values["handle"].max()))

    def _evict(self, slots: np.ndarray, first: np.ndarray, held: np.ndarray, out: np.ndarray) -> Evicted:
        if not out.any():
            return Evicted([], [])
        gone = self.numbers(slots, first, out)
        self._count(gone, -1)
        left = (out > 0) & (out < held)
        oldest = self.numbers(slots[left], (first + out)[left], np.ones(int(left.sum()), dtype=np.int64))
        handles = set(self.rows["handle"][gone].tolist())
        cut = zip(self.rows["handle"][oldest].tolist(), self.rows["start"][oldest].tolist(), strict=True)
        cut_off = [(handle, start) for handle, start in cut if handle in handles]
        return Evicted(sorted(handles.difference(handle for handle, _ in cut_off)), cut_off)

    def _count(self, numbers: np.ndarray, sign: int) -> None:
        lengths = self.rows["length"][numbers]
        self.held += sign * lengths.size
        self.tokens += sign * int(lengths.sum(dtype=np.int64))
        if "hidden" in self.rows:
            self.mask_tokens += sign * int(lengths[self.rows["hidden"][numbers] >= 0].sum(dtype=np.int64))

    def _grow(self, slots: np.ndarray, wanted: np.ndarray) -> None:
        """Extents for prompts that are to hold ``wanted`` rows."""
        extents, ends = self.prompts["extents"], np.append(self._starts[1:], self.capacity)
        for number, (start, end) in enumerate(zip(self._starts.tolist(), ends.tolist(), strict=True)):
            more = slots[wanted > start]
            if not more.size:
                break
            more = more[extents[more, number] < 0]
            extents[more, number] = self._used + (end - start) * np.arange(more.size)
            self._used += (end - start) * more.size
        self.rows.reserve(self._used)

    def numbers(self, slots: np.ndarray, serials: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Where the rows ``serials[i] .. serials[i] + counts[i]`` of ``slots[i]`` are in the row columns."""
        return self.places(np.repeat(slots, counts), spans(serials, counts))

    def places(self, slots: np.ndarray, serials: np.ndarray) -> np.ndarray:
        """Where the rows with these slots and serials, (N,) int each, are in the row columns: (N,) int64."""
        ring = serials % self.capacity
        extent = np.searchsorted(self._starts, ring, side="right") - 1
        return self.prompts["extents"][slots, extent] + ring - self._starts[extent]

    def all_of(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where all rows of prompts are, prompt by prompt, the oldest first; and how many each prompt has."""
        counts = self.prompts["count"][slots].astype(np.int64)
        return self.numbers(slots, self.prompts["first"][slots], counts), counts

    def handles(self) -> list[int]:
        """All blobs in use."""
        slots = self.slots_of(self.slots)
        return [*self.prompts["handle"][slots].tolist(), *set(self.rows["handle"][self.all_of(slots)[0]].tolist())]

    def slots_of(self, keys: Iterable[str]) -> np.ndarray:
        """(P,) int64, the slots of prompts that are held."""
        return np.array([self.slots[key] for key in keys], dtype=np.int64)


def _extent_starts(capacity: int) -> np.ndarray:
    starts = [0]
    while max(FIRST_EXTENT, 2 * starts[-1]) < capacity:
        starts.append(max(FIRST_EXTENT, 2 * starts[-1]))
    return np.array(starts, dtype=np.int64)
