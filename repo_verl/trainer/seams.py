"""Every name of verl, TransferQueue and Ray that RePO overrides, wraps, calls or reads: one table, checked before Ray.

The version number of what is installed refuses nothing.

A name in a class, ``Class.name``, is a method, a field, or an attribute that its methods give it. Parameters stand as
a call would have them: those before ``/`` are passed by position, where ``_`` may have any name; others by name. An
overridden method has exactly these. ``*`` at the end allows for more.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import logging
import os
import re
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any, NamedTuple

from repo_verl import versions
from repo_verl.config import RepoConfigError

logger = logging.getLogger(__name__)

_OF_INSTANCES = object()  # stands for an attribute that instances have

TRAINERS = (
    "verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync",
    "verl.trainer.ppo.v1.trainer_colocate_async:PPOTrainerColocateAsync",
)

OVERRIDDEN = (
    "__init__(config)", "fit(agent_loop_manager)", "_build_replay_buffer()", "_setup()", "on_step_end()",
    "_balance_batch(batch, metrics, *)", "_compute_advantage(batch, metrics)",
    "_step_once(metrics, timing_raw, sample_batch_size)", "_compute_old_log_prob(batch, metrics)",
    "_update_actor(batch, metrics)", "_save_checkpoint()", "_load_checkpoint()",
)  # fmt: skip
"""Methods of each of :data:`TRAINERS` in whose place RePO's stand; verl would never call one that it has renamed."""

READ = (
    "actor_rollout_wg", "config", "global_steps", "processor", "steps_per_epoch", "timing_raw", "tokenizer",
    "total_training_steps", "train_dataset", "replay_buffer", "critic_wg", "ref_policy_wg", "llm_server_manager",
    "reward_loop_manager",
)  # fmt: skip
"""Attributes of each of :data:`TRAINERS`."""

USED: dict[str, tuple[str, ...]] = {
    "verl.utils.config": ("validate_config", "omega_conf_to_dataclass(config, /)"),
    "verl.trainer.ppo.core_algos": ("register_adv_est(_, /)", "ADV_ESTIMATOR_REGISTRY"),
    "verl.trainer.ppo.v1.trainer_base": ("PPOTrainer", "TRAINER_REGISTRY"),
    "verl.trainer.ppo.v1.replay_buffer": tuple(
        f"{name}.{used}"
        for name in ("ReplayBuffer", "ReplayBufferAsync")
        for used in ("sample(*)", "poll_interval", "_sync_metadata_from_transfer_queue()")
    ),
    "verl.utils.seqlen_balancing": (
        "calculate_workload(_, /)", "get_seqlen_balanced_partitions(seqlen_list, k_partitions, equal_size, /)",
    ),
    "verl.utils.tensordict_utils": (
        "assign_non_tensor(_, /, batch_num_tokens)", "assign_non_tensor_data(tensor_dict, key, val, /)",
    ),
    "verl.utils.metric": (
        "AggregationType.SUM", "AggregationType.MAX", "Metric(value, aggregation)",
        "Metric.from_dict(_, /, aggregation)", "Metric.values",
    ),
    "verl.workers.config": ("ActorConfig.clip_ratio", "ActorConfig.clip_ratio_low", "ActorConfig.clip_ratio_high"),
    "verl.workers.utils.losses": ("ppo_loss(config, model_output, data, dp_group, /)",),
    "verl.workers.utils.padding": ("no_padding_2_padding(tensor, data, /)",),
    "verl.workers.engine_workers": (
        "ActorRolloutRefWorker.set_loss_fn(_, /)", "ActorRolloutRefWorker.update_actor(_, /)",
        "ActorRolloutRefWorker.save_checkpoint(_, /, max_ckpt_to_keep, *)",
    ),
    "verl.single_controller.ray": ("RayWorkerGroup._dispatch_info", "RayWorkerGroup.workers"),
    "verl.workers.rollout.llm_server": ("LLMServerManager.rollout_replicas", "LLMServerManager.global_load_balancer"),
    "verl.workers.rollout.replica": ("RolloutReplica.servers",),
    "verl.experimental.reward_loop": tuple(
        f"RewardLoopManager.{name}" for name in ("reward_model_manager", "reward_loop_workers")
    ),
    "verl.experimental.reward_loop.reward_model": ("RewardModelManager.rollout_replicas",),
    "verl.experimental.agent_loop": ("AgentLoopManager.agent_loop_workers",),
    "transfer_queue": (
        "kv_batch_put(keys, partition_id, tags, fields)", "kv_batch_get(keys, partition_id, select_fields)",
        "kv_clear(keys, partition_id)", "KVBatchMeta(partition_id, keys, tags, fields, extra_info)",
        "KVBatchMeta.select_keys(_, /)", "BatchMeta(global_indexes, partition_ids, field_schema, /)",
        "BatchMeta.global_indexes", "StorageKeyNotFoundError",
    ),
    "transfer_queue.interface": ("_TQ_CONTROLLER", "_TQ_STORAGE"),
    "transfer_queue.client": (
        "AsyncTransferQueueClient(_, _, /, zmq_io_threads)",
        "AsyncTransferQueueClient.initialize_storage_manager(manager_type, config, /)",
        "AsyncTransferQueueClient.async_put(_, /, partition_id)",
        "AsyncTransferQueueClient.async_get_data(_, /)",
        "AsyncTransferQueueClient.async_clear_samples(_, /)",
        "AsyncTransferQueueClient.close()",
    ),
    "transfer_queue.controller": (
        "TransferQueueController()", "TransferQueueController.get_zmq_server_info()",
        "TransferQueueController.__ray_call__(_, /)", "TransferQueueController.__ray_ready__()",
    ),
    "transfer_queue.storage": ("SimpleStorageUnit(config)", "SimpleStorageUnit.get_zmq_server_info()"),
    "ray": (
        "get(_, /, timeout)", "wait(_, /, num_returns, timeout)", "kill(_, /)", "nodes()", "is_initialized()",
        "get_runtime_context()", "ObjectRef",
    ),
    "ray.actor": ("ActorHandle",),
    "ray.exceptions": ("RayError", "RayActorError", "ActorUnavailableError"),
    "ray.runtime_context": tuple(f"RuntimeContext.get_{name}()" for name in ("job_id", "node_id", "session_name")),
    "ray.util.scheduling_strategies": ("NodeAffinitySchedulingStrategy(_, /, soft)",),
}  # fmt: skip
"""Other names, by module."""

CPU: dict[str, tuple[str, ...]] = {
    "verl.plugin.platform": (
        "PlatformBase", "PlatformRegistry.get(_, /)", "PlatformRegistry.register(platform)",
        "platform_manager._current_platform",
    ),
    "verl.utils.distributed": ("initialize_global_process_group_ray(timeout_second, backend)",),
}  # fmt: skip
"""What the CPU backend needs beside, under ``VERL_PLATFORM=cpu``."""


class Seam(NamedTuple):
    """One name of the table; parameters as above, None where the name is not called."""

    module: str
    name: str
    parameters: tuple[str, ...] | None
    overridden: bool = False

    def __str__(self) -> str:
        called = "" if self.parameters is None else f"({', '.join(self.parameters)})"
        return f"{self.module}.{self.name}{called}"


def list_seams(cpu: bool) -> list[Seam]:
    """The whole table, with what the CPU backend needs if ``cpu``."""
    found = []
    for place in TRAINERS:
        module, owner = place.split(":")
        found += [_seam(module, f"{owner}.{text}", overridden=True) for text in OVERRIDDEN]
        found += [_seam(module, f"{owner}.{text}") for text in READ]
    for table in (USED, CPU if cpu else {}):
        found += [_seam(module, text) for module, texts in table.items() for text in texts]
    return found


def _seam(module: str, text: str, overridden: bool = False) -> Seam:
    name, called, inside = text.partition("(")
    parameters = tuple(part.strip() for part in inside.rstrip(")").split(",") if part.strip()) if called else None
    return Seam(module, name, parameters, overridden)


@functools.cache
def require_seams() -> None:
    """Refuse to run RePO where a name that it needs is missing or has other parameters, naming the first one."""
    missing = [(seam, fault) for seam, fault in look_at_seams() if fault is not None]
    if missing:
        seam, fault = missing[0]
        more = f" (and {len(missing) - 1} more, which `repo-verl check` lists)" if len(missing) > 1 else ""
        distribution = {"transfer_queue": "transferqueue"}.get(root := seam.module.split(".")[0], root)
        raise RepoConfigError(
            f"algorithm.adv_estimator=repo can't run with {versions.describe()}, since {fault}{more}: "
            f"pip install {distribution}=={versions.TESTED[distribution][-1]}."
        )


def warn_untested() -> None:
    """One line where a version that is installed was not tested; said by the trainer, of which a run has one."""
    found = versions.untested()
    if found:
        logger.warning(
            "RePO: untested: %s; every name that RePO uses exists with the parameters it uses, so the run starts: "
            "compare its first steps with a run on tested versions",
            "; ".join(found),
        )


def look_at_seams() -> Iterator[tuple[Seam, str | None]]:
    """Every name of the table, and what is wrong with it; None where nothing is."""
    cpu = os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"
    with unchanged_environment():
        for seam in list_seams(cpu):
            yield seam, find_fault(seam)


@contextlib.contextmanager
def unchanged_environment() -> Iterator[None]:
    """Take back what imports in the block put into the environment, which the run's workers would inherit."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def find_fault(seam: Seam) -> str | None:
    """What is wrong with one name of the table, used with the parameters that it states; None where nothing is."""
    try:
        owner: Any = importlib.import_module(seam.module)
    except Exception as error:
        return f"{seam.module} can't be imported ({type(error).__name__}: {error})"
    found, bound = owner, True
    for part in seam.name.split("."):
        owner, found = _plain(found), _member(found, part, seam.parameters is None)
        if found is None:
            return f"{seam.module}.{seam.name} is missing"
        bound = not inspect.isclass(owner) or not isinstance(inspect.getattr_static(owner, part, None), FunctionType)
    if seam.parameters is None:
        return None
    if not callable(found):
        return f"{seam.module}.{seam.name} can't be called"
    signature = inspect.signature(_plain(found))
    declared = [parameter for name, parameter in signature.parameters.items() if name != "_ray_trace_ctx"]
    signature = signature.replace(parameters=declared if bound else declared[1:])
    fault = _differs(seam.parameters, signature) if seam.overridden else _refuses(seam.parameters, signature)
    return f"{seam.module}.{seam.name}({', '.join(signature.parameters)}) {fault}" if fault else None


def _plain(found: Any) -> Any:  # the class behind an actor class of Ray's; anything else as it is
    return getattr(getattr(found, "__ray_metadata__", None), "modified_class", found)


def _member(owner: Any, name: str, of_instances: bool) -> Any:
    """A module's or class's member, a stand-in for None or for what only instances have; None where there is none."""
    owner = _plain(owner)
    if hasattr(owner, name):
        return _OF_INSTANCES if getattr(owner, name) is None else getattr(owner, name)
    if of_instances and inspect.isclass(owner):
        for base in inspect.getmro(owner):
            if name in getattr(base, "__annotations__", {}) or re.search(rf"\bself\.{name}\b", _source(base)):
                return _OF_INSTANCES
    return None


@functools.cache
def _source(owner: type) -> str:
    """A class's source, which stays what it is where somebody has put a function in place of a method."""
    try:
        return inspect.getsource(owner)
    except (OSError, TypeError):  # built in, or installed without its source
        return ""


def _differs(parameters: Sequence[str], signature: inspect.Signature) -> str | None:
    """How an overridden method's parameters differ from those of RePO's method."""
    wanted = [name for name in parameters if name != "*"]
    names = list(signature.parameters)[: len(wanted) if "*" in parameters else None]
    return None if names == wanted else f"has other parameters than RePO's ({', '.join(wanted)})"


def _refuses(parameters: Sequence[str], signature: inspect.Signature) -> str | None:
    """Why a call as RePO makes it would be refused."""
    wanted = [name for name in parameters if name != "*"]
    first = wanted.index("/") if "/" in wanted else 0
    positional, named = wanted[:first], [name for name in wanted[first:] if name != "/"]
    bind = signature.bind_partial if "*" in parameters else signature.bind
    try:
        bind(*positional, **dict.fromkeys(named))
    except TypeError as error:
        return f"refuses RePO's call: {error}"
    for number, (name, place) in enumerate(zip(positional, signature.parameters, strict=False), 1):
        if name not in ("_", place):
            return f"does not take {name} as argument {number}"
    return None
