"""The Ray actors that a step of verl's trainer needs."""

from __future__ import annotations

from typing import Any

from ray.actor import ActorHandle

WORKER_GROUPS = {"actor_rollout_wg": "actor", "critic_wg": "critic", "ref_policy_wg": "reference"}


def engine_dead(server: Any) -> bool:
    """Whether the engine processes behind a rollout server died; runs in the server.

    Args:
        server: verl's server actor; ``engine`` is vLLM's client where it has one.
    """
    return bool(getattr(getattr(server, "engine", None), "errored", False))


def find_actors(trainer: Any, agent_loop_manager: Any) -> dict[str, tuple[ActorHandle, bool]]:
    """The Ray actors that a step of verl's trainer needs.

    Args:
        trainer: a ``PPOTrainer`` whose workers are there.
        agent_loop_manager: what ``fit`` was given.

    Returns: name for messages -> handle and whether it serves a rollout engine.
    """
    import transfer_queue.interface as queue

    kinds: dict[str, list[Any]] = {}
    for attribute, name in WORKER_GROUPS.items():
        kinds[f"{name} worker"] = list(getattr(getattr(trainer, attribute, None), "workers", []))
    servers = getattr(trainer, "llm_server_manager", None)
    engine = f"{trainer.config.actor_rollout_ref.rollout.name} server"
    kinds[engine] = [server for replica in getattr(servers, "rollout_replicas", []) for server in replica.servers]
    model = getattr(trainer.reward_loop_manager, "reward_model_manager", None)
    kinds["reward model server"] = [s for replica in getattr(model, "rollout_replicas", []) for s in replica.servers]
    kinds["load balancer"] = [getattr(servers, "global_load_balancer", None)]
    kinds["reward worker"] = list(getattr(trainer.reward_loop_manager, "reward_loop_workers", []))
    kinds["agent loop worker"] = list(getattr(agent_loop_manager, "agent_loop_workers", []))
    kinds["TransferQueue controller"] = [queue._TQ_CONTROLLER]
    units = (queue._TQ_STORAGE or {}).get("SimpleStorage") or {}
    kinds["TransferQueue storage unit"] = list(units.values())
    found: dict[str, tuple[ActorHandle, bool]] = {}
    for kind, handles in kinds.items():
        for number, handle in enumerate(handles):
            known = any(handle == other for other, _ in found.values())  # the reference may live in the actor
            if isinstance(handle, ActorHandle) and not known:
                found[f"{kind} {number} of {len(handles)}"] = (handle, kind in (engine, "reward model server"))
    return found
