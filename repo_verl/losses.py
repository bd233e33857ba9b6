"""The replay term of RePO's objective, as pure functions on tensors.

    J(θ) = 1/P Σ_prompts [ 1/G_on Σ_fresh L(o, A) + λ · 1/G_off Σ_replayed L(o, A) ]
    L(o, A) = 1/|o| Σ_t min( r_t A, clip(r_t, 1-ε_low, 1+ε_high) A ),   r_t = π_θ(o_t) / π_b(o_t)

The fresh term is verl's own loss. The replay term is linear in its rows: every way to aggregate it is a weight
per row (:func:`group_row_weights`, :func:`uniform_row_weights`), so that sums over micro-batches and ranks are exact.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from repo_verl.config import AGGREGATION_MODES

LOG_RATIO_LIMIT = 20.0


class Surrogate(NamedTuple):
    """What :func:`clipped_surrogate` gives, all (B, T).

    Attributes:
        value: the surrogate, to be maximised.
        ratio: r_t = π_θ / π_b after the clamp of its logarithm.
        clipped_low: bool, tokens whose gradient the lower bound cuts (A < 0, r < 1 - ε_low).
        clipped_high: bool, tokens whose gradient the upper bound cuts (A > 0, r > 1 + ε_high).
    """

    value: torch.Tensor
    ratio: torch.Tensor
    clipped_low: torch.Tensor
    clipped_high: torch.Tensor


def clipped_surrogate(
    log_prob: torch.Tensor,
    behavior_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    clip_ratio_low: float,
    clip_ratio_high: float,
    clip_ratio_c: float | None = None,
) -> Surrogate:
    """The clipped surrogate of every token.

        s_t = min( r_t A, clip(r_t, 1-ε_low, 1+ε_high) A ),   r_t = exp(clamp(log π_θ - log π_b, ±20))
        with ``clip_ratio_c`` = c:  s_t = max(s_t, c A) where A < 0

    Args:
        log_prob: (B, T) float, log π_θ(o_t); the gradient flows through it.
        behavior_log_prob: (B, T) float, log π_b(o_t) of the behavior policy.
        advantages: (B, T) float, A, the same for all tokens of a row.
        clip_ratio_low: ε_low.
        clip_ratio_high: ε_high.
        clip_ratio_c: c > 1 of dual-clip PPO (arXiv 1912.09729); None for none.

    Returns:
        a :class:`Surrogate`.

    Raises:
        ValueError: if the shapes differ, naming them.

    References:
        Li et al. 2025, arXiv 2506.09340, off-policy term; Schulman et al. 2017, arXiv 1707.06347, eq. 7.
    """
    if not log_prob.shape == behavior_log_prob.shape == advantages.shape:
        raise ValueError(
            f"log_prob {tuple(log_prob.shape)}, behavior_log_prob {tuple(behavior_log_prob.shape)} and advantages "
            f"{tuple(advantages.shape)} must have one shape."
        )
    ratio = torch.exp(torch.clamp(log_prob - behavior_log_prob, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    clipped = torch.clamp(ratio, 1.0 - clip_ratio_low, 1.0 + clip_ratio_high)
    value = torch.minimum(ratio * advantages, clipped * advantages)
    if clip_ratio_c is not None:
        value = torch.where(advantages < 0, torch.maximum(value, clip_ratio_c * advantages), value)
    low = (advantages < 0) & (ratio < 1.0 - clip_ratio_low)
    high = (advantages > 0) & (ratio > 1.0 + clip_ratio_high)
    return Surrogate(value, ratio, low, high)


def weighted_objective(value: torch.Tensor, mask: torch.Tensor, row_weights: torch.Tensor) -> torch.Tensor:
    """Sum of the surrogate over tokens, each row times its weight.

        J = Σ_i w_i Σ_t m_it s_it

    Args:
        value: (B, T) float, s.
        mask: (B, T) bool, m, the unmasked response tokens.
        row_weights: (B,) float, w, from :func:`group_row_weights` or :func:`uniform_row_weights`.

    Returns:
        a scalar tensor, to be maximised; additive over any split of the rows.
    """
    rows = torch.where(mask, value, torch.zeros((), dtype=value.dtype, device=value.device)).sum(dim=-1)
    return (rows * row_weights.to(rows.dtype)).sum()


def group_row_weights(
    lengths: torch.Tensor, block_ids: torch.Tensor, num_prompts: int, mode: str, coef: float, scale_factor: float = 1.0
) -> torch.Tensor:
    """Weights of replayed rows in ``normalize: group``, the paper's objective.

        seq-mean-token-mean      w_i = λ / (P · G_off(i) · |o_i|)
        seq-mean-token-sum       w_i = λ / (P · G_off(i))            (-norm: divided by verl's factor)
        token-mean               w_i = λ · P_replay / (P · Σ_j |o_j|)
        token-sum                w_i = λ

    Args:
        lengths: (N,) int, |o|, unmasked response tokens, of all replayed rows of the mini-batch.
        block_ids: (N,) int, equal for the rows of one replayed block; G_off is the block's size.
        num_prompts: P, prompts of a mini-batch (verl's constant ``ppo_mini_batch_size``).
        mode: verl's ``loss_agg_mode``, one of :data:`AGGREGATION_MODES`.
        coef: λ.
        scale_factor: verl's ``loss_scale_factor``, used only by ``seq-mean-token-sum-norm``.

    Returns:
        (N,) float64. Rows without an unmasked token weigh 0.

    References:
        Li et al. 2025, arXiv 2506.09340, objective; the token modes are verl's, read the same way.
    """
    sizes = torch.unique(block_ids, return_inverse=True, return_counts=True)
    group_sizes, blocks = sizes[2][sizes[1]].double(), len(sizes[0])
    if mode == "token-sum":
        weights = torch.full_like(group_sizes, coef)
    elif mode == "token-mean":
        weights = torch.full_like(group_sizes, coef * blocks / num_prompts / max(int(lengths.sum()), 1))
    else:
        weights = coef / num_prompts / group_sizes / _tokens_divisor(lengths, mode, scale_factor)
    return torch.where(lengths > 0, weights, torch.zeros_like(weights))


def uniform_row_weights(
    lengths: torch.Tensor, fresh_rows: int, fresh_tokens: int, mode: str, coef: float, scale_factor: float = 1.0
) -> tuple[torch.Tensor, float]:
    """Weights in ``normalize: rows``, the authors' code: every row of the mini-batch weighs the same.

        seq-mean-*     fresh term times N_on / (N_on + N_off);   w_i = λ / (N_on + N_off) [/ |o_i|, / factor]
        token-mean     fresh term times T_on / (T_on + T_off);   w_i = λ / (T_on + T_off)
        token-sum      fresh term as it is;                      w_i = λ

    Args:
        lengths: (N,) int, |o| of all replayed rows of the mini-batch.
        fresh_rows: N_on, verl's constant ``ppo_mini_batch_size * rollout.n``.
        fresh_tokens: T_on, unmasked fresh tokens of the mini-batch.
        mode: verl's ``loss_agg_mode``.
        coef: λ.
        scale_factor: verl's ``loss_scale_factor``, used only by ``seq-mean-token-sum-norm``.

    Returns:
        (N,) float64 weights, and the factor for verl's fresh term.

    References:
        the authors' replay_grpo_trainer.py, mean over all rows (lines 1679-1681 at 119fef6).
    """
    ones = torch.ones(lengths.shape, dtype=torch.float64)
    if mode == "token-sum":
        weights, scale = ones * coef, 1.0
    elif mode == "token-mean":
        total = fresh_tokens + int(lengths.sum())
        weights, scale = ones * coef / max(total, 1), (fresh_tokens / total if total else 1.0)
    else:
        total = fresh_rows + len(lengths)
        weights, scale = coef / total * ones / _tokens_divisor(lengths, mode, scale_factor), fresh_rows / total
    return torch.where(lengths > 0, weights, torch.zeros_like(weights)), scale


def _tokens_divisor(lengths: torch.Tensor, mode: str, scale_factor: float) -> torch.Tensor:
    if mode == "seq-mean-token-mean":
        return lengths.double().clamp(min=1)
    if mode == "seq-mean-token-sum":
        return torch.ones(lengths.shape, dtype=torch.float64)
    if mode == "seq-mean-token-sum-norm":
        return torch.full(lengths.shape, float(scale_factor), dtype=torch.float64)
    raise ValueError(f"loss_agg_mode={mode!r} is unknown: use one of {', '.join(AGGREGATION_MODES)}.")
