"""Two small fixes in the driver's process: its log lines, and the pause between looks at the rollout queue.

:func:`log_as_verl` works around ``verl/utils/logging_utils.py:22``: verl's command configures only the logger "verl",
in the trainer's process; the root logger there drops what other packages log at the level INFO. Delete it once verl
configures the root logger, or the loggers of its plugins.

:func:`poll_adaptively` works around ``verl/trainer/ppo/v1/replay_buffer.py:409``: verl sleeps a fixed 2 s between looks
at its queue. A look lists every key of TransferQueue, so the pause grows with the time already waited and with what a
look costs. Delete it once verl waits for a notification, or chooses its pauses itself.
"""

from __future__ import annotations

import logging
import time
from typing import Any

SHORTEST = 0.05  # seconds between looks at the start of a wait
SHARE = 0.02  # pause as a share of the time waited so far: a wait gets longer by 1% on average
COSTS = 20.0  # pause in costs of a look: listing takes at most 5% of the wait


def log_as_verl() -> None:
    """Give this package's loggers verl's level and handlers, where verl has its own. A second call changes nothing."""
    verl, ours = logging.getLogger("verl"), logging.getLogger("repo_verl")
    if verl.handlers:
        ours.handlers, ours.propagate = list(verl.handlers), verl.propagate
        ours.setLevel(verl.level)


def next_pause(waited: float, cost: float, longest: float) -> float:
    """Seconds until the next look, from the seconds waited so far, those of the last look, and verl's own pause."""
    return min(longest, max(SHORTEST, SHARE * waited, COSTS * cost))


def poll_adaptively(queue: Any) -> None:
    """Make a ``ReplayBuffer`` of ``verl.trainer.ppo.v1`` choose ``poll_interval`` again before every pause."""
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
