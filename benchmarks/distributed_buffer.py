"""The buffer over 4 storage processes on one machine: 10^6 rows of 256 tokens, what the driver keeps, and a kill.

    python benchmarks/distributed_buffer.py

Prints a table and writes ``results/distributed_buffer.json``. Takes about 6 GB of memory in all.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import psutil
import ray
from buffer import TOKENS, VISIT, make_rows, prompt
from common import write_result

from repo_verl.replay import PromptReplayBuffer, prompt_key
from repo_verl.trainer.storage import DistributedStore, StorageProcessError

ROWS, PER_PROMPT, PROCESSES, BATCH, CALLS = 1_000_000, 16, 4, 128, 60
PROMPTS = ROWS // PER_PROMPT


def own_memory() -> int:
    """Bytes that only this process holds."""
    return int(psutil.Process().memory_full_info().uss)


def fill(buffer: PromptReplayBuffer, rng: np.random.Generator) -> list[float]:
    """Seconds of every insertion of a batch of visits."""
    pool, times = [make_rows(rng) for _ in range(64)], []
    for _ in range(PER_PROMPT // VISIT):
        for start in range(0, PROMPTS, BATCH):
            numbers = range(start, min(start + BATCH, PROMPTS))
            items = [(prompt_key(prompt(i)), prompt(i), pool[i % len(pool)]) for i in numbers]
            begun = time.perf_counter()
            buffer.add_batch(items)
            times.append((time.perf_counter() - begun) / len(items))
    return times


def retrieve(buffer: PromptReplayBuffer, rng: np.random.Generator) -> list[float]:
    """Seconds per prompt of retrievals of 8 rows, a batch per call."""
    times = []
    for _ in range(CALLS):
        keys = [prompt_key(prompt(int(i))) for i in rng.integers(PROMPTS, size=BATCH)]
        begun = time.perf_counter()
        rows = buffer.fetch(buffer.select_batch(keys, 2))
        times.append((time.perf_counter() - begun) / BATCH)
        if sum(map(len, rows)) != BATCH * VISIT or rows[0][0].response_ids.size != TOKENS:
            raise RuntimeError("a retrieval gave other rows than were put")
    return times


def kill_one(buffer: PromptReplayBuffer, rng: np.random.Generator) -> dict[str, Any]:
    """End a storage process and see what the next retrieval does."""
    units = [process for process in _descendants() if "SimpleStorageUnit" in " ".join(process.cmdline())]
    units[0].kill()
    begun = time.perf_counter()
    try:
        for _ in range(20):
            retrieve(buffer, rng)
    except StorageProcessError as error:
        return {"after_kill_seconds": round(time.perf_counter() - begun, 2), "after_kill_error": str(error)}
    raise RuntimeError("retrievals went on without a storage process")


def _descendants() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if process.is_running()]


def main() -> None:
    """Measure and write the result."""
    rng = np.random.default_rng(0)
    ray.init(address="local", num_cpus=2, object_store_memory=2**28, include_dashboard=False, log_to_driver=False)
    store = DistributedStore(PROCESSES)
    try:
        buffer = PromptReplayBuffer(capacity=PER_PROMPT, min_size=VISIT, num_replay=VISIT, store=store)
        before = own_memory()
        inserts = fill(buffer, rng)
        held = own_memory()
        reads = retrieve(buffer, rng)
        values: dict[str, Any] = {
            "rows": len(buffer),
            "tokens_a_row": TOKENS,
            "storage_processes": PROCESSES,
            "driver_growth_mb": round((held - before) / 1e6, 1),
            "driver_growth_after_reads_mb": round((own_memory() - before) / 1e6, 1),
            "stored_mb": round(buffer.stats()["bytes"] / 1e6, 1),
            "insert_us_a_prompt": round(1e6 * statistics.median(inserts), 1),
            "retrieve_us_a_prompt": round(1e6 * statistics.median(reads), 1),
            **kill_one(buffer, rng),
        }
    finally:
        store.close()
        ray.shutdown()
    write_result("distributed_buffer", values)


if __name__ == "__main__":
    main()
