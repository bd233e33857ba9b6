"""The buffer's state as columns: numpy arrays and JSON-ready values, no pickle.

Columns (N rows of P prompts, T response tokens, L prompt tokens in all, K names of parts):

    prompt_key (P, 16) uint8 · prompt_offsets (P + 1,) int64 · prompt_ids (L,) int32 · prompt_rows (P,) int64
    row_offsets (N + 1,) int64 · response_ids (T,) int32
    log_probs (T,) float32, or bfloat16 as uint16: meta["log_prob_dtype"] says which
    score (N,) float64 · step (N,) int32 · uses (N,) int32
    masked (N,) bool · mask_bits (M,) uint8, the packed masks of masked rows, one after the other
    parts (N, K) float32, NaN where a row lacks the part named in meta["part_names"]

Rows lie prompt by prompt, the oldest first. Version 1 had ``step`` and ``uses`` in int64, ``parts`` in float64 and
float32 log-probs alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from repo_verl.replay.blob import Visit
from repo_verl.replay.index import PART, UNMASKED, Index, spans
from repo_verl.replay.store import BlobStore

VERSION = 2
BATCH_TOKENS = 1 << 22
"""Tokens that one call of the store moves while a state is saved or loaded: 32 MiB."""

DTYPES = {
    "prompt_key": np.uint8, "prompt_offsets": np.int64, "prompt_ids": np.int32, "prompt_rows": np.int64,
    "row_offsets": np.int64, "response_ids": np.int32, "score": np.float64, "step": np.int32, "uses": np.int32,
    "masked": np.bool_, "mask_bits": np.uint8, "parts": np.float32,
}  # fmt: skip
HEX = frozenset("0123456789abcdef")
LOG_PROB_DTYPES = {"float32": np.float32, "bfloat16": np.uint16}


def pack(index: Index, store: BlobStore, narrow: bool, rng_state: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of all rows.

    Args:
        index: prompts and rows.
        store: their tokens.
        narrow: whether log-probs are bfloat16.
        rng_state: ``bit_generator.state`` of the buffer's generator.

    Returns:
        ``{"meta": JSON-ready dict, "arrays": {column: array}}``; the arrays are copies.

    Raises:
        ValueError: for a prompt key that is not 32 hexadecimal digits.
    """
    prompts, rows, names = np.arange(len(index.slots)), index.rows, index.part_names
    places, counts = index.all_of(prompts)
    hidden = rows["hidden"][places] if "hidden" in rows else np.full(places.size, UNMASKED, dtype=np.int32)
    arrays = {
        "prompt_key": _key_bytes(index.slots),
        "prompt_offsets": offsets_of(index.prompts["length"][prompts]),
        "prompt_rows": counts,
        "row_offsets": offsets_of(rows["length"][places]),
        **{name: rows[name][places] for name in ("score", "step", "uses")},
        "masked": hidden > 0,
        "parts": np.empty((places.size, len(names)), dtype=np.float32),
    }
    for number, name in enumerate(names):
        arrays["parts"][:, number] = rows[PART + name][places]
    arrays["prompt_ids"] = _prompt_ids(index, store, arrays["prompt_offsets"])
    arrays.update(_tokens(index, store, narrow, places, arrays["row_offsets"], arrays["masked"]))
    dtype = "bfloat16" if narrow else "float32"
    meta = {"version": VERSION, "part_names": names, "log_prob_dtype": dtype, "rng": dict(rng_state)}
    return {"meta": meta, "arrays": arrays}


def _key_bytes(keys: Mapping[str, int]) -> np.ndarray:
    for key in keys:
        if len(key) != 32 or not HEX.issuperset(key):
            raise ValueError(f"prompt key {key!r} is not 32 hexadecimal digits: keys come from prompt_key(prompt_ids).")
    return np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8).reshape(-1, 16)


def _prompt_ids(index: Index, store: BlobStore, offsets: np.ndarray) -> np.ndarray:
    ids = np.empty(int(offsets[-1]), dtype=np.int32)
    handles = index.prompts["handle"][: len(index.slots)].tolist()
    for start, stop in batches(offsets):
        blobs = store.get(handles[start:stop])
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


def batches(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of pieces of at least one piece and, beyond it, at most BATCH_TOKENS tokens."""
    start, size = 0, len(offsets) - 1
    while start < size:
        most = int(np.searchsorted(offsets, offsets[start] + BATCH_TOKENS, side="right")) - 1
        stop = min(max(most, start + 1), size, start + BATCH_TOKENS // 64)
        yield start, stop
        start = stop


def mask_offsets(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Where the mask of each row is in ``mask_bits``, and where the last one ends: (N + 1,)."""
    return offsets_of((np.diff(arrays["row_offsets"]) + 7) // 8 * arrays["masked"])


def hidden_tokens(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) masked-out tokens of every row."""
    ones = offsets_of(np.bitwise_count(arrays["mask_bits"]))[mask_offsets(arrays)]
    return np.where(arrays["masked"], np.diff(arrays["row_offsets"]) - np.diff(ones), 0)


def check(saved: Mapping[str, Any]) -> None:
    """Check a state before anything is taken from it.

    Raises:
        ValueError: if the version is another one or columns are missing or don't fit together.
    """
    meta, arrays = saved["meta"], saved["arrays"]
    if meta.get("version") != VERSION:
        raise ValueError(
            f"buffer state has version {meta.get('version')!r}, this package reads version {VERSION}: resume with the "
            f"package that wrote it, or without the saved buffer."
        )
    dtype = meta.get("log_prob_dtype")
    if dtype not in LOG_PROB_DTYPES:
        raise ValueError(f"buffer state is damaged: log_prob_dtype={dtype!r} is none of {', '.join(LOG_PROB_DTYPES)}.")
    for name, kind in {**DTYPES, "log_probs": LOG_PROB_DTYPES[dtype]}.items():
        if name not in arrays:
            raise ValueError(f"buffer state is damaged: column {name} is missing.")
        if arrays[name].dtype != kind:
            raise ValueError(f"buffer state is damaged: {name} is {arrays[name].dtype}, not {np.dtype(kind)}.")
    _check_shapes(arrays, len(meta["part_names"]))
    total, rows = int(arrays["prompt_rows"].sum()), len(arrays["score"])
    if (arrays["prompt_rows"] < 0).any() or total != rows:
        raise ValueError(f"buffer state is damaged: prompt_rows sums to {total}, not {rows}.")
    for name in ("prompt_offsets", "row_offsets"):
        if arrays[name][0] != 0 or (np.diff(arrays[name]) < 0).any():
            raise ValueError(f"buffer state is damaged: {name} does not rise from 0.")
    if len(np.unique(arrays["prompt_key"], axis=0)) != len(arrays["prompt_key"]):
        raise ValueError("buffer state is damaged: prompt_key has a key twice.")
    size = int(mask_offsets(arrays)[-1])
    if arrays["mask_bits"].shape != (size,):
        raise ValueError(f"buffer state is damaged: mask_bits has {arrays['mask_bits'].size} bytes, not {size}.")
    if (hidden_tokens(arrays) < 0).any():
        raise ValueError("buffer state is damaged: mask_bits has bits beyond the tokens of a row.")


def _check_shapes(arrays: Mapping[str, np.ndarray], parts: int) -> None:
    prompts, rows = len(arrays["prompt_rows"]), len(arrays["score"])
    shapes: dict[str, tuple[int, ...]] = {
        "prompt_key": (prompts, 16),
        "prompt_offsets": (prompts + 1,),
        "prompt_rows": (prompts,),
        "row_offsets": (rows + 1,),
        **dict.fromkeys(("score", "step", "uses", "masked"), (rows,)),
        "parts": (rows, parts),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"buffer state is damaged: {name} has shape {arrays[name].shape}, not {shape}.")
    sized = {"prompt_ids": "prompt_offsets", "response_ids": "row_offsets", "log_probs": "row_offsets"}
    for name, offsets in sized.items():
        shape = (int(arrays[offsets][-1]),)
        if arrays[name].shape != shape:
            raise ValueError(f"buffer state is damaged: {name} has shape {arrays[name].shape}, not {shape}.")
