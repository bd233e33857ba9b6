"""Memory of a GPU and of the host, disk and seconds of a run, from the equations. Not measured on a GPU."""

from __future__ import annotations

import dataclasses
import math

from repo_verl.config import lookup
from repo_verl.preflight import equations as eq
from repo_verl.preflight.models import Dims
from repo_verl.preflight.settings import Config, Settings, is_replaying, read_settings

GIB = 2.0**30

MFU = 0.3
"""Assumed share of a GPU's peak that the actor's passes reach."""
BANDWIDTH_SHARE = 0.5
"""Assumed share of the memory's bandwidth that decoding reaches."""
PCIE = 25e9
"""Assumed bytes a second between host and GPU."""
GPU_FIXED = 3 * GIB
"""Assumed for CUDA contexts, NCCL, sleeping vLLM and fragments."""
ENGINE_FIXED = 2 * GIB
"""Assumed for vLLM's activations and CUDA graphs, within its share."""
HOST_FIXED, HOST_PER_GPU, HOST_PER_HELPER = 4 * GIB, 5 * GIB, 1 * GIB
"""Assumed for Ray and the driver, for a GPU's two processes, for each process that generates or scores."""
CPU_FIXED, CPU_PER_WORKER = 3 * GIB, 1 * GIB
"""The same on the CPU backend, whose processes share what they import (quickstart, one worker: 4.0 GiB measured)."""
CPU_CACHE = 1 * GIB
"""VLLM_CPU_KVCACHE_SPACE of the CPU backend."""
QUEUE_TOKEN = 50
"""Bytes of a token in TransferQueue (shared/verl_facts.md, 8)."""
ASSUMED_PROMPTS = 1024
"""Training prompts where no file says how many."""

# GiB of a GPU from which on -> name, bf16 FLOP/s, bytes/s; the public data sheets' dense figures
CARDS = ((64.0, "A100 80 GB", 312e12, 2.0e12), (32.0, "L40S", 362e12, 0.86e12), (0.0, "A10", 125e12, 0.6e12))


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes and seconds of a run. ``None`` where the device has no such part.

    Attributes:
        parameters: P, of the model.
        trained: those that are trained: P, or A with LoRA.
        gpu: bytes of one GPU by phase: ``generation``, ``log_probs``, ``update``.
        vllm: bytes of one GPU of vLLM's share: ``share``, ``weights``, ``cache``, and ``longest``, of a row of
            ``max_model_len`` or the model's context; rows of full length at once ``rows``.
        host: bytes of a node's memory by part; ``loading`` and ``running`` are peaks, of which the larger counts.
        disk: bytes of all checkpoints that are kept, the last buffer included.
        checkpoints: their number at the most, with the one that is being written.
        seconds: of a step with full replay, by part.
        steps: training steps.
        card: the GPU whose figures the seconds use.
    """

    parameters: int
    trained: int
    gpu: dict[str, float]
    vllm: dict[str, float]
    host: dict[str, float]
    disk: float
    checkpoints: int
    seconds: dict[str, float]
    steps: int
    card: str

    @property
    def gpu_peak(self) -> float:
        """Bytes of one GPU in the phase that needs most; 0 on the CPU."""
        return max(self.gpu.values(), default=0.0)

    @property
    def host_peak(self) -> float:
        """Bytes of a node's memory at their highest."""
        return max(self.host["loading"], self.host["running"]) + self.host["processes"]

    @property
    def step_seconds(self) -> float:
        """Seconds of a step with full replay."""
        return sum(self.seconds.values())

    @property
    def run_hours(self) -> float:
        """Hours of the run, as if every step replayed."""
        return self.step_seconds * self.steps / 3600


def make_estimate(config: Config, dims: Dims, gpu_bytes: float, train_prompts: int | None) -> Estimate:
    """The estimate of a composed configuration.

    Args:
        config: verl's composed configuration; an FSDP engine's.
        dims: of the model.
        gpu_bytes: memory of one GPU.
        train_prompts: prompts in the training files; None where that is not known.

    Returns:
        the estimate.
    """
    s = read_settings(config)
    total = eq.parameters(dims)
    adapters = eq.adapter_parameters(dims, s.rank) if s.rank else 0
    trained = adapters or total
    prompts = train_prompts or ASSUMED_PROMPTS
    steps = _steps(config, s, prompts)
    buffer = _buffer(config, s, prompts)
    cpu = s.device == "cpu"
    name, flops, bandwidth = next(card[1:] for card in CARDS if gpu_bytes / GIB >= card[0])
    kept = _checkpoints(config, steps)
    state = s.model_bytes * (total + adapters + 2 * trained)
    return Estimate(
        parameters=total,
        trained=trained,
        gpu={} if cpu else _gpu(s, dims, total, adapters, gpu_bytes),
        vllm={} if cpu else _vllm(s, dims, total, gpu_bytes, lookup(config, "actor_rollout_ref.rollout.max_model_len")),
        host=_host(s, dims, total, adapters, buffer / _buffer_nodes(config)),
        disk=kept * (state + buffer * bool(lookup(config, "algorithm.repo.persist", True))),
        checkpoints=kept,
        seconds={} if cpu else _seconds(s, total, adapters, flops * MFU, bandwidth * BANDWIDTH_SHARE),
        steps=steps,
        card="" if cpu else name,
    )


def _steps(config: Config, s: Settings, prompts: int) -> int:
    steps = int(lookup(config, "trainer.total_epochs", 1)) * (prompts // s.prompts)
    return min(steps, int(lookup(config, "trainer.total_training_steps", steps)))


def _checkpoints(config: Config, steps: int) -> int:
    every = int(lookup(config, "trainer.save_freq", -1))
    if every <= 0:
        return 0
    kept = max(2, int(lookup(config, "trainer.max_actor_ckpt_to_keep", 10**9)))  # the old one goes after the new
    return min(math.ceil(steps / every), kept)


def _buffer(config: Config, s: Settings, prompts: int) -> float:
    if not is_replaying(config):
        return 0.0
    rows = prompts * int(lookup(config, "algorithm.repo.capacity", 16))
    rows = min(rows, int(lookup(config, "algorithm.repo.max_tokens", rows * s.response_tokens)) // s.response_tokens)
    token = 6 if lookup(config, "algorithm.repo.log_prob_dtype", "float32") == "bfloat16" else 8
    return eq.buffer_bytes(rows, s.response_tokens, token)


def _buffer_nodes(config: Config) -> int:
    """Nodes over which the buffer's rows are spread."""
    repo = "algorithm.repo."
    if lookup(config, repo + "storage") != "distributed":
        return 1
    nodes = int(lookup(config, "trainer.nnodes", 1))
    return max(1, min(nodes, int(lookup(config, repo + "storage_processes", nodes))))


def _state(s: Settings, total: int, adapters: int) -> tuple[float, float, float]:
    """Weights, Adam's moments and gradients of one GPU, wherever they lie."""
    trained = adapters or total
    return (
        eq.weight_bytes(total, adapters, s.model_bytes, s.shards),
        eq.optimizer_bytes(trained, s.model_bytes, s.shards),
        eq.gradient_bytes(trained, s.model_bytes, s.shards),
    )


def _gpu(s: Settings, d: Dims, total: int, adapters: int, gpu_bytes: float) -> dict[str, float]:
    weights, moments, gradients = _state(s, total, adapters)
    if s.offload_policy:
        weights = moments = gradients = 0.0
    share = s.vllm_share * gpu_bytes
    resting = weights * (not s.param_offload) + moments * (not s.optimizer_offload)
    beside = GPU_FIXED + (0.0 if s.cache_freed else share)
    gathered = eq.gathered_bytes(d)
    return {
        "generation": resting + share + GPU_FIXED,
        "log_probs": weights
        + moments * (not s.optimizer_offload)
        + gathered
        + eq.layer_activation_bytes(d, s.log_prob_tokens)
        + eq.logit_bytes(d, s.log_prob_tokens)
        + beside,
        "update": weights
        + moments
        + gradients
        + gathered
        + eq.reduced_bytes(d, bool(s.rank))
        + eq.activation_bytes(d, s.update_tokens, s.checkpointing)
        + eq.logit_bytes(d, s.update_tokens)
        + beside,
    }


def _vllm(s: Settings, d: Dims, total: int, gpu_bytes: float, context: int | None) -> dict[str, float]:
    share, weights = s.vllm_share * gpu_bytes, eq.BF16 * total / s.tensor_parallel
    cache = share - weights - ENGINE_FIXED
    length = s.prompt_tokens + s.response_tokens
    token = eq.cache_bytes_per_token(d, s.tensor_parallel)
    rows = math.floor(max(0.0, cache) / (token * length))
    longest = token * float(context or max(d.context, length))
    return {"share": share, "weights": weights, "cache": cache, "longest": longest, "rows": float(rows)}


def _host(s: Settings, d: Dims, total: int, adapters: int, buffer: float) -> dict[str, float]:
    workers = s.gpus_per_node
    queue = QUEUE_TOKEN * s.prompts * (s.samples + s.replayed) * float(s.prompt_tokens + s.response_tokens)
    # a tied model is read whole by every worker, another by the first alone
    loading = float(s.model_bytes * total * (workers if d.tied else 1))
    weights, moments, gradients = (part * workers for part in _state(s, total, adapters))
    if s.device == "cpu":
        engines = eq.FP32 * float(total) * s.engines + CPU_CACHE * s.engines
        # everything in fp32: 2 bytes in the equations are 4 here
        passes = 2 * (eq.activation_bytes(d, s.update_tokens, s.checkpointing) + eq.logit_bytes(d, s.update_tokens))
        running = weights + moments + gradients + engines + workers * passes
        processes = CPU_FIXED + CPU_PER_WORKER * (workers - 1)
    else:
        running = weights * s.param_offload + moments * s.optimizer_offload
        running += (weights + moments + gradients) * s.offload_policy
        running += eq.BF16 * total * s.engines * (s.rank > 0)  # vLLM's weights, put aside while it sleeps
        processes = HOST_FIXED + HOST_PER_GPU * workers + HOST_PER_HELPER * s.helpers
    return {"loading": loading, "running": running + buffer + queue, "processes": processes, "buffer": buffer}


def _seconds(s: Settings, total: int, adapters: int, flops: float, bandwidth: float) -> dict[str, float]:
    length = s.prompt_tokens + s.response_tokens
    fresh, all_rows = s.prompts * s.samples, s.prompts * (s.samples + s.replayed)
    engines = s.gpus / s.tensor_parallel
    rows = math.ceil(fresh / engines)
    weights, moments, _ = _state(s, total, adapters)
    # weights: there and back for log-probs and update, once for vLLM (offload_policy: as often, gradients among them)
    moved = 5 * weights * (s.param_offload or s.offload_policy) + 2 * moments * s.optimizer_offload
    train = eq.train_flops(total, all_rows * length, s.rank > 0, s.checkpointing)
    return {
        "generation": eq.generation_seconds(total, rows, s.response_tokens, s.tensor_parallel, flops, bandwidth),
        "log_probs": eq.forward_flops(total, fresh * length) / (s.gpus * flops),
        "update": train / (s.gpus * flops),
        "offload": moved / PCIE,
    }
