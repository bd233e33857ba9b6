"""What both ends of verl's weight sync call their socket, in a Ray cluster of this process's own.

    python weight_socket_names.py MODEL ESTIMATOR

prints one JSON line: the job's id, the name by the actor's end (verl's ``ServerAdapter``) and by vLLM's (the worker
extension in a child of the server's process, which reads its environment), a worker's variable, and waits for a line
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import Any

RECEIVER = """
from types import SimpleNamespace
import verl
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension as Extension
print("handle", Extension._get_zmq_handle(SimpleNamespace(local_rank=0, model_runner=None)))
"""


def compose_run(model: str, estimator: str) -> Any:
    """verl's configuration of a CPU run."""
    from recorded_run import compose

    return compose([f"actor_rollout_ref.model.path={model}", f"algorithm.adv_estimator={estimator}"])


def configs(model: str) -> tuple[Any, Any]:
    """The rollout's and the model's configuration, which are the same for every estimator."""
    config = compose_run(model, "grpo")
    return config.actor_rollout_ref.rollout, config.actor_rollout_ref.model


def sender(model: str) -> str:
    """By a real ``ServerAdapter``, as an actor worker makes it."""
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

    os.environ.update(RANK="0", RAY_LOCAL_WORLD_SIZE="1")
    rollout, model_config = map(omega_conf_to_dataclass, configs(model))
    return ServerAdapter(rollout, model_config, None).zmq_handle


def receiver(model: str) -> str:
    """By the extension in a process that a real ``vLLMHttpServer`` starts."""
    from verl.workers.rollout.replica import RolloutMode
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

    rollout, model_config = configs(model)
    vLLMHttpServer(
        config=rollout, model_config=model_config, rollout_mode=RolloutMode.HYBRID, workers=[], replica_rank=0,
        node_rank=0, gpus_per_node=1, nnodes=1, cuda_visible_devices="",
    )  # fmt: skip
    said = subprocess.run([sys.executable, "-c", RECEIVER], capture_output=True, text=True, check=True).stdout
    return next(line.split()[1] for line in said.splitlines() if line.startswith("handle "))


def mark() -> str | None:
    """The variable by which a worker off the CPU backend knows a RePO run."""
    from repo_verl.plugin import CLUSTER_SOCKETS

    return os.environ.get(CLUSTER_SOCKETS)


class Runner:
    """Starts both ends as verl's task runner does: actors of an actor, with variables of their own."""

    def ask(self, model: str) -> list[str]:
        """The sender's and the receiver's name, and a worker's variable."""
        import ray

        own = {"runtime_env": {"env_vars": {"WG_BACKEND": "ray"}}}
        ends = [ray.remote(end).options(**own).remote(model) for end in (sender, receiver)]
        return ray.get([*ends, ray.remote(mark).options(**own).remote()])


def main() -> None:
    """Ask both ends and tell."""
    import ray
    from omegaconf import OmegaConf
    from verl.utils.config import validate_config

    model, estimator = sys.argv[1:]
    config = compose_run(model, estimator)
    with contextlib.redirect_stdout(sys.stderr):
        validate_config(config, use_reference_policy=False, use_critic=False)
    environment = OmegaConf.to_container(config.ray_kwargs.ray_init.runtime_env, resolve=True)
    environment.pop("py_executable", None)
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    one, other, marked = ray.get(ray.remote(Runner).remote().ask.remote(model))
    job = ray.get_runtime_context().get_job_id()
    print(json.dumps({"job": job, "sender": one, "receiver": other, "marked": marked}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
