"""verl's platform interface for the CPU: :class:`PlatformCPU`, and the device module that stands for ``torch.cuda``."""

from __future__ import annotations

import os
import resource
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry, platform_manager

PLATFORM_NAME = "cpu"


def _nothing(*args: object, **kwargs: object) -> None:
    """One device whose work has ended when a call returns, whose allocator has no cache, limit or profiler."""


class CPUDeviceModule:
    """What verl calls on ``torch.cuda``, answered for the CPU.

    Sizes are bytes of host memory: "allocated" is what this process holds (resident set), "maximum" its peak.
    ``set_rng_state`` does nothing, since verl sets the CPU's state itself.
    """

    Stream: ClassVar[type] = torch.cpu.Stream
    stream = staticmethod(torch.cpu.stream)
    current_stream = staticmethod(torch.cpu.current_stream)
    get_rng_state = staticmethod(torch.get_rng_state)
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)
    set_device = synchronize = empty_cache = ipc_collect = set_rng_state = staticmethod(_nothing)
    reset_peak_memory_stats = set_per_process_memory_fraction = staticmethod(_nothing)

    def is_available(self) -> bool:
        """True: a CPU is always there."""
        return True

    def device_count(self) -> int:
        """1: the CPU is one device, however many cores it has."""
        return 1

    def current_device(self) -> str:
        """``"cpu"``; verl and torch read an integer as the index of an accelerator."""
        return "cpu"

    def get_device_name(self, device: object = None) -> str:
        """The name that verl prints for the device."""
        return "cpu"

    def memory_allocated(self, device: object = None) -> int:
        """Resident memory of this process, bytes."""
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def max_memory_allocated(self, device: object = None) -> int:
        """Peak resident memory of this process, bytes."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # The kernel's peak is updated less often than the current size.
        return max(peak * 1024, self.memory_allocated())

    memory_reserved, max_memory_reserved = memory_allocated, max_memory_allocated

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        """Free and total memory of the machine, bytes."""
        import psutil  # type: ignore[import-untyped]  # ships no types

        memory = psutil.virtual_memory()
        return memory.available, memory.total


class PlatformCPU(PlatformBase):
    """verl's platform for a run without accelerators.

    Ray hands out the resource ``GPU`` as a count of workers (``ray_kwargs.ray_init.num_gpus``), not of devices: verl's
    placement groups ask for a resource of its accelerators, and vLLM's replicas read their bundle's index from it.
    """

    _device_module: ClassVar[CPUDeviceModule] = CPUDeviceModule()
    device_name = vendor_name = "cpu"
    device_module = _device_module
    is_available, device_count = _device_module.is_available, _device_module.device_count
    current_device = _device_module.current_device
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)
    set_device = synchronize = set_allocator_settings = empty_cache = cudart = staticmethod(_nothing)
    profiler_start = profiler_stop = staticmethod(_nothing)

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """False: never chosen by detection, only by ``VERL_PLATFORM=cpu``."""
        return False

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def nvtx_range(self, msg: str) -> AbstractContextManager[None]:
        return nullcontext()

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False


def register_platform() -> None:
    """Registers :class:`PlatformCPU` with verl under ``"cpu"``. A second call changes nothing.

    Raises:
        RuntimeError: verl has already resolved another platform in this process.
    """
    resolved = platform_manager._current_platform
    if resolved is not None and not isinstance(resolved, PlatformCPU):
        raise RuntimeError(
            f"verl already runs on the platform {resolved.device_name!r} in this process: "
            "set VERL_PLATFORM=cpu before the first `import verl`"
        )
    if PlatformRegistry.get(PLATFORM_NAME) is not PlatformCPU:
        PlatformRegistry.register(platform=PLATFORM_NAME)(PlatformCPU)
