"""What RePO refuses in a verl configuration, before Ray starts. No import of verl.

Why of the Megatron engine, with the places in verl 0.9.1 and Megatron-Core: docs/megatron.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from repo_verl import ESTIMATOR, MODES
from repo_verl.config import AGGREGATION_MODES, PREFIX, RepoConfig, RepoConfigError, lookup, names_function
from repo_verl.replay.own_strategy import load_function
from repo_verl.safe_text import printable

ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor.", "actor_rollout_ref.rollout.", "actor_rollout_ref.model."

Rule = tuple[str, Any, str] | tuple[str, Any, str, str]
"""Key, the value that RePO serves (a tuple of several), the reason, the remedy (left out: set that value)."""

ALWAYS: tuple[Rule, ...] = (
    ("trainer.use_v1", True, "replay is built into verl's V1 trainer"),
    ("distillation.enabled", False, "RePO's loss has no distillation term"),
)

WITH_REPLAY: tuple[Rule, ...] = (
    (
        "algorithm.use_kl_in_reward", False, "stored scores would differ from the reward",
        f"use {ACTOR}use_kl_loss=True instead, which acts on fresh rows",
    ),
    ("algorithm.filter_groups.enable", False, "groups would be dropped before they enter the buffer"),
    ("algorithm.use_pf_ppo", False, "it resamples rows that the buffer does not see"),
    ("algorithm.rollout_correction.bypass_mode", False, "stored log-probs would be the rollout engine's"),
    ("algorithm.rollout_correction.rollout_rs", None, "rejected tokens would be stored as masked"),
    ("algorithm.rollout_correction.rollout_is", None, "replayed rows would get no such weights"),
    (f"{ACTOR}shuffle", False, "it would separate the rows of a prompt"),
    (f"{ACTOR}policy_loss.loss_mode", "vanilla", "replayed rows use the clipped surrogate"),
    (f"{ACTOR}use_prefix_grouper", False, "it regroups rows"),
    (f"{ROLLOUT}enable_rollout_routing_replay", False, "routed experts are not stored"),
    (f"{ACTOR}checkpoint.async_save", False, "verl's tracker file then names no FSDP checkpoint to resume from"),
    ("critic.enable", False, "RePO's advantages need no critic"),
)  # fmt: skip

SAMPLED = "rows that older model versions sampled are replayed against the log-probs they were sampled with"
TEMPERED = "others are not of the temperature that rows are sampled with"
TRUNCATED = "log-probs of truncated sampling are not the actor's"
SPECULATIVE = "log-probs of speculative decoding were not tested"

ASYNCHRONOUS: tuple[Rule, ...] = (  # where responses are generated beside the steps
    (f"{ROLLOUT}calculate_log_probs", True, SAMPLED),
    (f"{ROLLOUT}logprobs_mode", "processed_logprobs", TEMPERED),
    (f"{ROLLOUT}top_p", 1, TRUNCATED),
    (f"{ROLLOUT}top_k", -1, TRUNCATED),
    (f"{ROLLOUT}name", "vllm", "log-probs of other engines were not tested"),
    (f"{MODEL}mtp.enable_rollout", False, SPECULATIVE),
    (f"{ROLLOUT}engine_kwargs.vllm.logprobs_mode", "processed_logprobs", TEMPERED),
    (f"{ROLLOUT}engine_kwargs.vllm.speculative_config", None, SPECULATIVE),
    ("skip.rollout_tq.enable", False, "model versions of another run's rows mean nothing here"),
)

SEPARATE = (  # more in docs/async.md
    "its old log-probs after a step's first update need the weights of the last sync, of which verl keeps no copy "
    "under fsdp2 where parameters lie on the CPU, and its weight transfer needs GPUs, so replay in it was never run"
)

NOT_RUN = "with Megatron, it was never run with replayed rows"
STAGES = "with Megatron, the count of micro-batches, which replay and pruning change, would have to be a multiple"
SCALES = "with Megatron, its scales depend on which rows are in the update"
CHECKED_ELSEWHERE = "with Megatron, the key has a setting of its own, which RePO checks"
SKIPPED = "verl's Megatron engine steps on a gradient that is not finite, where its FSDP engine skips the step"
TRANSFORMER = f"{ACTOR}megatron.override_transformer_config."

MEGATRON: tuple[Rule, ...] = (
    (f"{ACTOR}megatron.virtual_pipeline_model_parallel_size", (None, 1), STAGES),
    (f"{ACTOR}megatron.context_parallel_size", 1, NOT_RUN),
    (f"{ACTOR}megatron.dynamic_context_parallel", False, "with Megatron, it redistributes the rows over the ranks"),
    (f"{ACTOR}megatron.use_megatron_fsdp", False, NOT_RUN),
    (f"{ACTOR}megatron.router_replay.mode", "disabled", "with Megatron, routed experts are not stored"),
    (f"{ACTOR}megatron.qat.enable", False, SCALES),
    (f"{TRANSFORMER}virtual_pipeline_model_parallel_size", None, CHECKED_ELSEWHERE),
    (f"{TRANSFORMER}context_parallel_size", None, CHECKED_ELSEWHERE),
    (f"{TRANSFORMER}fp8", (None, False), SCALES),
    (f"{ACTOR}optim.override_optimizer_config.clip_grad", None, CHECKED_ELSEWHERE),
    (f"{PREFIX}on_nonfinite", "stop", SKIPPED),
    (f"{MODEL}mtp.enable", False, "Megatron's MTP loss was never run with replayed rows"),
)

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")  # names in model configurations
HALF = ("fp16", "float16", "half", "16", "torch.float16")  # verl's names of float16, as text


def is_selected(config: Any) -> bool:
    """Whether the configuration switches RePO on."""
    return str(lookup(config, "algorithm.adv_estimator", "")) == ESTIMATOR


def check_config(config: Mapping[str, Any] | Any) -> RepoConfig:
    """Validate ``algorithm.repo`` of verl's whole configuration (OmegaConf or dict), and refuse what it can't serve.

    Raises:
        RepoConfigError: one sentence naming the key, the value and the remedy.
    """
    repo = RepoConfig.from_mapping(lookup(config, "algorithm.repo"))
    _check_rules(config, ALWAYS)
    mode = lookup(config, "trainer.v1.trainer_mode", "sync")
    if mode not in MODES:
        reason = SEPARATE if mode == "separate_async" else "it is no mode of verl that RePO knows"
        raise _refusal("trainer.v1.trainer_mode", mode, reason, f"use {' or '.join(MODES)}")
    if repo.active:
        _check_rules(config, WITH_REPLAY)
        _check_rules(config, [(f"trainer.v1.{mode}.parameter_sync_step", 1, "a step has one update")])
        _check_rules(config, ASYNCHRONOUS if mode != "sync" else ())
        _check_engine(config)
        _check_group_size(config)
        _check_aggregation(config)
        _check_rows(repo)
    if names_function(repo.strategy):
        load_function(repo.strategy)
    return repo


def _check_rules(config: Any, rules: Iterable[Rule]) -> None:
    for key, served, reason, *remedy in rules:
        values = served if isinstance(served, tuple) else (served,)
        value = lookup(config, key, values[0])
        if value not in values:
            raise _refusal(key, value, reason, *(remedy or [f"set {key}={_plain(values[0])}"]))


def _refusal(key: str, value: Any, reason: str, remedy: str) -> RepoConfigError:
    return RepoConfigError(f"{key}={_plain(value)} can't be combined with RePO ({reason}): {remedy}.")


def _plain(value: Any) -> str:
    """A value as a command line has it: text without quotes, null."""
    return "null" if value is None else printable(str(value), 200)


def _check_engine(config: Any) -> None:
    engine = lookup(config, f"{ACTOR}strategy", "fsdp")
    if engine == "megatron":
        _check_megatron(config)
        return
    if engine not in ("fsdp", "fsdp2"):
        reason = "its micro-batches and auxiliary losses are not tested with replayed and pruned rows"
        raise _refusal(f"{ACTOR}strategy", engine, reason, "use fsdp, fsdp2 or megatron")
    key = f"{ACTOR}fsdp_config.mixed_precision.param_dtype"
    precision = lookup(config, key)
    if str(precision) in HALF and lookup(config, f"{PREFIX}on_nonfinite", "stop") == "stop":
        reason = "verl skips float16's steps whose scaled gradient overflows, which is normal"
        raise _refusal(key, precision, reason, f"set {PREFIX}on_nonfinite=skip or use bf16")
    if lookup(config, f"{ACTOR}fsdp_config.qat.enable", False):
        reason = "scales of quantised activations depend on which rows are in the update"
        _check_rules(config, [(f"{ACTOR}fsdp_config.qat.mode", "w4a16", reason)])


def _check_megatron(config: Any) -> None:
    if lookup(config, f"{ACTOR}megatron") is None:
        reason = "the configuration holds no Megatron engine"
        raise _refusal(f"{ACTOR}strategy", "megatron", reason, "add model_engine=megatron")
    _check_rules(config, MEGATRON)
    clip = lookup(config, f"{ACTOR}optim.clip_grad", 1.0)
    if not clip > 0:
        reason = "Megatron may then report no gradient norm, from which repo/effective_steps is counted"
        raise _refusal(f"{ACTOR}optim.clip_grad", clip, reason, "set a bound that is never reached, such as 1e9")


def _check_group_size(config: Any) -> None:
    n = lookup(config, f"{ROLLOUT}n", 1)
    if isinstance(n, bool) or not isinstance(n, int):
        raise RepoConfigError(f"{ROLLOUT}n={_plain(n)} must be an integer: set it to at least 2.")
    if n < 2:
        raise RepoConfigError(
            f"actor_rollout_ref.rollout.n={n} gives every response an advantage of 0 with RePO: set it to at least 2."
        )


def _check_aggregation(config: Any) -> None:
    mode = lookup(config, f"{ACTOR}loss_agg_mode", "token-mean")
    if mode not in AGGREGATION_MODES:
        raise RepoConfigError(
            f"{ACTOR}loss_agg_mode={_plain(mode)} is unknown to RePO: use one of {', '.join(AGGREGATION_MODES)}."
        )
    if mode == "seq-mean-token-sum-norm" and lookup(config, f"{ACTOR}loss_scale_factor") is None:
        raise RepoConfigError(
            "actor_rollout_ref.actor.loss_scale_factor=null makes seq-mean-token-sum-norm divide by the longest "
            "response of each micro-batch, which replayed rows change: set it to data.max_response_length."
        )


def _check_rows(repo: RepoConfig) -> None:
    """A block of one replayed row has no advantage."""
    name = "capacity" if repo.capacity < 2 or repo.strategy == "full" else "num_replay"
    if repo.advantage == "split" and getattr(repo, name) < 2:
        raise RepoConfigError(
            f"{PREFIX}{name}={getattr(repo, name)} replays one row per prompt, whose advantage is always 0 with "
            f"{PREFIX}advantage=split: set {name} to at least 2, or {PREFIX}advantage=mixed."
        )


def refuse_experts(config: Any, model: Any) -> None:
    """Refuse a mixture of experts, by the model's configuration of transformers, under Megatron."""
    if lookup(config, f"{ACTOR}strategy") != "megatron":
        return
    for part in (model, getattr(model, "text_config", None)):
        for name in EXPERTS:
            count = getattr(part, name, None)
            if isinstance(count, int) and count > 1:
                raise RepoConfigError(
                    f"{MODEL}path={_plain(lookup(config, f'{MODEL}path'))} has {name}={count}, which can't be combined "
                    "with RePO under Megatron (auxiliary losses, expert biases and capacities depend on a batch's "
                    f"other rows, which pruning and replay change): use a dense model or {ACTOR}strategy=fsdp2."
                )
