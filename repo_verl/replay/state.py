"""The buffer's state as columns: numpy arrays and JSON-ready values, no pickle.

Columns (N rows of P prompts, T response tokens, L prompt tokens in all, K names of parts):

    prompt_key (P, 16) uint8 · prompt_offsets (P + 1,) int64 · prompt_ids (L,) int32 · prompt_rows (P,) int64
    row_offsets (N + 1,) int64 · response_ids (T,) int32
    log_probs (T,) float32, or bfloat16 as uint16: meta["log_prob_dtype"] says which
    score (N,) float64 · step (N,) int32 · uses (N,) int32
    masked (N,) bool · mask_bits (M,) uint8, the packed masks of masked rows, one after the other
    parts (N, K) float32, NaN where a row lacks the part named in meta["part_names"]

Rows lie prompt by prompt, the oldest first; prompts as they were visited, the one visited longest ago first. Version 1
had ``step`` and ``uses`` in int64, ``parts`` in float64 and float32 log-probs alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repo_verl.replay.blob import Visit
from repo_verl.replay.index import PART, UNMASKED, Index, spans
from repo_verl.replay.store import BlobStore

VERSION = 2
BATCH_TOKENS = 1 << 22
"""Tokens that one call of the store moves while a state is saved or loaded: 32 MiB."""
BATCH_PIECES = BATCH_TOKENS // 64
ROW_BYTES, PROMPT_BYTES = 25, 32
"""Bytes of a row and of a prompt in the columns, beside tokens, masks and parts."""

HEX = frozenset("0123456789abcdef")


def meta_of(index: Index, narrow: bool, rng_state: Mapping[str, Any]) -> dict[str, Any]:
    """What a state has beside its columns; ``rng_state`` is ``bit_generator.state`` of the buffer's generator."""
    dtype = "bfloat16" if narrow else "float32"
    return {"version": VERSION, "part_names": index.part_names, "log_prob_dtype": dtype, "rng": dict(rng_state)}


def shards(
    index: Index, store: BlobStore, narrow: bool, most_bytes: int
) -> tuple[int, Iterator[dict[str, np.ndarray]]]:
    """All bytes, and columns of ranges of prompts that take at most ``most_bytes``, or of one that takes more."""
    keys, offsets = list(index.slots), offsets_of(prompt_bytes(index, narrow))
    ranges = batches(offsets, most_bytes)
    return int(offsets[-1]), (columns(index, store, narrow, keys[start:stop]) for start, stop in ranges)


def columns(index: Index, store: BlobStore, narrow: bool, keys: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Columns, copied.

    Args:
        index: prompts and rows.
        store: their tokens.
        narrow: whether log-probs are bfloat16.
        keys: prompts; None for all.

    Raises:
        ValueError: for a prompt key that is not 32 hexadecimal digits.
    """
    keys = list(index.slots) if keys is None else keys
    prompts, rows, names = index.slots_of(keys), index.rows, index.part_names
    places, counts = index.all_of(prompts)
    hidden = rows["hidden"][places] if "hidden" in rows else np.full(places.size, UNMASKED, dtype=np.int32)
    arrays = {
        "prompt_key": _key_bytes(keys),
        "prompt_offsets": offsets_of(index.prompts["length"][prompts]),
        "prompt_rows": counts,
        "row_offsets": offsets_of(rows["length"][places]),
        **{name: rows[name][places] for name in ("score", "step", "uses")},
        "masked": hidden > 0,
        "parts": np.empty((places.size, len(names)), dtype=np.float32),
    }
    for number, name in enumerate(names):
        arrays["parts"][:, number] = rows[PART + name][places]
    arrays["prompt_ids"] = _prompt_ids(index.prompts["handle"][prompts], store, arrays["prompt_offsets"])
    arrays.update(_tokens(index, store, narrow, places, arrays["row_offsets"], arrays["masked"]))
    return arrays


def prompt_bytes(index: Index, narrow: bool) -> np.ndarray:
    """(P,) int64, the bytes that each prompt takes in the columns."""
    slots = index.slots_of(index.slots)
    rows, places = index.rows, index.all_of(slots)
    lengths = rows["length"][places[0]].astype(np.int64)
    sizes = lengths * (6 if narrow else 8) + ROW_BYTES + 4 * len(index.part_names)
    if "hidden" in rows:
        sizes += (lengths + 7) // 8 * (rows["hidden"][places[0]] > 0)
    ends = offsets_of(sizes)[offsets_of(places[1])]
    return np.diff(ends) + 4 * index.prompts["length"][slots].astype(np.int64) + PROMPT_BYTES


def _key_bytes(keys: Sequence[str]) -> np.ndarray:
    for key in keys:
        if len(key) != 32 or not HEX.issuperset(key):
            raise ValueError(f"prompt key {key!r} is not 32 hexadecimal digits: keys come from prompt_key(prompt_ids).")
    return np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8).reshape(-1, 16)


def _prompt_ids(handles: np.ndarray, store: BlobStore, offsets: np.ndarray) -> np.ndarray:
    ids = np.empty(int(offsets[-1]), dtype=np.int32)
    for start, stop in batches(offsets):
        blobs = store.get(handles[start:stop].tolist())
        for blob, first, last in zip(blobs, offsets[start:stop], offsets[start + 1 : stop + 1], strict=True):
            ids[first:last] = blob.view(np.int32)
    return ids


def _tokens(
    index: Index, store: BlobStore, narrow: bool, places: np.ndarray, offsets: np.ndarray, masked: np.ndarray
) -> dict[str, np.ndarray]:
    """``response_ids``, ``log_probs`` and ``mask_bits`` of the rows at ``places``; ``offsets`` of their tokens."""
    handle, begin = index.rows["handle"][places], index.rows["start"][places]
    firsts = run_starts(handle[1:] != handle[:-1], handle.size)
    ends = np.append(firsts[1:], handle.size)
    tokens = offsets[np.append(firsts, handle.size)]
    ids = np.empty(int(offsets[-1]), dtype=np.int32)
    log_probs = np.empty(ids.size, dtype=np.uint16 if narrow else np.float32)
    packed = [np.empty(0, dtype=np.uint8)]
    for start, stop in batches(tokens):
        span, zero = slice(start, stop), tokens[start]
        bits = np.ones(tokens[stop] - zero if masked.any() else 0, dtype=np.uint8)
        blobs = store.get(handle[firsts[span]].tolist())
        columns = (tokens[:-1][span], tokens[1:][span], begin[firsts[span]])
        for blob, low, high, at in zip(blobs, *(column.tolist() for column in columns), strict=True):
            visit = Visit.of(blob, narrow)
            here = slice(at - visit.base, at - visit.base + high - low)
            ids[low:high] = visit.ids[here]
            log_probs[low:high] = visit.log_probs[here]
            if visit.bits.size and bits.size:
                bits[low - zero : high - zero] = visit.mask(at, high - low)
        rows = np.flatnonzero(masked[firsts[start] : ends[stop - 1]]) + firsts[start]
        packed.append(pack_rows(bits, offsets[rows] - zero, offsets[rows + 1] - offsets[rows]))
    return {"response_ids": ids, "log_probs": log_probs, "mask_bits": np.concatenate(packed)}


def pack_rows(bits: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Pack the masks of rows, which lie at ``starts`` of ``bits``, one after the other, a row in whole bytes."""
    room = offsets_of((lengths + 7) // 8 * 8)
    padded = np.zeros(int(room[-1]), dtype=np.uint8)
    padded[spans(room[:-1], lengths)] = bits[spans(starts, lengths)]
    return np.packbits(padded)


def unpack_rows(packed: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The masks of rows that :func:`pack_rows` packed, one after the other: (sum of lengths,) uint8."""
    return np.unpackbits(packed)[spans(offsets_of((lengths + 7) // 8 * 8)[:-1], lengths)]


def offsets_of(sizes: np.ndarray) -> np.ndarray:
    """Where pieces of these sizes, (n,), start when they lie one after the other, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def run_starts(changes: np.ndarray, size: int) -> np.ndarray:
    """Where runs of ``size`` values start, ``changes[i]`` saying that value i + 1 differs from value i."""
    return np.flatnonzero(np.concatenate([[True], changes])) if size else np.empty(0, dtype=np.int64)


def batches(offsets: np.ndarray, most: int = BATCH_TOKENS) -> Iterator[tuple[int, int]]:
    """Ranges of pieces, each of at least one piece and, beyond it, of sizes that sum to at most ``most``."""
    start, size = 0, len(offsets) - 1
    while start < size:
        end = int(np.searchsorted(offsets, offsets[start] + most, side="right")) - 1
        stop = min(max(end, start + 1), size, start + BATCH_PIECES)
        yield start, stop
        start = stop


def mask_offsets(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Where the mask of each row is in ``mask_bits``, and where the last one ends: (N + 1,)."""
    return offsets_of((np.diff(arrays["row_offsets"]) + 7) // 8 * arrays["masked"])


def hidden_tokens(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) masked-out tokens of every row."""
    ones = offsets_of(np.bitwise_count(arrays["mask_bits"]))[mask_offsets(arrays)]
    return np.where(arrays["masked"], np.diff(arrays["row_offsets"]) - np.diff(ones), 0)
