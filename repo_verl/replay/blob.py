"""The rows of one visit of a prompt as one run of bytes.

Layout of a visit with T tokens:

    T int32 · response ids (T,) int32 · log-probs (T,) float32, or bfloat16 as uint16 · mask bits

Mask bits are there only if a row of the visit is masked: one bit a token. Tokens are numbered through the visit. When
its oldest rows are cut off, the others keep their numbers: ``base`` is the number of the first token that is left, mask
bits begin with that of token ``base // 8 * 8``, and the blob begins with ~T (which is negative) and ``base``, int32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

HEADER = 4
CUT_SHARE = 8
"""Rows are cut off once they are at least 1/8 of a visit's tokens: at most 8 tokens are copied for one that goes."""


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round float32 to bfloat16, to nearest with ties to even.

    Args:
        values: float32, of any shape; infinities and NaN stay what they are.

    Returns:
        uint16 of that shape, the upper halves.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    upper = bits >> 16
    rounded = (bits + np.uint32(0x7FFF) + (upper & 1)) >> 16
    return np.where(np.isnan(values), upper | 0x40, rounded).astype(np.uint16)


def from_bfloat16(halves: np.ndarray) -> np.ndarray:
    """float32 values of bfloat16 given as uint16; exact."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def convert(log_probs: np.ndarray, narrow: bool) -> np.ndarray:
    """Log-probs of either stored type (float32, or bfloat16 as uint16) as the wanted one; ``narrow`` is bfloat16."""
    if (log_probs.dtype == np.uint16) == narrow:
        return log_probs
    return to_bfloat16(log_probs) if narrow else from_bfloat16(log_probs)


def encode(ids: Sequence[np.ndarray], log_probs: Sequence[np.ndarray], bits: np.ndarray | None) -> np.ndarray:
    """The blob of a visit.

    Args:
        ids: pieces of the visit's token ids, each (n,) int32.
        log_probs: pieces of its log-probs in stored type.
        bits: (T,) bool or 0 and 1, the response mask of all its tokens; None if no row is masked.

    Returns:
        (n,) uint8.
    """
    tokens = sum(piece.size for piece in ids)
    width = log_probs[0].itemsize
    blob = np.empty(HEADER + tokens * (4 + width) + (0 if bits is None else (tokens + 7) // 8), dtype=np.uint8)
    blob[:HEADER].view(np.int32)[0] = tokens
    middle, end = HEADER + 4 * tokens, HEADER + (4 + width) * tokens
    np.concatenate(ids, out=blob[HEADER:middle].view(np.int32))
    np.concatenate(log_probs, out=blob[middle:end].view(log_probs[0].dtype))
    if bits is not None:
        blob[end:] = np.packbits(bits)
    return blob


@dataclasses.dataclass(frozen=True, slots=True)
class Visit:
    """Read-only views into a blob, or into a copy of one that is not aligned.

    Attributes:
        base: number of the first token.
        ids: (T,) int32.
        log_probs: (T,) float32, or bfloat16 as uint16.
        bits: packed mask bits from token ``base // 8 * 8`` on; empty if no row is masked.
    """

    base: int
    ids: np.ndarray
    log_probs: np.ndarray
    bits: np.ndarray

    @classmethod
    def of(cls, blob: np.ndarray, narrow: bool) -> Visit:
        """Read a blob; ``narrow`` if its log-probs are bfloat16."""
        if not blob[:HEADER].view(np.int32).flags.aligned:
            blob = blob.copy()
        if blob.flags.writeable:
            blob = blob.view()
            blob.flags.writeable = False
        tokens, base, first = int(blob[:HEADER].view(np.int32)[0]), 0, HEADER
        if tokens < 0:
            tokens, base, first = ~tokens, int(blob[HEADER : 2 * HEADER].view(np.int32)[0]), 2 * HEADER
        middle = first + 4 * tokens
        end = middle + (2 if narrow else 4) * tokens
        log_probs = blob[middle:end].view(np.uint16 if narrow else np.float32)
        return cls(base, blob[first:middle].view(np.int32), log_probs, blob[end:])

    def mask(self, start: int, length: int) -> np.ndarray:
        """The mask of ``length`` tokens from number ``start`` on: (length,) uint8, 0 or 1."""
        first = start - self.base // 8 * 8
        near = np.unpackbits(self.bits[first // 8 : (first + length + 7) // 8])
        return near[first % 8 : first % 8 + length]

    def without(self, start: int) -> np.ndarray | None:
        """The blob without the tokens before number ``start``; None if they are too few to be worth a copy."""
        dead = start - self.base
        if dead == 0 or dead * CUT_SHARE < self.ids.size:
            return None
        header = np.array([~(self.ids.size - dead), start], dtype=np.int32)
        parts = (header, self.ids[dead:], self.log_probs[dead:], self.bits[start // 8 - self.base // 8 :])
        return np.concatenate([part.view(np.uint8) for part in parts])
