"""verl's advantage estimator ``repo``: GRPO's advantages over the fresh rows, exactly 0 for blocks of equal scores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from omegaconf import open_dict

from repo_verl.advantages import block_advantages
from repo_verl.config import RepoConfig

serving = False
"""Whether RePO's trainer runs in this process; it sets this. verl's own trainer would replay nothing."""


def compute_repo_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    config: Any = None,
    **unused: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages of the fresh rows, in verl's signature.

    Args:
        token_level_rewards: (B, T) float; a row's score is their sum.
        response_mask: (B, T), 1 for tokens that count.
        index: (B,) uid of the prompt of every row.
        config: verl's ``algorithm`` block, with ``repo`` and ``norm_adv_by_std_in_grpo``.
        **unused: what verl hands to other estimators.

    Returns:
        advantages and returns, both (B, T): the row's advantage on every token that counts.

    Raises:
        RuntimeError: where verl's own trainer calls it, which would be GRPO under RePO's name.
    """
    if not serving:
        raise RuntimeError(
            "algorithm.adv_estimator=repo reached a trainer that replays nothing: run verl.trainer.main_ppo with "
            "trainer.v1.trainer_mode=sync or colocate_async, or set algorithm.adv_estimator=grpo."
        )
    settings = config if config is not None else {}
    eps = RepoConfig.from_mapping(settings.get("repo", None)).advantage_eps
    _, blocks = np.unique(np.asarray(index, dtype=str), return_inverse=True)
    scores = token_level_rewards.sum(dim=-1)
    by_std = settings.get("norm_adv_by_std_in_grpo", True)
    advantages = block_advantages(scores, torch.from_numpy(blocks), eps, by_std).unsqueeze(-1) * response_mask
    return advantages, advantages


@contextlib.contextmanager
def selected(algorithm: Any, name: str) -> Iterator[None]:
    """Set ``adv_estimator`` of verl's ``algorithm`` block for the duration of the block."""
    before = algorithm.adv_estimator
    with open_dict(algorithm):
        algorithm.adv_estimator = name
    try:
        yield
    finally:
        with open_dict(algorithm):
            algorithm.adv_estimator = before
