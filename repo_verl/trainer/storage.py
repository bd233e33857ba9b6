"""The replay buffer's bytes in storage processes on the cluster's nodes: ``algorithm.repo.storage=distributed``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import struct
import threading
import time
import uuid
import weakref
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tensordict import TensorDict
from transfer_queue import BatchMeta, StorageKeyNotFoundError
from transfer_queue.client import AsyncTransferQueueClient
from transfer_queue.controller import TransferQueueController
from transfer_queue.storage import SimpleStorageUnit

from repo_verl.config import RepoConfigError

FIELD = "rows"
PARTITION = "repo_replay"
BATCH = 128  # pieces per request: bounds the copies in flight, whatever the length of the caller's list
WIDTH, PIECE_BYTES = 8, 2**17  # most blobs and bytes of a piece; a longer blob is a piece of its own

OFFSETS = struct.Struct(f"<{WIDTH + 1}q")
"""The start of a piece: where its blobs begin in it, and where the last one ends, as often as fills it up."""

START_S, LOOK_S, PING_S, CLOSE_S = 300.0, 1.0, 5.0, 10.0
REMEDY = "resume from the last checkpoint, or set algorithm.repo.storage=host."


class StorageProcessError(RuntimeError):
    """A storage process died, did not start or does not answer; one sentence naming it and the remedy."""


class DistributedStore:
    """Byte strings in the memory of storage processes; the driver keeps two ints for up to 8 of them.

    Requests cost by the row of TransferQueue, so up to 8 consecutive blobs of a put share one: a piece. It is fetched
    as a whole and goes with the last of its blobs: beside a blob that is held, up to 7 dropped ones stay, under 128 KiB
    in all. The buffer puts a visit's rows in a run and drops the oldest first, so mostly a piece goes at once.

    The processes are TransferQueue's storage units behind a controller of their own: verl lists every key of its own
    queue at each poll. Filled evenly; no CPU of Ray's count; they end with the process that made them. Nothing is
    replicated: with a process its rows are gone, and every later call raises. Not thread-safe: the driver owns it.

    They are assigned round-robin to the alive nodes, one per node where ``processes`` is None. A call gives up after
    ``patience_s`` seconds without an answer to one request, though no process is dead. RepoConfigError if ``processes``
    is under 1, StorageProcessError if they don't start.
    """

    def __init__(self, processes: int | None = None, *, patience_s: float = 60.0) -> None:
        nodes = sorted((node["NodeID"], node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"])
        count = len(nodes) if processes is None else processes
        if count < 1:
            raise RepoConfigError(f"algorithm.repo.storage_processes={count}: set 1 or more, or null for one per node.")
        self._patience_s = patience_s
        self._failure: str | None = None
        self._next_piece = 0
        self._pieces: dict[int, int] = {}  # index in TransferQueue << WIDTH | a bit for each blob that is held
        self._actors: dict[str, ActorHandle] = {}
        run = uuid.uuid4().hex[:8]
        self._actors["the controller"] = TransferQueueController.options(
            name=f"repo_storage_controller_{run}",
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True),
        ).remote()
        for unit in range(count):
            node_id, address = nodes[unit % len(nodes)]
            self._actors[f"unit {unit} of {count} on node {address}"] = SimpleStorageUnit.options(
                name=f"repo_storage_{unit}_{run}",
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            ).remote(config={})
        self._connect(f"repo_storage_{run}")

    def _connect(self, name: str) -> None:
        """Wait for the processes and open the client on an event loop of its own."""
        try:
            controller, *units = ray.get(
                [actor.get_zmq_server_info.remote() for actor in self._actors.values()], timeout=START_S
            )
            client = AsyncTransferQueueClient(name, controller, zmq_io_threads=2)
            client.initialize_storage_manager("SimpleStorage", {"zmq_info": {unit.id: unit for unit in units}})
        except (RayError, TimeoutError) as error:
            self._kill_actors()
            raise StorageProcessError(
                f"the storage processes of the replay buffer did not start ({type(error).__name__}): "
                "free some memory on the nodes, or set algorithm.repo.storage=host."
            ) from error
        self._client = client
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        thread.start()
        self._disconnect = weakref.finalize(self, disconnect, self._loop, thread, client)

    def put(self, blobs: Sequence[bytes]) -> list[int]:
        """Store copies of byte strings; returns one handle per blob, never used before.

        Raises:
            StorageProcessError: as :meth:`drop`.
        """
        handles: list[int] = []
        for batch in batches(runs([np.frombuffer(blob, dtype=np.uint8) for blob in blobs])):
            pieces = list(map(pack, batch))
            rows = torch.nested.nested_tensor_from_jagged(
                torch.from_numpy(np.concatenate(pieces)),
                torch.from_numpy(np.cumsum([0, *(piece.size for piece in pieces)])),
            )
            data = TensorDict({FIELD: rows}, batch_size=len(pieces))
            stored = self._call(self._client.async_put(data, partition_id=PARTITION))
            for run, index in zip(batch, stored.global_indexes, strict=True):
                first = self._next_piece * WIDTH
                handles.extend(range(first, first + len(run)))
                self._pieces[self._next_piece] = index << WIDTH | (1 << len(run)) - 1
                self._next_piece += 1
        return handles

    def get(self, handles: Sequence[int]) -> list[np.ndarray]:
        """Fetch byte strings, each (n,) uint8, in the order of the handles; raises as :meth:`drop`.

        Each piece is fetched once. Blobs fetched together share one buffer: copy what is to outlive the others.
        """
        self._check_held(handles)
        found: dict[int, tuple[np.ndarray, tuple[int, ...]]] = {}
        for batch in batches(list(dict.fromkeys(handle // WIDTH for handle in handles))):
            rows = self._call(self._client.async_get_data(self._meta(batch)))[FIELD]
            for piece, content in zip(batch, (row.numpy() for row in rows.unbind()), strict=True):
                found[piece] = content, OFFSETS.unpack_from(content)
        blobs = []
        for piece, place in (divmod(handle, WIDTH) for handle in handles):
            content, offsets = found[piece]
            blobs.append(content[offsets[place] : offsets[place + 1]])
        return blobs

    def drop(self, handles: Sequence[int]) -> None:
        """Forget byte strings; the memory of a piece takes the next ones once none of its blobs is held.

        Raises:
            ValueError: if a handle is not held.
            StorageProcessError: if a storage process died or does not answer.
        """
        self._check_held(handles)
        if handles and self._failure is not None:  # a drop that clears no piece makes no request
            raise StorageProcessError(self._failure)
        left: dict[int, int] = {}
        for piece, place in (divmod(handle, WIDTH) for handle in handles):
            left[piece] = left.get(piece, self._pieces[piece]) & ~(1 << place)
        for batch in batches([piece for piece, entry in left.items() if not entry % (1 << WIDTH)]):
            self._call(self._client.async_clear_samples(self._meta(batch)))
            for piece in batch:
                del self._pieces[piece], left[piece]
        self._pieces.update(left)

    def close(self) -> None:
        """End the storage processes; safe to call twice."""
        if not self._actors:
            return
        self._disconnect()
        self._kill_actors()
        self._pieces.clear()
        self._failure = "replay buffer: its storage was closed."

    def _kill_actors(self) -> None:
        if ray.is_initialized():
            for actor in self._actors.values():
                ray.kill(actor)
        self._actors = {}

    def _check_held(self, handles: Sequence[int]) -> None:
        for handle in handles:
            piece, place = divmod(handle, WIDTH)
            if not self._pieces.get(piece, 0) >> place & 1:
                raise ValueError(f"Handle {handle} is not held: it was dropped, or another store gave it out.")

    def _meta(self, pieces: Sequence[int]) -> BatchMeta:
        indexes = [self._pieces[piece] >> WIDTH for piece in pieces]
        return BatchMeta(indexes, [PARTITION] * len(pieces), {FIELD: {}})

    def _call(self, request: Coroutine[Any, Any, Any]) -> Any:
        """The answer to a request; watches the processes meanwhile, since the client itself would wait for minutes."""
        if self._failure is not None:
            request.close()
            raise StorageProcessError(self._failure)
        future = asyncio.run_coroutine_threadsafe(request, self._loop)
        give_up = time.monotonic() + self._patience_s
        while not concurrent.futures.wait([future], timeout=LOOK_S).done:
            try:
                silent = self._find_silent()
                if time.monotonic() > give_up:
                    who = ", ".join(silent) or "which one is not known"
                    self._fail(f"a storage process gave no answer in {self._patience_s:g} s ({who})")
            except StorageProcessError:
                future.cancel()
                raise
        try:
            return future.result()
        except (RuntimeError, StorageKeyNotFoundError) as error:
            self._find_silent()
            self._fail(f"a storage process refused a request ({error})", error)

    def _find_silent(self) -> list[str]:
        """The processes that don't answer a ping; raises if one is dead."""
        pings = {actor.get_zmq_server_info.remote(): name for name, actor in self._actors.items()}
        answered, silent = ray.wait(list(pings), num_returns=len(pings), timeout=PING_S)
        for ping in answered:
            try:
                ray.get(ping)
            except ActorUnavailableError:
                silent.append(ping)
            except RayActorError as error:
                self._fail(f"a storage process died ({pings[ping]}): its rows are lost", error)
        return [pings[ping] for ping in silent]

    def _fail(self, what: str, cause: BaseException | None = None) -> NoReturn:
        self._failure = f"replay buffer: {what}; {REMEDY}"
        raise StorageProcessError(self._failure) from cause


def batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Runs of at most :data:`BATCH` items."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def runs(blobs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Consecutive blobs that make a piece; cut from the end, since the buffer puts prompt ids first and visits last."""
    pieces: list[list[np.ndarray]] = []
    size = 0
    for blob in reversed(blobs):
        if not pieces or len(pieces[-1]) == WIDTH or size + blob.size > PIECE_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(blob)
        size += blob.size
    return [piece[::-1] for piece in reversed(pieces)]


def pack(run: Sequence[np.ndarray]) -> np.ndarray:
    """The bytes of a piece, (n,) uint8: :data:`OFFSETS`, then its blobs one after the other."""
    offsets = list(itertools.accumulate((blob.size for blob in run), initial=OFFSETS.size))
    offsets += offsets[-1:] * (WIDTH - len(run))
    return np.concatenate([np.frombuffer(OFFSETS.pack(*offsets), dtype=np.uint8), *run])


def disconnect(loop: asyncio.AbstractEventLoop, thread: threading.Thread, client: AsyncTransferQueueClient) -> None:
    """End the client; its loop ends first, because its sockets may not be closed while a thread uses them."""
    asyncio.run_coroutine_threadsafe(cancel_requests(), loop).result(timeout=CLOSE_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=CLOSE_S)
    loop.close()
    client.close()


async def cancel_requests() -> None:
    """Cancel what is still under way on this loop and wait for it."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
