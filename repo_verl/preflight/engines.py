"""What an engine needs beside batch sizes: packages, sizes of Megatron's parallelism, logical CPUs for Ray."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

from repo_verl import versions
from repo_verl.config import lookup
from repo_verl.preflight import batches
from repo_verl.preflight.machine import has_cluster
from repo_verl.preflight.models import Dims
from repo_verl.preflight.settings import FSDP, Config

CPUS_PER_GPU = 3
"""CPUs that verl's resource pool reserves for a GPU, where trainers and engines share GPUs."""
STORAGE_UNITS = "transfer_queue.backend.SimpleStorage.num_data_storage_units"


def is_installed(module: str) -> bool:
    """Whether a module can be found, without importing it; its parents are imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def find_megatron_problems(config: Config, dims: Dims | None) -> Iterator[str]:
    """Megatron-Core that is missing, and sizes that fit neither the GPUs nor the model; verl looks at neither first."""
    if lookup(config, batches.ACTOR + "strategy") != "megatron":
        return
    if not is_installed("megatron.core"):
        yield (
            "actor_rollout_ref.actor.strategy=megatron needs Megatron-Core, which is not installed: "
            "pip install 'verl[megatron]==0.9.1'."
        )
    part = batches.ACTOR + "megatron."
    tensor, pipeline = part + "tensor_model_parallel_size", part + "pipeline_model_parallel_size"
    gpus = batches.whole(config, "trainer.n_gpus_per_node") * batches.whole(config, "trainer.nnodes")
    tp, pp = batches.whole(config, tensor), batches.whole(config, pipeline)
    if gpus % (tp * pp):
        yield (
            f"{tensor}={tp} x {pipeline}={pp} does not divide the {gpus} GPUs of trainer.n_gpus_per_node and "
            "trainer.nnodes: set them so that it does (TP, PP)."
        )
    if dims is not None:
        yield from batches.find_uneven(config, tensor, dims.heads, "attention heads")
        yield from batches.find_uneven(config, pipeline, dims.layers, "layers")


def find_attention_doubt(config: Config) -> Iterator[str]:
    """flash-attn that FSDP's model asks for and that is not installed; transformers refuses it when workers load."""
    model = "actor_rollout_ref.model."
    if lookup(config, "trainer.device") == "cpu" or lookup(config, batches.ACTOR + "strategy") not in FSDP:
        return
    attention = lookup(config, model + "override_config.attn_implementation", "flash_attention_2")
    # with the package `kernels` transformers would fetch one from the hub
    if attention == "flash_attention_2" and not any(map(versions.installed, ("flash-attn", "kernels"))):
        yield (
            f"{model}override_config.attn_implementation=flash_attention_2 (verl's default) needs flash-attn, which is "
            "not installed: pip install flash-attn==2.8.3 --no-build-isolation, or set "
            f"+{model}override_config.attn_implementation=sdpa {model}use_remove_padding=False, or SKIP_ESTIMATE=1 "
            "to try."
        )


def find_cpu_doubt(config: Config, cpus: int | None = None) -> Iterator[str]:
    """Fewer logical CPUs than Ray's processes reserve on one machine, for which they would wait without a message.

    Args:
        config: the configuration.
        cpus: logical CPUs of this machine; None: counted.
    """
    asked = lookup(config, "ray_kwargs.ray_init.num_cpus")
    there = asked or cpus or os.cpu_count() or 1
    if lookup(config, "trainer.device") == "cpu" or batches.whole(config, "trainer.nnodes") > 1 or has_cluster(config):
        return
    units, gpus = batches.whole(config, STORAGE_UNITS, 8), batches.whole(config, "trainer.n_gpus_per_node")
    needed = 2 + units + CPUS_PER_GPU * gpus  # 2: the trainer's process and TransferQueue's controller
    if there < needed:
        yield (
            f"{STORAGE_UNITS}={units} and trainer.n_gpus_per_node={gpus} reserve {needed} CPUs in Ray, which has "
            f"{there} and would wait for more: set {STORAGE_UNITS} to {max(1, units - (needed - there))}, or "
            f"ray_kwargs.ray_init.num_cpus={needed} (they are counted, not bound), or SKIP_ESTIMATE=1 to try."
        )
