"""Filling the buffer from a saved state (:mod:`repo_verl.replay.state`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from repo_verl.replay.blob import convert, encode
from repo_verl.replay.checks import DamagedStateError
from repo_verl.replay.eviction import hold_at_most, order_by_newest_row
from repo_verl.replay.index import PART, UNMASKED, Index, spans
from repo_verl.replay.packing import starts_within
from repo_verl.replay.state import batches, hidden_tokens, mask_offsets, offsets_of, run_starts, unpack_rows
from repo_verl.replay.store import BlobStore

Put = Callable[[Sequence[np.ndarray]], list[int]]
Arrays = Mapping[str, np.ndarray]


def fill(
    shards: Iterable[Arrays],
    part_names: Sequence[str],
    index: Index,
    store: BlobStore,
    narrow: bool,
    max_tokens: int | None = None,
    in_order: bool = True,
) -> tuple[int, int]:
    """Fill an empty index with states of some prompts each; if that fails, what was put into the store is dropped.

    Args:
        shards: columns of some prompts each.
        part_names: names of the parts of scores.
        index: is filled.
        store: for their tokens.
        narrow: whether log-probs are kept in bfloat16.
        max_tokens: bound on response tokens, which holds after every shard; None for none.
        in_order: whether prompts are as they were visited; otherwise the step of their newest row decides.

    Returns:
        prompts and rows evicted for ``max_tokens``.

    Raises:
        DamagedStateError: if a prompt is in two of them.
    """
    noted = _Noted(store)
    seen: set[bytes] = set()
    prompts = rows = 0
    try:
        for arrays in shards:
            _refuse_twice(arrays["prompt_key"], seen)
            unpack(arrays, part_names, index, noted.put, narrow)
            if not in_order:
                order_by_newest_row(index)
            gone = hold_at_most(index, noted, max_tokens)
            prompts, rows = prompts + gone[0], rows + gone[1]
    except BaseException:
        if noted.given:
            store.drop(list(noted.given))
        raise
    return prompts, rows


class _Noted:
    """A store that knows which blobs it has been given and not told to drop."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self.given: dict[int, None] = {}

    def put(self, blobs: Sequence[np.ndarray]) -> list[int]:
        handles = self._store.put(blobs)
        self.given.update(dict.fromkeys(handles))
        return handles

    def drop(self, handles: Sequence[int]) -> None:
        for handle in handles:
            del self.given[handle]
        self._store.drop(handles)


def _refuse_twice(keys: np.ndarray, seen: set[bytes]) -> None:
    """Note (P, 16) uint8 prompt keys; raise where one was noted before: it may have been evicted since."""
    for key in map(bytes, keys):
        if key in seen:
            raise DamagedStateError(f"prompt key {key.hex()} is there twice.")
        seen.add(key)


def unpack(arrays: Arrays, part_names: Sequence[str], index: Index, put: Put, narrow: bool) -> None:
    """The inverse of ``state.columns``, after its check: add new prompts to an index and put their tokens into a store.

    Rows of one step become one visit; rows beyond the index's capacity, the oldest, are left out.
    """
    counts = np.minimum(arrays["prompt_rows"], index.capacity)
    kept = spans(np.cumsum(arrays["prompt_rows"]) - counts, counts)
    slots = _put_prompts(arrays, index, put)
    if not kept.size:
        return
    prompt, step = np.repeat(np.arange(counts.size), counts), arrays["step"][kept]
    firsts = run_starts((prompt[1:] != prompt[:-1]) | (step[1:] != step[:-1]), kept.size)
    sizes = np.diff(np.append(firsts, kept.size))
    lengths = np.diff(arrays["row_offsets"])[kept]
    values = {
        **{name: arrays[name][kept] for name in ("score", "step", "uses")},
        **{PART + name: arrays["parts"][kept, number] for number, name in enumerate(part_names)},
        "length": lengths,
        "start": starts_within(lengths, firsts, sizes),
    }
    masks = None
    if arrays["masked"][kept].any():
        masked_visit = np.logical_or.reduceat(arrays["masked"][kept], firsts)
        values["hidden"] = np.where(np.repeat(masked_visit, sizes), hidden_tokens(arrays)[kept], UNMASKED)
        masks = mask_offsets(arrays)
    handles = _put_visits(arrays, kept[firsts], sizes, masks, put, narrow)
    values["handle"] = np.repeat(np.array(handles, dtype=np.int64), sizes)
    index.insert(slots, counts, values)


def _put_prompts(arrays: Arrays, index: Index, put: Put) -> np.ndarray:
    """Register the prompts of a state; (P,) their slots."""
    keys = [row.tobytes().hex() for row in arrays["prompt_key"]]
    offsets = arrays["prompt_offsets"]
    for start, stop in batches(offsets):
        ids = [arrays["prompt_ids"][offsets[i] : offsets[i + 1]] for i in range(start, stop)]
        index.register(keys[start:stop], ids, put([piece.view(np.uint8) for piece in ids]))
    return index.slots_of(keys)


def _put_visits(
    arrays: Arrays,
    firsts: np.ndarray,
    sizes: np.ndarray,
    masks: np.ndarray | None,
    put: Put,
    narrow: bool,
) -> list[int]:
    """Handles of visits that begin with the rows ``firsts`` of the state and have ``sizes`` rows."""
    offsets, handles = arrays["row_offsets"], []
    room = offsets_of(offsets[firsts + sizes] - offsets[firsts])
    for start, stop in batches(room):
        blobs = []
        for first, size in zip(firsts[start:stop].tolist(), sizes[start:stop].tolist(), strict=True):
            tokens = slice(int(offsets[first]), int(offsets[first + size]))
            log_probs = convert(arrays["log_probs"][tokens], narrow)
            bits = None if masks is None else _visit_bits(arrays, masks, first, size)
            blobs.append(encode([arrays["response_ids"][tokens]], [log_probs], bits))
        handles += put(blobs)
    return handles


def _visit_bits(arrays: Arrays, masks: np.ndarray, first: int, size: int) -> np.ndarray | None:
    """(T,) uint8, the mask of a visit of ``size`` rows; None if none of them is masked."""
    rows = np.flatnonzero(arrays["masked"][first : first + size])
    if not rows.size:
        return None
    offsets = arrays["row_offsets"][first : first + size + 1] - arrays["row_offsets"][first]
    lengths = offsets[rows + 1] - offsets[rows]
    bits = np.ones(int(offsets[-1]), dtype=np.uint8)
    bits[spans(offsets[rows], lengths)] = unpack_rows(arrays["mask_bits"][masks[first] : masks[first + size]], lengths)
    return bits
