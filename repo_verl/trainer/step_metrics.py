"""The metrics of a step that updates the actor, named without their prefix ``repo/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from repo_verl import metrics as formulas
from repo_verl.trainer.retrieval import Update

REWARD_STATUSES = ("timeout", "error", "no_answer", "gold_unparseable")
"""Statuses of ``repo_verl.rewards`` other than ok."""


def step_metrics(
    update: Update, step: int, reports: Sequence[Mapping[str, float]], grad_norms: Sequence[float], ranks: int
) -> dict[str, float]:
    """What was replayed, what it changed, and what the workers reported.

    Args:
        update: the step's rows, advantages and plan.
        step: the training step.
        reports: sums of every optimizer step, of :func:`repo_verl.trainer.worker_loss.watched_update`.
        grad_norms: of every optimizer step.
        ranks: data-parallel size.
    """
    fresh, lengths, kept, again = update.fresh, update.lengths, update.kept, update.replayed_blocks
    blocks, prompts = torch.tensor(fresh.blocks), len(fresh.prompt_keys)
    everything = torch.cat((update.fresh_advantages.double(), update.replayed_advantages.double()))
    all_blocks = torch.cat((blocks, torch.tensor(again, dtype=blocks.dtype)))
    mini_batches = update.plan.layout.num_mini_batches if update.plan else len(reports)
    pruned = [tokens * (len(reports) // mini_batches) for tokens in update.pruned_tokens]
    return {
        "replayed_rows": len(again),
        "prompts_with_replay": len(set(again)),
        **formulas.mean_and_max("age", [step - fresh_in for fresh_in in update.column("steps")]),
        **formulas.mean_and_max("uses", [before + 1 for before in update.column("uses")]),
        **formulas.mean_and_std("score_fresh", fresh.scores.tolist()),
        **formulas.mean_and_std("score_replayed", update.column("scores")),
        "zero_advantage_share_fresh": formulas.zero_share(update.fresh_advantages),
        "zero_advantage_share_replayed": formulas.zero_share(update.replayed_advantages),
        "effective_prompts_fresh": formulas.spread_share(torch.nan_to_num(fresh.scores), blocks, prompts),
        "effective_prompts_all": formulas.effective_share(everything, all_blocks, prompts),
        "update_tokens": sum(length for length, part in zip(lengths, kept, strict=True) if part),
        "pruned_rows": list(kept).count(False),
        "pruned_tokens": sum(length for length, part in zip(lengths, kept, strict=True) if not part),
        **{f"reward_{status}": fresh.statuses.count(status) for status in REWARD_STATUSES},
        **formulas.worker_metrics(reports, ranks, *pruned),
        "nonfinite_steps": formulas.count_skipped(grad_norms),
    }
