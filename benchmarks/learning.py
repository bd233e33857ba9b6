"""Does replay help a tiny model learn arithmetic? GRPO and RePO's variants, several seeds, one factor at a time.

    python benchmarks/learning.py run [--tasks sums chains] [--arms ...] [--pilot] [--at-once 2] [--work runs/learning]
    python benchmarks/learning.py report

``run`` does what is missing: each run leaves one JSON under benchmarks/results/learning, and is never made again, so
it may be stopped at any time. ``report`` writes the table and the figure of docs/learning.md from these files. Arms
with one seed share base model, data, their order and the seeds of generation, so they are compared seed by seed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from common import RESULTS
from learning_plan import PILOT_SEED, TASKS, Run, overrides, pilots, planned

from repo_verl.atomic_files import write_atomically
from repo_verl.report import provenance

ROOT = Path(__file__).resolve().parents[1]
FOLDER = RESULTS / "learning"
TRAIN, TEST = 128, 1024
MARK = "REPO_LEARNING_RUN"
PREPARING = threading.Lock()
KEPT = {
    "seconds": "timing_s/step",
    "update_tokens": "repo/update_tokens",
    "effective_steps": "repo/effective_steps",
    "effective_prompts_fresh": "repo/effective_prompts_fresh",
    "effective_prompts_all": "repo/effective_prompts_all",
    "replayed_rows": "repo/replayed_rows",
    "score_fresh_mean": "repo/score_fresh_mean",
    "ess_replayed": "repo/ess_replayed",
}
"""Kept of every step, by verl's key."""


class Processor(threading.Thread):
    """Seconds of the processor that a run's processes and all others took, by looking at them twice a second."""

    def __init__(self, mark: str):
        super().__init__(daemon=True)
        self._mark, self._mine, self._over = mark.encode(), {}, threading.Event()
        self._known: dict[tuple[int, float], bool] = {}
        self._start = self._busy()

    @staticmethod
    def _busy() -> float:
        times = psutil.cpu_times()
        return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice

    def _belongs(self, process: psutil.Process, key: tuple[int, float]) -> bool:
        if key not in self._known:
            content = Path(f"/proc/{process.pid}/environ").read_bytes()
            self._known[key] = f"{MARK}=".encode() + self._mark in content.split(b"\0")
        return self._known[key]

    def _look(self) -> None:
        for process in psutil.process_iter():
            try:
                key = (process.pid, process.create_time())
                if self._belongs(process, key):
                    self._mine[key] = sum(process.cpu_times()[:2])
            except (psutil.Error, OSError):  # it has ended meanwhile
                continue

    def run(self) -> None:
        """Look until told to stop."""
        while not self._over.wait(0.5):
            self._look()

    def stop(self) -> tuple[float, float]:
        """Seconds of the run and of everything else."""
        self._over.set()
        self.join()
        mine = sum(self._mine.values())
        return mine, max(0.0, self._busy() - self._start - mine)


def call(command: list[str], log: Path, **environment: str) -> None:
    """Run a command with its output in a file; on failure, the end of it and an exit."""
    with log.open("w") as file:
        done = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT,
            env={**os.environ, "VERL_PLATFORM": "cpu", **environment}, check=False,
        )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} ended with {done.returncode}; the end of {log}:\n{log.read_text()[-2000:]}")


def prepare(run: Run, work: Path) -> tuple[Path, Path]:
    """Data and base model of a run, made once: two folders."""
    task = TASKS[run.task]
    data, base = work / run.task / "data", work / run.task / f"base-{run.seed}"
    work.mkdir(parents=True, exist_ok=True)
    if not (data / "arithmetic.json").exists():
        sizes = {"train": TRAIN, "test": TEST, "warmup": task.warmup}
        flags = [part for name, size in sizes.items() for part in (f"--{name}-size", str(size))]
        command = ["-m", "data_prep", "arithmetic", "--form", task.form, *flags, "--output", str(data)]
        call([sys.executable, *command], work / "data.log")
    if not (base / "tiny.json").exists():
        options = ["--data", str(data / "arithmetic_warmup.parquet"), "--output", str(base), "--seed", str(run.seed)]
        target = ["--target", *task.target, "--max-seconds", "3600"]
        call([sys.executable, "-m", "repo_verl.cpu.tiny", "--task", "arithmetic", *options, *target], work / "base.log")
    return data, base


def read(metrics: Path) -> dict[str, Any]:
    """The curves of a run's log."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [line["data"] for line in lines if "timing_s/step" in line["data"]]
    accuracy = [
        [line["step"], value] for line in lines for key, value in line["data"].items() if key.startswith("val-core/")
    ]
    kept = {name: [round(step[key], 6) for step in steps] for name, key in KEPT.items()}
    kept["generated_tokens"] = [round(step["response_length/mean"] * step_rows(step)) for step in steps]
    return {"accuracy": accuracy, **kept}


def step_rows(step: dict[str, Any]) -> int:
    """Fresh rows of a step: all its tokens over the mean length of a row."""
    return round(step["perf/total_num_tokens"] / (step["response_length/mean"] + step["prompt_length/mean"]))


def train(run: Run, work: Path, at_once: int) -> dict[str, Any]:
    """Train on this run's share of the cores, in a Ray of its own, and tell what came of it."""
    with PREPARING:
        data, base = prepare(run, work)
    folder = work / "now" / run.name
    folder.mkdir(parents=True, exist_ok=True)
    metrics = folder / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    settings = overrides(run)
    watch = Processor(run.name)
    watch.start()
    start = time.monotonic()
    paths = [
        f"actor_rollout_ref.model.path={base}", f"data.train_files={data / 'arithmetic_train.parquet'}",
        f"data.val_files={data / 'arithmetic_test.parquet'}", f"trainer.default_local_dir={folder / 'checkpoints'}",
        f"hydra.run.dir={folder}",
    ]  # fmt: skip
    config = ["--config-dir", str(ROOT / "recipe/repo/config"), "--config-name", "repo_quickstart"]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *config, *settings, *paths]
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    with tempfile.TemporaryDirectory(prefix="rl", ignore_cleanup_errors=True) as ray:
        own = {"VERL_FILE_LOGGER_PATH": str(metrics), "OMP_NUM_THREADS": threads, "RAY_TMPDIR": ray, MARK: run.name}
        call(command, folder / "train.log", **own)
    seconds = time.monotonic() - start
    mine, others = watch.stop()
    return {
        "task": run.task, "arm": run.arm, "settings": settings, "base": json.loads((base / "tiny.json").read_text()),
        "at_once": at_once, "threads": int(threads), "wall_seconds": round(seconds, 1),
        "processor_seconds": round(mine, 1), "others_seconds": round(others, 1),
        **read(metrics), **provenance(run.seed),
    }  # fmt: skip


def keep(run: Run, work: Path, results: Path, at_once: int) -> None:
    """Train, and leave the run's JSON."""
    result = train(run, work, at_once)
    write_atomically(results / f"{run.name}.json", json.dumps(result) + "\n")
    print(f"{run.name}: {100 * result['accuracy'][-1][1]:.1f} % after {result['wall_seconds']:.0f} s", flush=True)


def main() -> None:
    """Run what is missing, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="do the runs that have no result yet")
    runner.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    runner.add_argument("--arms", nargs="+", help="only these")
    runner.add_argument("--pilot", action="store_true", help=f"GRPO's learning rates on seed {PILOT_SEED} instead")
    runner.add_argument("--at-once", type=int, default=1, help="runs at one time, each with its share of the cores")
    runner.add_argument("--work", type=Path, default=ROOT / "runs/learning", help="data, base models and logs")
    runner.add_argument("--results", type=Path, default=FOLDER, help="a JSON a run")
    commands.add_parser("report", help="write docs/learning.md's table and figure")
    arguments = parser.parse_args()
    if arguments.command == "report":
        from learning_report import report

        report(FOLDER, ROOT / "docs")
        return
    arguments.results.mkdir(parents=True, exist_ok=True)
    runs = pilots() if arguments.pilot else planned(arguments.tasks, arguments.arms)
    missing = [run for run in runs if not (arguments.results / f"{run.name}.json").exists()]
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are done", flush=True)
    with ThreadPoolExecutor(arguments.at_once) as pool:
        waiting = [
            pool.submit(keep, run, arguments.work.resolve(), arguments.results, arguments.at_once) for run in missing
        ]
        try:
            for one in waiting:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


if __name__ == "__main__":
    main()
