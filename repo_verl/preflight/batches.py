"""Sizes that verl or vLLM would refuse only after Ray, the model or the first batch: what must divide what."""

from __future__ import annotations

from collections.abc import Iterator

from repo_verl.preflight.models import Dims
from repo_verl.preflight.settings import Config, data_parallel, lookup, lora_rank

ACTOR, ROLLOUT = "actor_rollout_ref.actor.", "actor_rollout_ref.rollout."
SIZES = (
    "trainer.n_gpus_per_node", "trainer.nnodes", "trainer.total_epochs", "data.max_prompt_length",
    "data.max_response_length", ROLLOUT + "n", ROLLOUT + "tensor_model_parallel_size",
)  # fmt: skip
"""Counts that every run has."""


def whole(config: Config, key: str, default: int = 1) -> int:
    """A count.

    Raises:
        ValueError: naming key and value, if it is no integer above 0.
    """
    value = lookup(config, key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key}={value} is no integer above 0: set it to one.")
    return value


def find_batch_problems(config: Config) -> Iterator[str]:
    """One sentence for each pair of batch sizes that does not fit."""
    prompts, mini = whole(config, "data.train_batch_size"), whole(config, ACTOR + "ppo_mini_batch_size")
    samples, ranks = whole(config, ROLLOUT + "n"), data_parallel(config)
    if prompts % mini:
        fitting = max(size for size in range(1, min(mini, prompts) + 1) if prompts % size == 0)
        yield (
            f"{ACTOR}ppo_mini_batch_size={mini} does not divide data.train_batch_size={prompts}: "
            f"set it to {fitting} or the batch to a multiple of {mini}."
        )
    elif mini * samples % ranks:
        yield (
            f"{ACTOR}ppo_mini_batch_size={mini} x {ROLLOUT}n={samples} are {mini * samples} rows, which {ranks} "
            f"data-parallel GPUs can't share evenly: make the product a multiple of {ranks}, or "
            "trainer.n_gpus_per_node a divisor of it."
        )
    else:
        yield from _micro_batches(config, ACTOR, "ppo_", mini * samples // ranks)
        yield from _micro_batches(config, ROLLOUT, "log_prob_", prompts * samples // ranks)


def _micro_batches(config: Config, section: str, prefix: str, rows: int) -> Iterator[str]:
    dynamic = section + ("" if prefix == "ppo_" else prefix) + "use_dynamic_bsz"
    if lookup(config, dynamic, False):
        key = f"{section}{prefix}max_token_len_per_gpu"
        length = whole(config, "data.max_prompt_length") + whole(config, "data.max_response_length")
        limit = whole(config, key, 16384) * whole(config, ACTOR + "ulysses_sequence_parallel_size")
        if limit < length:
            yield (
                f"{key}={limit} is less than data.max_prompt_length + data.max_response_length = {length}, one row: "
                f"set it to {length} or more."
            )
        return
    key = f"{section}{prefix}micro_batch_size_per_gpu"
    if lookup(config, key) is None:
        if lookup(config, key.removesuffix("_per_gpu")) is None:
            yield f"{key}=null and {dynamic}=False leave the size of a pass open: set {dynamic}=True or the size."
        return
    size = whole(config, key)
    if rows % size:
        fitting = max(n for n in range(1, min(size, rows) + 1) if rows % n == 0)
        yield f"{key}={size} does not divide the {rows} rows of a GPU: set it to {fitting}."


def find_parallel_problems(config: Config, dims: Dims | None) -> Iterator[str]:
    """One sentence for each size of parallelism that does not fit the GPUs or the model."""
    per_node = whole(config, "trainer.n_gpus_per_node")
    gpus = per_node * whole(config, "trainer.nnodes")
    tensor = ROLLOUT + "tensor_model_parallel_size"
    engine = whole(config, tensor) * whole(config, ROLLOUT + "data_parallel_size")
    if gpus % engine:
        yield (
            f"{tensor}={whole(config, tensor)} (x data_parallel_size) does not divide the {gpus} GPUs of "
            f"trainer.n_gpus_per_node={per_node} and trainer.nnodes: set it to a divisor."
        )
    sequence = ACTOR + "ulysses_sequence_parallel_size"
    if gpus % whole(config, sequence):
        yield f"{sequence}={whole(config, sequence)} does not divide the {gpus} GPUs: set it to a divisor."
    sharded = lookup(config, ACTOR + "fsdp_config.fsdp_size", -1)
    if sharded > 0 and gpus % min(sharded, gpus):
        yield f"{ACTOR}fsdp_config.fsdp_size={sharded} does not divide the {gpus} GPUs: set it to a divisor or to -1."
    if dims is not None:
        for key in (tensor, sequence):
            if dims.heads % whole(config, key):
                yield (
                    f"{key}={whole(config, key)} does not divide the model's {dims.heads} attention heads: "
                    "set it to a divisor."
                )
    if lookup(config, "trainer.device") == "cpu":
        logical = lookup(config, "ray_kwargs.ray_init.num_gpus", 0)
        if logical < gpus:
            yield (
                f"ray_kwargs.ray_init.num_gpus={logical} is less than the {gpus} workers of "
                f"trainer.n_gpus_per_node={per_node}, which Ray would wait for: set it to {gpus}."
            )


def find_lora_problems(config: Config) -> Iterator[str]:
    """What verl 0.9.1 asks of LoRA with vLLM and FSDP."""
    rank = lora_rank(config)
    if rank == 0 or lookup(config, ACTOR + "strategy") not in ("fsdp", "fsdp2"):
        return
    if lookup(config, "actor_rollout_ref.model.lora.merge", False):
        return
    if rank > 512:
        yield f"actor_rollout_ref.model.lora_rank={rank} is above vLLM's largest, 512: set it to 512 or less."
    loading = str(lookup(config, ROLLOUT + "load_format", "dummy"))
    layered = lookup(config, ROLLOUT + "layered_summon", False)
    if "dummy" in loading and layered:
        yield (
            f"{ROLLOUT}load_format={loading} leaves vLLM without the base weights, which verl does not send with "
            f"layered_summon=True: set {ROLLOUT}load_format=safetensors."
        )
    if lookup(config, ACTOR + "strategy") == "fsdp2" and not layered:
        yield (
            f"{ROLLOUT}layered_summon=False collects LoRA's adapters with FSDP1's functions, which "
            f"{ACTOR}strategy=fsdp2 lacks: set {ROLLOUT}layered_summon=True."
        )
