"""Strategy ``variance``: 8 of 16 rows for 1,024 prompts, one call each, and the enumeration of all 12,870 subsets."""

from __future__ import annotations

import itertools
import statistics
import time

import numpy as np
from common import write_result

from repo_verl.replay.strategies import select

PROMPTS, ROWS, PICKED, RUNS = 1024, 16, 8, 11


def enumerate_all(scores: np.ndarray) -> dict[str, float]:
    """Milliseconds a prompt of trying every subset: a loop over subsets, and all of them as one array."""
    looped, vectorised = [], []
    for row in scores[:5]:
        start = time.perf_counter()
        best = max(statistics.pvariance(subset) for subset in itertools.combinations(row.tolist(), PICKED))
        looped.append(1e3 * (time.perf_counter() - start))
        start = time.perf_counter()
        subsets = np.array(list(itertools.combinations(range(ROWS), PICKED)))
        most = float(row[subsets].var(axis=1).max())
        vectorised.append(1e3 * (time.perf_counter() - start))
        picked = select("variance", row, np.arange(ROWS)[::-1], PICKED, np.random.default_rng(0))
        if not np.allclose([best, most], row[picked].var()):
            raise RuntimeError("the strategy missed the subset with the largest variance")
    return {
        "enumeration_loop_ms_a_prompt": round(statistics.median(looped), 1),
        "enumeration_numpy_ms_a_prompt": round(statistics.median(vectorised), 2),
    }


def main() -> None:
    """Measure and write the result."""
    rng = np.random.default_rng(0)
    ages = np.arange(ROWS)[::-1]
    values = {}
    for name, scores in (
        ("binary", rng.integers(0, 2, (PROMPTS, ROWS)).astype(float)),
        ("real", rng.normal(size=(PROMPTS, ROWS))),
    ):
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            for row in scores:
                select("variance", row, ages, PICKED, rng)
            times.append(1e3 * (time.perf_counter() - start))
        values[f"{name}_scores_median_ms"] = round(statistics.median(times), 1)
        values[f"{name}_scores_max_ms"] = round(max(times), 1)
        values[f"{name}_scores_us_a_prompt"] = round(1e3 * statistics.median(times) / PROMPTS, 1)
    values.update(enumerate_all(scores))
    write_result("variance_pick", values)


if __name__ == "__main__":
    main()
