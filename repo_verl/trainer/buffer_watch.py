"""Warnings on the size of the replay buffer, each once a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from repo_verl.config import PREFIX, RepoConfig
from repo_verl.host_memory import available_memory

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

GIB = 2.0**30


class BufferWatch:
    """Warns when the buffer takes half of the driver's free memory, and when ``max_tokens`` is under an epoch.

    Free memory is measured once, at the first look, with what the buffer holds by then added. With
    ``storage=distributed`` the rows are not in the driver's memory, and nothing is measured.

    Args:
        repo: RePO's settings.
        epoch: prompts of an epoch.
        measure: bytes that are left in this machine's memory.
    """

    def __init__(self, repo: RepoConfig, epoch: int, measure: Callable[[], float] = available_memory) -> None:
        self._repo, self._epoch, self._measure = repo, epoch, measure
        self._room: float | None = None
        self._watches_memory, self._watches_evictions = repo.active and repo.storage == "host", repo.active

    def look(self, stats: Mapping[str, int], evicted: int) -> None:
        """Look at the buffer after a step.

        Args:
            stats: of the buffer.
            evicted: prompts that the step evicted for ``max_tokens``.
        """
        if self._watches_memory:
            self._look_at_memory(stats)
        if evicted and stats["prompts"] < self._epoch and self._watches_evictions:
            self._watches_evictions = False
            logger.warning(
                "RePO: %smax_tokens=%s holds %d prompts, fewer than the %d of an epoch, so that prompts are evicted "
                "before they come back and little is replayed: raise max_tokens, or lower %scapacity",
                PREFIX, self._repo.max_tokens, stats["prompts"], self._epoch, PREFIX,
            )  # fmt: skip

    def _look_at_memory(self, stats: Mapping[str, int]) -> None:
        if self._room is None:
            try:
                self._room = self._measure() + stats["bytes"]
            except (OSError, ValueError) as error:  # no /proc/meminfo, or one without MemAvailable
                self._watches_memory = False
                logger.info("RePO: free memory can't be measured, so the buffer's share is not watched: %s", error)
                return
        if 2 * stats["bytes"] >= self._room:
            self._watches_memory = False
            logger.warning(
                "RePO: the replay buffer takes %.1f GiB (%d response tokens), half of the %.1f GiB of memory that the "
                "driver had free: bound it with %smax_tokens, or lower %scapacity, or set %sstorage=distributed",
                stats["bytes"] / GIB, stats["tokens"], self._room / GIB, PREFIX, PREFIX, PREFIX,
            )  # fmt: skip
