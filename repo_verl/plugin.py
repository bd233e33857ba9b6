"""Entry point of the group ``verl.plugins``: loaded by ``import verl`` in every process.

Imports the standard library alone and registers callbacks for the moment when verl's modules are imported, so that
``import verl`` stays quick. Failures are kept and raised where verl validates its configuration, before Ray starts:
verl itself would only log them at DEBUG level and go on without RePO.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

Callback = Callable[[ModuleType], None]

failures: list[BaseException] = []
"""What went wrong while registering, in order."""

MODES = ("sync", "colocate_async")
"""Values of ``trainer.v1.trainer_mode`` that RePO serves."""

_callbacks: dict[str, list[Callback]] = {}

_finding: set[str] = set()


class _PostImportFinder(importlib.abc.MetaPathFinder):
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
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for callback in _callbacks.pop(fullname, ()):
                callback(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # the hook itself
        return spec


def when_imported(name: str, callback: Callback) -> None:
    """Call ``callback(module)`` right after the module is imported, or at once if it is already.

    Args:
        name: full name of the module.
        callback: takes the module.
    """
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
        except Exception as error:  # kept, and raised by the wrapped validate_config
            failures.append(error)

    return wrapper


@guarded
def _register_estimator(core_algos: ModuleType) -> None:
    from repo_verl.trainer.checks import ESTIMATOR
    from repo_verl.trainer.estimator import compute_repo_outcome_advantage

    core_algos.register_adv_est(ESTIMATOR)(compute_repo_outcome_advantage)


def _register_trainer(mode: str, trainer_module: ModuleType) -> None:
    """Put a dispatcher in place of one of verl's trainers; the mode's name stays.

    Args:
        mode: ``trainer.v1.trainer_mode``.
        trainer_module: verl's, which has registered its trainer.
    """
    base = sys.modules["verl.trainer.ppo.v1.trainer_base"]
    stock = base.TRAINER_REGISTRY[mode]

    def trainer(config: Any, *args: Any, **kwargs: Any) -> Any:
        """verl's trainer of the mode, or RePO's where ``algorithm.adv_estimator=repo``."""
        from repo_verl.trainer.checks import is_selected

        if not is_selected(config):
            return stock(config, *args, **kwargs)
        from repo_verl.trainer.trainer import TRAINERS

        return TRAINERS[mode](config, *args, **kwargs)

    base.TRAINER_REGISTRY[mode] = trainer


def _wrap_validation(config_module: ModuleType) -> None:
    """Make verl's ``validate_config`` check RePO's settings first, and the gold answers of runs that we reward."""
    stock = vars(config_module)["validate_config"]

    @functools.wraps(stock)
    def validate_config(config: Any, *args: Any, **kwargs: Any) -> Any:
        from repo_verl.trainer import checks, golds

        if checks.is_selected(config):
            raise_failures()
            checks.check_verl_version(_verl_version())
            checks.check_config(config)
        golds.check_golds(config)
        return stock(config, *args, **kwargs)

    setattr(config_module, "validate_config", validate_config)  # noqa: B010 - mypy knows no such attribute


# A failure of the next two breaks verl's import: one end with the mark and one without would wait for ever.
def _mark_weight_sender(module: ModuleType) -> None:
    from repo_verl.trainer.weight_sockets import mark_sender

    mark_sender(module)


def _mark_weight_receiver(module: ModuleType) -> None:
    from repo_verl.trainer.weight_sockets import mark_receiver

    mark_receiver(module)


def _verl_version() -> str:
    return str(getattr(sys.modules.get("verl"), "__version__", "unknown"))


def raise_failures() -> None:
    """Raise if the plugin did not load.

    Raises:
        RuntimeError: one sentence with the first failure, which is its cause.
    """
    if failures:
        raise RuntimeError(
            f"repo-verl did not load ({type(failures[0]).__name__}: {failures[0]}), so RePO can't run: "
            "run `repo-verl check` and mend what it names."
        ) from failures[0]


def _install() -> None:
    sys.meta_path.insert(0, _PostImportFinder())
    when_imported("verl.utils.config", _wrap_validation)
    when_imported("verl.trainer.ppo.core_algos", _register_estimator)
    for mode in MODES:
        when_imported(f"verl.trainer.ppo.v1.trainer_{mode}", guarded(functools.partial(_register_trainer, mode)))
    when_imported("verl.workers.rollout.vllm_rollout.vllm_rollout", _mark_weight_sender)
    when_imported("verl.workers.rollout.vllm_rollout.vllm_async_server", _mark_weight_receiver)
    if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        try:
            from repo_verl.cpu import activate

            activate()
        except Exception as error:  # kept, and raised by the wrapped validate_config
            failures.append(error)


_install()
