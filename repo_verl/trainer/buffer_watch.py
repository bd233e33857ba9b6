"""Warnings on the size of the replay buffer, each once in a run, and how much memory of this machine is left."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from repo_verl.config import PREFIX, RepoConfig

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

GIB = 2.0**30
MEMINFO, CGROUP, OWN = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_memory(meminfo: Path = MEMINFO, cgroup: Path = CGROUP, own: Path = OWN) -> float:
    """Bytes that are left: the least of the kernel's MemAvailable and what limits of this process's groups leave.

    Args:
        meminfo: the kernel's table.
        cgroup: where version 2 of the control groups is mounted; a container's own group is its root.
        own: this process's group, a line ``0::PATH``: a job of Slurm or systemd has its limit there or above.
    """
    lines = [line.split() for line in meminfo.read_text().splitlines()]
    kernel = [float(line[1]) * 1024 for line in lines if line[:1] == ["MemAvailable:"]]
    return min(kernel + [left for folder in _groups(cgroup, own) for left in _left_in_group(folder)])


def _groups(cgroup: Path, own: Path) -> list[Path]:
    """Folders of this process's control group and of those above it, up to the mount's root."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return [cgroup]
    path = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    inside = [cgroup / path, *(cgroup / path).parents]
    return [folder for folder in inside if folder == cgroup or cgroup in folder.parents]


def _left_in_group(folder: Path) -> Iterator[float]:
    """Bytes that a group's limit leaves, what can be dropped from its file cache included; nothing without a limit."""
    try:
        limit, used = (folder / "memory.max").read_text().strip(), (folder / "memory.current").read_text()
        lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
        if limit != "max":
            yield float(limit) - float(used) + sum(float(line[1]) for line in lines if line[:1] == ["inactive_file"])
    except (OSError, ValueError):
        return  # the root group has no limit; the first version of control groups other files


class BufferWatch:
    """Warns when the buffer takes half of the driver's free memory, and when ``max_tokens`` is under an epoch.

    Free memory is measured once, at the first look, and what the buffer holds by then is added. With
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
        """Look at the buffer after a step, which evicted so many prompts for ``max_tokens``."""
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
