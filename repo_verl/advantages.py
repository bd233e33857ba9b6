"""Group-relative advantages over fresh and replayed rows (RePO, arXiv 2506.09340)."""

from __future__ import annotations

import torch


def block_advantages(
    scores: torch.Tensor, block_ids: torch.Tensor, eps: float = 1e-6, norm_by_std: bool = True
) -> torch.Tensor:
    """Group-relative advantages, normalised inside each block.

        A_i = (R_i - mean_b R) / (std_b R + eps),   b = block(i), std with ddof = 1

    Args:
        scores: (B,) float, R, one score a response.
        block_ids: (B,) int, equal for rows of one block.
        eps: added to the standard deviation; verl's GRPO uses 1e-6, the authors' code 1e-4.
        norm_by_std: divide by the standard deviation; False gives R - mean (verl's ``norm_adv_by_std_in_grpo``).

    Returns:
        (B,) float, of the dtype of ``scores``. Exactly 0 for blocks of equal scores and for blocks of one row.

    Raises:
        ValueError: if the shapes differ, naming both, or if a score is not finite, naming its row.

    Example:
        >>> block_advantages(torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 1])).tolist()
        [0.707105815410614, -0.707105815410614, 0.0, 0.0]

    References:
        Li et al. 2025, arXiv 2506.09340; Shao et al. 2024, arXiv 2402.03300, eq. 3.

    Deviations:
        verl's GRPO gives a block of one row its raw score, and a block of equal scores what rounding leaves.
    """
    if scores.ndim != 1 or block_ids.shape != scores.shape:
        raise ValueError(f"scores {tuple(scores.shape)} and block_ids {tuple(block_ids.shape)} must both be (B,).")
    if not bool(torch.isfinite(scores).all()):
        rows = torch.nonzero(~torch.isfinite(scores)).flatten().tolist()
        raise ValueError(f"scores of rows {rows} are not finite: fix the reward function that returned them.")
    advantages = torch.zeros_like(scores)
    order = torch.argsort(block_ids, stable=True)
    sizes = torch.unique_consecutive(block_ids[order], return_counts=True)[1].tolist()
    for rows in order.split(sizes):
        block = scores[rows]
        if bool(block.max() == block.min()):
            continue
        centred = block - block.mean()
        advantages[rows] = centred / (block.std() + eps) if norm_by_std else centred
    return advantages
