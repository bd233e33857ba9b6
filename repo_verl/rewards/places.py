"""A semaphore that is fair: who waits longest is next."""

from __future__ import annotations

import threading
from collections import deque


class Places:
    """So many places, handed from who leaves to who has waited longest, as ``threading.Semaphore`` does not.

    A thread that comes back for a place at once would else take it again, and others wait until its work is done.

    Args:
        count: places.
    """

    def __init__(self, count: int) -> None:
        """All places are free."""
        self._lock = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        """Wait for a place."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def __exit__(self, *exception: object) -> None:
        """Leave the place to the next."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
