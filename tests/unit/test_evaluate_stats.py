"""pass@k and maj@n by hand and by simulation; intervals by their coverage."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from repo_verl.evaluate.stats import (
    acceleration,
    bca_limits,
    macro_interval,
    maj_at_n,
    pass_at_k,
    resampled_means,
    with_edges,
)

DRAWS = 100_000
SIMULATIONS = 2_000


def bootstrap_interval(values, **settings):
    """Of one benchmark's mean."""
    return macro_interval({"values": values}, **settings)


def vote(names, marks):
    """A majority vote, ties shared: the slow oracle."""
    counts = Counter(name for name in names if name is not None)
    if not counts:
        return 0.0
    top = [name for name, count in counts.items() if count == max(counts.values())]
    return sum(marks[name] for name in top) / len(top)


def within_5_errors(simulated, expected):
    error = simulated.std(ddof=1) / math.sqrt(simulated.size)
    assert error > 0
    assert abs(simulated.mean() - expected) < 5 * error


def test_pass_by_hand():
    # 1 - C(3,2)/C(5,2) = 1 - 3/10; 1 - C(4,2)/C(5,2) = 1 - 6/10; nothing and everything right; n - c < k
    found = pass_at_k(np.array([2, 1, 0, 5, 4]), 5, 2)
    assert found == pytest.approx([0.7, 0.4, 0.0, 1.0, 1.0], abs=1e-15)
    assert found[2] == 0 and found[3] == found[4] == 1
    # k = 1 is the average; k = n asks for one right sample; n may differ: 1 - C(2,2)/C(3,2), 1 - C(9,2)/C(10,2)
    assert pass_at_k(np.arange(9), 8, 1) == pytest.approx(np.arange(9) / 8)
    assert pass_at_k(np.array([0, 1]), 8, 8).tolist() == [0.0, 1.0]
    assert pass_at_k(np.array([1, 1]), np.array([3, 10]), 2) == pytest.approx([2 / 3, 1 / 5])


def test_pass_of_many_samples_equals_exact_integers():
    for n, c, k in ((1024, 1, 512), (1024, 7, 256), (2000, 3, 1999), (20_000, 12, 1000)):
        exact = Fraction(math.comb(n, k) - math.comb(n - c, k), math.comb(n, k))
        assert pass_at_k(np.array([c]), n, k)[0] == pytest.approx(float(exact), rel=1e-10)


def test_pass_refuses():
    with pytest.raises(ValueError, match=r"k=5 must lie in 1\.\.4"):
        pass_at_k(np.array([1, 1]), np.array([8, 4]), 5)
    with pytest.raises(ValueError, match=r"k=0 must lie in 1\.\.4"):
        pass_at_k(np.array([1]), 4, 0)
    with pytest.raises(ValueError, match=r"correct=\[5\.0\] must lie in 0\.\.n"):
        pass_at_k(np.array([5]), 4, 1)


def test_majority_by_hand():
    answers = [["7", "7", "3", None], ["7", "3", "7", "3"], [None] * 4, ["7", "3", "5", None], [None, None, None, "7"]]
    right = [[a == "7" for a in row] for row in answers]
    # 7 wins; half of a tie; nothing answered; a third of a tie; the only vote
    assert maj_at_n(answers, right) == pytest.approx([1, 1 / 2, 0, 1 / 3, 1])
    # a single sample is its own majority
    assert maj_at_n([["7"], ["3"], [None]], [[True], [False], [False]]).tolist() == [1, 0, 0]
    # equal answers marked differently: the share of the winner's right members
    assert maj_at_n([["7", "7", "7", "3"]], [[True, True, False, True]]) == pytest.approx([2 / 3])


def test_majority_equals_the_slow_vote():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(150):
        names = [None if x == 0 else int(x) for x in rng.integers(0, rng.integers(2, 6), int(rng.integers(1, 9)))]
        marks = {name: float(rng.choice([0, 1, 0.25])) for name in set(names) - {None}}
        found = maj_at_n([names], [[marks.get(name, 0.0) for name in names]])[0]
        assert found == pytest.approx(vote(names, marks), abs=1e-12), (names, marks)
        seen.add(round(found, 3))
    assert len(seen) > 5


def test_pass_against_a_simulation_of_100_000_draws():
    rng = np.random.default_rng(1)
    right = np.array([True] * 5 + [False] * 11)
    order = np.argsort(rng.random((DRAWS, 16)), axis=1)
    for k in (1, 3, 5, 8):
        within_5_errors(right[order[:, :k]].any(axis=1).astype(float), pass_at_k(np.array([5]), 16, k)[0])


def test_pass_and_avg_are_unbiased_for_a_known_ability():
    rng = np.random.default_rng(2)
    right = rng.random((DRAWS, 10)) < 0.15
    within_5_errors(right.mean(axis=1), 0.15)
    for k in (1, 4, 10):
        within_5_errors(pass_at_k(right.sum(axis=1), 10, k), 1 - 0.85**k)


def test_resampled_means_have_the_mean_and_variance_of_the_equation():
    values = np.array([0.0, 0.0, 1.0, 0.5, 0.25])
    columns, weights = with_edges(values[None], np.array([[0.0, 1.0]]), 0.25)
    assert columns.tolist() == [[0.0, 0.25, 0.5, 1.0, 0.0, 1.0]]
    assert weights.tolist() == [2, 1, 1, 1, 0.25, 0.25]
    draws = resampled_means(columns, weights, DRAWS, np.random.default_rng(0))[:, 0]
    # by hand: mean 1.75/5; augmented sum 2.0, squares 1.3125 + 0.25, mass 5.5; variance of a mean of P - 1 = 4
    variance = (1.5625 / 5.5 - (2.0 / 5.5) ** 2) / 4
    assert draws.mean() == pytest.approx(0.35, abs=5 * math.sqrt(variance / DRAWS))
    assert draws.var() == pytest.approx(variance, rel=0.03)


def test_acceleration_by_hand():
    assert acceleration(np.array([-1.0, 1.0]), np.ones(2)) == 0
    # l = (2, -1, -1): 6 / (6 · 6^1.5)
    assert acceleration(np.array([2.0, -1.0]), np.array([1.0, 2.0])) == pytest.approx(0.0680414, abs=1e-7)
    # a quarter of a problem alone would give 1/3; no spread, no skewness
    assert acceleration(np.array([-1.0]), np.array([0.25])) == -1 / 6
    assert acceleration(np.zeros(3), np.ones(3)) == 0


def test_bca_limits_by_hand():
    draws = np.linspace(0, 1, 100_001)  # the quantile of level q is q
    assert bca_limits(draws, 0.5, 0.0, 0.95) == pytest.approx((0.025, 0.975), abs=1e-9)
    # a + (a + z) / (1 - a (a + z)) is -1.60811 and 2.42069
    assert bca_limits(draws, 0.5, 0.0680414, 0.95) == pytest.approx((0.053905, 0.992254), abs=2e-6)
    assert bca_limits(draws, 0.999, 0.0, 0.5)[1] == 0.999, "the limits enclose the value"
    with pytest.raises(ValueError, match="level=1.0 must be"):
        bca_limits(draws, 0.5, 0.0, 1.0)


@pytest.mark.parametrize("problems", [1, 30, 500])
def test_all_right_and_all_wrong_have_an_interval(problems):
    low, high = bootstrap_interval(np.zeros(problems))
    assert low == 0 and 2 / (problems + 2) < high < 1
    # near the rule of three, which is the exact one-sided 95 % limit
    assert problems == 1 or high == pytest.approx(1 - 0.05 ** (1 / problems), rel=0.12)
    assert bootstrap_interval(np.ones(problems)) == pytest.approx((1 - high, 1.0), abs=0.02)


def test_intervals_are_deterministic_symmetric_and_narrow_with_problems():
    values = np.random.default_rng(3).random(400).round(1)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    low, high = bootstrap_interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std(ddof=1) / 20, rel=0.04)
    few = bootstrap_interval(values, level=0.5)
    assert few[1] - few[0] == pytest.approx(2 * 0.6745 * values.std(ddof=1) / 20, rel=0.06)
    scaled = bootstrap_interval(1000 * values, bounds=(0.0, 1000.0))
    assert scaled == pytest.approx((1000 * low, 1000 * high))


def test_the_macro_average_resamples_within_each_benchmark():
    rng = np.random.default_rng(4)
    # pooling 100 and 900 problems would weigh the second 9 times; here the first alone has a spread
    values = {"few": rng.integers(0, 2, 100).astype(float), "many": np.full(900, 0.9)}
    low, high = macro_interval(values)
    expected = 1.96 * values["few"].std(ddof=1) / math.sqrt(100) / 2
    assert (high - low) / 2 == pytest.approx(expected, rel=0.05)
    assert (high + low) / 2 == pytest.approx((values["few"].mean() + 0.9) / 2, abs=0.004)
    assert macro_interval({"few": values["few"]}) == bootstrap_interval(values["few"])
    # between benchmarks nothing is resampled: means 0.2 and 0.8 with hardly a spread leave hardly a width
    low, high = macro_interval({"low": np.full(500, 0.2), "high": np.full(500, 0.8)})
    assert 0 < high - low < 0.01


def test_intervals_refuse():
    with pytest.raises(ValueError, match=r"aime24 \(shape \(2,\)\) needs one value per problem, each in \(0.0, 1.0\)"):
        macro_interval({"aime24": np.array([0.5, 1.5])})
    with pytest.raises(ValueError, match="values"):
        bootstrap_interval(np.array([0.5, math.nan]))
    with pytest.raises(ValueError, match="values"):
        bootstrap_interval(np.array([]))
    with pytest.raises(ValueError, match="0 benchmarks and draws=10000"):
        macro_interval({})


def evaluations(p, problems, samples, rng):
    """(2000, P) simulated evaluations: abilities Beta(p, 1 - p) where there are several samples a problem."""
    ability = rng.beta(p, 1 - p, (SIMULATIONS, problems)) if samples > 1 else p
    return rng.binomial(samples, ability, (SIMULATIONS, problems)) / samples


@pytest.mark.parametrize("p", [0.05, 0.3])
@pytest.mark.parametrize(("problems", "samples"), [(500, 1), (500, 8), (30, 1), (30, 32)])
def test_intervals_cover_the_true_value(problems, samples, p):
    rng = np.random.default_rng([problems, samples, int(100 * p)])
    found = [bootstrap_interval(x, draws=500) for x in evaluations(p, problems, samples, rng)]
    coverage = np.mean([low <= p <= high for low, high in found])
    if problems == 500:
        assert 0.93 <= coverage <= 0.97
    else:
        assert 0.90 <= coverage


def test_the_macro_interval_covers_the_true_value():
    rng = np.random.default_rng(6)
    scores = [0.05, 0.1, 0.1, 0.3]
    parts = [evaluations(p, 30, samples, rng) for p, samples in zip(scores, (32, 32, 1, 1), strict=True)]
    found = [macro_interval(dict(zip("abcd", part, strict=True)), draws=500) for part in zip(*parts, strict=True)]
    assert 0.93 <= np.mean([low <= np.mean(scores) <= high for low, high in found]) <= 0.98
