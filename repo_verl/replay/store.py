"""Where the token payloads of the buffer live: the interface, and the store in this process.

A blob is a run of bytes that the buffer writes once: the prompt ids of a prompt, or the rows of one visit
(:mod:`repo_verl.replay.blob`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class BlobStore(Protocol):
    """Holds blobs under integer handles that it gives out; a handle may be given out again once it is dropped."""

    def put(self, blobs: Sequence[np.ndarray]) -> list[int]:
        """Keep copies of blobs, each (n,) uint8; returns a handle for each, in order."""

    def get(self, handles: Sequence[int]) -> list[np.ndarray]:
        """The bytes of each handle, (n,) uint8, in order; they stay valid when the handle is dropped.

        Arrays may share a buffer and begin anywhere in it.
        """

    def drop(self, handles: Sequence[int]) -> None:
        """Forget blobs; their handles are not used again by the caller."""

    def close(self) -> None:
        """Let go of everything."""


class HostStore:
    """Blobs as ``bytes`` objects in this process: 33 bytes each beside the payload and what malloc adds.

    ``get`` gives read-only views, which keep a blob alive after it is dropped.
    """

    def __init__(self) -> None:
        self._blobs: list[bytes | None] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._blobs) - len(self._free)

    def put(self, blobs: Sequence[np.ndarray]) -> list[int]:
        """Keep copies of blobs; see :class:`BlobStore`."""
        handles = []
        for blob in blobs:
            if self._free:
                handles.append(self._free.pop())
                self._blobs[handles[-1]] = blob.tobytes()
            else:
                handles.append(len(self._blobs))
                self._blobs.append(blob.tobytes())
        return handles

    def get(self, handles: Sequence[int]) -> list[np.ndarray]:
        """Read-only views of blobs.

        Raises:
            ValueError: for a handle that is not held.
        """
        return [np.frombuffer(self._held(handle), dtype=np.uint8) for handle in handles]

    def drop(self, handles: Sequence[int]) -> None:
        """Forget blobs.

        Raises:
            ValueError: for a handle that is not held.
        """
        for handle in handles:
            self._held(handle)
            self._blobs[handle] = None
            self._free.append(handle)

    def rewrite(self, handle: int, blob: np.ndarray) -> None:
        """Put other bytes under a handle."""
        self._held(handle)
        self._blobs[handle] = blob.tobytes()

    def close(self) -> None:
        """Let go of everything."""
        self._blobs, self._free = [], []

    def _held(self, handle: int) -> bytes:
        blob = self._blobs[handle] if 0 <= handle < len(self._blobs) else None
        if blob is None:
            raise ValueError(f"blob {handle} is not held: it was dropped, or comes from another store.")
        return blob
