"""Differences between evaluations of the same problems: interval and p-value per benchmark and for the macro average.

A run is ``benchmark -> problem id -> value``. A setting is one run or several, one a training seed. What is resampled:

* problems, within each benchmark and the same ones for both settings (the comparison is paired); with fewer than 30
  problems p < 0.05 is too frequent under the null (``benchmarks/interval_coverage.py`` measures 30 and 500);
* seeds, within each setting and the same ones in every benchmark (a seed is one trained model). Seeds and problems are
  crossed, not nested: every drawn seed answers every drawn problem. S - 1 of S seeds are drawn, which makes the
  variance unbiased; a setting with one seed keeps it, and its interval then says nothing about other seeds.
  Measured over 500 problems: where seeds differ and samples hardly do, the 95 % interval of 3 seeds covers 88 % and
  that of 5 covers 91 % (few seeds are resampled, without a Student factor); where seeds do not differ, crossing counts
  the samples' own noise three times, and it covers 99.9 % (Owen 2007, The pigeonhole bootstrap).

Several benchmarks or settings are several tests: no correction is made for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from repo_verl.evaluate.stats import bca_limits, resampled_means, with_edges

MACRO = "macro"
EDGE_WEIGHT = 0.5  # of a problem at either bound, see stats.py
ROUNDING = 1e-12

Run = Mapping[str, Mapping[str, float]]


class Estimate(NamedTuple):
    """A value and the limits of its interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The difference ``b - a`` of two settings on a benchmark, or of their macro averages."""

    problems: int
    a: float
    b: float
    difference: Estimate
    p_value: float


def macro_difference(
    a: Mapping[str, np.ndarray],
    b: Mapping[str, np.ndarray],
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Difference:
    """The difference of two settings' macro averages; of one benchmark that of its means.

        D  = 1/B Σ_b [ mean_{s,i} b_si - mean_{s,i} a_si ],     D* = D of resampled seeds and problems

    The limits are quantiles of D*, see :mod:`repo_verl.evaluate.stats`. Its half problems lie at ± the benchmark's
    largest |d_i|, the difference on a problem (at ±1 where all are 0), so that the interval scales with d.

    ``a`` and ``b`` are benchmark -> (S, P_b), a row per seed, a column per problem, in the same order; ``level``,
    ``draws`` and ``seed`` as of :func:`repo_verl.evaluate.stats.macro_interval`.

    Raises:
        ValueError: for benchmarks or shapes that differ, values that are not finite, or draws < 1.
    """
    _check(a, b, draws)
    rng = np.random.default_rng(seed)
    seeds_a, seeds_b = (_seed_shares(len(next(iter(rows.values()))), draws, rng) for rows in (a, b))
    total = np.zeros(draws)
    for name, x in a.items():
        total += _resample(x, b[name], seeds_a, seeds_b, rng) / len(a)
    mean_a, mean_b = (float(np.mean([x.mean() for x in rows.values()])) for rows in (a, b))
    value = mean_b - mean_a
    limits = bca_limits(total, value, 0.0, level)
    problems = sum(x.shape[1] for x in a.values())
    return Difference(problems, mean_a, mean_b, Estimate(value, *limits), null_p_value(total, value))


def null_p_value(draws: np.ndarray, value: float) -> float:
    """The two-sided p-value of no difference: the draws D*, shifted to mean 0, as the distribution under the null.

        p = (1 + #{ r : |D*_r - D| >= |D| }) / (1 + R)

    It may disagree with the interval, which is not shifted, where p is close to 1 - level. ``draws`` is D*, (R,), the
    resampled differences, whose mean is ``value``, D.

    References:
        Davison and Hinkley 1997, Bootstrap methods and their application, section 4.4.
    """
    beyond = np.abs(draws - value) >= abs(value) - ROUNDING
    return (1 + int(beyond.sum())) / (1 + draws.size)


def compare_groups(a: Sequence[Run], b: Sequence[Run], draws: int = 10_000) -> dict[str, Difference]:
    """Compare two settings on every benchmark, in the first run's order, and on the average of several, ``macro``.

    A run per seed; seeds are not paired, and their numbers may differ. Raises ValueError for no run, or naming the
    first benchmark or problem that not every run has.
    """
    if not a or not b:
        raise ValueError(f"{len(a)} and {len(b)} runs to compare: give at least 1 of each setting.")
    first = a[0]
    for group, runs in (("a", a), ("b", b)):
        for number, run in enumerate(runs):
            _check_same(first, run, f"run {number} of {group}")
    arrays_a, arrays_b = (
        {name: np.array([[run[name][key] for key in first[name]] for run in runs]) for name in first} for runs in (a, b)
    )
    found = {name: macro_difference({name: arrays_a[name]}, {name: arrays_b[name]}, draws=draws) for name in first}
    if len(first) > 1:
        found[MACRO] = macro_difference(arrays_a, arrays_b, draws=draws)
    return found


def table(found: Mapping[str, Difference], a: str = "a", b: str = "b") -> str:
    """The differences as text, a line per benchmark, in per cent and points; ``a`` and ``b`` are headings."""
    rows = [["benchmark", "problems", a, b, "difference", "95 % interval", "p"]]
    for name, row in found.items():
        value, low, high = (f"{100 * number:+.1f}" for number in row.difference)
        means = [f"{100 * number:.1f}" for number in (row.a, row.b)]
        rows.append([name, str(row.problems), *means, value, f"{low} to {high}", f"{row.p_value:.4f}"])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of equal width, the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def _seed_shares(seeds: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, seeds) shares of every seed in a resample of S - 1 of S; all 1 for one seed, without a draw."""
    if seeds == 1:
        return np.ones((draws, 1))
    return rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=draws) / (seeds - 1)


def _resample(
    x: np.ndarray, y: np.ndarray, seeds_a: np.ndarray, seeds_b: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One benchmark's D*, (draws,); its half problems lie at ± the largest difference on a problem, or ±1."""
    most = float(np.abs(y.mean(axis=0) - x.mean(axis=0)).max()) or 1.0
    half = np.array([most / 2, -most / 2])
    edges = np.concatenate((np.tile(half, (len(x), 1)), np.tile(-half, (len(y), 1))))
    columns, weights = with_edges(np.concatenate((x, y)), edges, EDGE_WEIGHT)
    means = resampled_means(columns, weights, len(seeds_a), rng)
    return (seeds_b * means[:, len(x) :]).sum(axis=1) - (seeds_a * means[:, : len(x)]).sum(axis=1)


def _check(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], draws: int) -> None:
    if not a or a.keys() != b.keys() or draws < 1:
        raise ValueError(f"benchmarks {sorted(a)} and {sorted(b)}, draws={draws}: give the same, and draws >= 1.")
    for name, x in a.items():
        y = b[name]
        if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not x.size or not y.size:
            raise ValueError(f"{name}: shapes {x.shape} and {y.shape} must be (seeds, problems), problems equal.")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError(f"{name} has values that are not finite: grade every problem before comparing.")
    if len({(len(x), len(b[name])) for name, x in a.items()}) > 1:
        raise ValueError("seeds differ between benchmarks: evaluate every seed on every benchmark.")


def _check_same(first: Run, run: Run, where: str) -> None:
    if MACRO in run:
        raise ValueError(f"{where} has a benchmark {MACRO!r}, the name of the average: rename it.")
    for kind, expected, given in (
        ("benchmark", first.keys(), run.keys()),
        *((f"problem of {name}", first[name].keys(), run.get(name, {}).keys()) for name in first),
    ):
        for missing, has, lacks in ((expected - given, "run 0 of a", where), (given - expected, where, "run 0 of a")):
            if missing:
                raise ValueError(f"{kind} {min(missing)!r} is in {has} and not in {lacks}: evaluate both on the same.")
