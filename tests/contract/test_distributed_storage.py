"""The distributed token store on a real local Ray: round trips, dead processes, beside verl's own queue."""

import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest

pytestmark = [pytest.mark.contract, pytest.mark.serial]

BOUND_S = 30.0


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A Ray of two CPUs, both of them taken, with verl's queue running in this process."""
    import ray
    import transfer_queue as tq

    ray.init(address="local", num_cpus=2, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
    tq.init(tq_settings())
    yield
    tq.close()
    ray.shutdown()


def tq_settings():
    """verl's queue with one storage unit: it takes one CPU, its controller the other."""
    from omegaconf import OmegaConf

    return OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}})


def make_store(processes, **options):
    from repo_verl.trainer.storage import DistributedStore

    return DistributedStore(processes, **options)


def process_ids(store):
    """{name: process id} of the controller and the units."""
    import ray

    return {name: ray.get(actor.__ray_call__.remote(lambda self: os.getpid())) for name, actor in store._actors.items()}


def unit_id(store, unit):
    return next(pid for name, pid in process_ids(store).items() if name.startswith(f"unit {unit} "))


@pytest.fixture(scope="module")
def store(cluster):
    store = make_store(2)
    yield store
    store.close()


def random_blobs(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes]


def assert_same(got, expected):
    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == np.uint8 and mine.ndim == 1
        np.testing.assert_array_equal(mine, theirs)


def test_round_trip_of_many_sizes_in_any_order(store):
    """3,000 blobs are three requests; 0 and 1 byte, one over the pipe's buffers, one read-only."""
    blobs = random_blobs([0, 1, 2**20, *np.random.default_rng(1).integers(0, 5000, 2997)])
    blobs[5].flags.writeable = False
    handles = store.put(blobs)
    assert len(set(handles)) == 3000 and all(isinstance(handle, int) for handle in handles)
    assert_same(store.get(handles), blobs)
    order = np.random.default_rng(2).permutation(3000)
    assert_same(store.get([handles[i] for i in order]), [blobs[i] for i in order])
    assert_same(store.get([handles[7], handles[2], handles[7]]), [blobs[7], blobs[2], blobs[7]])
    store.drop(handles)


@pytest.mark.parametrize("sizes", [[], [0], [0, 0, 0], [1], [16] * 200])
def test_round_trip_of_uniform_batches(store, sizes):
    blobs = random_blobs(sizes, seed=3)
    handles = store.put(blobs)
    assert_same(store.get(handles), blobs)
    store.drop(handles)


def test_a_blob_is_copied_on_put(store):
    blob = np.arange(50, dtype=np.uint8)
    handles = store.put([blob])
    blob[:] = 0
    assert store.get(handles)[0][49] == 49
    store.drop(handles)


def test_a_dropped_handle_is_gone_and_never_given_out_again(store):
    first = store.put(random_blobs([10, 20, 30]))
    store.drop(first[1:])
    for call in (store.get, store.drop):
        with pytest.raises(ValueError, match=f"Handle {first[1]} is not held"):
            call([first[0], first[1]])
    second = store.put(random_blobs([40, 50], seed=1))
    assert not set(first) & set(second)
    assert_same(store.get([first[0], *second]), [*random_blobs([10, 20, 30])[:1], *random_blobs([40, 50], seed=1)])
    store.drop([first[0], *second, *second])


@pytest.fixture
def requests(store, monkeypatch):
    """Pieces of every read and every clearing, in order: [("get", 2), ...]."""
    made = []

    def counted(name, method):
        async def call(meta):
            made.append((name, meta.size))
            return await method(meta)

        return call

    monkeypatch.setattr(store._client, "async_get_data", counted("get", store._client.async_get_data))
    monkeypatch.setattr(store._client, "async_clear_samples", counted("clear", store._client.async_clear_samples))
    return made


def test_a_piece_is_fetched_once_per_call(store, requests):
    """20 blobs are pieces of 4, 8 and 8: what is put last, the rows of visits of 8, has pieces of its own."""
    blobs = random_blobs(range(20))
    handles = store.put(blobs)
    assert_same(store.get(handles), blobs)
    order = [4, 11, 7, 4, 19, 12]
    assert_same(store.get([handles[i] for i in order]), [blobs[i] for i in order])
    store.get([])
    store.drop(handles)
    assert requests == [("get", 3), ("get", 2), ("clear", 3)]


def test_a_piece_goes_with_the_last_of_its_blobs(store, requests):
    blobs = random_blobs(range(100, 116))
    handles = store.put(blobs)
    store.drop([*handles[2:8], handles[2], handles[8]])
    assert requests == []
    kept = [0, 1, *range(9, 16)]
    assert_same(store.get([handles[i] for i in kept]), [blobs[i] for i in kept])
    for call in (store.get, store.drop):
        with pytest.raises(ValueError, match=f"Handle {handles[5]} is not held"):
            call([handles[0], handles[5]])
    store.drop([handles[0]])
    assert_same(store.get([handles[1]]), [blobs[1]])
    store.drop([handles[1], *handles[9:]])
    assert requests == [("get", 2), ("get", 1), ("clear", 2)]
    for handle in handles:
        with pytest.raises(ValueError, match=f"Handle {handle} is not held"):
            store.get([handle])


def test_a_place_of_a_piece_that_no_blob_has_is_not_held(store):
    [handle] = store.put([b"abc"])
    for other in (handle + 1, handle + 7, handle + 8, handle - 1, -1):
        with pytest.raises(ValueError, match=f"Handle {other} is not held"):
            store.get([other])
    assert_same(store.get([handle]), [np.frombuffer(b"abc", np.uint8)])
    store.drop([handle])


def test_empty_blobs_in_a_piece(store, requests):
    blobs = [b"", b"", b"one", b"", b"two", b"", b"", b"", b"", b""]
    expected = [np.frombuffer(blob, np.uint8) for blob in blobs]
    handles = store.put(blobs)
    assert_same(store.get(handles), expected)
    store.drop(handles[1:3])
    assert_same(store.get([handles[0], *handles[3:]]), [expected[0], *expected[3:]])
    store.drop([handles[0], *handles[3:]])
    assert requests == [("get", 2), ("get", 2), ("clear", 2)]


@pytest.mark.parametrize(("sizes", "pieces"), [([2**16] * 4, 2), ([1, 2**17, 1], 3), ([2**17, 0, 0, 2**18], 2)])
def test_a_piece_of_more_than_one_blob_takes_128_kib_at_most(store, requests, sizes, pieces):
    blobs = random_blobs(sizes)
    handles = store.put(blobs)
    assert_same(store.get(handles), blobs)
    store.drop(handles)
    assert requests == [("get", pieces), ("clear", pieces)]


def test_dropped_memory_takes_the_next_blobs(store):
    """30 rounds of 16 MB: a store that kept them would hold 480 MB more."""
    units = [psutil.Process(unit_id(store, unit)) for unit in range(2)]
    blobs = random_blobs([2**16] * 256)
    store.drop(store.put(blobs))
    before = sum(unit.memory_info().rss for unit in units)
    for _ in range(30):
        store.drop(store.put(blobs))
    assert sum(unit.memory_info().rss for unit in units) - before < 120e6


def test_both_processes_hold_blobs(store):
    units = [psutil.Process(unit_id(store, unit)) for unit in range(2)]
    before = [unit.memory_info().rss for unit in units]
    handles = store.put(random_blobs([2**19] * 256))
    grown = [unit.memory_info().rss - old for unit, old in zip(units, before, strict=True)]
    store.drop(handles)
    assert min(grown) > 30e6


def test_verls_queue_in_the_same_process_does_not_see_the_store(store):
    import torch
    import transfer_queue as tq

    tq.kv_put(key="u_0_0", partition_id="train", fields={"x": torch.arange(3)}, tag={"is_prompt": True})
    handles = store.put(random_blobs([9]))
    listed = tq.kv_list()
    got = tq.kv_batch_get(keys=["u_0_0"], partition_id="train")
    tq.kv_clear(keys=["u_0_0"], partition_id="train")
    assert {name: list(keys) for name, keys in listed.items()} == {"train": ["u_0_0"]}
    assert got["x"][0].tolist() == [0, 1, 2]
    assert_same(store.get(handles), random_blobs([9]))
    store.drop(handles)


def test_an_error_of_the_engine_is_one_sentence_too(store, monkeypatch):
    """Bytes that the units do not have, though the driver thinks so."""
    from repo_verl.trainer.storage import StorageProcessError

    monkeypatch.setattr(store, "_failure", None)
    monkeypatch.setitem(store._pieces, 10**9, 10**9 << 8 | 1)
    with pytest.raises(StorageProcessError, match=r"refused a request \(.*1000000000 not found.*\); resume from"):
        store.get([8 * 10**9])


def test_a_killed_process_ends_the_call_under_way_and_all_later_ones():
    """The unit is stopped first, so that the read is certainly waiting for it when it dies."""
    from repo_verl.trainer.storage import StorageProcessError

    store = make_store(2)
    try:
        handles = store.put(random_blobs([1000] * 40))
        victim = unit_id(store, 1)
        os.kill(victim, signal.SIGSTOP)
        threading.Timer(1.5, os.kill, (victim, signal.SIGKILL)).start()
        start = time.monotonic()
        message = r"died \(unit 1 of 2 on node [\d.]+\): its rows are lost; resume .* algorithm.repo.storage=host\.$"
        with pytest.raises(StorageProcessError, match=message):
            store.get(handles)
        assert time.monotonic() - start < BOUND_S
        start = time.monotonic()
        for call, argument in ((store.get, handles[:1]), (store.put, random_blobs([5])), (store.drop, handles[:1])):
            with pytest.raises(StorageProcessError, match="unit 1 of 2"):
                call(argument)
        assert time.monotonic() - start < 1
    finally:
        store.close()


def test_a_process_killed_between_calls_is_named_by_the_next_put():
    from repo_verl.trainer.storage import StorageProcessError

    store = make_store(1)
    try:
        store.put(random_blobs([10]))
        os.kill(unit_id(store, 0), signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(StorageProcessError, match="unit 0 of 1"):
            store.put(random_blobs([10]))
        assert time.monotonic() - start < BOUND_S
    finally:
        store.close()


def test_a_process_that_hangs_is_given_up_and_close_leaves_nothing():
    from repo_verl.trainer.storage import StorageProcessError

    threads = set(threading.enumerate())
    store = make_store(1, patience_s=3.0)
    handles = store.put(random_blobs([10]))
    ids = list(process_ids(store).values())
    hung = unit_id(store, 0)
    os.kill(hung, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(StorageProcessError, match=r"no answer in 3 s \(unit 0 of 1 on node"):
        store.get(handles)
    assert time.monotonic() - start < BOUND_S
    os.kill(hung, signal.SIGCONT)
    store.close()
    store.close()
    gone, alive = psutil.wait_procs([psutil.Process(pid) for pid in ids if psutil.pid_exists(pid)], timeout=BOUND_S)
    assert not alive
    assert not [thread.name for thread in set(threading.enumerate()) - threads if thread.name.startswith("repo_")]
    with pytest.raises(StorageProcessError, match="closed"):
        store.put(random_blobs([10]))


def test_no_processes_are_refused():
    from repo_verl.config import RepoConfigError

    with pytest.raises(RepoConfigError, match="algorithm.repo.storage_processes=0"):
        make_store(0)
