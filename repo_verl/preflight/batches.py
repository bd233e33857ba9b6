"""Sizes that verl or vLLM refuses only after Ray, the model or the first batch, and those that it may refuse."""

from __future__ import annotations

import math
from collections.abc import Iterator

from repo_verl.config import lookup
from repo_verl.preflight.machine import has_cluster
from repo_verl.preflight.models import Dims
from repo_verl.preflight.settings import FSDP, Config, data_parallel, is_replaying, lora_rank

ACTOR, ROLLOUT = "actor_rollout_ref.actor.", "actor_rollout_ref.rollout."
SIZES = (
    "trainer.n_gpus_per_node", "trainer.nnodes", "trainer.total_epochs", "data.max_prompt_length",
    "data.max_response_length", ROLLOUT + "n", ROLLOUT + "tensor_model_parallel_size",
)  # fmt: skip
"""Counts that every run has."""
PASSES = ((ACTOR, "ppo_"), (ROLLOUT, "log_prob_"))
"""Sections with a size of a pass, and the prefix of its keys."""


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
    """One sentence for each batch size that is certain to stop the run."""
    prompts, mini = whole(config, "data.train_batch_size"), whole(config, ACTOR + "ppo_mini_batch_size")
    if mini > prompts and not lookup(config, ACTOR + "use_dynamic_bsz", False):
        yield (
            f"{ACTOR}ppo_mini_batch_size={mini} is more than data.train_batch_size={prompts}, which verl refuses with "
            f"use_dynamic_bsz=False: set it to {prompts} or less."
        )
        return
    for section, prefix in PASSES:
        key, dynamic = f"{section}{prefix}micro_batch_size_per_gpu", _dynamic(section, prefix)
        if not lookup(config, dynamic, False) and lookup(config, key, lookup(config, key[:-8])) is None:
            yield f"{key}=null and {dynamic}=False leave the size of a pass open: set {dynamic}=True or the size."
    if not is_replaying(config):
        yield from _uneven_update(config)
    if not lookup(config, "algorithm.rollout_correction.bypass_mode", False):
        ranks, step = data_parallel(config), mini * whole(config, ROLLOUT + "n")
        filled = math.lcm(ranks, step)  # verl pads a batch to a multiple of this
        rows = math.ceil(prompts * whole(config, ROLLOUT + "n") / filled) * filled
        yield from _uneven_passes(config, ROLLOUT, "log_prob_", rows // ranks)


def find_batch_doubts(config: Config) -> Iterator[str]:
    """One sentence for each size that stops a run with some rows and not with others.

    Updates with replayed or pruned rows are laid out by RePO, which pads them; verl lays out the others.
    """
    found = list(_uneven_update(config)) if is_replaying(config) else []
    for section, prefix in PASSES:
        key = f"{section}{prefix}max_token_len_per_gpu"
        length = whole(config, "data.max_prompt_length") + whole(config, "data.max_response_length")
        limit = whole(config, key, 16384) * whole(config, ACTOR + "ulysses_sequence_parallel_size")
        if lookup(config, _dynamic(section, prefix), False) and limit < length:
            found.append(
                f"{key}={limit} is less than data.max_prompt_length + data.max_response_length = {length}, one row of "
                f"full length: set it to {length} or more."
            )
    for sentence in found:
        yield f"{sentence[:-1]}, or SKIP_ESTIMATE=1 to try."


def find_batch_notices(config: Config) -> Iterator[str]:
    """A line where verl fills a mini-batch with padding rows."""
    prompts, mini = whole(config, "data.train_batch_size"), whole(config, ACTOR + "ppo_mini_batch_size")
    if prompts % mini:
        yield (
            f"{ACTOR}ppo_mini_batch_size={mini} does not divide data.train_batch_size={prompts}: verl fills the last "
            "mini-batch with padding rows"
        )


def _dynamic(section: str, prefix: str) -> str:
    return section + ("" if prefix == "ppo_" else prefix) + "use_dynamic_bsz"


def _uneven_update(config: Config) -> Iterator[str]:
    """Rows of a mini-batch that ranks can't share, or passes can't, where verl lays them out."""
    mini, samples = whole(config, ACTOR + "ppo_mini_batch_size"), whole(config, ROLLOUT + "n")
    ranks = data_parallel(config)
    if mini * samples % ranks:
        yield (
            f"{ACTOR}ppo_mini_batch_size={mini} x {ROLLOUT}n={samples} are {mini * samples} rows, which {ranks} "
            f"data-parallel GPUs can't share evenly: make the product a multiple of {ranks}, or "
            "trainer.n_gpus_per_node a divisor of it."
        )
    else:
        yield from _uneven_passes(config, ACTOR, "ppo_", mini * samples // ranks)


def _uneven_passes(config: Config, section: str, prefix: str, rows: int) -> Iterator[str]:
    key = f"{section}{prefix}micro_batch_size_per_gpu"
    if lookup(config, _dynamic(section, prefix), False) or lookup(config, key) is None:
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
            yield from find_uneven(config, key, dims.heads, "attention heads")
    if lookup(config, "trainer.device") == "cpu" and not has_cluster(config):
        logical = lookup(config, "ray_kwargs.ray_init.num_gpus")  # null: Ray, or an existing cluster, decides
        if logical is not None and logical < gpus:
            yield (
                f"ray_kwargs.ray_init.num_gpus={logical} is less than the {gpus} workers of "
                f"trainer.n_gpus_per_node={per_node}, which Ray would wait for: set it to {gpus}."
            )


def find_uneven(config: Config, key: str, count: int, what: str) -> Iterator[str]:
    """A size of parallelism that does not divide what the model has of something."""
    if count % whole(config, key):
        yield f"{key}={whole(config, key)} does not divide the model's {count} {what}: set it to a divisor."


def find_lora_problems(config: Config) -> Iterator[str]:
    """What verl 0.9.1 asks of LoRA with vLLM and FSDP."""
    rank = lora_rank(config)
    if rank == 0 or lookup(config, ACTOR + "strategy") not in FSDP:
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
