"""Engines for ``algorithm.repo.storage=distributed``: TransferQueue's storage units and Ray's object store.

python benchmarks/storage_engines.py [ENGINE]             all cases (12 minutes), or those of tq, put or spread
python benchmarks/storage_engines.py ENGINE BLOBS BYTES   one case; prints its figures as JSON
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray

UNITS, BATCH, READS = 4, 128, 100
SMALL, LARGE = 8 * 256 * 8, 8 * 4096 * 8
SIZES = ((10_112, SMALL), (125_056, SMALL), (4_096, LARGE))
BOUND_S = 120.0


class RayPut:
    """One object a blob in the object store of the driver's node; Ray spills it to that node's disk when full."""

    def __init__(self) -> None:
        ray.init(
            address="local", num_cpus=2, object_store_memory=3 * 2**30, include_dashboard=False, log_to_driver=False
        )
        self.refs: dict[int, ray.ObjectRef] = {}
        self.next = 0

    def put(self, blobs: Sequence[np.ndarray]) -> list[int]:
        """One ``ray.put`` a blob."""
        handles = list(range(self.next, self.next + len(blobs)))
        self.refs.update((handle, ray.put(blob)) for handle, blob in zip(handles, blobs, strict=True))
        self.next += len(blobs)
        return handles

    def get(self, handles: Sequence[int]) -> list[np.ndarray]:
        """Zero-copy views."""
        return ray.get([self.refs[handle] for handle in handles], timeout=BOUND_S)

    def drop(self, handles: Sequence[int]) -> None:
        """Out of scope: Ray frees them in its own time."""
        for handle in handles:
            del self.refs[handle]


class RaySpread:
    """One object a node and ``put``, made on that node by a task that returns its argument.

    Results of up to 100 KB would be inlined into the owner's memory, so that blobs cannot be objects of their own;
    an object goes when its last blob is dropped, and reading one blob moves the whole object.
    """

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # A cluster leaves a note of its address behind, which every other `ray.init` on the machine would follow.
        os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray_")
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 2**30})
        self.nodes = [self.cluster.add_node(num_cpus=1, object_store_memory=2**30) for _ in range(UNITS)]
        ray.init(address=self.cluster.address, log_to_driver=False)
        self.places: dict[int, tuple[list[Any], int, int]] = {}
        self.next = 0
        self.keep = ray.remote(num_cpus=0, max_retries=0)(lambda chunk: chunk)

    def put(self, blobs: Sequence[np.ndarray]) -> list[int]:
        """A chunk of neighbours for each node."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        start, refs = self.next, []
        for node, part in zip(self.nodes, np.array_split(np.arange(len(blobs)), UNITS), strict=True):
            here = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            ref = self.keep.options(scheduling_strategy=here).remote(np.concatenate([blobs[i] for i in part]))
            refs.append(ref)
            ends = np.cumsum([blobs[i].size for i in part])
            chunk = [ref, len(part)]
            for i, end in zip(part, ends, strict=True):
                self.places[start + int(i)] = (chunk, int(end) - blobs[i].size, int(end))
        self.next += len(blobs)
        ray.wait(refs, num_returns=len(refs), fetch_local=False, timeout=BOUND_S)
        return list(range(start, self.next))

    def get(self, handles: Sequence[int]) -> list[np.ndarray]:
        """Fetches whole chunks to the driver's node and cuts the blobs out."""
        places = [self.places[handle] for handle in handles]
        chunks = ray.get([chunk[0] for chunk, _, _ in places], timeout=BOUND_S)
        return [whole[begin:end].copy() for whole, (_, begin, end) in zip(chunks, places, strict=True)]

    def drop(self, handles: Sequence[int]) -> None:
        """A chunk goes with its last blob."""
        for handle in handles:
            chunk, _, _ = self.places.pop(handle)
            chunk[1] -= 1
            if not chunk[1]:
                chunk[0] = None

    def kill(self) -> None:
        """SIGKILL for the process that holds one node's objects: its raylet."""
        os.kill(self.nodes[1].all_processes["raylet"][0].process.pid, signal.SIGKILL)


def transfer_queue() -> Any:
    """What the package uses, over four processes."""
    from repo_verl.trainer.storage import DistributedStore

    class Store(DistributedStore):
        def kill(self) -> None:
            """SIGKILL for one storage unit."""
            unit = next(actor for name, actor in self._actors.items() if name.startswith("unit 1"))
            os.kill(ray.get(unit.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)

    ray.init(address="local", num_cpus=2, object_store_memory=2**28, include_dashboard=False, log_to_driver=False)
    return Store(UNITS)


ENGINES: dict[str, Callable[[], Any]] = {"tq": transfer_queue, "put": RayPut, "spread": RaySpread}


def anonymous(process: psutil.Process) -> int:
    """Bytes of a process's own memory, without files and shared memory (the object store)."""
    memory = process.memory_info()
    return memory.rss - memory.shared


def footprint() -> int:
    """Bytes outside the driver: own memory of all processes below it, used object store, spilled files."""
    object_store = "object_store_memory"
    total = ray.cluster_resources().get(object_store, 0) - ray.available_resources().get(object_store, 0)
    for process in psutil.Process().children(recursive=True):
        try:
            total += anonymous(process)
        except psutil.Error:
            continue
    session = Path(ray.get_runtime_context().worker.node.get_session_dir_path())
    return int(total + sum(path.stat().st_size for path in session.glob("ray_spilled_objects*/*")))


def batches(handles: Sequence[int]) -> list[Sequence[int]]:
    """Runs of 128."""
    return [handles[i : i + BATCH] for i in range(0, len(handles), BATCH)]


def timed(call: Callable[[Any], Any], items: Sequence[Any]) -> float:
    """Seconds for a call with each item; results are let go."""
    start = time.perf_counter()
    for item in items:
        call(item)
    return time.perf_counter() - start


def measure(engine: str, count: int, size: int) -> dict[str, Any]:
    """Fill, read, drop half at random, refill, kill."""
    start = time.perf_counter()
    store = ENGINES[engine]()
    values: dict[str, Any] = {"start_s": round(time.perf_counter() - start, 1)}
    rng = np.random.default_rng(0)
    pool = [[rng.integers(0, 256, size, dtype=np.uint8) for _ in range(BATCH)] for _ in range(4)]
    warm = store.put(pool[0])
    store.get(warm)
    store.drop(warm)
    time.sleep(3)
    me = psutil.Process()
    inside, outside = anonymous(me), footprint()
    handles: list[int] = []
    seconds = timed(lambda i: handles.extend(store.put(pool[i % 4])), range(count // BATCH))
    megabytes = count * size / 1e6

    def look(when: str) -> None:
        time.sleep(3)
        values[f"driver_mb_{when}"] = round((anonymous(me) - inside) / 1e6)
        values[f"bytes_a_byte_{when}"] = round((footprint() - outside) / 1e6 / megabytes, 2)

    values.update(put_blobs_s=round(count / seconds), put_mb_s=round(megabytes / seconds))
    look("full")
    order = rng.permutation(count)
    some = order[: READS * BATCH]
    seconds = timed(lambda places: store.get([handles[i] for i in places]), batches(some))
    values.update(get_blobs_s=round(len(some) / seconds), get_mb_s=round(len(some) * size / 1e6 / seconds))
    look("read")
    half = order[: count // 2 // BATCH * BATCH]
    timed(lambda places: store.drop([handles[i] for i in places]), batches(half))
    look("half_dropped")
    timed(lambda i: store.put(pool[i % 4]), range(len(half) // BATCH))
    look("refilled")
    if hasattr(store, "kill"):
        values.update(after_kill(store, pool[0]))
    return values


def after_kill(store: Any, blobs: Sequence[np.ndarray]) -> dict[str, Any]:
    """Seconds until the first read and the next write end after a storage process was killed, and how they end."""
    handles = store.put(blobs)
    store.kill()
    values: dict[str, Any] = {}
    for name, call, argument in (("get", store.get, handles), ("put", store.put, blobs)):
        start = time.perf_counter()
        try:
            result = call(argument)
            if name == "put":
                store.get(result)
            end = "no error"
        except (RuntimeError, ray.exceptions.RayError) as error:
            end = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        values[f"killed_{name}_s"] = round(time.perf_counter() - start, 1)
        values[f"killed_{name}_end"] = end
    return values


def main() -> None:
    """One case, or all of them in processes of their own."""
    if len(sys.argv) == 4:
        print("RESULT" + json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))), flush=True)
        ray.shutdown()
        return
    from common import RESULTS, write_result

    engines = sys.argv[1:] or list(ENGINES)
    earlier = RESULTS / "storage_engines.json"
    known = json.loads(earlier.read_text()) if earlier.exists() else {}
    values = {name: case for name, case in known.items() if name.split("_")[0] in set(ENGINES) - set(engines)}
    for engine, (count, size) in itertools.product(engines, SIZES):
        command = [sys.executable, __file__, engine, str(count), str(size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
        case = json.loads(lines[0].removeprefix("RESULT")) if lines else {"failed": done.returncode}
        values[f"{engine}_{count}x{size}"] = case
    write_result("storage_engines", values)


if __name__ == "__main__":
    main()
