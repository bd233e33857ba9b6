"""What this machine has: GPUs, memory, disk."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from repo_verl import host_memory
from repo_verl.config import lookup
from repo_verl.preflight.settings import Config
from repo_verl.step_folders import folder_of, steps_in

GIB = 2.0**30
QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.total,memory.free", "--format=csv,noheader,nounits")


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One visible GPU: bytes in all and bytes free; None where nvidia-smi does not say."""

    total: float | None
    free: float | None


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is known of this machine's GPUs.

    Attributes:
        gpus: those that CUDA would show.
        doubt: why there may be others; empty where nvidia-smi answered and its answer was understood.
    """

    gpus: tuple[Gpu, ...] = ()
    doubt: str = ""


def parse_gpus(listing: str, visible: str | None) -> Seen:
    """GPUs of nvidia-smi's table, those that ``CUDA_VISIBLE_DEVICES`` leaves (numbers, UUIDs, MIG names; None: all).

    Raises:
        ValueError: if a line is none of the table.
    """
    found: dict[str, Gpu] = {}
    for line in listing.strip().splitlines():
        index, uuid, total, free = (part.strip() for part in line.split(","))
        found[index] = found[uuid] = Gpu(_mebibytes(total), _mebibytes(free))
    if visible is None:
        return Seen(tuple(gpu for name, gpu in found.items() if name.isdigit()))
    gpus, doubt = [], ""
    for name in (part.strip() for part in visible.split(",")):
        named = [gpu for key, gpu in found.items() if key == name or (len(name) > 4 and key.startswith(name))]
        if name.startswith("MIG-"):
            named = [Gpu(None, None)]  # a part of a GPU, of which the table says nothing
        if not named:  # CUDA shows what stands before the first name that it doesn't know
            known = re.fullmatch(r"-?[0-9]*", name)
            doubt = "" if known else f"CUDA_VISIBLE_DEVICES={visible} names what nvidia-smi does not list"
            break
        gpus.append(named[0])
    return Seen(tuple(gpus), doubt)


def _mebibytes(text: str) -> float | None:
    """Bytes; None for ``[N/A]``, as for GPUs that share the host's memory."""
    return float(text) * 2**20 if re.fullmatch(r"[0-9.]+", text) else None


def find_gpus(environment: Mapping[str, str] = os.environ) -> Seen:
    """The GPUs that CUDA would show here, as far as nvidia-smi tells."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, check=False, timeout=60)
        if "no devices were found" in (done.stdout + done.stderr).lower():
            return Seen()
        if done.returncode:
            return Seen(doubt=f"nvidia-smi failed with status {done.returncode}")
        return parse_gpus(done.stdout, environment.get("CUDA_VISIBLE_DEVICES"))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Seen(doubt=f"nvidia-smi gave no answer ({type(error).__name__})")


def has_cluster(config: Config, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether verl's ``ray.init`` would join a cluster that runs, instead of starting Ray on this machine."""
    if environment.get("RAY_ADDRESS") or lookup(config, "ray_kwargs.ray_init.address"):
        return True
    return (Path(environment.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster").exists()


def available_memory(
    meminfo: Path = host_memory.MEMINFO,
    cgroup: Path = host_memory.CGROUP,
    own: Path = host_memory.OWN,
    most: str | None = None,
) -> float:
    """Bytes that a new run may use: what is left of this machine's memory (``host_memory``), at most ``most`` GiB.

    Args:
        meminfo: as for :func:`repo_verl.host_memory.available_memory`.
        cgroup: likewise.
        own: likewise.
        most: GiB.

    Raises:
        ValueError: if ``most`` is no number.
    """
    left = host_memory.available_memory(meminfo, cgroup, own)
    return min(left, gibibytes("HOST_GIB", most)) if most else left


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


def checkpoint_bytes(folder: Path) -> float:
    """Bytes of the checkpoints that lie in a run's folder."""
    root = str(folder.expanduser())
    files = [
        Path(parent, name)
        for step in steps_in(root)
        for parent, _, names in os.walk(folder_of(root, step))
        for name in names
    ]
    return float(sum(file.lstat().st_size for file in files))
