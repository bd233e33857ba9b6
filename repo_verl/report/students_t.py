"""Student's t for whole degrees of freedom: two-sided probabilities, and the 95 % interval of a mean."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def two_sided(t: float, freedom: int) -> float:
    """Probability that Student's t is further from 0 than a value: the finite sums of Abramowitz and Stegun 26.7.3-4.

    Args:
        t: the value.
        freedom: degrees of freedom, at least 1.

    Returns:
        The p-value of a two-sided test.
    """
    angle = math.atan(t / math.sqrt(freedom))
    square, odd = math.cos(angle) ** 2, freedom % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for k in range(freedom // 2):
        total += term
        term *= square * ((2 * k + 2) / (2 * k + 3) if odd else (2 * k + 1) / (2 * k + 2))
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return 1 - abs(inside)


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by halving an interval.

    Args:
        freedom: degrees of freedom, at least 1.

    Returns:
        The quantile, to 1e-9.
    """
    low, high = 1.0, 16.0  # 1.96 for a normal distribution, 12.7 for 1 degree of freedom
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom) > 0.05 else (low, middle)
    return (low + high) / 2


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and its 95 % t-interval.

    Args:
        values: two or more, one a run.

    Returns:
        Mean, lower and upper end.
    """
    mean = statistics.fmean(values)
    half = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half
