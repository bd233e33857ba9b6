"""Strategy ``variance``: 8 of 16 rows for 1,024 prompts, a call each."""

from __future__ import annotations

import statistics
import time

import numpy as np
from common import write_result

from repo_verl.replay.strategies import select

PROMPTS, ROWS, PICKED, RUNS = 1024, 16, 8, 11


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
    write_result("variance_pick", values)


if __name__ == "__main__":
    main()
