"""Paired and grouped differences: by hand, by their spread, and the calibration of the p-value."""

import math

import numpy as np
import pytest

from repo_verl.evaluate.differences import (
    Difference,
    Estimate,
    compare_groups,
    macro_difference,
    null_p_value,
    table,
)


def grouped_difference(a, b, *settings, **named):
    """Of one benchmark: a row per seed."""
    return macro_difference({"x": a}, {"x": b}, *settings, **named)


def paired_difference(a, b, *settings, **named):
    """Of one benchmark and one seed each."""
    return grouped_difference(a[None], b[None], *settings, **named)


def half(estimate):
    return (estimate.high - estimate.low) / 2


def test_the_p_value_by_hand():
    # D = 0.2: |D* - D| is 0.1, 0, 0.1, 0.2, 0.3 and 0.2 but for rounding: three reach 0.2
    draws = np.array([0.1, 0.2, 0.1 + 0.2, 0.4, -0.1, 0.0])
    assert null_p_value(draws, 0.2) == 4 / 7
    assert null_p_value(-draws, -0.2) == 4 / 7
    assert null_p_value(draws + 0.8, 1.0) == 1 / 7
    assert null_p_value(draws, 0.0) == 1


def test_the_difference_is_b_minus_a_and_its_interval_is_the_paired_one():
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    a, b = hard + 0.01 * rng.normal(size=400), hard + 0.05 + 0.01 * rng.normal(size=400)
    found = paired_difference(a, b)
    assert (found.problems, found.a, found.b) == (400, pytest.approx(a.mean()), pytest.approx(b.mean()))
    assert found.difference.value == pytest.approx((b - a).mean())
    # the spread over problems is 0.29 and that of the differences 0.014; half problems at +- the largest difference
    augmented = math.sqrt((b - a).var(ddof=1) + np.abs(b - a).max() ** 2 / 400)
    assert half(found.difference) == pytest.approx(1.96 * augmented / 20, rel=0.03)
    assert augmented < 1.1 * (b - a).std(ddof=1)
    assert found.p_value == 1 / 10_001
    back = paired_difference(b, a)
    assert back.difference.value == -found.difference.value and back.difference.low < -0.04
    assert paired_difference(a, b) == found != paired_difference(a, b, seed=1)


def test_equal_runs_are_no_difference_and_opposite_ones_surely_are():
    same = paired_difference(np.zeros(30), np.zeros(30))
    assert same.difference.value == 0 and same.p_value == 1
    assert -0.1 < same.difference.low < 0 < same.difference.high < 0.1
    other = paired_difference(np.zeros(30), np.ones(30))
    assert other.difference.value == 1 and other.p_value == 1 / 10_001
    assert 0.75 < other.difference.low < 1


@pytest.mark.parametrize(("problems", "low", "high"), [(500, 0.03, 0.07), (30, 0.02, 0.08)])
@pytest.mark.parametrize("samples", [1, 4])
def test_the_p_value_is_calibrated_and_the_interval_covers_under_the_null(problems, low, high, samples):
    rng = np.random.default_rng([problems, samples])
    ability = rng.beta(1, 1, (2000, problems))
    pairs = rng.binomial(samples, ability, (2, 2000, problems)) / samples
    found = [paired_difference(a, b, draws=400) for a, b in zip(*pairs, strict=True)]
    assert low <= np.mean([x.p_value < 0.05 for x in found]) <= high
    assert 0.92 <= np.mean([x.difference.low <= 0 <= x.difference.high for x in found]) <= 0.98


def test_a_real_difference_is_covered_and_found():
    rng = np.random.default_rng(2)
    a = rng.random((500, 500)) < 0.4
    b = np.where(rng.random((500, 500)) < 0.1, True, a)  # true difference 0.6 · 0.1
    found = [paired_difference(x, y, draws=400) for x, y in zip(a, b, strict=True)]
    assert 0.92 <= np.mean([x.difference.low <= 0.06 <= x.difference.high for x in found]) <= 0.98
    assert np.mean([x.p_value < 0.05 for x in found]) > 0.99


def test_seeds_widen_the_interval_by_their_spread():
    rng = np.random.default_rng(3)
    ability = rng.random(300)
    a, b = ability + np.array([[0.0], [0.1], [0.2], [0.3]]), ability + np.array([[0.2], [0.4]])
    found = grouped_difference(a, b)
    assert (found.a, found.b) == (pytest.approx(ability.mean() + 0.15), pytest.approx(ability.mean() + 0.3))
    # all problems differ alike, so only seeds vary: draws of 3 of 4 (variance 0.0125 / 3) and of 1 of 2 (0.01)
    unlimited = grouped_difference(a, b, level=0.999).difference
    assert unlimited.low >= found.difference.value - 0.15 - 0.1 - 0.03
    # the most extreme draw: the best seed of a thrice and the worst of b: 0.2 - 0.3
    assert unlimited.low == pytest.approx(-0.1, abs=0.03)
    # one seed a setting: only problems are resampled, and those all differ by 0.2
    single = grouped_difference(a[:1], b[:1])
    assert single == paired_difference(a[0], b[0])
    assert half(single.difference) < 0.01
    # one seed of a, two of b: only b's are resampled, +- 0.1
    mixed = grouped_difference(a[:1], b).difference
    assert half(mixed) == pytest.approx(0.1, abs=0.01)


def test_the_variance_over_seeds_is_unbiased():
    seeds = np.linspace(-0.5, 0.5, 10)
    b = np.repeat(seeds[:, None], 2000, axis=1)
    found = grouped_difference(np.zeros((1, 2000)), b)
    # s / sqrt(S) with ddof = 1; drawing S of S seeds would give 5 % less
    assert half(found.difference) == pytest.approx(1.96 * seeds.std(ddof=1) / math.sqrt(10), rel=0.03)


def test_the_macro_average_weighs_benchmarks_alike_and_resamples_within_them():
    rng = np.random.default_rng(4)
    a = {"few": np.zeros((1, 50)), "many": np.zeros((1, 2000))}
    b = {"few": rng.integers(-1, 2, (1, 50)).astype(float), "many": np.full((1, 2000), 0.3)}
    found = macro_difference(a, b)
    assert found.problems == 2050 and found.a == 0
    assert found.difference.value == pytest.approx((b["few"].mean() + 0.3) / 2)
    assert half(found.difference) == pytest.approx(1.96 * b["few"].std(ddof=1) / math.sqrt(50) / 2, rel=0.06)


def test_a_seed_is_the_same_model_on_every_benchmark():
    # the two seeds differ by 0.2 on either benchmark: drawn apart, a quarter of the draws each would give 0, 0.2, ...
    rows = np.repeat(np.array([[0.4], [0.6]]), 500, axis=1)
    zeros = np.zeros((1, 500))
    together = macro_difference({"x": zeros, "y": zeros}, {"x": rows, "y": rows}).difference
    assert half(together) == pytest.approx(0.1, abs=0.01)
    # seeds that are good at one and bad at the other leave the macro average where it is
    opposite = macro_difference({"x": zeros, "y": zeros}, {"x": rows, "y": rows[::-1]}).difference
    assert half(opposite) < 0.01


RUN = {"aime24": {"p1": 0.0, "p2": 1.0, "p3": 0.5}, "gsm8k": {"q1": 1.0, "q2": 0.0}}
BETTER = {"gsm8k": {"q2": 1.0, "q1": 1.0}, "aime24": {"p3": 0.75, "p1": 0.25, "p2": 1.0}}


def test_runs_are_aligned_by_problem():
    found = compare_groups([RUN], [BETTER])
    assert list(found) == ["aime24", "gsm8k", "macro"]
    assert found["aime24"] == paired_difference(np.array([0.0, 1.0, 0.5]), np.array([0.25, 1.0, 0.75]))
    assert (found["gsm8k"].problems, found["gsm8k"].difference.value) == (2, 0.5)
    assert found["macro"].difference.value == pytest.approx((1 / 6 + 1 / 2) / 2)
    assert list(compare_groups([{"gsm8k": RUN["gsm8k"]}], [{"gsm8k": BETTER["gsm8k"]}])) == ["gsm8k"]
    group = compare_groups([RUN, BETTER], [BETTER, BETTER, RUN])
    assert group["gsm8k"].a == pytest.approx(0.75) and group["gsm8k"].b == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"aime24": RUN["aime24"]}, "benchmark 'gsm8k' is in run 0 of a and not in run 1 of b"),
        ({**RUN, "amc23": {"r": 1.0}}, "benchmark 'amc23' is in run 1 of b and not in run 0 of a"),
        ({**RUN, "gsm8k": {"q1": 1.0}}, "problem of gsm8k 'q2' is in run 0 of a and not in run 1 of b"),
        ({**RUN, "gsm8k": {**RUN["gsm8k"], "q3": 1.0}}, "problem of gsm8k 'q3' is in run 1 of b and not in run 0 of a"),
        ({**RUN, "macro": {"q": 1.0}}, "run 1 of b has a benchmark 'macro'"),
        ({**RUN, "gsm8k": {"q1": 1.0, "q2": math.nan}}, "gsm8k|values has|have values that are not finite"),
    ],
)
def test_runs_of_other_problems_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        compare_groups([RUN], [RUN, changed])


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="0 and 1 runs to compare"):
        compare_groups([], [RUN])
    with pytest.raises(ValueError, match=r"shapes \(1, 3\) and \(1, 2\) must be"):
        paired_difference(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match=r"benchmarks \['x'\] and \['y'\]"):
        macro_difference({"x": np.zeros((1, 2))}, {"y": np.zeros((1, 2))})
    with pytest.raises(ValueError, match="seeds differ between benchmarks"):
        macro_difference({"x": np.zeros((1, 2)), "y": np.zeros((2, 2))}, {"x": np.zeros((1, 2)), "y": np.zeros((1, 2))})


def test_the_table_is_in_per_cent():
    rows = {"aime24": Difference(30, 0.1, 0.15, Estimate(0.05, -0.0123, 0.1123), 0.1234)}
    assert table(rows, a="grpo", b="repo").splitlines() == [
        "benchmark  problems  grpo  repo  difference  95 % interval       p",
        "aime24           30  10.0  15.0        +5.0  -1.2 to +11.2  0.1234",
    ]
