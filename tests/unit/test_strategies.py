"""Selection strategies against enumeration and by hand."""

import numpy as np
import pytest
from oracles import best_variance_subset

from repo_verl.replay.strategies import STRATEGIES, select


def pick(strategy, scores, k, seed=0):
    return select(strategy, np.array(scores), np.arange(len(scores))[::-1], k, np.random.default_rng(seed)).tolist()


def test_recency_takes_the_newest():
    assert pick("recency", [1, 1, 0, 0, 1], 2) == [3, 4]


def test_reward_takes_the_highest_and_the_newest_among_equal():
    assert pick("reward", [1, 0, 1, 0, 1, 0], 2) == [2, 4]
    assert pick("reward", [0.5, 1, 0.5, 0.5], 2) == [1, 3]


def test_variance_takes_half_of_each_binary_score_and_the_newest_among_equal():
    assert pick("variance", [1, 0, 1, 0, 1, 0, 1, 0], 4) == [4, 5, 6, 7]
    # one right among five: it and the newest wrong ones
    assert pick("variance", [0, 1, 0, 0, 0], 2) == [1, 4]
    # k = 1: every variance is 0, the larger sum wins, then the newest
    assert pick("variance", [0.3, 0.7, 0.7, 0.1], 1) == [2]
    assert pick("variance", [0.1] * 6, 3) == [3, 4, 5]


@pytest.mark.parametrize("part", range(4))
def test_variance_equals_enumeration(part):
    rng = np.random.default_rng(part)
    for case in range(500):
        n = int(rng.integers(2, 11))
        k = int(rng.integers(1, n + 1))
        kinds = (
            lambda n: rng.integers(0, 2, n).astype(float),
            lambda n: rng.choice([-1.0, 0.0, 0.1, 0.25, 1.0], n),
            lambda n: rng.normal(size=n).round(1),
            lambda n: rng.normal(size=n) * 1e-3 + 1e3,
        )
        scores = kinds[case % 4](n)
        assert pick("variance", scores, k) == list(best_variance_subset(scores, k)), (scores, k)


@pytest.mark.parametrize("strategy", [*STRATEGIES, "full"])
def test_few_rows_are_all_taken(strategy):
    assert pick(strategy, [1, 0, 1], 8) == [0, 1, 2]
    assert pick(strategy, [1, 0, 1], 3) == [0, 1, 2]


def test_full_ignores_k_and_none_takes_nothing():
    assert pick("full", [1, 0, 1], 1) == [0, 1, 2]
    assert pick("none", [1, 0, 1], 2) == []


def test_random_is_uniform_without_replacement_and_follows_the_generator():
    rng = np.random.default_rng(0)
    draws = [tuple(select("random", np.zeros(6), np.arange(6)[::-1], 3, rng)) for _ in range(4000)]
    assert all(len(set(draw)) == 3 for draw in draws)
    counts = np.bincount(np.array(draws).ravel(), minlength=6)
    # each row is in half of the draws: standard deviation sqrt(4000 / 4) = 31.6
    assert (abs(counts - 2000) < 5 * 31.6).all()
    assert pick("random", [0] * 6, 3, seed=1) == pick("random", [0] * 6, 3, seed=1)


@pytest.mark.parametrize("strategy", [*STRATEGIES])
def test_adding_a_constant_to_the_scores_changes_nothing(strategy):
    scores = np.array([0.0, 1.0, 0.5, 0.25, 1.0, 0.0])
    assert pick(strategy, scores, 3) == pick(strategy, scores + 2.0, 3)


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="strategy='newest' is unknown"):
        pick("newest", [1, 0], 1)
    with pytest.raises(ValueError, match="k=0 must be at least 1"):
        pick("recency", [1, 0], 0)
    with pytest.raises(ValueError, match=r"scores \(2,\) and ages \(3,\)"):
        select("recency", np.zeros(2), np.zeros(3), 1, np.random.default_rng(0))
