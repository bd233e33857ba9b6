"""Callbacks for the moment when a module is imported, and what went wrong in them. Only the standard library."""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

Callback = Callable[[ModuleType], None]

failures: list[BaseException] = []  # of guarded callbacks, in order
_callbacks: dict[str, list[Callback]] = {}
_finding: set[str] = set()


class PostImportFinder(importlib.abc.MetaPathFinder):
    """Finds nothing itself; wraps ``exec_module`` of the loader that the other finders give."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _callbacks or fullname in _finding:
            return None
        _finding.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            _finding.discard(fullname)
        if spec is None or spec.loader is None:
            return spec
        try:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                for callback in _callbacks.pop(module.__name__, ()):
                    callback(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # the hook itself
        except Exception as error:  # a loader that takes no hook
            failures.append(error)
        return spec


def when_imported(name: str, callback: Callback) -> None:
    """Call ``callback(module)`` right after the module of that full name is imported, or at once if it is already."""
    if name in sys.modules:
        callback(sys.modules[name])
        return
    _callbacks.setdefault(name, []).append(callback)


def guarded(callback: Callback) -> Callback:
    """A callback whose exception is kept in :data:`failures` instead of breaking verl's import."""

    @functools.wraps(callback)
    def wrapper(module: ModuleType) -> None:
        try:
            callback(module)
        except Exception as error:  # kept, and raised where RePO is asked for
            failures.append(error)

    return wrapper
