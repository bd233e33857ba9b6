"""What the trainer says before its first step: the objective, and settings under which little is replayed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from repo_verl.config import PREFIX, RepoConfig, lookup

MEGATRON_NOTICE = (
    "RePO: the Megatron engine: checked on the CPU with Megatron-Core 0.16.1 in float32 (data, tensor and pipeline "
    "parallel); never run on a GPU, with Megatron-Bridge, in bfloat16 or with LoRA (docs/megatron.md)"
)


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


def pruning_obstacle(config: Any) -> str | None:
    """The setting that gives rows of zero advantage a gradient, so that none may be left out; None without one."""
    for key in ("actor.use_kl_loss", "actor.entropy_coeff", "model.mtp.enable_train"):
        value = lookup(config, f"actor_rollout_ref.{key}", 0)
        if value != 0:
            return f"actor_rollout_ref.{key}={value}"
    return None


def find_doubts(repo: RepoConfig, n: int, steps: int, epoch: int) -> Iterator[str]:
    """Sentences on a schedule that replays nothing, or little.

    Args:
        repo: the settings.
        n: responses per visit of a prompt.
        steps: of the whole run.
        epoch: steps between two visits of a prompt, on average.
    """
    if not repo.active:
        return
    visits = -(-steps // max(1, epoch))
    first = -(-repo.min_size // n) + 1
    if visits < first:
        sooner = f", or set {PREFIX}min_size={n * (visits - 1)} or less" if visits > 1 else ""
        yield (
            f"{PREFIX}min_size={repo.min_size} lets a prompt replay from its visit {first} on and {steps} steps, "
            f"{epoch} per epoch, are {visits} visits: unless prompts occur several times in data.train_files nothing "
            f"is replayed, this is GRPO; train for {(first - 1) * epoch + 1} steps or more{sooner}."
        )
    elif repo.start_step >= steps:
        yield (
            f"{PREFIX}start_step={repo.start_step} leaves none of {steps} steps to replay in, this is GRPO: "
            f"set it to less than {steps}."
        )
    elif repo.max_age is not None and repo.max_age < epoch:
        yield (
            f"{PREFIX}max_age={repo.max_age} is less than the {epoch} steps after which a prompt comes back on "
            f"average, so that little or nothing is replayed: set it to {2 * epoch} or more, or null."
        )


def find_date(template: Any, given: Any) -> Iterator[str]:
    """A sentence on a chat template that writes today's date into prompts.

    Args:
        template: the tokenizer's; text, or several by name.
        given: ``data.apply_chat_template_kwargs``, which may fix the date.
    """
    if "strftime_now" in str(template or "") and not any("date" in str(name) for name in given or {}):
        yield (
            "the tokenizer's chat template writes today's date into prompts (strftime_now), so that from midnight on "
            "stored rows are not found: fix it, e.g. +data.apply_chat_template_kwargs.date_string='1 Jan 2026'."
        )
