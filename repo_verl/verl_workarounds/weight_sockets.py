"""The socket by which a RePO run's weights go to vLLM is named by the Ray cluster, not only by the job.

Works around ``verl/workers/rollout/vllm_rollout/vllm_rollout.py:141`` and ``utils.py:431`` beside it: verl names a Unix
socket under /tmp by Ray's job id, the replica and the rank. Every Ray cluster counts its jobs from one, so two runs
that started a Ray of their own on one machine name the same file, which each sender deletes and binds again: a vLLM
that connects late gets the other run's weights, or waits for ever, and nothing is logged. Delete it once verl's name
has Ray's session in it.

Runs with another estimator are left as verl has them. Both ends of a RePO run live in Ray workers, which read one
variable of the Ray job (:func:`mark_run`): both have it or neither has.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import omegaconf

from repo_verl.config import lookup

logger = logging.getLogger(__name__)

_MARK = "_repo_verl_cluster_in_name"

JOB = "VERL_RAY_JOB_ID"  # verl's variable, by which vLLM's processes know the job id in the socket's name
WEIGHT_SOCKETS = {
    "vllm_rollout.py": ("class ServerAdapter", 'self.zmq_handle = f"ipc:///tmp/rl-colocate-zmq-{job_id}-'),
    "vllm_async_server.py": ("class vLLMHttpServer", 'os.environ["VERL_RAY_JOB_ID"] = '),
    "utils.py": ('os.environ.get("VERL_RAY_JOB_ID"', 'f"ipc:///tmp/rl-colocate-zmq-{job_id}-'),
}
"""Where both ends name their socket, below verl's ``workers/rollout/vllm_rollout``, and what must stand there."""


def mark_run(config: Any, variable: str) -> None:
    """Have both ends of a run put its cluster into the socket's name, by an environment variable of its Ray workers.

    Called before verl starts Ray. Where Ray runs already, verl starts none and the variable reaches no worker: both
    ends then use verl's name.
    """
    if lookup(config, "actor_rollout_ref.rollout.name", "vllm") != "vllm":
        return
    unknown = find_unknown_end()
    if unknown is not None:
        logger.warning(
            "RePO: this verl names its weight sockets in another way (%s), which is left as it is: on a machine with "
            "runs of several Ray clusters, weights may go from one run to another unless verl names them by cluster",
            unknown,
        )
        return
    key = f"ray_kwargs.ray_init.runtime_env.env_vars.{variable}"
    omegaconf.OmegaConf.update(config, key, "1", force_add=True)
    omegaconf.OmegaConf.set_struct(config.ray_kwargs.ray_init.runtime_env, False)  # verl 0.9.0 adds a variable


def find_unknown_end() -> str | None:
    """The first of verl's files that does not name the socket as :data:`WEIGHT_SOCKETS` has it; None if all do.

    Read and not imported: these modules need vLLM, and the process that starts Ray may have none.
    """
    import verl

    folder = Path(verl.__file__).parent / "workers" / "rollout" / "vllm_rollout"
    for name, parts in WEIGHT_SOCKETS.items():
        path = folder / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not all(part in text for part in parts):
            return str(path)
    return None


def own_job(job: str, session: str) -> str:
    """What stands in a socket's name for the job: its id, and 12 hexadecimal digits of the cluster's session."""
    return f"{job}.{hashlib.sha256(session.encode()).hexdigest()[:12]}"


def own_handle(handle: str, job: str, session: str) -> str:
    """verl's ``ipc:///tmp/rl-colocate-zmq-JOB-replica-R-rank-N.sock`` with the cluster's session in it."""
    part = f"-{job}-"
    if handle.count(part) != 1:
        raise RuntimeError(
            f"verl's weight socket {handle!r} does not name the Ray job {job!r}: install a verl that `repo-verl check` "
            "accepts."
        )
    return handle.replace(part, f"-{own_job(job, session)}-")


def _job_and_session() -> tuple[str, str]:
    import ray

    context = ray.get_runtime_context()
    return context.get_job_id(), context.get_session_name()


def _after_init(end: type, then: Callable[[Any], None]) -> None:
    """Have a class call `then` with each new instance; a second call changes nothing."""
    if getattr(end, _MARK, False):
        return
    stock = end.__init__  # type: ignore[misc]  # of a class, not of an instance

    @functools.wraps(stock)
    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        stock(self, *args, **kwargs)
        then(self)

    end.__init__ = initialize  # type: ignore[misc]  # what the function is for
    setattr(end, _MARK, True)


def mark_sender(module: ModuleType) -> None:
    """Make the actor's end of verl's weight sync, ``vllm_rollout``, name the socket by cluster and job."""

    def rename(adapter: Any) -> None:
        adapter.zmq_handle = own_handle(adapter.zmq_handle, *_job_and_session())

    _after_init(module.ServerAdapter, rename)


def mark_receiver(module: ModuleType) -> None:
    """Make vLLM's end, ``vllm_async_server``, name it alike: its processes start later and read :data:`JOB`."""

    def tell(_: Any) -> None:
        os.environ[JOB] = own_job(*_job_and_session())

    _after_init(module.vLLMHttpServer, tell)
