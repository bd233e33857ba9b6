"""What this machine has: GPUs, memory, disk."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

GIB = 2.0**30
QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.total,memory.free", "--format=csv,noheader,nounits")


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One visible GPU: bytes in all and bytes free."""

    total: float
    free: float


def parse_gpus(listing: str, visible: str | None) -> list[Gpu]:
    """GPUs of nvidia-smi's table, those that ``CUDA_VISIBLE_DEVICES`` leaves (numbers or UUIDs; None: all).

    Raises:
        ValueError: if a line is none of the table.
    """
    found: dict[str, Gpu] = {}
    for line in listing.strip().splitlines():
        index, uuid, total, free = (part.strip() for part in line.split(","))
        found[index] = found[uuid] = Gpu(float(total) * 2**20, float(free) * 2**20)
    if visible is None:
        return [gpu for name, gpu in found.items() if name.isdigit()]
    gpus = []
    for name in (part.strip() for part in visible.split(",")):
        named = [gpu for key, gpu in found.items() if key == name or (len(name) > 4 and key.startswith(name))]
        if not named:
            break  # CUDA shows what stands before the first name that it doesn't know
        gpus.append(named[0])
    return gpus


def find_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that CUDA would show here; none without nvidia-smi."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, check=True, timeout=60)
        return parse_gpus(done.stdout, environment.get("CUDA_VISIBLE_DEVICES"))
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def available_memory(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup"), most: str | None = None
) -> float:
    """Bytes that a new run may use: the kernel's MemAvailable, a container's limit and ``most`` GiB, the least of them.

    Raises:
        ValueError: if ``most`` is no number.
    """
    bounds = [
        float(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable")
    ]
    try:
        limit, used = (cgroup / "memory.max").read_text().strip(), (cgroup / "memory.current").read_text().strip()
        cache = [
            float(line.split()[1])
            for line in (cgroup / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        ]
        if limit != "max":
            bounds.append(float(limit) - float(used) + sum(cache))
    except (OSError, ValueError):
        pass  # no container, or one of the first version of cgroups
    if most:
        bounds.append(gibibytes("HOST_GIB", most))
    return min(bounds)


def gibibytes(name: str, text: str) -> float:
    """Bytes of an environment variable in GiB.

    Raises:
        ValueError: naming variable and value, if it is no positive number.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise ValueError(f"{name}={text} is no number of GiB: set it to one above 0 or unset it.")
    return value * GIB


def existing_parent(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def free_disk(folder: Path) -> float:
    """Bytes free where a folder is or will be."""
    return float(shutil.disk_usage(existing_parent(folder)).free)
