"""The buffer by hand, and against a plain-Python model."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repo_verl.replay import PromptReplayBuffer, Record, prompt_key


def row(score=0.0, step=1, ids=(5, 6), mask=None, **parts):
    return Record.create(list(ids), [-0.5] * len(ids), score, step, mask=mask, parts=parts)


def make(**settings):
    return PromptReplayBuffer(**{"capacity": 4, "min_size": 2, "num_replay": 2, **settings})


def test_a_setting_that_the_buffer_would_ignore_is_refused():
    for other in ("storage", "off_policy_coef", "persist"):
        with pytest.raises(TypeError, match=f"{other} is no setting of the buffer: use capacity, min_size, .*dtype"):
            make(**{other: 0.5})


def test_first_in_first_out_per_prompt():
    buffer = make()
    buffer.add("00", [1], [row(score) for score in (0, 1, 2)])
    buffer.add("11", [2], [row(9)])
    buffer.add("00", [1], [row(score, step=2) for score in (3, 4, 5)])
    assert [r.score for r in buffer.rows("00")] == [2, 3, 4, 5]
    assert [r.score for r in buffer.rows("11")] == [9]
    assert len(buffer) == 5


def test_replay_starts_at_min_size_of_earlier_steps_and_after_start_step():
    buffer = make(min_size=3, start_step=2)
    buffer.add("00", [1], [row(step=1), row(step=1)])
    assert buffer.sample("00", 3) == []
    buffer.add("00", [1], [row(step=3)])
    assert buffer.sample("00", 3) == [], "a step's own rows count neither for min_size nor for replay"
    assert len(buffer.sample("00", 4)) == 2
    early = make(min_size=1, start_step=2)
    early.add("00", [1], [row(step=1)])
    assert early.sample("00", 2) == []
    assert len(early.sample("00", 3)) == 1


def test_a_steps_own_rows_are_never_replayed():
    buffer = make(min_size=1, num_replay=4)
    buffer.add("00", [1], [row(0.25, step=1), row(0.5, step=5)])
    assert [r.score for r in buffer.sample("00", 5)] == [0.25]


def test_nothing_is_consumed_and_uses_are_counted_and_capped():
    buffer = make(max_uses=2)
    buffer.add("00", [1], [row(s, step=1) for s in (0, 1, 2)])
    assert [[r.score for r in buffer.sample("00", step)] for step in (2, 3, 4, 5)] == [[1, 2], [1, 2], [0], [0]]
    assert [r.uses for r in buffer.rows("00")] == [2, 2, 2]
    assert buffer.sample("00", 6) == [] and len(buffer) == 3


def test_uses_count_from_the_moment_of_selection():
    buffer = make(max_uses=1)
    buffer.add("00", [1], [row(s, step=1) for s in (0, 1, 2, 3)])
    (first,), (second,), (none,) = (buffer.select_batch(["00"], 2) for _ in range(3))
    assert first.scores.tolist() == [2, 3] and second.scores.tolist() == [0, 1] and none.scores.size == 0
    assert [r.uses for r in buffer.rows("00")] == [1, 1, 1, 1] and buffer.sample("00", 3) == []


def test_a_prompt_that_comes_twice_stays_within_max_uses():
    buffer = make(max_uses=3, num_replay=4, capacity=4)
    buffer.add("00", [1], [row(s, step=1) for s in (0, 1)])
    buffer.sample("00", 2)
    one, two, three = buffer.select_batch(["00"] * 3, 3)
    assert [s.uses.tolist() for s in (one, two, three)] == [[1, 1], [1, 1], []], "before this batch"
    assert [r.uses for r in buffer.rows("00")] == [3, 3] and buffer.sample("00", 4) == []


def test_uses_without_a_cap_are_counted_too():
    buffer = make()
    buffer.add("00", [1], [row(step=1), row(step=1)])
    buffer.select_batch(["00", "00"], 2)
    assert [r.uses for r in buffer.rows("00")] == [2, 2]


def test_old_rows_are_held_but_not_replayed():
    buffer = make(max_age=2)
    buffer.add("00", [1], [row(0, step=1), row(1, step=3)])
    assert [r.score for r in buffer.sample("00", 4)] == [1]
    assert [r.score for r in buffer.sample("00", 5)] == [1]
    assert buffer.sample("00", 6) == [] and len(buffer) == 2


def test_unknown_prompts_replay_nothing():
    assert make().sample("ff", 5) == []


def test_prompt_keys_are_stable_and_tell_prompts_apart():
    assert prompt_key([1, 2, 3]) == prompt_key(np.array([1, 2, 3], dtype=np.int64))
    assert len(bytes.fromhex(prompt_key([]))) == 16
    assert len({prompt_key(ids) for ids in ([1, 2], [12], [1, 2, 0], [2, 1])}) == 4
    # BLAKE2b-128 of the bytes 01 00 00 00, by Python's hashlib: the format on disk must not change
    assert prompt_key([1]) == "d82c12285b5d4551f88e8f6e7eb52b81"


def test_a_key_with_other_token_ids_is_refused():
    buffer = make()
    buffer.add("00", [1], [row()])
    with pytest.raises(ValueError, match="held with other token ids"):
        buffer.add("00", [2], [row()])


def test_records_refuse_what_is_not_finite_or_does_not_fit():
    with pytest.raises(ValueError, match="score=nan is not finite"):
        row(float("nan"))
    with pytest.raises(ValueError, match="log_probs holds a value that is not finite"):
        Record.create([1, 2], [0.0, float("inf")], 0.0, 1)
    with pytest.raises(ValueError, match=r"response_ids \(2,\), log_probs \(1,\)"):
        Record.create([1, 2], [0.0], 0.0, 1)
    masked = Record.create([1, 2], [0.0, float("nan")], 0.0, 1, mask=[1, 0])
    assert masked.mask.tolist() == [True, False]


def test_memory_is_eight_bytes_a_token_and_a_mask_is_packed():
    buffer = make()
    buffer.add("00", [1, 2, 3], [row(ids=range(10))])
    columns = 6 * 8  # score, handle; step, uses, length, masked-out tokens
    assert buffer.stats() == {"prompts": 1, "rows": 1, "tokens": 10, "bytes": 3 * 4 + 10 * 8 + columns}
    mask = [1] * 9 + [0]
    buffer.add("00", [1, 2, 3], [row(ids=range(10), mask=mask)])
    assert buffer.stats()["bytes"] == 3 * 4 + 2 * 10 * 8 + 2 + 2 * columns
    assert buffer.rows("00")[1].mask.tolist() == [bool(m) for m in mask]


def through_json_and_copies(state):
    return {
        "meta": json.loads(json.dumps(state["meta"])),
        "arrays": {name: array.copy() for name, array in state["arrays"].items()},
    }


def test_state_round_trip_keeps_rows_uses_masks_parts_and_the_generator():
    buffer = make(strategy="random", capacity=8, num_replay=3)
    key, other = prompt_key([1, 2]), prompt_key([3])
    buffer.add(key, [1, 2], [row(s, ids=range(s + 1), mask=[1] * s + [0], acc=s / 2) for s in range(5)])
    buffer.add(other, [3], [row(0.5, ids=(1, 2, 3)), row(0.25)])
    buffer.sample(key, 3)
    state = through_json_and_copies(buffer.state_dict())
    twin = make(strategy="random", capacity=8, num_replay=3, seed=7)
    twin.load_state_dict(state)
    state["arrays"]["response_ids"][:] = 0
    for name in (key, other):
        for mine, theirs in zip(buffer.rows(name), twin.rows(name), strict=True):
            assert mine.response_ids.tolist() == theirs.response_ids.tolist()
            assert mine.log_probs.tolist() == theirs.log_probs.tolist()
            assert mine.mask.tolist() == theirs.mask.tolist()
            assert (mine.score, mine.step, mine.uses, mine.parts) == (
                theirs.score,
                theirs.step,
                theirs.uses,
                theirs.parts,
            )
    assert [[r.score for r in buffer.sample(key, step)] for step in range(4, 9)] == [
        [r.score for r in twin.sample(key, step)] for step in range(4, 9)
    ]
    assert {array.dtype.kind for array in buffer.state_dict()["arrays"].values()} <= set("iufb")


def test_a_smaller_capacity_keeps_the_newest_and_an_empty_state_loads():
    buffer = make()
    buffer.add(prompt_key([1]), [1], [row(score) for score in range(4)])
    small = make(capacity=2)
    small.load_state_dict(buffer.state_dict())
    assert [r.score for r in small.rows(prompt_key([1]))] == [2, 3]
    small.load_state_dict(make().state_dict())
    assert len(small) == 0


def test_a_damaged_or_foreign_state_is_refused():
    buffer = make()
    buffer.add(prompt_key([1]), [1], [row(), row()])
    state = buffer.state_dict()
    state["meta"]["version"] = 1
    with pytest.raises(ValueError, match="version 1, this package reads version 2"):
        make().load_state_dict(state)
    state = buffer.state_dict()
    state["arrays"]["score"] = state["arrays"]["score"][:1]
    with pytest.raises(ValueError, match="damaged"):
        make().load_state_dict(state)
    assert len(buffer) == 2


def test_masks_that_do_not_fit_their_rows_are_refused():
    buffer = make()
    buffer.add(prompt_key([1]), [1], [row(ids=range(10), mask=[1] * 9 + [0])])
    state = buffer.state_dict()
    state["arrays"]["mask_bits"] = np.zeros(3, dtype=np.uint8)
    with pytest.raises(ValueError, match="damaged: mask_bits has 3 bytes, not 2"):
        make().load_state_dict(state)


class PlainModel:
    """The buffer as a dictionary of lists, recency only."""

    def __init__(self, capacity, min_size, k, max_uses):
        self.rows, self.settings = {}, (capacity, min_size, k, max_uses)

    def add(self, key, number, step):
        held = self.rows.setdefault(key, [])
        held.append({"number": number, "step": step, "uses": 0})
        del held[: max(0, len(held) - self.settings[0])]

    def sample(self, key, step):
        _, min_size, k, max_uses = self.settings
        earlier = [r for r in self.rows.get(key, []) if r["step"] < step]
        if len(earlier) < min_size:
            return []
        chosen = [r for r in earlier if max_uses is None or r["uses"] < max_uses][-k:]
        for r in chosen:
            r["uses"] += 1
        return [r["number"] for r in chosen]


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("sample"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("reload"), st.just(0), st.just(0)),
        st.tuples(st.just("step"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(operations, st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.sampled_from([None, 1, 3]))
def test_random_operations_agree_with_the_plain_model(steps, capacity, min_size, k, max_uses):
    min_size, k = min(min_size, capacity), min(k, capacity)
    made = {"capacity": capacity, "min_size": min_size, "num_replay": k, "max_uses": max_uses}
    buffer, model = make(**made), PlainModel(capacity, min_size, k, max_uses)
    step, number = 1, 0
    for name, key, count in steps:
        ids = [key]
        if name == "add":
            for _ in range(count):
                buffer.add(prompt_key(ids), ids, [row(float(number), step=step)])
                model.add(key, number, step)
                number += 1
        elif name == "sample":
            assert [int(r.score) for r in buffer.sample(prompt_key(ids), step)] == model.sample(key, step)
        elif name == "reload":
            state = through_json_and_copies(buffer.state_dict())
            buffer = make(**made)
            buffer.load_state_dict(state)
        else:
            step += 1
    assert len(buffer) == sum(len(held) for held in model.rows.values())
