"""What RePO logs each step; docs/reference/metrics.md has every value's equation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch


def mean_and_std(name: str, values: Sequence[float]) -> dict[str, float]:
    """``{name}_mean`` and the population ``{name}_std``; 0 for no values."""
    tensor = torch.tensor(list(values), dtype=torch.float64)
    if tensor.numel() == 0:
        return {f"{name}_mean": 0.0, f"{name}_std": 0.0}
    return {f"{name}_mean": float(tensor.mean()), f"{name}_std": float(tensor.std(correction=0))}


def mean_and_max(name: str, values: Sequence[float]) -> dict[str, float]:
    """``{name}_mean`` and ``{name}_max``; 0 for no values."""
    if not values:
        return {f"{name}_mean": 0.0, f"{name}_max": 0.0}
    return {f"{name}_mean": math.fsum(values) / len(values), f"{name}_max": float(max(values))}


def zero_share(advantages: torch.Tensor) -> float:
    """Share of rows whose advantage is exactly 0; 0 for no rows. ``advantages`` is (B,)."""
    return float((advantages == 0).double().mean()) if advantages.numel() else 0.0


def effective_share(advantages: torch.Tensor, block_ids: torch.Tensor, num_blocks: int) -> float:
    """Share of prompts with at least one row whose advantage is not 0.

        1/P Σ_p 1[ some row i of p has A_i ≠ 0 ]

    Args:
        advantages: (B,) float, A.
        block_ids: (B,) int, the prompt of every row.
        num_blocks: P; 0 gives 0.
    """
    return len(torch.unique(block_ids[advantages != 0])) / num_blocks if num_blocks else 0.0


def spread_share(scores: torch.Tensor, block_ids: torch.Tensor, num_blocks: int) -> float:
    """Share of prompts whose rows do not all have one score: by their own rows, these have a non-zero advantage.

        1/P Σ_p 1[ max_i R_i ≠ min_i R_i over the rows i of p ]

    Args:
        scores: (B,) float, R.
        block_ids: (B,) int, the prompt of every row, from 0 to P - 1.
        num_blocks: P; 0 gives 0.
    """
    if not num_blocks:
        return 0.0
    least = torch.full((num_blocks,), math.inf, dtype=scores.dtype).scatter_reduce(0, block_ids, scores, "amin")
    most = torch.full((num_blocks,), -math.inf, dtype=scores.dtype).scatter_reduce(0, block_ids, scores, "amax")
    return float((least < most).double().mean())


def worker_metrics(
    reports: Sequence[Mapping[str, float]], ranks: int, pruned_fresh_tokens: int = 0, pruned_replayed_tokens: int = 0
) -> dict[str, float]:
    """The step's values from the sums that the workers report, one mapping per mini-batch.

    Args:
        reports: sums over micro-batches, averaged over ranks by verl; ``ratio_max`` a maximum.
        ranks: data-parallel size.
        pruned_fresh_tokens: unmasked fresh tokens that were left out of the reports, all mini-batches and ranks.
        pruned_replayed_tokens: the same of replayed rows.

    Returns:
        loss_fresh, loss_replayed (means over mini-batches); clip shares over all tokens, since a pruned row has no
        token that a bound cuts; ratio, ess and gradient values over the rows that were not pruned.
        ess = (Σ w)² / (n Σ w²) of the n sequence weights w = Π_t r_t, in (0, 1].
    """
    total = {key: math.fsum(report[key] for report in reports) for key in reports[0]}
    fresh, tokens, rows = total["fresh_tokens"], total["tokens"], total["rows"]
    fresh_all = fresh + pruned_fresh_tokens / ranks
    replayed_all = tokens + pruned_replayed_tokens / ranks
    squares = rows * total["weight_square_sum"]
    return {
        "loss_fresh": total["loss_fresh"] / len(reports),
        "loss_replayed": total["loss_replayed"] / len(reports),
        "clip_low_fresh": total["fresh_clipped_low"] / fresh_all if fresh_all else 0.0,
        "clip_high_fresh": total["fresh_clipped_high"] / fresh_all if fresh_all else 0.0,
        "clip_low_replayed": total["clipped_low"] / replayed_all if replayed_all else 0.0,
        "clip_high_replayed": total["clipped_high"] / replayed_all if replayed_all else 0.0,
        "ratio_mean_replayed": total["ratio_sum"] / tokens if tokens else 0.0,
        "ratio_max_replayed": max(report["ratio_max"] for report in reports),
        "ess_replayed": total["weight_sum"] ** 2 / squares if squares else 0.0,
        "grad_norm_replayed": math.sqrt(total["gradient_square_sum"] * ranks / len(reports)),
        "nonfinite_rows": total["nonfinite_rows"] * ranks,
    }


def count_effective(grad_norms: Sequence[float]) -> int:
    """Optimizer steps whose gradient was neither zero nor skipped for not being finite."""
    return sum(1 for norm in grad_norms if math.isfinite(norm) and norm > 0)


def count_skipped(grad_norms: Sequence[float]) -> int:
    """Optimizer steps that verl skipped since the norm of their gradient was not finite."""
    return sum(1 for norm in grad_norms if not math.isfinite(norm))
