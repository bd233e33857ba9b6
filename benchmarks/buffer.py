"""The buffer in host memory: bytes, insertions and retrievals at 10^4 to 10^6 rows of 256 tokens; bfloat16's error.

Every size runs in a process of its own, the sizes in turn, five times. Insertions are visits of 8 rows to random full
prompts, so each evicts 8; a retrieval is the selection of 8 rows of a random prompt and the fetch of their tokens.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from common import write_result

from repo_verl.replay import PromptReplayBuffer, Record, prompt_key
from repo_verl.replay.record import from_bfloat16, to_bfloat16

SIZES, TOKENS, VISIT, PROMPT_TOKENS = (10_000, 100_000, 1_000_000), 256, 8, 32
CALLS, BATCH, REPEATS = 3000, 128, 5


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def prompt(number: int) -> np.ndarray:
    """Token ids of a prompt."""
    return np.arange(number, number + PROMPT_TOKENS, dtype=np.int32)


def make_rows(rng: np.random.Generator) -> list[Record]:
    """A visit's rows, with two parts each."""
    return [
        Record.create(rng.integers(0, 150_000, TOKENS), -rng.exponential(0.35, TOKENS), float(rng.integers(2)), 1,
                      parts={"acc": float(rng.integers(2)), "format": 1.0})
        for _ in range(VISIT)
    ]  # fmt: skip


def timed(calls: int, action: Any, arguments: Any) -> list[float]:
    """Seconds of each call of ``action(*arguments())``."""
    times = []
    for _ in range(calls):
        values = arguments()
        start = time.perf_counter()
        action(*values)
        times.append(time.perf_counter() - start)
    return times


def measure(rows: int, per_prompt: int, dtype: str, save: bool) -> dict[str, float]:
    """One size, in this process."""
    rng = np.random.default_rng(0)
    pool = [make_rows(rng) for _ in range(64)]
    prompts = rows // per_prompt
    warm = PromptReplayBuffer(log_prob_dtype=dtype)
    warm.add("0" * 32, prompt(0), pool[0])
    before = resident()
    buffer = PromptReplayBuffer(capacity=per_prompt, min_size=VISIT, num_replay=VISIT, log_prob_dtype=dtype)
    for _ in range(per_prompt // VISIT):
        for number in range(prompts):
            buffer.add(prompt_key(prompt(number)), prompt(number), pool[number % len(pool)])
    held = resident() - before
    token_bytes = 8 if dtype == "float32" else 6
    beside = held - token_bytes * TOKENS * len(buffer) - 4 * PROMPT_TOKENS * prompts
    values = {
        "rows": len(buffer),
        "bytes_a_token_all_included": held / (TOKENS * len(buffer)),
        "bytes_a_row_beside_tokens": beside / len(buffer),
        "bytes_by_stats_over_resident": buffer.stats()["bytes"] / held,
        **rates(buffer, rng, pool, prompts),
    }
    after = resident() - before
    values["growth_by_evictions_mb"] = (after - held) / 1e6
    if save:
        values.update(saving(buffer, before))
    return values


def rates(
    buffer: PromptReplayBuffer, rng: np.random.Generator, pool: list[list[Record]], prompts: int
) -> dict[str, Any]:
    """Microseconds of insertions and retrievals, one prompt per call and in batches."""

    def item() -> tuple[str, np.ndarray, list[Record]]:
        ids = prompt(int(rng.integers(prompts)))
        return prompt_key(ids), ids, pool[int(rng.integers(len(pool)))]

    def retrieve(keys: list[str]) -> None:
        buffer.fetch(buffer.select_batch(keys, 2))

    def keys(count: int) -> tuple[list[str]]:
        return ([item()[0] for _ in range(count)],)

    calls = {
        "insert": (CALLS, buffer.add, item, 1),
        "retrieve": (CALLS, retrieve, lambda: keys(1), 1),
        "insert_batched": (CALLS // 50, buffer.add_batch, lambda: ([item() for _ in range(BATCH)],), BATCH),
        "retrieve_batched": (CALLS // 50, retrieve, lambda: keys(BATCH), BATCH),
    }
    values = {}
    for name, (count, action, arguments, visits) in calls.items():
        timed(count // 10, action, arguments)
        times = [1e6 * seconds / visits for seconds in timed(count, action, arguments)]
        values[f"{name}_us_a_prompt"] = statistics.median(times)
        values[f"{name}_us_a_prompt_p99"] = float(np.percentile(times, 99))
    return values


def saving(buffer: PromptReplayBuffer, before: int) -> dict[str, float]:
    """Seconds of ``state_dict`` and ``load_state_dict``, and the peak of memory over the token bytes."""
    start = time.perf_counter()
    state = buffer.state_dict()
    saved = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    share = peak / (buffer.stats()["bytes"])
    twin_start = time.perf_counter()
    buffer.load_state_dict(state)
    return {
        "state_dict_seconds": saved - start,
        "state_dict_peak_over_bytes": share,
        "load_state_dict_seconds": time.perf_counter() - twin_start,
    }


def bfloat16_error() -> dict[str, float]:
    """Errors of log-probs and of ratios exp(new - old), for a million log-probs -x, x exponential with mean 0.35."""
    exact = (-np.random.default_rng(0).exponential(0.35, 1_000_000)).astype(np.float32)
    error = from_bfloat16(to_bfloat16(exact)).astype(np.float64) - exact
    ratio = np.abs(np.exp(-error) - 1)
    return {
        "bfloat16_log_prob_error_max": float(np.abs(error).max()),
        "bfloat16_log_prob_error_mean": float(np.abs(error).mean()),
        "bfloat16_ratio_error_max": float(ratio.max()),
        "bfloat16_ratio_error_mean": float(ratio.mean()),
    }


def in_process(rows: int, per_prompt: int, dtype: str, save: bool = False) -> dict[str, float]:
    """:func:`measure` in a process of its own."""
    command = [sys.executable, __file__, "--rows", str(rows), "--per-prompt", str(per_prompt), "--dtype", dtype]
    output = subprocess.run([*command, "--save"] if save else command, check=True, capture_output=True, text=True)
    return json.loads(output.stdout)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, help="measure only this size and print JSON")
    parser.add_argument("--per-prompt", type=int, default=16)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--save", action="store_true", help="measure state_dict and load_state_dict too")
    args = parser.parse_args()
    if args.rows:
        print(json.dumps(measure(args.rows, args.per_prompt, args.dtype, args.save)))
        return
    runs: dict[int, list[dict[str, float]]] = {rows: [] for rows in SIZES}
    for repeat in range(REPEATS):
        for rows in SIZES:
            runs[rows].append(in_process(rows, 16, "float32", save=repeat == 0))
    values: dict[str, Any] = {}
    for rows, found in runs.items():
        for name in found[0]:
            values[f"{rows}_{name}"] = round(statistics.median(run[name] for run in found if name in run), 3)
        for action in ("insert", "retrieve"):
            values[f"{rows}_{action}s_a_second"] = round(
                (VISIT if action == "insert" else 1) * 1e6 / values[f"{rows}_{action}_us_a_prompt"]
            )
    for action in ("insert", "retrieve", "insert_batched", "retrieve_batched"):
        pairs = zip(runs[SIZES[0]], runs[SIZES[-1]], strict=True)
        ratios = sorted(large[f"{action}_us_a_prompt"] / small[f"{action}_us_a_prompt"] for small, large in pairs)
        values[f"{action}_1e6_over_1e4"] = round(statistics.median(ratios), 2)
        values[f"{action}_1e6_over_1e4_range"] = [round(ratios[0], 2), round(ratios[-1], 2)]
    for per_prompt, dtype in ((8, "float32"), (16, "bfloat16")):
        found = in_process(SIZES[-1], per_prompt, dtype)
        for name in ("bytes_a_token_all_included", "bytes_a_row_beside_tokens", "growth_by_evictions_mb"):
            values[f"{per_prompt}_a_prompt_{dtype}_{name}"] = round(found[name], 2)
    values.update({name: float(f"{value:.3g}") for name, value in bfloat16_error().items()})
    write_result("buffer", values)


if __name__ == "__main__":
    main()
