"""What the buffer keeps of a response, its bytes and the stores that hold them, and the stable id of a prompt."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

Ints = TypeVar("Ints", int, np.ndarray)

ROW = np.dtype(
    [
        ("score", np.float64),
        ("handle", np.int64),  # of its bytes in the store
        ("step", np.int64),
        ("uses", np.int64),
        ("length", np.int64),  # response tokens
        ("masked_out", np.int64),  # tokens whose mask is 0
    ]
)
"""What is known of a row without its tokens."""


def prompt_key(prompt_ids: Sequence[int] | np.ndarray) -> str:
    """A stable 128-bit id of a prompt: BLAKE2b of its token ids, (L,) without padding, as little-endian int32, in hex.

    verl's ``uid`` is new in every step and can't serve.
    """
    return hashlib.blake2b(np.asarray(prompt_ids, dtype="<i4").tobytes(), digest_size=16).hexdigest()


@dataclasses.dataclass(slots=True)
class Record:
    """One response in the buffer: 8 bytes per token and a small constant.

    Attributes:
        response_ids: (T,) int32.
        log_probs: (T,) float32, log π_b of the behavior policy (verl's ``old_log_probs``; docs/async.md).
        score: the summed reward.
        step: the training step in which it was fresh; with asynchronous trainers the first step in which it could have
            been: that of the oldest model version that sampled it.
        parts: named parts of the score.
        mask_bits: the response mask packed eight tokens per byte; None where it is all ones.
        uses: times it was replayed.
    """

    response_ids: np.ndarray
    log_probs: np.ndarray
    score: float
    step: int
    parts: Mapping[str, float]
    mask_bits: np.ndarray | None = None
    uses: int = 0

    @classmethod
    def create(
        cls, response_ids: Any, log_probs: Any, score: float, step: int, mask: Any = None, parts: Any = None
    ) -> Record:
        """Check and copy the parts of a response; ``mask`` is (T,), 1 for tokens that the model sampled, or None.

        Raises:
            ValueError: if shapes differ, a step or a token id is negative, or a score or the log-prob of an unmasked
                token is not finite.
        """
        ids = np.array(response_ids, dtype=np.int32)
        values = np.array(log_probs, dtype=np.float32)
        bits = np.ones(ids.shape, dtype=bool) if mask is None else np.asarray(mask).astype(bool)
        if ids.ndim != 1 or not ids.shape == values.shape == bits.shape:
            raise ValueError(
                f"response_ids {ids.shape}, log_probs {values.shape} and mask {bits.shape} must all be (T,)."
            )
        if step < 0 or (ids.size and ids.min() < 0):
            raise ValueError(f"step={step} and response_ids must not be negative: pass the row without its padding.")
        if not np.isfinite(score):
            raise ValueError(f"score={score} is not finite: fix the reward function that returned it.")
        if not np.isfinite(values[bits]).all():
            raise ValueError("log_probs holds a value that is not finite: the behavior policy has diverged.")
        packed = None if bits.all() else np.packbits(bits)
        return cls(ids, values, float(score), int(step), dict(parts or {}), packed)

    @property
    def mask(self) -> np.ndarray:
        """(T,) bool, the response mask."""
        if self.mask_bits is None:
            return np.ones(self.response_ids.shape, dtype=bool)
        return np.unpackbits(self.mask_bits, count=self.response_ids.size).astype(bool)


class BlobStore(Protocol):
    """Holds blobs under integer handles that it gives out; a handle may be given out again once it is dropped.

    A blob is a run of bytes that the buffer writes once: the ids of a prompt, or a row (:func:`split_row`). ``get`` and
    ``drop`` raise ValueError for a handle that is not held.
    """

    def put(self, blobs: Sequence[bytes]) -> list[int]:
        """Keep blobs; returns a handle for each, in order."""

    def get(self, handles: Sequence[int]) -> Sequence[bytes | np.ndarray]:
        """The bytes of each handle, ``bytes`` or (n,) uint8, in order; they stay valid when the handle is dropped.

        Arrays may share a buffer and begin anywhere in it.
        """

    def drop(self, handles: Sequence[int]) -> None:
        """Forget blobs; their handles are not used again by the caller."""


class HostStore:
    """Blobs in this process: 33 bytes each beside the payload and what malloc adds."""

    def __init__(self) -> None:
        self._blobs: list[bytes | None] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._blobs) - len(self._free)

    def put(self, blobs: Sequence[bytes]) -> list[int]:
        again = [self._free.pop() for _ in range(min(len(blobs), len(self._free)))]
        for handle, blob in zip(again, blobs, strict=False):
            self._blobs[handle] = blob
        new = range(len(self._blobs), len(self._blobs) + len(blobs) - len(again))
        self._blobs += blobs[len(again) :]
        return [*again, *new]

    def get(self, handles: Sequence[int]) -> list[bytes]:
        return [self._held(handle) for handle in handles]

    def drop(self, handles: Sequence[int]) -> None:
        for handle in handles:
            self._held(handle)
            self._blobs[handle] = None
            self._free.append(handle)

    def _held(self, handle: int) -> bytes:
        blob = self._blobs[handle] if 0 <= handle < len(self._blobs) else None
        if blob is None:
            raise ValueError(f"blob {handle} is not held: it was dropped, or comes from another store.")
        return blob


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 rounded to bfloat16 as uint16, to nearest with ties to even; infinities and NaN stay what they are."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    upper = bits >> 16
    rounded = (bits + np.uint32(0x7FFF) + (upper & 1)) >> 16
    return np.where(np.isnan(values), upper | 0x40, rounded).astype(np.uint16)


def from_bfloat16(halves: np.ndarray) -> np.ndarray:
    """float32 values of bfloat16 given as uint16; exact."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def split_row(size: Ints, length: Ints, masked: Ints, narrow: bool) -> tuple[Ints, Ints, Ints]:
    """Where token ids, log-probs and mask bits begin in the bytes of a row, or of each of (N,) rows.

    The bytes of a row in a store are, one after the other: parts (K,) float32, NaN for absent · token ids (T,) int32 ·
    log-probs (T,) float32, or bfloat16 as uint16 where ``narrow`` · mask bits, unless the mask is all ones.
    """
    bits = size - (length + 7) // 8 * masked
    log_probs = bits - (2 if narrow else 4) * length
    return log_probs - 4 * length, log_probs, bits


def encode_records(rows: Sequence[Record], names: Sequence[str], narrow: bool) -> list[bytes]:
    """The bytes of rows in a store, with these parts of scores; those beyond float32 become infinities."""
    if not rows:
        return []
    log_probs = [row.log_probs for row in rows]
    if narrow:
        ends = np.cumsum([values.size for values in log_probs])
        log_probs = np.split(to_bfloat16(np.concatenate(log_probs)), ends[:-1])
    with np.errstate(over="ignore"):
        parts = np.array([[row.parts.get(name, np.nan) for name in names] for row in rows]).astype(np.float32)
    pieces = [
        (values, row.response_ids, logs, b"" if row.mask_bits is None else row.mask_bits)
        for values, row, logs in zip(parts, rows, log_probs, strict=True)
    ]
    return list(map(b"".join, pieces))  # type: ignore[arg-type]  # arrays are buffers


def table_of(rows: Sequence[Record], handles: Sequence[int]) -> np.ndarray:
    """(n,) :data:`ROW` of rows whose bytes have these handles in the store."""
    table = np.empty(len(rows), dtype=ROW)
    table["handle"] = handles
    for name in ("score", "step", "uses"):
        table[name] = [getattr(row, name) for row in rows]
    table["length"] = [row.response_ids.size for row in rows]
    table["masked_out"] = [0 if row.mask_bits is None else row.response_ids.size - row.mask.sum() for row in rows]
    return table


def read_records(rows: np.ndarray, store: BlobStore, names: Sequence[str], narrow: bool) -> list[Record]:
    """Rows, (n,) :data:`ROW`, with their tokens, in order; the store is asked once."""
    if not rows.size:
        return []
    handles = list(dict.fromkeys(rows["handle"].tolist()))
    blobs = dict(zip(handles, map(bytes, store.get(handles)), strict=True))  # read-only and aligned
    log_prob_type = np.uint16 if narrow else np.float32
    records = []
    for score, handle, step, uses, length, masked_out in rows.tolist():
        blob = blobs[handle]
        at_ids, at_log_probs, at_bits = split_row(len(blob), length, masked_out > 0, narrow)
        ids = np.frombuffer(blob, np.int32, length, at_ids)
        log_probs = np.frombuffer(blob, log_prob_type, length, at_log_probs)
        if narrow:
            log_probs = from_bfloat16(log_probs)
        bits = np.frombuffer(blob, np.uint8, offset=at_bits) if masked_out else None
        values = struct.unpack_from(f"<{at_ids // 4}f", blob)
        parts = dict(zip(names, values, strict=False))
        if math.isnan(sum(values)):  # a part that the row lacks
            parts = {name: value for name, value in parts.items() if not math.isnan(value)}
        records.append(Record(ids, log_probs, score, step, parts, bits, uses))
    return records
