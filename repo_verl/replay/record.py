"""What the buffer keeps of a response, and the stable id of a prompt."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def prompt_key(prompt_ids: Sequence[int] | np.ndarray) -> str:
    """A stable 128-bit id of a prompt: BLAKE2b of its token ids as little-endian int32, in hexadecimal.

    verl's ``uid`` is new in every step and can't serve.

    Args:
        prompt_ids: (L,) int token ids, without padding.
    """
    return hashlib.blake2b(np.asarray(prompt_ids, dtype="<i4").tobytes(), digest_size=16).hexdigest()


@dataclasses.dataclass(slots=True)
class Record:
    """One response in the buffer: 8 bytes a token and a small constant.

    Attributes:
        response_ids: (T,) int32.
        log_probs: (T,) float32, log π_b of the policy that wrote it (verl's ``old_log_probs``; docs/async.md).
        score: the summed reward.
        step: the training step in which it was fresh; with asynchronous trainers the first step in which it could have
            been: that of the oldest model version that wrote it.
        parts: named parts of the score.
        mask_bits: the response mask packed eight tokens a byte; None where it is all ones.
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
        """Check and copy the parts of a response.

        Args:
            response_ids: (T,) int.
            log_probs: (T,) float, finite wherever the mask is set.
            score: finite.
            step: the current training step.
            mask: (T,) bool or int, 1 for tokens that the model wrote; None for all ones.
            parts: mapping of names to numbers, or None.

        Raises:
            ValueError: if shapes differ, a step or a token id is negative, or a score or a log-prob that counts is not
                finite.
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
            raise ValueError(f"score={score} is not finite: mend the reward function that returned it.")
        if not np.isfinite(values[bits]).all():
            raise ValueError("log_probs holds a value that is not finite: the policy that wrote the row has diverged.")
        packed = None if bits.all() else np.packbits(bits)
        return cls(ids, values, float(score), int(step), dict(parts or {}), packed)

    @property
    def mask(self) -> np.ndarray:
        """(T,) bool, the response mask."""
        if self.mask_bits is None:
            return np.ones(self.response_ids.shape, dtype=bool)
        return np.unpackbits(self.mask_bits, count=self.response_ids.size).astype(bool)

    @property
    def nbytes(self) -> int:
        """Bytes of the token arrays."""
        packed = 0 if self.mask_bits is None else self.mask_bits.nbytes
        return self.response_ids.nbytes + self.log_probs.nbytes + packed
