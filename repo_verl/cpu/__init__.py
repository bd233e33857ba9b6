"""The CPU backend: verl's real trainer, vLLM and FSDP2 on a machine without a GPU, for tests and first steps.

``VERL_PLATFORM=cpu`` in the environment switches it on; :mod:`repo_verl.plugin` then calls :func:`activate` while verl
is imported, in every process of the run. Importing this package imports only the standard library.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

DEFAULTS: dict[str, str] = {
    # verl registers its FSDP engines for cuda and npu only; this names the look-up key, not a device.
    "VERL_ENGINE_DEVICE": "cuda",
    # vLLM's key-value cache, GiB. Without it vLLM takes a share of the machine's memory.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # vLLM would bind its threads to cores that verl's own workers use.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Lets vLLM's CPU platform keep the executor `uni`: its worker runs in the engine's process instead of one more.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Without it vLLM's sampler compiles one function with g++ when it first runs, for 10 s.
    "TORCH_COMPILE_DISABLE": "1",
    # TransferQueue asks torch for 8 threads around each call and warns where there are fewer cores.
    "TQ_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment variables that a CPU run needs; Ray's workers and vLLM's engine inherit them."""


def set_defaults() -> None:
    """Set each of :data:`DEFAULTS` that the environment doesn't have."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


@functools.cache
def activate() -> None:
    """Make verl run on the CPU in this process: environment defaults, the platform, two patches, the fork server.

    Call it after ``verl.plugin.platform`` has been imported and before verl asks for its platform, as an entry point of
    ``verl.plugins`` does. A second call changes nothing. The process that runs verl's trainer script also starts
    :mod:`repo_verl.cpu.fork_server`.

    Raises:
        RuntimeError: verl has already resolved another platform in this process, so it is too late.
    """
    from repo_verl.cpu.node import start_with_trainer
    from repo_verl.cpu.platform import register_platform
    from repo_verl.import_hooks import guarded, when_imported

    set_defaults()
    register_platform()
    metadata: Any = importlib.metadata
    metadata.version = answer_for_vllm(metadata.version)
    when_imported("verl.utils.distributed", guarded(use_gloo))
    start_with_trainer()


def answer_for_vllm(version: Callable[[str], str]) -> Callable[[str], str]:
    """A version look-up that answers ``"vllm"`` by ``vllm-cpu``'s where vllm itself is not installed.

    verl looks for the distribution `vllm` to decide whether vLLM is there; the CPU build has another name. The answer
    ends in "+cpu", as the version of a CPU build of vllm does.
    """

    @functools.wraps(version)
    def look_up(distribution_name: str) -> str:
        try:
            return version(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
        return version("vllm-cpu") + "+cpu"

    return look_up


def use_gloo(module: Any) -> None:
    """Make gloo the default backend of ``verl.utils.distributed.initialize_global_process_group_ray``.

    verl builds the string ``cpu:gloo,<device>:<backend>``, and torch refuses one that names the CPU twice.
    """
    original = module.initialize_global_process_group_ray

    @functools.wraps(original)
    def initialize(timeout_second: float | None = None, backend: str | None = None) -> Any:
        return original(timeout_second=timeout_second, backend=backend or "gloo")

    module.initialize_global_process_group_ray = initialize
