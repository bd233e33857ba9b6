"""The step's metrics that the driver knows: what was replayed, and what it changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from repo_verl.advantages import block_advantages
from repo_verl.metrics import effective_share, mean_and_max, mean_and_std, zero_share
from repo_verl.trainer.update import Update

REWARD_STATUSES = ("timeout", "error", "no_answer", "gold_unparseable")
"""Statuses of ``repo_verl.rewards`` other than ok."""


def step_metrics(update: Update, step: int, statuses: Sequence[str]) -> dict[str, float]:
    """Metrics under ``repo/`` of one step.

    Args:
        update: the step's rows and their plan.
        step: the training step.
        statuses: (B,) how every fresh row's reward came about.
    """
    fresh, plan, lengths = update.fresh, update.plan, update.lengths
    blocks = torch.tensor(fresh.blocks)
    alone = block_advantages(torch.nan_to_num(fresh.scores), blocks)  # plain GRPO goes on with such scores
    own = alone if plan is None else plan.fresh_advantages
    replayed = torch.zeros(0) if plan is None else plan.replayed_advantages
    everything = torch.cat((own.double(), replayed.double()))
    again = update.replayed_blocks
    all_blocks = torch.cat((blocks, torch.tensor(again, dtype=blocks.dtype)))
    kept = [True] * len(lengths) if plan is None else plan.kept
    prompts = len(fresh.prompt_keys)
    values: dict[str, float] = {
        "replayed_rows": len(again),
        "prompts_with_replay": len(set(again)),
        **mean_and_max("age", [step - fresh_in for fresh_in in update.column("steps")]),
        **mean_and_max("uses", [before + 1 for before in update.column("uses")]),
        **mean_and_std("score_fresh", fresh.scores.tolist()),
        **mean_and_std("score_replayed", update.column("scores")),
        "zero_advantage_share_fresh": zero_share(own),
        "zero_advantage_share_replayed": zero_share(replayed),
        "effective_prompts_fresh": effective_share(alone, blocks, prompts),
        "effective_prompts_all": effective_share(everything, all_blocks, prompts),
        "update_tokens": sum(length for length, part in zip(lengths, kept, strict=True) if part),
        "pruned_rows": kept.count(False),
        "pruned_tokens": sum(length for length, part in zip(lengths, kept, strict=True) if not part),
        **{f"reward_{status}": list(statuses).count(status) for status in REWARD_STATUSES},
    }
    return {f"repo/{key}": value for key, value in values.items()}
