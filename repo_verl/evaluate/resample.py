"""Resampling of problems and the limits that come of it.

The intervals of scores are BCa bootstraps over problems with three changes that small benchmarks need (measured in
``benchmarks/interval_coverage.py``; c_i is how often problem i is drawn):

    D* = Σ_i c_i x_i / (P - 1) - shift,     c ~ Multinomial(P - 1; weights w),     E[D*] = mean(x)

1. P - 1 of P problems are drawn, which makes the bootstrap variance unbiased (Rao and Wu 1988).
2. A part of a problem at either bound joins the P problems, w = (1, ..., 1, e, e): 0 of 30 right does not show that
   the score is exactly 0, and the plain bootstrap's interval would have no width. e is 1/4 for scores and 1/2 for
   differences, enough to cover in 9 of 10 evaluations of 30 problems.
3. ``shift`` moves the mean of the draws back to mean(x), so that these parts widen the interval and do not move it:
   uncentred, their pulls towards the middle would add up in the macro average, where the widths shrink.

Differences take the plain quantiles of D*: where two settings are equal, BCa's correction for skewness moves the
interval of a few unequal problems away from 0.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

CHUNK = 2**20  # counts held at a time


def with_edges(rows: np.ndarray, edges: np.ndarray, edge_weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Problems as distinct columns with their weights; the last two are the parts at the bounds.

    Args:
        rows: (S, P), S values of every problem, resampled together.
        edges: (S, 2), the values at the bounds.
        edge_weight: e, the part of a problem at either.

    Returns:
        columns (S, U + 2) and weights (U + 2,): the number of problems with that column, then e and e.
    """
    columns, counts = np.unique(rows, axis=1, return_counts=True)
    return np.concatenate((columns, edges), axis=1), np.append(counts, (edge_weight, edge_weight))


def resampled_means(columns: np.ndarray, weights: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """D* of the module's docstring for every row of ``columns``, (draws, S); arguments as of :func:`with_edges`."""
    problems = int(weights[:-2].sum())
    size = max(1, problems - 1)
    shares = weights / weights.sum()
    shift = columns @ shares - columns[:, :-2] @ weights[:-2] / problems
    step = max(1, CHUNK // weights.size)
    parts = [
        rng.multinomial(size, shares, size=min(step, draws - start)) @ columns.T / size - shift
        for start in range(0, draws, step)
    ]
    return np.concatenate(parts)


def acceleration(influence: np.ndarray, weights: np.ndarray) -> float:
    """BCa's a, a sixth of the skewness of a mean.

        a = Σ w l³ / (6 (Σ w l²)^(3/2)),     held to ±1/6, the most that a sample of whole problems gives

    Args:
        influence: (U,) l, a column's share in the mean, centred.
        weights: (U,) w, problems with that column.
    """
    spread = float(weights @ influence**2)
    skew = float(weights @ influence**3) / (6 * spread**1.5) if spread else 0.0
    return min(max(skew, -1 / 6), 1 / 6)


def bca_limits(draws: np.ndarray, value: float, a: float, level: float) -> tuple[float, float]:
    """Quantiles of the draws at BCa's levels; the limits enclose ``value``.

        Φ(a + (a ± z) / (1 - a (a ± z))),     z = Φ^-1((1 + level) / 2)

    For a mean, BCa's bias correction is its acceleration, so it is not counted from the draws.

    Args:
        draws: (R,) resampled values.
        value: the estimate.
        a: of :func:`acceleration`; 0 for the plain quantiles at (1 ± level) / 2.
        level: 0 < level <= 0.999.

    Raises:
        ValueError: for a level out of range.

    References:
        Efron 1987, Better bootstrap confidence intervals; DiCiccio and Efron 1996, Bootstrap confidence intervals.
    """
    if not 0 < level <= 0.999:
        raise ValueError(f"level={level} must be above 0 and at most 0.999: 0.95 is usual.")
    normal = NormalDist()
    z = normal.inv_cdf((1 + level) / 2)
    low, high = np.quantile(draws, [normal.cdf(a + (a + s) / (1 - a * (a + s))) for s in (-z, z)])
    return min(float(low), value), max(float(high), value)
