"""Named numpy arrays of equal length that grow together."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np

GROWTH = 1.25
LEAST = 256


class Columns:
    """Columns that grow by a quarter when they are full; memory that no row has used yet costs address space alone.

    Args:
        columns: dtype of each one-dimensional column, or (dtype, width) of a two-dimensional one.
    """

    def __init__(self, **columns: type | tuple[type, int]) -> None:
        self._room = 0
        self._arrays: dict[str, np.ndarray] = {}
        for name, kind in columns.items():
            dtype, shape = (kind[0], (0, kind[1])) if isinstance(kind, tuple) else (kind, (0,))
            self._arrays[name] = np.empty(shape, dtype=dtype)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in all columns."""
        return sum(array.itemsize * int(np.prod(array.shape[1:])) for array in self._arrays.values())

    def reserve(self, rows: int) -> None:
        """Make room for ``rows`` rows; what is beyond the rows written is undefined."""
        if rows <= self._room:
            return
        held, self._room = self._room, max(rows, int(GROWTH * self._room), LEAST)
        for name, array in self._arrays.items():
            larger = _mapped((self._room, *array.shape[1:]), array.dtype)
            larger[:held] = array
            self._arrays[name] = larger

    def add(self, name: str, dtype: type, fill: float) -> None:
        """A further column, ``fill`` in every row so far; nothing if it is there."""
        if name not in self._arrays:
            self._arrays[name] = _mapped((self._room,), np.dtype(dtype))
            self._arrays[name][:] = fill

    def widen(self, name: str, most: int) -> None:
        """Make an int32 column int64 if ``most`` needs it."""
        array = self._arrays[name]
        if most > np.iinfo(array.dtype).max:
            self._arrays[name] = _mapped(array.shape, np.dtype(np.int64))
            self._arrays[name][:] = array


def _mapped(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros in memory of their own, which goes back to the system whole: malloc would leave holes between blobs."""
    size = int(np.prod(shape))
    memory = mmap.mmap(-1, max(1, size * dtype.itemsize), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype=dtype, count=size).reshape(shape)
