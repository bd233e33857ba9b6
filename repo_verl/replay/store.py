"""Where the token payloads of the buffer live: the interface, and the store in this process.

A blob is a run of bytes that the buffer writes once: the prompt ids of a prompt, or the tokens of a row
(:func:`repo_verl.replay.record.split_row`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class BlobStore(Protocol):
    """Holds blobs under integer handles that it gives out; a handle may be given out again once it is dropped.

    ``get`` and ``drop`` raise ValueError for a handle that is not held.
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
