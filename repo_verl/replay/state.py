"""The buffer's state as columns: numpy arrays and JSON-ready values, no pickle.

Columns (N rows of P prompts, T response tokens, L prompt tokens in all, K names of parts):

    prompt_key (P, 16) uint8 · prompt_offsets (P + 1,) int64 · prompt_ids (L,) int32 · prompt_rows (P,) int64
    row_offsets (N + 1,) int64 · response_ids (T,) int32
    log_probs (T,) float32, or bfloat16 as uint16: meta["log_prob_dtype"] says which
    score (N,) float64 · step (N,) int32 · uses (N,) int32
    masked (N,) bool · mask_bits (M,) uint8, the packed masks of masked rows, one after the other
    parts (N, K) float32, NaN where a row lacks the part named in meta["part_names"]

Rows lie prompt by prompt, the oldest first; prompts as they were visited, the one visited longest ago first. Version 1
had ``step`` and ``uses`` in int64, ``parts`` in float64 and float32 log-probs only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from repo_verl.replay.contents import Contents, Prompt, mask_sizes, table
from repo_verl.replay.record import ROW, BlobStore, from_bfloat16, split_row, to_bfloat16

VERSION = 2
ROW_BYTES, PROMPT_BYTES = 25, 32
"""Bytes of a row and of a prompt in the columns, beside tokens, masks and parts."""

HEX = frozenset("0123456789abcdef")
Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RowLimits:
    """The most tokens that a run takes of a prompt, of a response, and of both together; None for no limit."""

    prompt: int | None = None
    response: int | None = None
    row: int | None = None


NO_LIMITS = RowLimits()


def _prompt_bytes(contents: Contents, prompt: Prompt, narrow: bool) -> int:
    """Bytes that a prompt and its rows take in the columns."""
    a_row = ROW_BYTES + 4 * len(contents.part_names)
    tokens, masks = int(prompt.rows["length"].sum()), int(mask_sizes(prompt.rows).sum())
    return PROMPT_BYTES + 4 * prompt.length + a_row * prompt.rows.size + (6 if narrow else 8) * tokens + masks


def shards(
    contents: Contents, store: BlobStore, narrow: bool, most_bytes: int
) -> tuple[int, Iterator[dict[str, np.ndarray]]]:
    """All bytes, and columns of ranges of prompts that take at most ``most_bytes``, or of one that takes more."""
    sizes = {key: _prompt_bytes(contents, prompt, narrow) for key, prompt in contents.prompts.items()}
    groups: list[list[str]] = []
    room = 0
    for key, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = most_bytes
        groups[-1].append(key)
        room -= size
    return sum(sizes.values()), (columns(contents, store, narrow, keys) for keys in groups)


def columns(contents: Contents, store: BlobStore, narrow: bool, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of these prompts, copied; ValueError for a prompt key that is not 32 hexadecimal digits."""
    for key in keys:
        if len(key) != 32 or not HEX.issuperset(key):
            raise ValueError(f"prompt key {key!r} is not 32 hexadecimal digits: keys come from prompt_key(prompt_ids).")
    prompts = [contents.prompts[key] for key in keys]
    rows = table(*(prompt.rows for prompt in prompts))
    prompt_ids = b"".join(map(bytes, store.get([prompt.handle for prompt in prompts])))
    blobs = [bytes(blob) for blob in store.get(rows["handle"].tolist())]
    stop = np.fromiter(map(len, blobs), dtype=np.int64, count=rows.size)
    ids, log_probs, bits = split_row(stop, rows["length"], rows["masked_out"] > 0, narrow)
    return {
        "prompt_key": np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8).reshape(-1, 16),
        "prompt_offsets": offsets_of([prompt.length for prompt in prompts]),
        "prompt_ids": np.frombuffer(prompt_ids, dtype=np.int32),
        "prompt_rows": np.array([prompt.rows.size for prompt in prompts], dtype=np.int64),
        "row_offsets": offsets_of(rows["length"]),
        "response_ids": np.frombuffer(b"".join(_slices(blobs, ids, log_probs)), dtype=np.int32),
        "log_probs": np.frombuffer(
            b"".join(_slices(blobs, log_probs, bits)), dtype=np.uint16 if narrow else np.float32
        ),
        "score": rows["score"].copy(),
        **{name: rows[name].astype(np.int32) for name in ("step", "uses")},
        "masked": rows["masked_out"] > 0,
        "mask_bits": np.frombuffer(b"".join(_slices(blobs, bits, stop)), dtype=np.uint8),
        "parts": _parts(_slices(blobs, np.zeros_like(ids), ids), contents.part_names),
    }


def _slices(blobs: Sequence[bytes], starts: np.ndarray, stops: np.ndarray) -> list[bytes]:
    return [blob[start:stop] for blob, start, stop in zip(blobs, starts.tolist(), stops.tolist(), strict=True)]


def _parts(found: Sequence[bytes], names: Sequence[str]) -> np.ndarray:
    """(N, K) float32, by sorted name; rows from before a name was known have fewer parts."""
    absent = np.full(len(names), np.nan, dtype=np.float32).tobytes()
    parts = np.frombuffer(b"".join([piece + absent[len(piece) :] for piece in found]), dtype=np.float32)
    order = sorted(range(len(names)), key=names.__getitem__)
    return np.ascontiguousarray(parts.reshape(len(found), len(names))[:, order])


def unpack(
    arrays: Arrays,
    contents: Contents,
    put: Callable[[Sequence[bytes]], list[int]],
    narrow: bool,
    limits: RowLimits = NO_LIMITS,
) -> np.ndarray:
    """The inverse of :func:`columns`, after its check: add new prompts to contents and put their tokens into a store.

    Rows over the limits are left out, then the oldest beyond the capacity. ``contents.part_names`` are those of the
    state. Returns how many rows are too long, (3,) int64: for their prompt, their response, and both together.
    """
    too_long = _too_long(arrays, limits)
    of = np.repeat(np.arange(arrays["prompt_rows"].size), arrays["prompt_rows"])
    fitting = (too_long == 3).nonzero()[0]
    fits = np.bincount(of[fitting], minlength=arrays["prompt_rows"].size)
    counts = np.minimum(fits, contents.capacity)
    kept = fitting[spans(np.cumsum(fits) - counts, counts)]
    offsets = arrays["prompt_offsets"].tolist()
    prompts = (np.diff(arrays["prompt_offsets"]) <= _most(limits.prompt)).nonzero()[0].tolist()
    prompt_ids = [arrays["prompt_ids"][offsets[prompt] : offsets[prompt + 1]] for prompt in prompts]
    handles = put([*(ids.tobytes() for ids in prompt_ids), *_row_blobs(arrays, kept.tolist(), narrow)])
    rows = np.empty(kept.size, dtype=ROW)
    rows["handle"] = handles[len(prompt_ids) :]
    for name in ("score", "step", "uses"):
        rows[name] = arrays[name][kept]
    rows["length"] = np.diff(arrays["row_offsets"])[kept]
    rows["masked_out"] = masked_out(arrays)[kept]
    contents.count(rows, 1)
    stop = 0
    for prompt, ids, handle in zip(prompts, prompt_ids, handles, strict=False):
        start, stop = stop, stop + int(counts[prompt])
        key = arrays["prompt_key"][prompt].tobytes().hex()
        contents.add_prompt(key, ids, handle)
        contents.append(key, rows[start:stop])
    return np.bincount(too_long, minlength=4)[:3]


def _too_long(arrays: Arrays, limits: RowLimits) -> np.ndarray:
    """(N,) the first limit that each row is over: 0 the prompt's, 1 the response's, 2 the row's, 3 none."""
    prompt = np.repeat(np.diff(arrays["prompt_offsets"]), arrays["prompt_rows"])
    response = np.diff(arrays["row_offsets"])
    limited = ((prompt, limits.prompt), (response, limits.response), (prompt + response, limits.row))
    over = [lengths > _most(limit) for lengths, limit in limited]
    return np.argmax([*over, np.ones(response.size, dtype=bool)], axis=0)


def _most(limit: int | None) -> float:
    return math.inf if limit is None else limit


def _row_blobs(arrays: Arrays, kept: Sequence[int], narrow: bool) -> Iterator[bytes]:
    """The bytes of these rows of a state in a store."""
    log_probs = arrays["log_probs"]
    if (log_probs.dtype == np.uint16) != narrow:
        log_probs = to_bfloat16(log_probs) if narrow else from_bfloat16(log_probs)
    tokens, masks = arrays["row_offsets"], mask_offsets(arrays)
    pieces = [  # bytes, and where those of each row begin
        (_bytes_of(arrays["parts"]), (4 * arrays["parts"].shape[1] * np.arange(tokens.size)).tolist()),
        (_bytes_of(arrays["response_ids"]), (4 * tokens).tolist()),
        (_bytes_of(log_probs), (log_probs.itemsize * tokens).tolist()),
        (_bytes_of(arrays["mask_bits"]), masks.tolist()),
    ]
    for row in kept:
        yield b"".join([content[starts[row] : starts[row + 1]] for content, starts in pieces])


def _bytes_of(array: np.ndarray) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def spans(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``starts[i] .. starts[i] + counts[i]`` for every i, one after the other: (sum of counts,) int64."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(counts) else 0
    return np.repeat(starts - ends + counts, counts) + np.arange(total)


def offsets_of(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where pieces of these sizes, (n,), start when they lie one after the other, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def mask_offsets(arrays: Arrays) -> np.ndarray:
    """Where the mask of each row is in ``mask_bits``, and where the last one ends: (N + 1,)."""
    return offsets_of((np.diff(arrays["row_offsets"]) + 7) // 8 * arrays["masked"])


def masked_out(arrays: Arrays) -> np.ndarray:
    """(N,) masked-out tokens of every row."""
    ones = offsets_of(np.bitwise_count(arrays["mask_bits"]))[mask_offsets(arrays)]
    return np.where(arrays["masked"], np.diff(arrays["row_offsets"]) - np.diff(ones), 0)
