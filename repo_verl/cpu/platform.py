"""verl's platform interface for the CPU: :class:`PlatformCPU`, and the device module that stands for ``torch.cuda``."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry, platform_manager

PLATFORM_NAME = "cpu"


class CPUDeviceModule:
    """What verl calls on ``torch.cuda``, answered for the CPU.

    Sizes are bytes of host memory: "allocated" is what this process holds (resident set), "maximum" its peak. Work on
    the CPU is synchronous and memory has no cache of its own, so what waits or frees does nothing.
    """

    Stream: ClassVar[type] = torch.cpu.Stream
    stream = staticmethod(torch.cpu.stream)
    current_stream = staticmethod(torch.cpu.current_stream)
    get_rng_state = staticmethod(torch.get_rng_state)

    def __init__(self) -> None:
        self._page_size = os.sysconf("SC_PAGE_SIZE")

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

    def set_device(self, device: object) -> None:
        """Does nothing: there is one device."""

    def synchronize(self, device: object = None) -> None:
        """Does nothing: operations have ended when they return."""

    def empty_cache(self) -> None:
        """Does nothing: torch's CPU allocator has no cache."""

    def ipc_collect(self) -> None:
        """Does nothing: no memory is shared by handle."""

    def reset_peak_memory_stats(self, device: object = None) -> None:
        """Does nothing: the kernel's peak of a process cannot be reset without privileges."""

    def set_per_process_memory_fraction(self, fraction: float, device: object = None) -> None:
        """Does nothing: host memory is not capped by torch."""

    def manual_seed(self, seed: int) -> None:
        """Seeds torch's CPU generator."""
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seeds torch's CPU generator."""
        torch.manual_seed(seed)

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        """Does nothing: verl sets the CPU state itself with ``torch.set_rng_state``."""

    def memory_allocated(self, device: object = None) -> int:
        """Resident memory of this process, bytes."""
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * self._page_size

    def memory_reserved(self, device: object = None) -> int:
        """Resident memory of this process, bytes."""
        return self.memory_allocated()

    def max_memory_allocated(self, device: object = None) -> int:
        """Peak resident memory of this process, bytes."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # The kernel's peak is updated less often than the current size.
        return max(peak * 1024, self.memory_allocated())

    def max_memory_reserved(self, device: object = None) -> int:
        """Peak resident memory of this process, bytes."""
        return self.max_memory_allocated()

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

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> Any:
        return self._device_module

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """False: never chosen by detection, only by ``VERL_PLATFORM=cpu``."""
        return False

    def current_device(self) -> Any:
        return self._device_module.current_device()

    def device_count(self) -> int:
        return self._device_module.device_count()

    def set_device(self, device_index: int) -> None:
        self._device_module.set_device(device_index)

    def synchronize(self, device_index: int | None = None) -> None:
        self._device_module.synchronize()

    def manual_seed(self, seed: int) -> None:
        self._device_module.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        self._device_module.manual_seed_all(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """Does nothing: the settings are those of CUDA's allocator."""

    def empty_cache(self) -> None:
        self._device_module.empty_cache()

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        """Does nothing: there is no device profiler."""

    def profiler_stop(self) -> None:
        """Does nothing: there is no device profiler."""

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


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
