"""Entry point of the group ``verl.plugins``: loaded by ``import verl`` in every process.

Imports only the standard library and registers callbacks for the moment when verl's modules are imported, so that
``import verl`` stays quick. With another estimator than RePO's, verl runs as if this package were absent: what is put
in place of verl's names passes every call on, and nothing else of the package is imported. A callback that fails, on a
verl that we don't know for example, leaves verl's names as they are; the failure is kept and raised where RePO is
asked for: as verl validates its configuration, as its trainer is made, and in the estimator.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Sequence
from types import FunctionType, ModuleType
from typing import Any

from repo_verl import ESTIMATOR, MODES, OUR_REWARDS
from repo_verl.import_hooks import PostImportFinder, failures, guarded, when_imported

logger = logging.getLogger(__name__)

CLUSTER_SOCKETS = "REPO_VERL_CLUSTER_SOCKETS"
"""Environment variable of a RePO run's Ray workers, whose ends of the weight sync then name the Ray cluster."""


def find_value(config: Any, *keys: str) -> str:
    """A value below nested keys of verl's configuration, of mappings or objects, as text; "" where there is none."""
    try:
        for key in keys:
            config = config[key] if hasattr(config, "__getitem__") else getattr(config, key)
        return "" if config is None else str(config)
    except Exception:  # no such key, or no configuration: nothing was asked of this package
        return ""


def _config_of(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """verl's configuration among the arguments of a call, by what it holds; None where none is one."""
    return next((value for value in (*args, *kwargs.values()) if find_value(value, "algorithm", "adv_estimator")), None)


def asks_for_repo(config: Any) -> bool:
    """Whether a run's configuration has ``algorithm.adv_estimator=repo``."""
    return find_value(config, "algorithm", "adv_estimator") == ESTIMATOR


@guarded
def _register_estimator(core_algos: ModuleType) -> None:
    core_algos.register_adv_est(ESTIMATOR)(compute_advantage)


def compute_advantage(*args: Any, **kwargs: Any) -> Any:
    """verl's estimator ``repo``: :func:`repo_verl.trainer.estimator.compute_repo_outcome_advantage`."""
    raise_failures()
    from repo_verl.trainer.estimator import compute_repo_outcome_advantage

    return compute_repo_outcome_advantage(*args, **kwargs)


def _register_trainer(mode: str, trainer_module: ModuleType) -> None:
    """Make one of verl's trainers RePO's where ``algorithm.adv_estimator=repo``; the class and its name stay verl's."""
    stock = sys.modules["verl.trainer.ppo.v1.trainer_base"].TRAINER_REGISTRY[mode]
    own = vars(stock).get("__new__")

    @functools.wraps(stock.__init__, assigned=(), updated=())  # for the signature of the class
    def make(cls: Any, *args: Any, **kwargs: Any) -> Any:
        """An instance for Python to initialize: of the class, or of RePO's trainer, which derives from it."""
        if cls is stock and asks_for_repo(_config_of(args, kwargs)):
            cls = _repo_trainer(mode)
        above = own or super(stock, cls).__new__
        return above(cls) if above is object.__new__ else above(cls, *args, **kwargs)

    stock.__new__ = staticmethod(make)


def _repo_trainer(mode: str) -> Any:
    """RePO's trainer class of a mode, which derives from verl's."""
    raise_failures()
    from repo_verl.trainer.seams import require_seams

    require_seams()
    from repo_verl.trainer.trainer import TRAINERS

    return TRAINERS[mode]


@guarded
def _wrap_validation(config_module: ModuleType) -> None:
    """Make verl's ``validate_config`` check RePO's settings first, and the gold answers of runs that we reward."""
    stock = vars(config_module)["validate_config"]
    if not isinstance(stock, FunctionType):
        raise TypeError(f"verl.utils.config.validate_config is no function but a {type(stock).__name__}")

    @functools.wraps(stock)
    def validate_config(*args: Any, **kwargs: Any) -> Any:
        config = _config_of(args, kwargs)
        if asks_for_repo(config):
            _check_run(config)
        elif find_value(config, "reward", "custom_reward_function", "path").startswith(OUR_REWARDS):
            _check_golds(config)
        return stock(*args, **kwargs)

    setattr(config_module, "validate_config", validate_config)  # noqa: B010 - mypy knows no such attribute


def _check_run(config: Any) -> None:
    """All that is checked of a RePO run before Ray starts."""
    raise_failures()
    from repo_verl.trainer import ground_truth_check, seams, validation
    from repo_verl.verl_workarounds import weight_sockets

    validation.check_config(config)
    seams.require_seams()  # imports verl's trainers, which runs their hooks
    raise_failures()
    ground_truth_check.check_golds(config)
    weight_sockets.mark_run(config, CLUSTER_SOCKETS)


def _check_golds(config: Any) -> None:
    """Look at the gold answers of a run with another estimator that is rewarded by this package."""
    refused = None
    try:
        from repo_verl.trainer.ground_truth_check import RepoConfigError, check_golds

        try:
            check_golds(config)
        except RepoConfigError as error:
            refused = error
    except Exception as error:
        logger.warning("Gold answers not checked, since the check itself failed: %s: %s", type(error).__name__, error)
    if refused is not None:
        raise refused


def name_sockets_by_cluster() -> None:
    """In a worker of a RePO run, or of any on the CPU backend, make its end of the weight sync name the Ray cluster.

    A failure breaks the import of verl's module, and with it the run: one end with the cluster in its name and one
    without would wait for each other for ever. A second call changes nothing.
    """
    if os.environ.get(CLUSTER_SOCKETS) == "1" or _on_cpu():
        when_imported("verl.workers.rollout.vllm_rollout.vllm_rollout", _mark_weight_sender)
        when_imported("verl.workers.rollout.vllm_rollout.vllm_async_server", _mark_weight_receiver)


def _mark_weight_sender(module: ModuleType) -> None:
    from repo_verl.verl_workarounds.weight_sockets import mark_sender

    mark_sender(module)


def _mark_weight_receiver(module: ModuleType) -> None:
    from repo_verl.verl_workarounds.weight_sockets import mark_receiver

    mark_receiver(module)


def raise_failures() -> None:
    """Raise RuntimeError if the plugin did not load: one sentence with the first failure, which is its cause."""
    if failures:
        raise RuntimeError(
            f"repo-verl did not load ({type(failures[0]).__name__}: {failures[0]}), so RePO can't run: "
            "run `repo-verl check` and fix the reported problem."
        ) from failures[0]


def _on_cpu() -> bool:
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def _install() -> None:
    sys.meta_path.insert(0, PostImportFinder())
    when_imported("verl.utils.config", _wrap_validation)
    when_imported("verl.trainer.ppo.core_algos", _register_estimator)
    for mode in MODES:
        when_imported(f"verl.trainer.ppo.v1.trainer_{mode}", guarded(functools.partial(_register_trainer, mode)))
    name_sockets_by_cluster()
    if not _on_cpu():
        return
    try:
        from repo_verl.cpu import activate

        activate()
    except Exception as error:  # kept, and raised where RePO is asked for
        failures.append(error)
        logger.warning("VERL_PLATFORM=cpu: the CPU backend did not load: %s: %s", type(error).__name__, error)


_install()
