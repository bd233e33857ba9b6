"""What RePO refuses in a verl configuration, before Ray starts. No import of verl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repo_verl.config import AGGREGATION_MODES, PREFIX, RepoConfig, RepoConfigError, lookup, names_function, shown
from repo_verl.replay.own_strategy import load_function
from repo_verl.trainer import engines

ESTIMATOR = "repo"

Rule = tuple[str, Any, str, str | None]
"""Key, the only value that RePO serves, the reason, the remedy (None: set that value)."""

FIXED: tuple[Rule, ...] = (
    ("trainer.use_v1", True, "replay is built into verl's V1 trainer", None),
    ("distillation.enabled", False, "RePO's loss knows no distillation term", None),
)

FIXED_ACTIVE: tuple[Rule, ...] = (
    (
        "algorithm.use_kl_in_reward",
        False,
        "stored scores would mean another reward",
        "use actor_rollout_ref.actor.use_kl_loss=True instead, which acts on fresh rows",
    ),
    ("algorithm.filter_groups.enable", False, "groups would be dropped before they enter the buffer", None),
    ("algorithm.use_pf_ppo", False, "it reweighs rows behind the buffer's back", None),
    ("algorithm.rollout_correction.bypass_mode", False, "stored log-probs would be the rollout engine's", None),
    (
        "algorithm.rollout_correction.rollout_rs",
        None,
        "rejected tokens would be stored as masked",
        "set algorithm.rollout_correction.rollout_rs=null",
    ),
    (
        "algorithm.rollout_correction.rollout_is",
        None,
        "replayed rows would count without their weights, tokens that it drops included",
        "set algorithm.rollout_correction.rollout_is=null",
    ),
    ("actor_rollout_ref.actor.shuffle", False, "it would tear a prompt's rows apart", None),
    ("actor_rollout_ref.actor.policy_loss.loss_mode", "vanilla", "replayed rows use the clipped surrogate", None),
    ("actor_rollout_ref.actor.use_prefix_grouper", False, "it regroups rows", None),
    ("actor_rollout_ref.rollout.enable_rollout_routing_replay", False, "routed experts are not stored", None),
    (
        "actor_rollout_ref.actor.checkpoint.async_save",
        False,
        "verl then names no checkpoint of an FSDP run in its tracker file, so that nothing would resume",
        None,
    ),
    ("critic.enable", False, "RePO's advantages need no critic", None),
)

MODES = ("sync", "colocate_async")
"""Values of ``trainer.v1.trainer_mode`` that RePO serves."""

SEPARATE = (
    "its old log-probs after a step's first update need the weights of the last sync, of which verl keeps no copy "
    "under fsdp2 where parameters lie on the CPU, and its weight transfer needs GPUs, so replay in it was never run"
)
"""Why ``separate_async`` is refused; more in docs/async.md."""

FIXED_ASYNC: tuple[Rule, ...] = (
    (
        "actor_rollout_ref.rollout.calculate_log_probs",
        True,
        "a row that older model versions wrote is replayed against the log-probs it was sampled with",
        None,
    ),
    (
        "actor_rollout_ref.rollout.logprobs_mode",
        "processed_logprobs",
        "others are not of the temperature that rows are sampled with",
        None,
    ),
    ("actor_rollout_ref.rollout.top_p", 1, "log-probs of truncated sampling are not the actor's", None),
    ("actor_rollout_ref.rollout.top_k", -1, "log-probs of truncated sampling are not the actor's", None),
    ("actor_rollout_ref.rollout.name", "vllm", "log-probs of other engines were not tested", None),
    ("actor_rollout_ref.model.mtp.enable_rollout", False, "log-probs of speculative decoding were not tested", None),
    (
        "actor_rollout_ref.rollout.engine_kwargs.vllm.logprobs_mode",
        "processed_logprobs",
        "others are not of the temperature that rows are sampled with",
        None,
    ),
    (
        "actor_rollout_ref.rollout.engine_kwargs.vllm.speculative_config",
        None,
        "log-probs of speculative decoding were not tested",
        None,
    ),
    ("skip.rollout_tq.enable", False, "model versions of another run's rows mean nothing here", None),
)
"""What holds beside :data:`FIXED_ACTIVE` where responses are generated beside the steps."""


def is_selected(config: Any) -> bool:
    """Whether the configuration switches RePO on."""
    return str(lookup(config, "algorithm.adv_estimator", "")) == ESTIMATOR


def check_config(config: Mapping[str, Any] | Any) -> RepoConfig:
    """Validate ``algorithm.repo`` and refuse what it can't serve.

    Args:
        config: verl's whole configuration, as a mapping of mappings (OmegaConf or dict).

    Returns:
        the validated settings.

    Raises:
        RepoConfigError: one sentence naming the key, the value and the remedy.
    """
    repo = RepoConfig.from_mapping(lookup(config, "algorithm.repo"))
    _refuse(config, FIXED)
    mode = _check_mode(config)
    if repo.active:
        _refuse(config, FIXED_ACTIVE)
        _refuse(config, ((f"trainer.v1.{mode}.parameter_sync_step", 1, "a step has one update", None),))
        _refuse(config, FIXED_ASYNC if mode != "sync" else ())
        _check_active(config)
        _check_rows(repo)
    if names_function(repo.strategy):
        load_function(repo.strategy)
    return repo


def _check_rows(repo: RepoConfig) -> None:
    """One replayed row alone has no advantage."""
    name = "capacity" if repo.capacity < 2 or repo.strategy == "full" else "num_replay"
    if repo.advantage == "split" and getattr(repo, name) < 2:
        raise RepoConfigError(
            f"{PREFIX}{name}={getattr(repo, name)} replays one row a prompt, whose advantage is always 0 with {PREFIX}"
            f"advantage=split: set {name} to at least 2, or {PREFIX}advantage=mixed."
        )


def _check_mode(config: Any) -> str:
    mode = lookup(config, "trainer.v1.trainer_mode", "sync")
    if mode not in MODES:
        reason = SEPARATE if mode == "separate_async" else "it is no mode of verl that RePO knows"
        raise RepoConfigError(
            f"trainer.v1.trainer_mode={_plain(mode)} can't be combined with RePO ({reason}): use {' or '.join(MODES)}."
        )
    return str(mode)


def _refuse(config: Any, rules: tuple[Rule, ...]) -> None:
    for key, allowed, reason, remedy in rules:
        value = lookup(config, key, allowed)
        if value != allowed:
            remedy = remedy or f"set {key}={allowed}"
            raise RepoConfigError(f"{key}={_plain(value)} can't be combined with RePO ({reason}): {remedy}.")


def _plain(value: Any) -> str:
    """A value as a command line has it: text without quotes."""
    return shown(value)[1:-1] if isinstance(value, str) and len(value) < 100 else shown(value)


def _check_active(config: Any) -> None:
    for key, value, reason, remedy in engines.refused(config):
        raise RepoConfigError(f"{key}={_plain(value)} can't be combined with RePO ({reason}): {remedy}.")
    n = lookup(config, "actor_rollout_ref.rollout.n", 1)
    if isinstance(n, bool) or not isinstance(n, int):
        raise RepoConfigError(f"actor_rollout_ref.rollout.n={_plain(n)} must be an integer: set it to at least 2.")
    if n < 2:
        raise RepoConfigError(
            f"actor_rollout_ref.rollout.n={n} gives every response an advantage of 0 with RePO: set it to at least 2."
        )
    _check_aggregation(config)


def _check_aggregation(config: Any) -> None:
    mode = lookup(config, "actor_rollout_ref.actor.loss_agg_mode", "token-mean")
    if mode not in AGGREGATION_MODES:
        raise RepoConfigError(
            f"actor_rollout_ref.actor.loss_agg_mode={_plain(mode)} is unknown to RePO: "
            f"use one of {', '.join(AGGREGATION_MODES)}."
        )
    factor = lookup(config, "actor_rollout_ref.actor.loss_scale_factor")
    if mode == "seq-mean-token-sum-norm" and factor is None:
        raise RepoConfigError(
            "actor_rollout_ref.actor.loss_scale_factor=null makes seq-mean-token-sum-norm divide by the "
            "longest response of each micro-batch, which replayed rows change: set it to data.max_response_length."
        )


def refuse_experts(config: Any, model: Any) -> None:
    """Refuse a mixture of experts under Megatron.

    Args:
        config: verl's whole configuration.
        model: the model's configuration of transformers.

    Raises:
        RepoConfigError: naming the model and its number of experts.
    """
    found = engines.experts(model)
    if lookup(config, "actor_rollout_ref.actor.strategy") == "megatron" and found is not None:
        raise RepoConfigError(
            f"actor_rollout_ref.model.path={_plain(lookup(config, 'actor_rollout_ref.model.path'))} has "
            f"{found[0]}={found[1]}, which can't be combined with RePO under Megatron (auxiliary losses, expert biases "
            "and capacities depend on a batch's other rows, which pruning and replay change): use a dense model or "
            "actor_rollout_ref.actor.strategy=fsdp2."
        )


def pruning_obstacle(config: Any) -> str | None:
    """The setting under which rows of zero advantage matter to the gradient, so that none may be left out; or None."""
    if lookup(config, "actor_rollout_ref.actor.use_kl_loss", False):
        return "actor_rollout_ref.actor.use_kl_loss=True"
    entropy = lookup(config, "actor_rollout_ref.actor.entropy_coeff", 0)
    if entropy != 0:
        return f"actor_rollout_ref.actor.entropy_coeff={_plain(entropy)}"
    if lookup(config, "actor_rollout_ref.model.mtp.enable_train", False):
        return "actor_rollout_ref.model.mtp.enable_train=True"
    return None


def describe_objective(config: Any, repo: RepoConfig) -> str:
    """One line that says which objective is in effect."""
    if not repo.active:
        reason = "strategy=none" if repo.strategy == "none" else f"off_policy_coef={repo.off_policy_coef:g}"
        return f"RePO: {reason}, plain GRPO; nothing is replayed"
    mode = lookup(config, "actor_rollout_ref.actor.loss_agg_mode", "token-mean")
    paper = mode == "seq-mean-token-mean" and repo.normalize == "group" and repo.advantage == "split"
    return (
        f"RePO: strategy={repo.strategy} num_replay={repo.num_replay} capacity={repo.capacity} "
        f"min_size={repo.min_size} advantage={repo.advantage} normalize={repo.normalize} "
        f"off_policy_coef={repo.off_policy_coef:g}; terms aggregated by {mode}"
        f"{' (the paper’s objective)' if paper else ', not the paper’s seq-mean-token-mean split group'}"
    )
