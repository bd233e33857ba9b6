"""Slow, obvious versions of what the package computes quickly."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np


def best_variance_subset(scores, k):
    """All k-subsets: variances within 1e-12 (relative) are ties, then the larger sum, then the newest rows."""
    scores = [float(score) for score in scores]
    subsets = list(combinations(range(len(scores)), k))
    variances = [float(np.var([scores[i] for i in subset])) for subset in subsets]
    best = max(variances)
    tied = [subset for subset, value in zip(subsets, variances, strict=True) if value >= best * (1 - 1e-12) - 1e-30]
    sums = [math.fsum(scores[i] for i in subset) for subset in tied]
    tied = [subset for subset, value in zip(tied, sums, strict=True) if math.isclose(value, max(sums), abs_tol=1e-9)]
    return max(tied, key=lambda subset: sorted(subset, reverse=True))


def group_advantages(scores, eps, by_std=True):
    """Plain Python: (R - mean) / (std + eps), ddof 1; 0 for equal scores."""
    if max(scores) == min(scores):
        return [0.0] * len(scores)
    mean = math.fsum(scores) / len(scores)
    if not by_std:
        return [score - mean for score in scores]
    std = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
    return [(score - mean) / (std + eps) for score in scores]


def token_surrogate(log_prob, old_log_prob, advantage, low, high, dual=None):
    """One token: min(rA, clip(r)A), the log-ratio clamped to ±20; with dual clip max(., dual A) where A < 0."""
    ratio = math.exp(max(-20.0, min(20.0, log_prob - old_log_prob)))
    value = min(ratio * advantage, max(1 - low, min(1 + high, ratio)) * advantage)
    return max(value, dual * advantage) if dual is not None and advantage < 0 else value
