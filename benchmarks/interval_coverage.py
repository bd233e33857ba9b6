"""Real coverage of the evaluation's 95 % intervals and calibration of its p-values, over simulated evaluations.

Single-sample problems are right with chance p. Problems of 32 samples have abilities Beta(p, 1 - p), most of them near
0 or 1, as those of mathematics benchmarks are. The true value is p, the mean over all problems there could be.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from common import write_result

from repo_verl.evaluate.differences import Difference, macro_difference
from repo_verl.evaluate.stats import macro_interval, resampled_means, with_edges

SIMULATIONS, DRAWS = 2_000, 2_000
SCORES = (0.05, 0.1, 0.3, 0.5, 0.8, 0.95)
MACRO_SCORES = (0.05, 0.1, 0.1, 0.3)


def evaluations(p: float, problems: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(2000, P) simulated values."""
    ability = rng.beta(p, 1 - p, (SIMULATIONS, problems)) if samples > 1 else p
    return rng.binomial(samples, ability, (SIMULATIONS, problems)) / samples


@lru_cache(maxsize=4096)
def chosen(values: tuple[float, ...]) -> tuple[float, float]:
    """The interval in use; ``values`` are sorted, so that equal evaluations are computed once."""
    return macro_interval({"values": np.array(values)}, draws=DRAWS)


@lru_cache(maxsize=4096)
def percentile(values: tuple[float, ...]) -> tuple[float, float]:
    """The plain percentile bootstrap, for comparison: as in use, without parts of problems and skewness."""
    columns, weights = with_edges(np.array([values]), np.array([[0.0, 1.0]]), 0.0)
    draws = resampled_means(columns, weights, DRAWS, np.random.default_rng(0))
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


@lru_cache(maxsize=4096)
def paired(gaps: tuple[float, ...]) -> Difference:
    """The comparison in use, of sorted differences: one seed each, so it depends on nothing else."""
    return macro_difference({"gaps": np.zeros((1, len(gaps)))}, {"gaps": np.array([gaps])}, draws=DRAWS)


def covered(found: list[tuple[float, float]], p: float) -> float:
    """Share of intervals that hold p, in per cent."""
    return round(100 * float(np.mean([low - 1e-12 <= p <= high + 1e-12 for low, high in found])), 1)


def scores() -> dict[str, object]:
    """Coverage and mean width of the mean's interval, and of the macro average's."""
    values: dict[str, object] = {}
    for problems in (500, 30):
        for samples in (1, 32):
            for name, method in (("interval", chosen), ("percentile", percentile)):
                rng = np.random.default_rng([problems, samples])
                rows, widths = {}, {}
                for p in SCORES:
                    found = [method(tuple(np.sort(x).tolist())) for x in evaluations(p, problems, samples, rng)]
                    rows[str(p)] = covered(found, p)
                    widths[str(p)] = round(float(np.mean([high - low for low, high in found])), 4)
                values[f"{name}_{problems}x{samples}_coverage"] = rows
                values[f"{name}_{problems}x{samples}_width"] = widths
    for samples in (1, 32):
        rng = np.random.default_rng(samples)
        parts = [evaluations(p, 30, samples, rng) for p in MACRO_SCORES]
        found = [macro_interval(dict(zip("abcd", x, strict=True)), draws=DRAWS) for x in zip(*parts, strict=True)]
        values[f"macro_4x30x{samples}_coverage"] = covered(found, float(np.mean(MACRO_SCORES)))
    return values


def differences() -> dict[str, object]:
    """Coverage and share of p < 0.05 where two settings are equal; abilities are uniform, and shifted by seed."""
    values: dict[str, object] = {}
    for problems in (500, 30):
        for samples in (1, 32):
            rng = np.random.default_rng([2, problems, samples])
            pairs = rng.binomial(samples, rng.random((SIMULATIONS, problems)), (2, SIMULATIONS, problems)) / samples
            found = [paired(tuple(np.sort(b - a).tolist())) for a, b in zip(*pairs, strict=True)]
            name = f"paired_{problems}x{samples}"
            values[f"{name}_coverage"] = covered([x.difference[1:] for x in found], 0.0)
            values[f"{name}_p_below_0.05"] = round(100 * float(np.mean([x.p_value < 0.05 for x in found])), 1)
    for seeds, samples, spread in ((3, 1, 0.0), (3, 1, 0.03), (3, 32, 0.03), (5, 32, 0.03)):
        rng = np.random.default_rng([3, seeds, samples, int(100 * spread)])
        found = []
        for _ in range(SIMULATIONS):
            ability = np.clip(rng.random(500) + spread * rng.normal(size=(2, seeds, 1)), 0, 1)
            a, b = rng.binomial(samples, ability) / samples
            found.append(macro_difference({"x": a}, {"x": b}, draws=500))
        name = f"{seeds}_seeds_500x{samples}_spread_{spread}"
        values[f"{name}_coverage"] = covered([x.difference[1:] for x in found], 0.0)
        values[f"{name}_p_below_0.05"] = round(100 * float(np.mean([x.p_value < 0.05 for x in found])), 1)
    return values


def main() -> None:
    """Simulate and write the result."""
    write_result("interval_coverage", {"simulations": SIMULATIONS, "draws": DRAWS, **scores(), **differences()})


if __name__ == "__main__":
    main()
