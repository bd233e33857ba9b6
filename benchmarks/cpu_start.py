"""Seconds from the command to the end of the first training step on the CPU backend.

    python benchmarks/cpu_start.py BASE_MODEL TRAIN_PARQUET

Both are the quickstart's: runs/quickstart/base-0 and runs/quickstart/data/arithmetic_train.parquet.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import write_result

RUNS = 3
CONFIG = Path(__file__).resolve().parents[1] / "recipe" / "repo" / "config"


def seconds(model: str, data: str) -> tuple[float, float]:
    """Until the first step's metrics are on disk, and until the process has ended."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "metrics.jsonl"
        command = [
            sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(CONFIG), "--config-name",
            "repo_quickstart", f"actor_rollout_ref.model.path={model}", f"data.train_files={data}",
            f"data.val_files={data}", "trainer.val_before_train=False", "trainer.test_freq=-1",
            "trainer.total_training_steps=1", f"trainer.default_local_dir={folder}",
        ]  # fmt: skip
        environment = {**os.environ, "VERL_PLATFORM": "cpu", "VERL_FILE_LOGGER_PATH": str(log)}
        start = time.monotonic()
        with (Path(folder) / "out").open("w") as out:
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
            first = 0.0
            while process.poll() is None:
                if not first and log.is_file() and "timing_s/step" in log.read_text():
                    first = time.monotonic() - start
                time.sleep(0.1)
        if process.returncode:
            raise RuntimeError(f"the run ended with {process.returncode}: {(Path(folder) / 'out').read_text()[-2000:]}")
        return first or time.monotonic() - start, time.monotonic() - start


def main() -> None:
    """Measure and write the result."""
    model, data = sys.argv[1:]
    runs = [seconds(model, data) for _ in range(RUNS)]
    values = {"runs": RUNS}
    for index, name in enumerate(("first_step", "process_end")):
        times = [run[index] for run in runs]
        values[f"{name}_median_s"] = round(statistics.median(times), 1)
        values[f"{name}_range_s"] = f"{min(times):.1f} to {max(times):.1f}"
    write_result("cpu_start", values)


if __name__ == "__main__":
    main()
