"""What the plugin adds to ``import verl``: 11 alternating pairs with and without it, in fresh interpreters."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from common import write_result

PAIRS = 11


def seconds(policy: str) -> float:
    """Wall time of ``import verl``; a policy that names no plugin still scans the entry points, as verl always does."""
    environment = {**os.environ, "VERL_USE_EXTERNAL_PLUGINS": policy}
    environment.pop("VERL_PLATFORM", None)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import verl"], env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and write the result."""
    for policy in ("auto", "absent"):
        seconds(policy)
    pairs = [(seconds("auto"), seconds("absent")) for _ in range(PAIRS)]
    differences = [with_plugin - without for with_plugin, without in pairs]
    values = {
        "pairs": PAIRS,
        "seconds_with": round(statistics.median(pair[0] for pair in pairs), 3),
        "seconds_without": round(statistics.median(pair[1] for pair in pairs), 3),
        "median_difference_s": round(statistics.median(differences), 3),
        "least_difference_s": round(min(differences), 3),
        "largest_difference_s": round(max(differences), 3),
    }
    write_result("import_time", values)


if __name__ == "__main__":
    main()
