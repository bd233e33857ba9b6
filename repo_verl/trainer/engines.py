"""Which of verl's training engines RePO's update is exact under, and with which of their settings. No import of verl.

Why, with the places in verl 0.9.1 and Megatron-Core: docs/megatron.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from repo_verl.config import lookup

ENGINES = ("fsdp", "fsdp2", "megatron")
ACTOR = "actor_rollout_ref.actor."

MEGATRON: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    (
        "megatron.virtual_pipeline_model_parallel_size",
        (None, 1),
        "micro-batches would have to come in multiples of the stages' group, but replay and pruning change their count",
    ),
    ("megatron.context_parallel_size", (1,), "it was never run with replayed rows"),
    ("megatron.dynamic_context_parallel", (False,), "it deals the rows out to the ranks anew"),
    ("megatron.use_megatron_fsdp", (False,), "it was never run with replayed rows"),
    ("megatron.router_replay.mode", ("disabled",), "routed experts are not stored"),
    (
        "megatron.qat.enable",
        (False, None),
        "its scales depend on which rows are in the update",
    ),
    *(
        (f"megatron.override_transformer_config.{name}", (None,), "the key has a setting of its own, which RePO checks")
        for name in ("virtual_pipeline_model_parallel_size", "context_parallel_size")
    ),
    ("megatron.override_transformer_config.fp8", (None, False), "its scales depend on which rows are in the update"),
    ("optim.override_optimizer_config.clip_grad", (None,), "the key has a setting of its own, which RePO checks"),
)
"""Settings of verl's Megatron actor that RePO serves with these values alone, and why."""

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Names in a model's configuration for its number of experts."""

HALF = ("fp16", "float16", "half", "16", "torch.float16")
"""verl's names of float16, as text."""

MEGATRON_NOTICE = (
    "RePO: the Megatron engine: checked on the CPU with Megatron-Core 0.16.1 in float32 (data, tensor and pipeline "
    "parallel); never run on a GPU, with Megatron-Bridge, in bfloat16 or with LoRA (docs/megatron.md)"
)


def refused(config: Any) -> Iterator[tuple[str, Any, str, str]]:
    """What of an engine's settings RePO does not serve.

    Args:
        config: verl's whole configuration.

    Yields:
        key, value, reason, remedy.
    """
    engine = lookup(config, ACTOR + "strategy", "fsdp")
    if engine not in ENGINES:
        reason = "its micro-batches and auxiliary losses are not tested with replayed and pruned rows"
        yield ACTOR + "strategy", engine, reason, f"use {', '.join(ENGINES[:-1])} or {ENGINES[-1]}"
    yield from _refused_of_megatron(config) if engine == "megatron" else _refused_of_fsdp(config)


def _refused_of_fsdp(config: Any) -> Iterator[tuple[str, Any, str, str]]:
    part = ACTOR + "fsdp_config."
    precision = lookup(config, part + "mixed_precision.param_dtype")
    if str(precision) in HALF and lookup(config, "algorithm.repo.on_nonfinite", "stop") == "stop":
        reason = "verl skips float16's steps whose scaled gradient overflows as a matter of course"
        yield (
            part + "mixed_precision.param_dtype",
            precision,
            reason,
            "set algorithm.repo.on_nonfinite=skip or use bf16",
        )
    if lookup(config, part + "qat.enable", False) and lookup(config, part + "qat.mode", "w4a16") != "w4a16":
        reason = "scales of quantised activations depend on which rows are in the update"
        yield part + "qat.mode", lookup(config, part + "qat.mode"), reason, f"set {part}qat.mode=w4a16"


def _refused_of_megatron(config: Any) -> Iterator[tuple[str, Any, str, str]]:
    if lookup(config, ACTOR + "megatron") is None:
        yield ACTOR + "strategy", "megatron", "the configuration holds no Megatron engine", "add model_engine=megatron"
    for name, allowed, reason in MEGATRON:
        value = lookup(config, ACTOR + name, allowed[0])
        if value not in allowed:
            yield ACTOR + name, value, f"with Megatron, {reason}", f"set {ACTOR}{name}={_plain(allowed[0])}"
    if lookup(config, "algorithm.repo.on_nonfinite", "stop") != "stop":
        reason = "verl's Megatron engine steps on a gradient that is not finite, where its FSDP engine skips the step"
        yield "algorithm.repo.on_nonfinite", "skip", reason, "set algorithm.repo.on_nonfinite=stop"
    clip = lookup(config, ACTOR + "optim.clip_grad", 1.0)
    if not clip > 0:
        reason = "Megatron may then report no gradient norm, from which repo/effective_steps is counted"
        yield ACTOR + "optim.clip_grad", clip, reason, "set a bound that is never reached, such as 1e9"
    if lookup(config, "actor_rollout_ref.model.mtp.enable", False):
        reason = "Megatron's MTP loss was never run with replayed rows"
        key = "actor_rollout_ref.model.mtp.enable"
        yield key, True, reason, f"set {key}=False"


def _plain(value: Any) -> str:
    return "null" if value is None else str(value)


def experts(model: Any) -> tuple[str, int] | None:
    """The name and value of a model's number of experts, if it has more than one.

    Args:
        model: the model's configuration of transformers.
    """
    for part in (model, getattr(model, "text_config", None)):
        for name in EXPERTS:
            value = getattr(part, name, None)
            if isinstance(value, int) and value > 1:
                return name, value
    return None
