"""Filling the buffer from a saved state (:mod:`repo_verl.replay.state`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from repo_verl.replay.blob import convert, encode
from repo_verl.replay.index import PART, UNMASKED, Index, spans
from repo_verl.replay.packing import starts_within
from repo_verl.replay.state import batches, hidden_tokens, mask_offsets, offsets_of, run_starts, unpack_rows
from repo_verl.replay.store import BlobStore


def unpack(saved: Mapping[str, Any], index: Index, store: BlobStore, narrow: bool) -> None:
    """The inverse of ``state.pack``, after ``state.check``: fill an empty index and put the tokens into the store.

    Rows of one step become one visit; rows beyond the index's capacity, the oldest, are left out.
    """
    meta, arrays = saved["meta"], saved["arrays"]
    counts = np.minimum(arrays["prompt_rows"], index.capacity)
    kept = spans(np.cumsum(arrays["prompt_rows"]) - counts, counts)
    _put_prompts(arrays, index, store)
    if not kept.size:
        return
    prompt, step = np.repeat(np.arange(counts.size), counts), arrays["step"][kept]
    firsts = run_starts((prompt[1:] != prompt[:-1]) | (step[1:] != step[:-1]), kept.size)
    sizes = np.diff(np.append(firsts, kept.size))
    lengths = np.diff(arrays["row_offsets"])[kept]
    values = {
        **{name: arrays[name][kept] for name in ("score", "step", "uses")},
        **{PART + name: arrays["parts"][kept, number] for number, name in enumerate(meta["part_names"])},
        "length": lengths,
        "start": starts_within(lengths, firsts, sizes),
    }
    masks = None
    if arrays["masked"][kept].any():
        masked_visit = np.logical_or.reduceat(arrays["masked"][kept], firsts)
        values["hidden"] = np.where(np.repeat(masked_visit, sizes), hidden_tokens(arrays)[kept], UNMASKED)
        masks = mask_offsets(arrays)
    handles = _put_visits(arrays, kept[firsts], sizes, masks, store, narrow)
    values["handle"] = np.repeat(np.array(handles, dtype=np.int64), sizes)
    index.insert(np.arange(counts.size), counts, values)


def _put_prompts(arrays: Mapping[str, np.ndarray], index: Index, store: BlobStore) -> None:
    keys = [row.tobytes().hex() for row in arrays["prompt_key"]]
    offsets = arrays["prompt_offsets"]
    for start, stop in batches(offsets):
        ids = [arrays["prompt_ids"][offsets[i] : offsets[i + 1]] for i in range(start, stop)]
        index.register(keys[start:stop], ids, store.put([piece.view(np.uint8) for piece in ids]))


def _put_visits(
    arrays: Mapping[str, np.ndarray],
    firsts: np.ndarray,
    sizes: np.ndarray,
    masks: np.ndarray | None,
    store: BlobStore,
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
        handles += store.put(blobs)
    return handles


def _visit_bits(arrays: Mapping[str, np.ndarray], masks: np.ndarray, first: int, size: int) -> np.ndarray | None:
    """(T,) uint8, the mask of a visit of ``size`` rows; None if none of them is masked."""
    rows = np.flatnonzero(arrays["masked"][first : first + size])
    if not rows.size:
        return None
    offsets = arrays["row_offsets"][first : first + size + 1] - arrays["row_offsets"][first]
    lengths = offsets[rows + 1] - offsets[rows]
    bits = np.ones(int(offsets[-1]), dtype=np.uint8)
    bits[spans(offsets[rows], lengths)] = unpack_rows(arrays["mask_bits"][masks[first] : masks[first + size]], lengths)
    return bits
