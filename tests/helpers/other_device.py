"""A pretended device on the CPU: tensors that are said to lie on it can't be mixed with others, as with CUDA.

PyTorch's CPU build has no second device, so code that forgets ``device=`` runs here and stops on the first GPU. Within
:class:`OtherDevice` every operator that is given a tensor of the pretended device and one of the host (of at least one
dimension) raises, and what an operator makes of the device's tensors lies there too, as do tensors that are made with
an explicit ``device=`` or sent with ``.to(device)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class MixedDevices(RuntimeError):
    """An operator was given tensors of two devices."""


def parts(value: Any) -> list[torch.Tensor]:
    """The plain tensors in a value: of lists and dictionaries, and of nested tensors their values and offsets."""
    if isinstance(value, torch.Tensor):
        if not value.is_nested:
            return [value]
        made_up = value.offsets().is_meta  # PyTorch's own stand-in for a nested tensor's type
        return [] if made_up else [value.values().detach(), value.offsets()]
    if isinstance(value, dict):
        return [one for item in value.values() for one in parts(item)]
    return [one for item in value for one in parts(item)] if isinstance(value, list | tuple) else []


class OtherDevice:
    """Pretends a device, for the duration of the block; ``put`` says that tensors lie on it."""

    def __init__(self) -> None:
        self._held: dict[int, torch.UntypedStorage] = {}
        self._modes = (_Names(self), _Operators(self))

    def __enter__(self) -> OtherDevice:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def put(self, value: Any) -> None:
        """Say that the tensors in a value lie on the device; their storages are kept, so that no address returns."""
        for one in parts(value):
            self._held[one.untyped_storage()._cdata] = one.untyped_storage()

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a plain tensor lies on the device."""
        return tensor.untyped_storage()._cdata in self._held


class _Names(TorchFunctionMode):
    """Python's calls: which of them name a device."""

    def __init__(self, other: OtherDevice) -> None:
        self._other = other

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.numpy and self._other.holds(args[0]):
            raise MixedDevices("numpy() of a tensor on the device")
        sent = func is torch.Tensor.to and any(isinstance(one, torch.device) for one in args)
        if isinstance(result, torch.Tensor) and (sent or (kwargs or {}).get("device") is not None):
            self._other.put(result)
        return result


class _Operators(TorchDispatchMode):
    """Operators, those of autograd included."""

    def __init__(self, other: OtherDevice) -> None:
        super().__init__()
        self._other = other

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = parts([*args, kwargs or {}])
        away = [one for one in given if self._other.holds(one)]
        here = [one for one in given if one.dim() and one.numel() and not self._other.holds(one)]
        if away and here:
            raise MixedDevices(f"{func}: {len(away)} tensor(s) on the device, and one of {tuple(here[0].shape)} not")
        result = func(*args, **(kwargs or {}))
        if away:
            self._other.put(result)
        return result
