"""The step's metrics that the driver knows: what was replayed, and what it changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from repo_verl.advantages import block_advantages
from repo_verl.metrics import effective_share, mean_and_max, mean_and_std, zero_share
from repo_verl.trainer.plan import UpdatePlan
from repo_verl.trainer.rows import FreshRows

REWARD_STATUSES = ("timeout", "error", "no_answer", "gold_unparseable")
"""Statuses of ``repo_verl.rewards`` other than ok."""


def step_metrics(
    fresh: FreshRows,
    replayed_blocks: Sequence[int],
    replayed_scores: Sequence[float],
    ages: Sequence[int],
    uses: Sequence[int],
    update_tokens: int,
    plan: UpdatePlan | None,
) -> dict[str, float]:
    """Metrics under ``repo/`` of one step.

    Args:
        fresh: the step's fresh rows.
        replayed_blocks: (N,) prompt block of every replayed row.
        replayed_scores: (N,) their scores.
        ages: (N,) steps since they were fresh.
        uses: (N,) times replayed, this one included.
        update_tokens: tokens of all rows of the update, prompts and responses, without padding.
        plan: of the update; None where nothing was replayed.
    """
    blocks = torch.tensor(fresh.blocks)
    alone = block_advantages(fresh.scores, blocks)
    own = alone if plan is None else plan.fresh_advantages
    replayed = torch.zeros(0) if plan is None else plan.replayed_advantages
    everything = torch.cat((own.double(), replayed.double()))
    all_blocks = torch.cat((blocks, torch.tensor(list(replayed_blocks), dtype=blocks.dtype)))
    prompts = len(fresh.prompt_keys)
    values: dict[str, float] = {
        "replayed_rows": len(replayed_blocks),
        "prompts_with_replay": len(set(replayed_blocks)),
        **mean_and_max("age", ages),
        **mean_and_max("uses", uses),
        **mean_and_std("score_fresh", fresh.scores.tolist()),
        **mean_and_std("score_replayed", replayed_scores),
        "zero_advantage_share_fresh": zero_share(own),
        "zero_advantage_share_replayed": zero_share(replayed),
        "effective_prompts_fresh": effective_share(alone, blocks, prompts),
        "effective_prompts_all": effective_share(everything, all_blocks, prompts),
        "update_tokens": update_tokens,
        "pruned_rows": 0,
        **{f"reward_{status}": fresh.statuses.count(status) for status in REWARD_STATUSES},
    }
    return {f"repo/{key}": value for key, value in values.items()}
