"""verl's platform interface for the CPU: :class:`PlatformCPU`, and the device module that stands for ``torch.cuda``."""

from __future__ import annotations

import resource
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import psutil  # type: ignore[import-untyped]  # ships no types
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry, platform_manager


def _nothing(*args: object, **kwargs: object) -> None:
    """One device whose work has ended when a call returns, whose allocator has no cache, limit or profiler."""


class CPUDeviceModule:
    """What verl calls on ``torch.cuda``, answered for the CPU, which is one device however many cores it has.

    Sizes are bytes of host memory: "allocated" is what this process holds (resident set), "maximum" its peak.
    ``set_rng_state`` does nothing, since verl sets the CPU's state itself.
    """

    Stream: ClassVar[type] = torch.cpu.Stream
    stream = staticmethod(torch.cpu.stream)
    current_stream = staticmethod(torch.cpu.current_stream)
    is_available = staticmethod(torch.cpu.is_available)
    device_count = staticmethod(torch.cpu.device_count)
    current_device = staticmethod(torch.cpu.current_device)
    get_rng_state = staticmethod(torch.get_rng_state)
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)
    set_device = synchronize = empty_cache = ipc_collect = set_rng_state = staticmethod(_nothing)
    reset_peak_memory_stats = set_per_process_memory_fraction = staticmethod(_nothing)

    def get_device_name(self, device: object = None) -> str:
        return "cpu"

    def memory_allocated(self, device: object = None) -> int:
        return int(psutil.Process().memory_info().rss)

    def max_memory_allocated(self, device: object = None) -> int:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # The kernel's peak is updated less often than the current size.
        return max(peak * 1024, self.memory_allocated())

    memory_reserved, max_memory_reserved = memory_allocated, max_memory_allocated

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        """Free and total memory of the machine."""
        memory = psutil.virtual_memory()
        return memory.available, memory.total


class PlatformCPU(PlatformBase):
    """verl's platform for a run without accelerators.

    Ray hands out the resource ``GPU`` as a count of workers (``ray_kwargs.ray_init.num_gpus``), not of devices: verl's
    placement groups ask for a resource of its accelerators, and vLLM's replicas read their bundle's index from it.
    """

    device_name = vendor_name = "cpu"
    device_module = CPUDeviceModule()
    is_available = staticmethod(torch.cpu.is_available)
    device_count = staticmethod(torch.cpu.device_count)
    current_device = staticmethod(torch.cpu.current_device)
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
    """Register :class:`PlatformCPU` with verl under ``"cpu"``.

    Raises:
        RuntimeError: verl has already resolved another platform in this process.
    """
    resolved = platform_manager._current_platform
    if resolved is not None and not isinstance(resolved, PlatformCPU):
        raise RuntimeError(
            f"verl already runs on the platform {resolved.device_name!r} in this process: "
            "set VERL_PLATFORM=cpu before the first `import verl`"
        )
    PlatformRegistry.register(platform="cpu")(PlatformCPU)
