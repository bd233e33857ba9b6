"""How much memory of this machine a process may still use."""

from __future__ import annotations

from pathlib import Path

MEMINFO, CGROUP, OWN = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_memory(meminfo: Path = MEMINFO, cgroup: Path = CGROUP, own: Path = OWN) -> float:
    """Bytes that are left: the least of the kernel's MemAvailable and what limits of this process's groups leave.

    Args:
        meminfo: the kernel's table.
        cgroup: where version 2 of the control groups is mounted; a container's own group is its root.
        own: this process's group, a line ``0::PATH``: a job of Slurm or systemd has its limit there or above.
    """
    bounds = [
        float(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable")
    ]
    return min(bounds + [left for folder in _groups(cgroup, own) if (left := _left_in_group(folder)) is not None])


def _groups(cgroup: Path, own: Path) -> list[Path]:
    """Folders of this process's control group and of those above it, up to the mount's root."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return [cgroup]
    path = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    inside = [cgroup / path, *(cgroup / path).parents]
    return [folder for folder in inside if folder == cgroup or cgroup in folder.parents]


def _left_in_group(folder: Path) -> float | None:
    """Bytes that a group's limit leaves, what can be dropped from its file cache included; None without a limit."""
    try:
        limit, used = (folder / "memory.max").read_text().strip(), (folder / "memory.current").read_text().strip()
        lines = (folder / "memory.stat").read_text().splitlines()
        cache = sum(float(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return None if limit == "max" else float(limit) - float(used) + cache
    except (OSError, ValueError):  # the root group has no limit; the first version of control groups other files
        return None
