"""What saving and loading the buffer costs: 10^4 to 10^6 rows of 256 tokens, in files of 32 MiB.

Every size runs in processes of its own, one that saves and one that loads, the sizes in turn, three times. The peak is
that of the process's memory over what it held before the save, and over what it holds after the load. Files are synced
to the disk of FOLDER; reading them back finds them in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from buffer import PROMPT_TOKENS, SIZES, TOKENS, VISIT, make_rows, prompt, resident
from common import write_result

from repo_verl.replay import PromptReplayBuffer, prompt_key
from repo_verl.replay.checkpoint import load_buffer, save_buffer

PER_PROMPT, REPEATS = 16, 3


def peak() -> int:
    """The most bytes of this process in memory since :func:`forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def forget_peak() -> int:
    """Start a new peak at what is in memory now, which is returned."""
    now = resident()
    Path("/proc/self/clear_refs").write_text("5")
    return now


def filled(rows: int) -> PromptReplayBuffer:
    """A buffer of full prompts."""
    rng = np.random.default_rng(0)
    pool = [make_rows(rng) for _ in range(64)]
    buffer = PromptReplayBuffer(capacity=PER_PROMPT, min_size=VISIT, num_replay=VISIT)
    for _ in range(PER_PROMPT // VISIT):
        for number in range(rows // PER_PROMPT):
            buffer.add(prompt_key(prompt(number)), prompt(number), pool[number % len(pool)])
    return buffer


def save(rows: int, folder: Path) -> dict[str, float]:
    """Seconds and memory of a save."""
    buffer = filled(rows)
    before = forget_peak()
    start = time.perf_counter()
    meta = save_buffer(folder, buffer, {})
    seconds = time.perf_counter() - start
    return {
        "save_seconds": seconds,
        "save_mb_a_second": meta.bytes / 1e6 / seconds,
        "save_peak_over_buffer_mb": (peak() - before) / 1e6,
        "bytes_on_disk": sum(path.stat().st_size for path in folder.iterdir()),
        "bytes_by_stats": buffer.stats()["bytes"],
        "shards": len(meta.shards),
    }


def load(rows: int, folder: Path) -> dict[str, float]:
    """Seconds and memory of a load into an empty buffer."""
    buffer = PromptReplayBuffer(capacity=PER_PROMPT, min_size=VISIT, num_replay=VISIT)
    before = forget_peak()
    start = time.perf_counter()
    found = load_buffer(folder, buffer)
    seconds = time.perf_counter() - start
    most = peak()
    assert found.rows == rows
    held = resident()
    return {
        "load_seconds": seconds,
        "load_mb_a_second": found.meta.bytes / 1e6 / seconds,
        "load_peak_over_buffer_mb": (most - held) / 1e6,
        "load_buffer_mb": (held - before) / 1e6,
    }


def measured(rows: int, parent: str | None) -> dict[str, float]:
    """One size: a process that saves, then one that loads."""
    values: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        for action in ("save", "load"):
            command = [sys.executable, __file__, "--rows", str(rows), "--action", action, "--folder", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            values.update(json.loads(done.stdout))
    return values


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="a folder on the disk to measure (default: the one for temporary files)")
    parser.add_argument("--rows", type=int, help="measure only this size and print JSON")
    parser.add_argument("--action", choices=["save", "load"], default="save")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    args = parser.parse_args()
    if args.rows:
        action = {"save": save, "load": load}[args.action]
        print(json.dumps(action(args.rows, Path(args.folder) / "prompt_replay")))
        return
    runs: dict[int, list[dict[str, float]]] = {rows: [] for rows in SIZES}
    for _ in range(args.repeats):
        for rows in SIZES:
            runs[rows].append(measured(rows, args.folder))
    values: dict[str, Any] = {"tokens_a_row": TOKENS, "prompt_tokens": PROMPT_TOKENS, "repeats": args.repeats}
    for rows, found in runs.items():
        for name in found[0]:
            each = sorted(run[name] for run in found)
            values[f"{rows}_{name}"] = round(statistics.median(each), 2)
            if name in ("save_seconds", "load_seconds"):
                values[f"{rows}_{name}_range"] = [round(each[0], 2), round(each[-1], 2)]
    values["load_average_at_the_end"] = round(os.getloadavg()[0], 1)
    write_result("checkpoint_cost", values)


if __name__ == "__main__":
    main()
