"""Where the tokens are: bfloat16 by hand, blobs, stores and what they are told to drop."""

import gc

import numpy as np
import pytest
from plain_buffer import FakeStore, bits_of, float_of
from plain_buffer import bfloat16 as plain_bfloat16

from repo_verl.config import RepoConfig, RepoConfigError
from repo_verl.replay import HostStore, PromptReplayBuffer, Record, prompt_key
from repo_verl.replay.record import from_bfloat16, to_bfloat16


def row(score=0.0, step=1, length=4, mask=None, **parts):
    return Record.create(range(length), [-0.5] * length, score, step, mask=mask, parts=parts)


def make(**settings):
    return PromptReplayBuffer(**{"capacity": 4, "min_size": 1, "num_replay": 2, **settings})


def key(number):
    return prompt_key([number])


@pytest.mark.parametrize(
    ("bits", "upper"),
    [
        (0x3F800000, 0x3F80),  # 1
        (0x3F808000, 0x3F80),  # halfway, the lower neighbour is even
        (0x3F818000, 0x3F82),  # halfway, the upper neighbour is even
        (0x3F808001, 0x3F81),  # a little over halfway
        (0x3F817FFF, 0x3F81),  # a little under
        (0x3FFF8000, 0x4000),  # halfway, into the next power of two
        (0xBF808000, 0xBF80),  # negative, as positive
        (0x80000000, 0x8000),  # -0
        (0x00000001, 0x0000),  # the smallest subnormal
        (0xFF800000, 0xFF80),  # -inf
        (0x7F7FFFFF, 0x7F80),  # the largest float32 is nearer to 2**128 than to the largest bfloat16
        (0x7FC00000, 0x7FC0),  # NaN
        (0x7F800001, 0x7FC0),  # a NaN whose upper half would read as inf
        (0xFFFFFFFF, 0xFFFF),  # a NaN that would overflow 32 bits
    ],
)
def test_bfloat16_by_hand(bits, upper):
    value = np.array([bits], dtype=np.uint32).view(np.float32)
    assert hex(int(to_bfloat16(value)[0])) == hex(upper)
    assert from_bfloat16(np.array([upper], dtype=np.uint16)).view(np.uint32)[0] == upper << 16


def test_bfloat16_agrees_with_the_definition_and_is_idempotent():
    bits = np.random.default_rng(0).integers(0, 0x7F000000, 5000).astype(np.uint32)
    values = (bits | np.random.default_rng(1).integers(0, 2, 5000).astype(np.uint32) << 31).view(np.float32)
    rounded = from_bfloat16(to_bfloat16(values))
    assert rounded.tolist() == [plain_bfloat16(v) for v in values.tolist()]
    assert np.array_equal(from_bfloat16(to_bfloat16(rounded)), rounded)
    assert float_of(bits_of(-0.5)) == -0.5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("store", [HostStore, FakeStore])
def test_a_rows_bytes_are_read_back_wherever_they_lie(store, dtype):
    """Names of parts that come later, too; masks of every length in bits."""
    buffer = make(store=store(), log_prob_dtype=dtype, capacity=32)
    rng = np.random.default_rng(0)
    made = []
    for length in range(20):
        mask = rng.integers(0, 2, length) if length % 3 else None
        values = -rng.integers(0, 9, length) / 4
        parts = {f"part{n}": float(n) for n in range(length % 5)}
        made.append(Record.create(rng.integers(0, 9, length), values, 1.0, 1, mask, parts))
        buffer.add(key(1), [1], made[-1:])
    for mine, theirs in zip(buffer.rows(key(1)), made, strict=True):
        assert mine.response_ids.tolist() == theirs.response_ids.tolist() and mine.parts == theirs.parts
        assert mine.log_probs.tolist() == theirs.log_probs.tolist() and mine.mask.tolist() == theirs.mask.tolist()
        assert mine.response_ids.flags.aligned and mine.log_probs.flags.aligned
    bits = sum((row.response_ids.size + 7) // 8 for row in made if row.mask_bits is not None)
    tokens = sum(range(20)) * (8 if dtype == "float32" else 6)
    assert buffer.stats()["bytes"] == tokens + bits + 4 + 20 * (48 + 4 * 4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_masked_out_may_be_anything(dtype):
    buffer = make(log_prob_dtype=dtype)
    odd = [-0.5, float("nan"), float("-inf"), float("inf"), -0.25]
    buffer.add(key(1), [1], [Record.create(range(5), odd, 1.0, 1, mask=[1, 0, 0, 0, 1])])
    [made] = buffer.sample(key(1), 2)
    assert np.array_equal(made.log_probs, np.array(odd, dtype=np.float32), equal_nan=True)
    assert made.mask.tolist() == [True, False, False, False, True]


def test_bfloat16_takes_six_bytes_a_token_and_gives_rounded_float32():
    buffer = make(log_prob_dtype="bfloat16")
    buffer.add(key(1), [1, 2, 3], [Record.create([7, 8], [-1 - 2**-9, -0.1], 1.0, 1)])
    [made] = buffer.rows(key(1))
    assert made.log_probs.dtype == np.float32
    # -0.1 is 0xBDCCCCCD: up to 0xBDCD, -0.10009765625
    assert made.log_probs.tolist() == [-1.0, -0.10009765625]
    assert buffer.stats()["bytes"] == 2 * 6 + 3 * 4 + 48


def test_a_state_of_the_other_type_is_rounded_or_taken_as_it_is():
    exact, rounded = make(), make(log_prob_dtype="bfloat16")
    exact.add(key(1), [1], [Record.create([7, 8], [-1 - 2**-9, -0.1], 1.0, 1)])
    rounded.load_state_dict(exact.state_dict())
    assert rounded.rows(key(1))[0].log_probs.tolist() == [-1.0, -0.10009765625]
    state = rounded.state_dict()
    assert state["meta"]["log_prob_dtype"] == "bfloat16" and state["arrays"]["log_probs"].dtype == np.uint16
    exact.load_state_dict(state)
    assert exact.rows(key(1))[0].log_probs.tolist() == [-1.0, -0.10009765625]
    assert exact.state_dict()["arrays"]["log_probs"].dtype == np.float32


def test_a_store_is_told_to_drop_rows_when_they_go():
    store = FakeStore(first=1)
    buffer = make(store=store)
    buffer.add(key(1), [1], [row(), row(), row()])
    assert sorted(store.blobs) == [1, 2, 3, 4], "prompt ids, three rows"
    buffer.add(key(1), [1], [row(step=2), row(step=2)])
    assert sorted(store.blobs) == [1, 3, 4, 5, 6]
    buffer.add(key(1), [1], [row(step=3)])
    assert sorted(store.blobs) == [1, 4, 5, 6, 7]
    buffer.add(key(1), [1], [row(step=5) for _ in range(9)])
    assert sorted(store.blobs) == [1, 8, 9, 10, 11] and len(buffer) == 4


def test_a_batch_is_one_put_one_drop_and_a_fetch_one_get():
    store = FakeStore()
    buffer = make(store=store)
    batch = [(key(i), np.array([i], dtype=np.int32), [row() for _ in range(4)]) for i in range(5)]
    buffer.add_batch(batch)
    assert store.calls == ["put"]
    buffer.add_batch(batch)
    assert store.calls == ["put", "put", "drop"]
    assert buffer.stats()["rows"] == 20
    assert buffer.fetch(buffer.select_batch(["ff" * 16], 2)) == [[]]
    selections = buffer.select_batch([key(0), key(3), key(0)], 2)
    assert store.calls[3:] == [], "choosing reads no tokens"
    assert [len(rows) for rows in buffer.fetch(selections)] == [2, 2, 2]
    assert store.calls[3:] == ["get"]
    assert [r.uses for r in buffer.rows(key(0))] == [0, 0, 2, 2], "the same prompt twice is two uses"


def test_loading_drops_what_was_held_and_leaves_no_blob_behind():
    store = FakeStore()
    buffer = make(store=store)
    for step in range(1, 4):
        buffer.add_batch([(key(i), np.array([i]), [row(step=step), row(step=step)]) for i in range(3)])
    state = buffer.state_dict()
    buffer.load_state_dict(state)
    assert len(store.blobs) == 3 + 12 and len(buffer) == 12
    buffer.load_state_dict(make().state_dict())
    assert store.blobs == {} and len(buffer) == 0


def arrays_within(thing):
    """Every array and bytes object that can be reached from an object, classes and modules left out."""
    seen, found, left = set(), [], [thing]
    while left:
        here = left.pop()
        if id(here) in seen or isinstance(here, type) or type(here).__name__ in ("module", "function", "FakeStore"):
            continue
        seen.add(id(here))
        if isinstance(here, np.ndarray | bytes | bytearray):
            found.append(here)
        left += gc.get_referents(here)
    return found


def test_with_a_store_elsewhere_this_process_holds_no_token():
    store, host = FakeStore(), make()
    buffer, ids = make(store=store), np.full(900, 77, dtype=np.int32)
    for one in (buffer, host):
        one.add(prompt_key(ids), ids, [row(length=1000)])
        one.state_dict()
        one.fetch(one.select_batch([prompt_key(ids)], 2))
    assert max(a.nbytes if isinstance(a, np.ndarray) else len(a) for a in arrays_within(host)) >= 8000
    mapped = [a for a in arrays_within(buffer) if isinstance(a, np.ndarray)]
    assert sum(a.nbytes for a in mapped) <= 48 + 16, "what is known of a row without its tokens"
    assert not any((a.view(np.uint8) == 77).any() for a in mapped)
    with pytest.raises(ValueError, match="held with other token ids"):
        buffer.add(prompt_key(ids), ids[:-1], [row()])
    with pytest.raises(ValueError, match="held with other token ids"):
        buffer.add(prompt_key(ids), ids + 1, [row()])


def test_a_failed_put_changes_nothing():
    class Full(FakeStore):
        def put(self, blobs):
            raise RuntimeError("no room")

    buffer = make(store=Full())
    with pytest.raises(RuntimeError, match="no room"):
        buffer.add(key(1), [1], [row()])
    assert key(1) not in buffer and buffer.stats()["rows"] == 0


def test_a_batch_with_a_wrong_prompt_adds_nothing():
    buffer = make()
    buffer.add(key(1), [1], [row()])
    for wrong in (
        [(key(2), [2], [row()]), (key(1), [9], [row()])],
        [(key(2), [2], [row()]), (key(2), [9], [row()])],
    ):
        with pytest.raises(ValueError, match="token ids: keys come from"):
            buffer.add_batch(wrong)
    assert key(2) not in buffer and len(buffer) == 1


def test_host_memory_of_evicted_rows_is_given_back():
    store = HostStore()
    buffer = make(capacity=16, store=store)
    buffer.add(key(1), [1], [row(length=100) for _ in range(16)])
    for step in range(2, 18):
        buffer.add(key(1), [1], [row(step=step, length=100)])
        assert sum(len(blob) for blob in store._blobs if blob is not None) == 4 + 16 * 800, step
        assert [r.step for r in buffer.rows(key(1))] == [1] * (17 - step) + list(range(2, step + 1))
    assert len(store) == 17 and len(store._blobs) <= 18, "handles are given out again"


def test_records_stay_valid_after_their_rows_are_evicted():
    buffer = make()
    buffer.add(key(1), [1], [Record.create([4, 5], [-0.5, -0.25], 1.0, 1)])
    [[made]] = buffer.fetch(buffer.select_batch([key(1)], 2))
    buffer.add(key(1), [1], [row(step=2) for _ in range(4)])
    assert (made.response_ids.tolist(), made.log_probs.tolist()) == ([4, 5], [-0.5, -0.25])
    with pytest.raises(ValueError, match="read-only"):
        made.response_ids[0] = 1


def test_an_evicted_row_is_named():
    buffer = make()
    buffer.add_batch([(key(i), np.array([i]), [row(), row()]) for i in (1, 2)])
    selections = buffer.select_batch([key(1), "ff" * 16, key(2)], 2)
    buffer.add(key(2), [2], [row(step=2) for _ in range(3)])
    with pytest.raises(ValueError, match=f"row 0 of prompt '{key(2)}' was evicted"):
        buffer.fetch(selections)
    assert [r.uses for r in buffer.rows(key(2))] == [1, 0, 0, 0]
    assert [[r.uses for r in rows] for rows in buffer.fetch(selections[:2])] == [[1, 1], []]


def test_a_large_capacity_takes_room_for_the_rows_that_are_there():
    buffer = make(capacity=4096)
    buffer.add_batch([(key(i), np.array([i]), [row(length=0) for _ in range(3)]) for i in range(1000)])
    assert sum(prompt.rows.nbytes for prompt in buffer._contents.prompts.values()) == 3000 * 48
    buffer.add(key(5), [5], [row(score=float(i), step=2, length=1) for i in range(5000)])
    assert [r.score for r in buffer.rows(key(5))] == list(map(float, range(904, 5000)))


def test_host_store_refuses_handles_it_does_not_hold():
    store = HostStore()
    first, second = store.put([bytes(3), b""])
    assert [len(blob) for blob in store.get([second, first])] == [0, 3]
    store.drop([first])
    for call in (store.get, store.drop):
        for handle in (first, 7, -1):
            with pytest.raises(ValueError, match=f"blob {handle} is not held"):
                call([handle])
    assert store.put([bytes(1)]) == [first] and len(store) == 2


def test_distributed_without_a_store_is_refused():
    with pytest.raises(RepoConfigError, match="algorithm.repo.storage='distributed' needs a store"):
        PromptReplayBuffer.from_config(RepoConfig(storage="distributed"))
    buffer = PromptReplayBuffer.from_config(RepoConfig(storage="distributed", log_prob_dtype="bfloat16"), FakeStore())
    assert buffer.state_dict()["meta"]["log_prob_dtype"] == "bfloat16"


def test_states_that_are_damaged_are_refused_before_anything_changes():
    buffer = make()
    buffer.add(key(1), [1], [row(mask=[1, 1, 0, 1]), row(acc=1.0)])
    buffer.add(key(2), [2], [row()])
    damages = {
        "column uses is missing": lambda s: s["arrays"].pop("uses"),
        "score is float32, not float64": lambda s: s["arrays"].update(score=s["arrays"]["score"].astype(np.float32)),
        "log_prob_dtype='int8'": lambda s: s["meta"].update(log_prob_dtype="int8"),
        "log_probs is float32, not uint16": lambda s: s["meta"].update(log_prob_dtype="bfloat16"),
        "prompt_key has a key twice": lambda s: s["arrays"].update(prompt_key=s["arrays"]["prompt_key"][[0, 0]]),
        "prompt_rows sums to 4, not 3": lambda s: s["arrays"].update(prompt_rows=np.array([3, 1])),
        "row_offsets does not rise": lambda s: s["arrays"].update(row_offsets=np.array([0, 8, 4, 12])),
        "response_ids has shape": lambda s: s["arrays"].update(response_ids=np.zeros(3, dtype=np.int32)),
        "bits beyond the tokens": lambda s: s["arrays"].update(mask_bits=np.array([255], dtype=np.uint8)),
    }
    for message, damage in damages.items():
        state = buffer.state_dict()
        damage(state)
        with pytest.raises(ValueError, match=message):
            buffer.load_state_dict(state)
        assert len(buffer) == 3 and buffer.rows(key(1))[1].parts == {"acc": 1.0}
    for name in ("aa", "AB" * 16, "x" * 32):
        odd = make()
        odd.add(name, [1], [row()])
        with pytest.raises(ValueError, match=f"prompt key '{name}' is not 32 hexadecimal digits"):
            odd.state_dict()
