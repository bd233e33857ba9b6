"""Sizes that verl or vLLM refuses only after Ray, the model or the first batch, and those that it may refuse."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from repo_verl.config import lookup
from repo_verl.preflight import Config

FSDP = ("fsdp", "fsdp2")
ACTOR, ROLLOUT, MODEL = (f"actor_rollout_ref.{part}." for part in ("actor", "rollout", "model"))
COUNTS = (
    "trainer.n_gpus_per_node", "trainer.nnodes", "trainer.total_epochs", "data.max_prompt_length",
    "data.max_response_length", ROLLOUT + "n", ROLLOUT + "tensor_model_parallel_size",
)  # fmt: skip
PASSES = ((ACTOR, "ppo_"), (ROLLOUT, "log_prob_"))
"""Sections with a size of a pass, and the prefix of its keys."""


class Shape(NamedTuple):
    """What parallelism divides of a model."""

    heads: int
    layers: int


KNOWN = {
    "Qwen/Qwen2.5-0.5B": Shape(14, 24),
    "Qwen/Qwen2.5-Math-1.5B": Shape(12, 28),
    "Qwen/Qwen2.5-Math-7B": Shape(28, 28),
    "Qwen/Qwen3-1.7B": Shape(16, 28),
}
"""The run scripts' models, from their public ``config.json``."""


def is_local(path: str) -> bool:
    """Whether a model's path names a folder and no model of the hub (``name`` or ``owner/name``)."""
    return path.startswith(("/", ".", "~")) or path.count("/") > 1 or Path(path).exists()


def find_shape(path: str) -> Shape | None:
    """The shape of the model at a path or of that name; None where neither a ``config.json`` nor the table has it."""
    folders = [Path(path).expanduser()]
    if not is_local(path):
        if path in KNOWN:
            return KNOWN[path]
        home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
        folders = sorted(home.glob(f"models--{path.replace('/', '--')}/snapshots/*"))
    for folder in folders:
        with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
            config = json.loads((folder / "config.json").read_text())
            return Shape(int(config["num_attention_heads"]), int(config["num_hidden_layers"]))
    return None


def whole(config: Config, key: str, default: int = 1) -> int:
    """A count; ValueError naming key and value, if it is no integer above 0."""
    value = lookup(config, key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key}={value} is no integer above 0: set it to one.")
    return value


def find_size_problems(config: Config, shape: Shape | None, prompts: int | None) -> Iterator[str]:
    """One sentence for each size that is certain to stop the run, with the model's shape and prompts where known."""
    size = whole(config, "data.train_batch_size")
    for key in COUNTS:
        whole(config, key)
    if prompts is not None and prompts < size:
        yield (
            f"data.train_batch_size={size} is more than the {prompts} prompts of data.train_files, so that no step "
            f"would run: set it to {prompts} or less, or name more data."
        )
    if lookup(config, ACTOR + "strategy") in FSDP:
        yield from find_batch_problems(config)
        yield from _find_parallel_problems(config, shape)
        yield from find_lora_problems(config)
    if lookup(config, ACTOR + "strategy") == "megatron":
        yield from _find_megatron_problems(config, shape)


def find_batch_problems(config: Config) -> Iterator[str]:
    """One sentence for each batch size of an FSDP engine that is certain to stop the run."""
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
            yield f"{key}=null and {dynamic}=False set no size of a forward pass: set {dynamic}=True or the size."
    if not is_replaying(config):
        yield from _find_uneven_update(config)
    if not lookup(config, "algorithm.rollout_correction.bypass_mode", False):
        ranks, step = _data_parallel(config), mini * whole(config, ROLLOUT + "n")
        filled = math.lcm(ranks, step)  # verl pads a batch to a multiple of this
        rows = math.ceil(prompts * whole(config, ROLLOUT + "n") / filled) * filled
        yield from _find_uneven_passes(config, ROLLOUT, "log_prob_", rows // ranks)


def find_batch_doubts(config: Config) -> Iterator[str]:
    """One sentence for each size that stops a run with some rows and not with others.

    Updates with replayed or pruned rows are laid out by RePO, which pads them; verl lays out the others.
    """
    if lookup(config, ACTOR + "strategy") not in FSDP:
        return
    if is_replaying(config):
        yield from _find_uneven_update(config)
    for section, prefix in PASSES:
        key = f"{section}{prefix}max_token_len_per_gpu"
        length = whole(config, "data.max_prompt_length") + whole(config, "data.max_response_length")
        limit = whole(config, key, 16384) * whole(config, ACTOR + "ulysses_sequence_parallel_size")
        if lookup(config, _dynamic(section, prefix), False) and limit < length:
            yield (
                f"{key}={limit} is less than data.max_prompt_length + data.max_response_length = {length}, one row of "
                f"full length: set it to {length} or more."
            )


def find_batch_notices(config: Config) -> Iterator[str]:
    """A line where verl fills a mini-batch with padding rows."""
    prompts, mini = whole(config, "data.train_batch_size"), whole(config, ACTOR + "ppo_mini_batch_size")
    if prompts % mini and lookup(config, ACTOR + "strategy") in FSDP:
        yield (
            f"{ACTOR}ppo_mini_batch_size={mini} does not divide data.train_batch_size={prompts}: verl fills the last "
            "mini-batch with padding rows"
        )


def is_replaying(config: Config) -> bool:
    """Whether RePO keeps and replays anything: not for GRPO, ``strategy=none`` and ``off_policy_coef=0``."""
    repo = "algorithm.repo."
    chosen = lookup(config, "algorithm.adv_estimator") == "repo" and lookup(config, repo + "strategy") != "none"
    return chosen and float(lookup(config, repo + "off_policy_coef", 1.0)) != 0


def _data_parallel(config: Config) -> int:
    """Ranks that hold different rows: GPUs over Ulysses' sequence-parallel size."""
    gpus = whole(config, "trainer.n_gpus_per_node") * whole(config, "trainer.nnodes")
    return max(1, gpus // whole(config, ACTOR + "ulysses_sequence_parallel_size"))


def _dynamic(section: str, prefix: str) -> str:
    return section + ("" if prefix == "ppo_" else prefix) + "use_dynamic_bsz"


def _find_uneven_update(config: Config) -> Iterator[str]:
    """Rows of a mini-batch that ranks can't share, or passes can't, where verl lays them out."""
    mini, samples = whole(config, ACTOR + "ppo_mini_batch_size"), whole(config, ROLLOUT + "n")
    ranks = _data_parallel(config)
    if mini * samples % ranks:
        yield (
            f"{ACTOR}ppo_mini_batch_size={mini} x {ROLLOUT}n={samples} are {mini * samples} rows, which {ranks} "
            f"data-parallel GPUs can't share evenly: make the product a multiple of {ranks}, or "
            "trainer.n_gpus_per_node a divisor of it."
        )
    else:
        yield from _find_uneven_passes(config, ACTOR, "ppo_", mini * samples // ranks)


def _find_uneven_passes(config: Config, section: str, prefix: str, rows: int) -> Iterator[str]:
    key = f"{section}{prefix}micro_batch_size_per_gpu"
    if lookup(config, _dynamic(section, prefix), False) or lookup(config, key) is None:
        return
    size = whole(config, key)
    if rows % size:
        fitting = max(n for n in range(1, min(size, rows) + 1) if rows % n == 0)
        yield f"{key}={size} does not divide the {rows} rows of a GPU: set it to {fitting}."


def _find_parallel_problems(config: Config, shape: Shape | None) -> Iterator[str]:
    """Sizes of FSDP's and vLLM's parallelism that do not fit the GPUs or the model."""
    per_node = whole(config, "trainer.n_gpus_per_node")
    gpus = per_node * whole(config, "trainer.nnodes")
    tensor, sequence = ROLLOUT + "tensor_model_parallel_size", ACTOR + "ulysses_sequence_parallel_size"
    if gpus % (whole(config, tensor) * whole(config, ROLLOUT + "data_parallel_size")):
        yield (
            f"{tensor}={whole(config, tensor)} (x data_parallel_size) does not divide the {gpus} GPUs of "
            f"trainer.n_gpus_per_node={per_node} and trainer.nnodes: set it to a divisor."
        )
    yield from _find_uneven(config, sequence, f"the {gpus} GPUs", gpus)
    sharded = lookup(config, ACTOR + "fsdp_config.fsdp_size", -1)
    if sharded > 0 and gpus % min(sharded, gpus):
        yield f"{ACTOR}fsdp_config.fsdp_size={sharded} does not divide the {gpus} GPUs: set it to a divisor or to -1."
    if shape is not None:
        for key in (tensor, sequence):
            yield from _find_uneven(config, key, f"the model's {shape.heads} attention heads", shape.heads)


def _find_megatron_problems(config: Config, shape: Shape | None) -> Iterator[str]:
    """Sizes of Megatron's parallelism that do not fit the GPUs or the model, which verl does not look at first."""
    tensor, pipeline = (f"{ACTOR}megatron.{kind}_model_parallel_size" for kind in ("tensor", "pipeline"))
    gpus = whole(config, "trainer.n_gpus_per_node") * whole(config, "trainer.nnodes")
    tp, pp = whole(config, tensor), whole(config, pipeline)
    if gpus % (tp * pp):
        yield (
            f"{tensor}={tp} x {pipeline}={pp} does not divide the {gpus} GPUs of trainer.n_gpus_per_node and "
            "trainer.nnodes: set them so that it does (TP, PP)."
        )
    if shape is not None:
        yield from _find_uneven(config, tensor, f"the model's {shape.heads} attention heads", shape.heads)
        yield from _find_uneven(config, pipeline, f"the model's {shape.layers} layers", shape.layers)


def _find_uneven(config: Config, key: str, what: str, count: int) -> Iterator[str]:
    """A size of parallelism that does not divide a count of GPUs, heads or layers."""
    if count % whole(config, key):
        yield f"{key}={whole(config, key)} does not divide {what}: set it to a divisor."


def find_lora_problems(config: Config) -> Iterator[str]:
    """What verl 0.9.1 asks of LoRA with vLLM and FSDP."""
    rank = int(lookup(config, MODEL + "lora.rank", 0)) or int(lookup(config, MODEL + "lora_rank", 0))  # as verl does
    if rank == 0 or lookup(config, MODEL + "lora.merge", False):
        return
    if rank > 512:
        yield f"{MODEL}lora_rank={rank} is above vLLM's largest, 512: set it to 512 or less."
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
