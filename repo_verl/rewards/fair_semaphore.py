"""A semaphore that is fair: the thread that has waited longest is next."""

from __future__ import annotations

import threading
from collections import deque


class FairSemaphore:
    """A semaphore that goes to the thread that has waited longest, as ``threading.Semaphore`` does not.

    Args:
        count: how many threads may hold it at once.
    """

    def __init__(self, count: int) -> None:
        """Nobody holds it yet."""
        self._lock = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        """Wait for a turn."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def __exit__(self, *exception: object) -> None:
        """Let the next thread in."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
