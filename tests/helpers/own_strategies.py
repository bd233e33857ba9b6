"""Strategies as a user would write them: named by ``algorithm.repo.strategy=own_strategies:FUNCTION``."""

import numpy as np

a_number = 3.5
nothing_here = None


def oldest(scores, ages, k, rng):
    """The k oldest rows, the newest of them first."""
    return list(range(k))[::-1]


def a_few(scores, ages, k, rng):
    """As many rows as a draw says, drawn; none at times."""
    return rng.choice(len(scores), size=rng.integers(0, k + 1), replace=False)


def lowest_of_old(scores, ages, k, rng):
    """The lowest score among the rows of the oldest step; one row, whatever k is."""
    old = np.flatnonzero(ages == ages.max())
    return old[[np.argmin(scores[old])]]


def forgets_ages(scores, k, rng):
    """Takes three values."""
    return [0]


def oldest_of_mixed(scores, ages, k, rng):
    """The k oldest rows, where the scores of the oldest step differ; nothing elsewhere."""
    old = scores[ages == ages.max()]
    return list(range(k)) if old.min() < old.max() else None


def best_where_all_fail(scores, ages, k, rng, fresh_scores=None):
    """The k best rows where every fresh response scores 0; nothing elsewhere."""
    if fresh_scores is None or fresh_scores.any():
        return None
    return np.argsort(scores, kind="stable")[::-1][:k]
