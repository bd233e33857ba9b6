"""What the estimates need of a composed configuration, read once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from repo_verl.config import lookup

Config = Mapping[str, Any]

FSDP = ("fsdp", "fsdp2")
"""``actor.strategy`` of the engines whose sizes are checked and estimated."""


def lora_rank(config: Config) -> int:
    """The rank of LoRA's adapters; 0 without them. ``model.lora.rank`` goes before ``model.lora_rank``, as in verl."""
    model = "actor_rollout_ref.model."
    return int(lookup(config, model + "lora.rank", 0)) or int(lookup(config, model + "lora_rank", 0))


def is_replaying(config: Config) -> bool:
    """Whether RePO keeps and replays anything: not for GRPO, ``strategy=none`` and ``off_policy_coef=0``."""
    repo = "algorithm.repo."
    chosen = lookup(config, "algorithm.adv_estimator") == "repo" and lookup(config, repo + "strategy") != "none"
    return chosen and float(lookup(config, repo + "off_policy_coef", 1.0)) != 0


def replayed_per_prompt(config: Config) -> int:
    """Most rows that a prompt replays in a step; 0 for GRPO."""
    if not is_replaying(config):
        return 0
    repo = "algorithm.repo."
    strategy = lookup(config, repo + "strategy", "recency")
    capacity = int(lookup(config, repo + "capacity", 16))
    return capacity if strategy == "full" else min(capacity, int(lookup(config, repo + "num_replay", 8)))


def data_parallel(config: Config) -> int:
    """Ranks that hold different rows: GPUs over Ulysses' sequence-parallel size."""
    gpus = int(lookup(config, "trainer.n_gpus_per_node", 1)) * int(lookup(config, "trainer.nnodes", 1))
    return max(1, gpus // int(lookup(config, "actor_rollout_ref.actor.ulysses_sequence_parallel_size", 1)))


def micro_tokens(config: Config, rows: int, section: str, prefix: str) -> int:
    """Most tokens in one pass on one GPU.

    Args:
        config: the configuration.
        rows: rows of one rank in a mini-batch.
        section: ``actor_rollout_ref.actor.`` or ``actor_rollout_ref.rollout.``.
        prefix: of the keys, ``ppo_`` or ``log_prob_``.
    """
    length = int(lookup(config, "data.max_prompt_length", 512)) + int(lookup(config, "data.max_response_length", 512))
    dynamic = section + ("" if prefix == "ppo_" else prefix) + "use_dynamic_bsz"
    if lookup(config, dynamic, False):
        limit = int(lookup(config, f"{section}{prefix}max_token_len_per_gpu", 16384))
    else:
        limit = int(lookup(config, f"{section}{prefix}micro_batch_size_per_gpu", rows) or rows) * length
    return min(rows * length, limit)


@dataclasses.dataclass(frozen=True)
class Settings:
    """A run's sizes.

    Attributes:
        device: ``cuda`` or ``cpu``.
        gpus: GPUs (workers) of all nodes.
        gpus_per_node: of one node.
        shards: GPUs over which FSDP shards.
        engines: vLLM engines on one node.
        tensor_parallel: GPUs of an engine.
        prompts: prompts a step.
        samples: responses a prompt.
        replayed: rows a prompt replays at most.
        updated_rows: most rows of one rank in a mini-batch of the update.
        prompt_tokens: longest prompt.
        response_tokens: longest response.
        update_tokens: most tokens of one rank in a pass of the update.
        log_prob_tokens: the same in a pass over log-probs.
        model_bytes: of a parameter, ``fsdp_config.model_dtype``.
        rank: LoRA's; 0 without.
        checkpointing: whether activations are recomputed.
        param_offload: parameters (and gradients) lie in the host's memory between uses.
        optimizer_offload: Adam's moments too.
        offload_policy: FSDP2 keeps all three in the host's memory and the optimizer runs there.
        vllm_share: ``gpu_memory_utilization``.
        cache_freed: whether vLLM gives its memory back while the actor works (``free_cache_engine``).
        helpers: Ray processes that generate and score.
    """

    device: str
    gpus: int
    gpus_per_node: int
    shards: int
    engines: int
    tensor_parallel: int
    prompts: int
    samples: int
    replayed: int
    updated_rows: int
    prompt_tokens: int
    response_tokens: int
    update_tokens: int
    log_prob_tokens: int
    model_bytes: int
    rank: int
    checkpointing: bool
    param_offload: bool
    optimizer_offload: bool
    offload_policy: bool
    vllm_share: float
    cache_freed: bool
    helpers: int


def read_settings(config: Config) -> Settings:
    """The sizes of a composed configuration (an FSDP engine's)."""
    actor, rollout = "actor_rollout_ref.actor.", "actor_rollout_ref.rollout."
    per_node, nodes = int(lookup(config, "trainer.n_gpus_per_node", 1)), int(lookup(config, "trainer.nnodes", 1))
    fsdp_size = int(lookup(config, actor + "fsdp_config.fsdp_size", -1))
    tensor_parallel = int(lookup(config, rollout + "tensor_model_parallel_size", 1))
    prompts, samples = int(lookup(config, "data.train_batch_size", 1)), int(lookup(config, rollout + "n", 1))
    mini = int(lookup(config, actor + "ppo_mini_batch_size", prompts))
    replayed, ranks = replayed_per_prompt(config), data_parallel(config)
    rows = math.ceil(mini * (samples + replayed) / ranks)
    offload_policy = bool(lookup(config, actor + "fsdp_config.offload_policy", False))
    return Settings(
        device=str(lookup(config, "trainer.device", "cuda")),
        gpus=per_node * nodes,
        gpus_per_node=per_node,
        shards=fsdp_size if 0 < fsdp_size < per_node * nodes else per_node * nodes,
        engines=max(1, per_node // tensor_parallel),
        tensor_parallel=tensor_parallel,
        prompts=prompts,
        samples=samples,
        replayed=replayed,
        updated_rows=rows,
        prompt_tokens=int(lookup(config, "data.max_prompt_length", 512)),
        response_tokens=int(lookup(config, "data.max_response_length", 512)),
        update_tokens=micro_tokens(config, rows, actor, "ppo_"),
        log_prob_tokens=micro_tokens(config, math.ceil(prompts * samples / ranks), rollout, "log_prob_"),
        model_bytes=2 if lookup(config, actor + "fsdp_config.model_dtype", "fp32") in ("bf16", "bfloat16") else 4,
        rank=lora_rank(config),
        checkpointing=bool(lookup(config, "actor_rollout_ref.model.enable_gradient_checkpointing", True)),
        param_offload=bool(lookup(config, actor + "fsdp_config.param_offload", False)) and not offload_policy,
        optimizer_offload=bool(lookup(config, actor + "fsdp_config.optimizer_offload", False)) and not offload_policy,
        offload_policy=offload_policy,
        vllm_share=float(lookup(config, rollout + "gpu_memory_utilization", 0.5)),
        cache_freed=bool(lookup(config, rollout + "free_cache_engine", True)),
        helpers=int(lookup(config, rollout + "agent.num_workers", 8)) + int(lookup(config, "reward.num_workers", 8)),
    )
