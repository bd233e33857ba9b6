"""pass@k and maj@n of every problem; intervals of benchmark means and of their macro average.

The intervals of scores are BCa bootstraps over problems with three changes that small benchmarks need (measured in
``benchmarks/interval_coverage.py``; c_i is how often problem i is drawn):

    D* = Σ_i c_i x_i / (P - 1) - shift,     c ~ Multinomial(P - 1; weights w),     E[D*] = mean(x)

1. P - 1 of P problems are drawn, which makes the bootstrap variance unbiased (Rao and Wu 1988).
2. A part of a problem at either bound joins the P problems, w = (1, ..., 1, e, e): 0 of 30 right does not show that
   the score is exactly 0, and the plain bootstrap's interval would have no width. e is 1/4 for scores and 1/2 for
   differences, enough to cover in 9 of 10 evaluations of 30 problems.
3. ``shift`` moves the mean of the draws back to mean(x), so that these parts widen the interval and do not move it:
   uncentred, their pulls towards the middle would add up in the macro average, where the widths shrink.

Differences (`repo_verl.evaluate.differences`) take the plain quantiles of D*: where two settings are equal, BCa's
correction for skewness moves the interval of a few unequal problems away from 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import NormalDist

import numpy as np

EDGE_WEIGHT = 0.25  # e of scores
CHUNK = 2**20  # counts held at a time


def pass_at_k(correct: np.ndarray, n: int | np.ndarray, k: int) -> np.ndarray:
    """The unbiased pass@k of every problem, (P,), from n >= k samples.

        1 - C(n - c, k) / C(n, k) = 1 - Π_{i<k} (n - c - i) / (n - i)

    The product form neither overflows nor cancels; it is exactly 0 at c = 0 and 1 at n - c < k.

    Args:
        correct: (P,) int, c, right samples of a problem, 0 <= c <= n.
        n: samples of a problem, one number or (P,).
        k: samples that may be tried.

    Raises:
        ValueError: for k < 1, k > n, or c outside 0..n.

    References:
        Chen et al. 2021, arXiv 2107.03374, eq. 1.
    """
    correct = np.asarray(correct, dtype=np.float64)
    samples = np.broadcast_to(np.asarray(n, dtype=np.float64), correct.shape)
    fewest = int(samples.min()) if samples.size else k
    if not 1 <= k <= fewest:
        raise ValueError(f"k={k} must lie in 1..{fewest}: sample more answers or lower k.")
    if np.any(correct < 0) or np.any(correct > samples):
        raise ValueError(f"correct={correct.tolist()} must lie in 0..n: count the right samples of each problem.")
    failing = np.ones(correct.shape)
    for i in range(k):
        failing *= np.maximum(samples - correct - i, 0) / (samples - i)
    return 1 - failing


def maj_at_n(answers: Iterable[Sequence[Hashable | None]], right: Iterable[Sequence[bool | float]]) -> np.ndarray:
    """maj@n, (P,): the chance that the majority of a problem's n samples is right, a tie broken uniformly.

    Args:
        answers: P sequences of n answers; equal answers must be equal objects, None is no answer and does not vote.
        right: whether each is right; where the members of one answer disagree, its share of right members counts.

    References:
        Wang et al. 2023, arXiv 2203.11171 (self-consistency).
    """
    values = []
    for names, marks in zip(answers, right, strict=True):
        votes = Counter(name for name in names if name is not None)
        most = max(votes.values(), default=0)
        winning = [mark for name, mark in zip(names, marks, strict=True) if name is not None and votes[name] == most]
        values.append(float(np.mean(winning)) if winning else 0.0)
    return np.array(values)


def macro_interval(
    values_by_benchmark: Mapping[str, np.ndarray],
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """The interval of the macro average 1/B Σ_b mean(x_b), never of width 0; of one benchmark that of its mean.

    Args:
        values_by_benchmark: benchmark -> (P_b,) one value per problem; problems are resampled within each benchmark.
        level: the interval's nominal coverage.
        draws: bootstrap resamples.
        seed: of the resampling.
        bounds: the smallest and the largest possible value; limits lie within.

    Raises:
        ValueError: for no benchmark, no problem, values that are not finite or out of bounds, or draws < 1.
    """
    if not values_by_benchmark or draws < 1:
        raise ValueError(f"{len(values_by_benchmark)} benchmarks and draws={draws}: at least 1 of each is needed.")
    rng = np.random.default_rng(seed)
    total, value = np.zeros(draws), 0.0
    influence, weights = [], []
    for name, values in values_by_benchmark.items():
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 1 or not values.size or not np.all((values >= bounds[0]) & (values <= bounds[1])):
            raise ValueError(f"{name} (shape {values.shape}) needs one value per problem, each in {bounds}: check it.")
        columns, weight = with_edges(values[None], np.array([bounds]), EDGE_WEIGHT)
        part = 1 / len(values_by_benchmark)
        total += part * resampled_means(columns, weight, draws, rng)[:, 0]
        value += part * float(values.mean())
        influence.append(part * (columns[0] - values.mean()) / values.size)
        weights.append(weight)
    skew = acceleration(np.concatenate(influence), np.concatenate(weights))
    low, high = bca_limits(total, value, skew, level)
    return max(low, bounds[0]), min(high, bounds[1])


def with_edges(rows: np.ndarray, edges: np.ndarray, edge_weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Distinct columns (S, U + 2) of problems, ``rows`` (S, P) and then ``edges`` (S, 2), and weights (U + 2,).

    A weight is the number of problems with that column; of the two at the bounds e, the ``edge_weight``. The S values
    of a problem are resampled together.
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

    ``influence`` is l, (U,), a column's centred share in the mean; ``weights`` is w, (U,), problems with that column.
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
