"""Which rows of a prompt's buffer are replayed: pure functions that return indices.

Every strategy has the signature ``(scores, ages, k, rng) -> indices``. Rows come in buffer order, index 0 the oldest,
and ``k`` is smaller than the number of rows. References: Li et al. 2025, arXiv 2506.09340 (the paper's names are in
brackets); the authors' replay_grpo_trainer.py for ``random``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Strategy = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]

TIE_TOLERANCE = 1e-12
ROUNDING = 4 * float(np.finfo(np.float64).eps)


def select(strategy: str, scores: np.ndarray, ages: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Pick the rows of one prompt to replay.

    Args:
        strategy: a name in :data:`STRATEGIES`, or ``full`` (all rows) or ``none`` (no row); both ignore ``k``.
        scores: (N,) float, finite, rewards in buffer order, the oldest first.
        ages: (N,) int, training steps since the row was fresh.
        k: rows wanted; all rows where k >= N.
        rng: the buffer's generator, drawn from only by ``random``.

    Returns:
        indices into the rows, sorted, without repetition; 0 = oldest.

    Raises:
        ValueError: for an unknown strategy, shapes that differ or k < 1.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or np.shape(ages) != scores.shape:
        raise ValueError(f"scores {scores.shape} and ages {np.shape(ages)} must both be (N,).")
    if strategy == "none":
        return np.empty(0, dtype=np.intp)
    if strategy == "full":
        return np.arange(scores.size)
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r} is unknown: use one of full, {', '.join(STRATEGIES)}, none.")
    if k < 1:
        raise ValueError(f"k={k} must be at least 1: use strategy 'none' to replay nothing.")
    if k >= scores.size:
        return np.arange(scores.size)
    return np.sort(STRATEGIES[strategy](scores, np.asarray(ages), k, rng))


def recency(scores: np.ndarray, ages: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """The k newest rows (recency-based)."""
    return np.arange(scores.size - k, scores.size)


def reward(scores: np.ndarray, ages: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """The k highest scores; ties go to the newest (reward-oriented; the authors' code: to the oldest)."""
    return np.argsort(scores, kind="stable")[scores.size - k :]


def variance(scores: np.ndarray, ages: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """The k rows whose scores have the largest population variance (variance-driven).

    The variance is strictly convex in every score, so the best subset has no row with an unchosen score strictly below
    and another strictly above it: it is i lowest and k - i highest scores, i = 0..k. Prefix sums give all k + 1
    variances in O(n log n), where the authors' code enumerates C(n, k) subsets.
    Variances within 1e-12 (relative) are ties and go to the larger sum; among equal scores the newest rows are taken.
    """
    n = scores.size
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    centred = ascending - ascending[n // 2]
    first, second = np.zeros(n + 1), np.zeros(n + 1)
    np.cumsum(centred, out=first[1:])
    np.cumsum(centred * centred, out=second[1:])
    window = n - k  # the unchosen scores are a window of the sorted ones; low = where it starts
    sums = first[n] - (first[window:] - first[: k + 1])
    spread = k * (second[n] - (second[window:] - second[: k + 1])) - sums * sums  # k² times the variance
    most = spread.max()
    low = int(np.argmax(spread >= most - TIE_TOLERANCE * most - k * ROUNDING * second[n]))
    return _lowest_and_highest(order, ascending, low, low + window)


def _lowest_and_highest(order: np.ndarray, ascending: np.ndarray, low: int, high: int) -> np.ndarray:
    """Indices of the ``low`` lowest scores and of all from rank ``high`` on, the newest among equal ones.

    ``order`` (N,) are the indices by rising score, the oldest first among equal ones, ``ascending`` (N,) their scores.
    """
    if low == 0 or ascending[low - 1] != ascending[low]:
        return np.concatenate((order[:low], order[high:]))
    edge = ascending[low]
    start, stop = int(np.searchsorted(ascending, edge)), int(np.searchsorted(ascending, edge, side="right"))
    taken = low - start + max(0, stop - high)
    return np.concatenate((order[:start], order[stop - taken : stop], order[max(stop, high) :]))


def uniform(scores: np.ndarray, ages: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k rows, uniformly and without replacement (the authors' code only)."""
    return rng.choice(scores.size, size=k, replace=False)


STRATEGIES: dict[str, Strategy] = {
    "recency": recency,
    "reward": reward,
    "variance": variance,
    "random": uniform,
}
