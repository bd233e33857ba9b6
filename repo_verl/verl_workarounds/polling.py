"""Looking at verl's rollout queue as often as the step's length asks for.

verl sleeps a fixed 2 s between looks. A look lists every key of TransferQueue, so that looking all the time is no
answer: the time between looks grows with the time already waited and with what a look costs.
"""

from __future__ import annotations

import time
from typing import Any

SHORTEST = 0.05
"""Seconds between looks at the start of a wait."""

SHARE = 0.02
"""Largest pause, as a share of the time waited so far: a wait gets longer by 1% on average."""

COSTS = 20.0
"""Smallest pause, in costs of a look: listing takes up 5% of the wait at most."""


def next_pause(waited: float, cost: float, longest: float) -> float:
    """Seconds until the next look.

        pause = min( longest, max( SHORTEST, SHARE * waited, COSTS * cost ) )

    Args:
        waited: seconds since the wait began.
        cost: seconds that the last look took.
        longest: verl's own interval, never exceeded.
    """
    return min(longest, max(SHORTEST, SHARE * waited, COSTS * cost))


def poll_adaptively(queue: Any) -> None:
    """Make one of verl's rollout queues choose ``poll_interval`` anew before every pause.

    Args:
        queue: a ``ReplayBuffer`` of ``verl.trainer.ppo.v1``; its own interval stays the upper bound.
    """
    longest, sample, look = queue.poll_interval, queue.sample, queue._sync_metadata_from_transfer_queue
    begun = time.perf_counter()

    def timed_sample(*args: Any, **kwargs: Any) -> Any:
        nonlocal begun
        begun = time.perf_counter()
        return sample(*args, **kwargs)

    def timed_look() -> None:
        before = time.perf_counter()
        look()
        now = time.perf_counter()
        queue.poll_interval = next_pause(now - begun, now - before, longest)

    queue.sample, queue._sync_metadata_from_transfer_queue = timed_sample, timed_look
