"""``max_tokens``: which prompts go, what stays of them, and what a resumed run evicts."""

import random

import numpy as np
import pytest
from buffer_game import sign
from plain_buffer import FakeStore

from repo_verl.replay import HostStore, PromptReplayBuffer, Record, prompt_key
from repo_verl.replay.checkpoint import load_buffer, save_buffer

KEYS = {name: prompt_key([number]) for number, name in enumerate("abcdefgh")}
IDS = {name: [number] for number, name in enumerate("abcdefgh")}


def rows(tokens, step=1, score=0.0):
    return [Record.create([7] * size, [-0.5] * size, score, step) for size in tokens]


def make(most, **settings):
    made = {"capacity": 4, "min_size": 1, "num_replay": 2, **settings}
    return PromptReplayBuffer(max_tokens=most, **made)


def add(buffer, step=1, **tokens):
    """Rows with so many tokens for each prompt, as one insertion; returns how many prompts were evicted."""
    return buffer.add_batch(
        [(KEYS[name], np.array(IDS[name], np.int32), rows(sizes, step)) for name, sizes in tokens.items()]
    )


def held(buffer):
    """Prompts, the one visited longest ago first, with the tokens of each row."""
    order = [key.tobytes().hex() for key in buffer.state_dict()["arrays"]["prompt_key"]]
    names = {key: name for name, key in KEYS.items()}
    return {names[key]: [row.response_ids.size for row in buffer.rows(key)] for key in order}


@pytest.mark.parametrize("store", [HostStore, FakeStore])
def test_the_prompt_that_was_visited_longest_ago_goes_with_all_its_rows(store):
    kept = store()
    buffer = make(30, store=kept)
    assert [add(buffer, a=[5, 5]), add(buffer, b=[4, 6]), add(buffer, c=[10])] == [0, 0, 0], (
        "30 tokens are not too many"
    )
    assert add(buffer, a=[1]) == 1, "a was visited first, and now again"
    assert held(buffer) == {"c": [10], "a": [5, 5, 1]} and KEYS["b"] not in buffer
    assert buffer.stats()["tokens"] == 21 and buffer.stats()["prompts"] == 2 and buffer.rows(KEYS["b"]) == ()
    assert add(buffer, d=[9]) == 0, "21 and 9 are 30"
    assert add(buffer, e=[11]) == 2, "without c there are 31 tokens, so that a goes too"
    assert held(buffer) == {"d": [9], "e": [11]}
    blobs = len(kept) if store is HostStore else len(kept.blobs)
    assert blobs == 2 + 2, "prompt ids and a row of each"


def test_an_insertion_without_rows_is_a_visit_and_prompt_tokens_do_not_count():
    buffer = make(10)
    buffer.add_batch([(KEYS["a"], np.arange(1000, dtype=np.int32), rows([5]))])
    add(buffer, b=[5])
    buffer.add_batch([(KEYS["a"], np.arange(1000, dtype=np.int32), [])])
    assert add(buffer, c=[1]) == 1 and list(held(buffer)) == ["a", "c"]


def test_prompts_of_the_insertion_itself_go_last_and_by_key():
    buffer = make(50)
    add(buffer, a=[10])
    assert add(buffer, step=2, b=[20], c=[20], d=[20]) == 2
    first, *rest = sorted("bcd", key=KEYS.get)
    assert list(held(buffer)) == rest and first not in held(buffer), "not as the prompts happened to finish"
    assert add(buffer, step=3, e=[30, 21]) == 3 and held(buffer) == {}, "one prompt that is too large alone"
    assert buffer.stats() == {"prompts": 0, "rows": 0, "tokens": 0, "bytes": 0}
    assert add(buffer, step=4, a=[1]) == 0 and held(buffer) == {"a": [1]}


def test_rows_that_go_by_capacity_are_not_counted():
    buffer = make(8, capacity=2)
    assert [add(buffer, step, a=[4]) for step in range(1, 9)] == [0] * 8
    assert held(buffer) == {"a": [4, 4]}


def test_a_prompt_that_comes_back_has_none_of_its_old_rows_selections_or_uses():
    buffer = make(10, max_uses=1)
    add(buffer, a=[2, 3])
    (old,) = buffer.select_batch([KEYS["a"]], 2)
    add(buffer, step=2, b=[10])
    with pytest.raises(ValueError, match="was evicted after it was selected"):
        buffer.fetch([old])
    assert add(buffer, step=3, a=[4, 5]) == 1
    with pytest.raises(ValueError, match="was evicted after it was selected"):
        buffer.fetch([old])
    (new,) = buffer.select_batch([KEYS["a"]], 4)
    assert new.lengths.tolist() == [4, 5] and not set(new.serials) & set(old.serials)
    assert new.uses.tolist() == [0, 0]
    assert [row.uses for row in buffer.rows(KEYS["a"])] == [1, 1]


def test_what_evicted_prompts_took_is_used_again():
    store = HostStore()
    buffer = make(200, capacity=20, store=store)
    for number in range(600):
        ids = [number, 5]
        buffer.add(prompt_key(ids), ids, rows([2] * 20))
    assert buffer.stats()["prompts"] == 5 and buffer.stats()["rows"] == 100
    assert len(buffer._contents.prompts) == 5 and len(store._blobs) <= 6 * 21


def test_many_prompts_go_at_once():
    """More than are looked at at a time, some without rows."""
    buffer = make(4000)
    keys = [[number, 9] for number in range(900)]
    buffer.add_batch([(prompt_key(ids), np.array(ids, np.int32), rows([3] * (n % 2))) for n, ids in enumerate(keys)])
    assert buffer.stats()["prompts"] == 900 and buffer.stats()["tokens"] == 1350
    order = sorted(prompt_key(ids) for ids in keys)
    sizes = {prompt_key(ids): 3 * (n % 2) for n, ids in enumerate(keys)}
    gone = buffer.add_batch([(KEYS["a"], np.array(IDS["a"], np.int32), rows([2000, 1501]))])
    # 4851 tokens: 284 prompts with rows go, and those without that were visited before the last of them
    wanted, tokens = 0, 4851
    while tokens > 4000:
        tokens -= sizes[order[wanted]]
        wanted += 1
    assert gone == wanted > 512 and buffer.stats()["tokens"] == 4851 - 284 * 3
    assert all((key in buffer) == (place >= wanted) for place, key in enumerate(order))


@pytest.mark.parametrize("store", [HostStore, FakeStore])
@pytest.mark.parametrize("strategy", ["recency", "random"])
def test_a_resumed_run_evicts_what_an_undisturbed_one_does(store, strategy, tmp_path):
    def start():
        return make(120, strategy=strategy, max_uses=2, store=store())

    def step(buffer, number):
        rng = random.Random(number)
        batch = [name for name in "abcdefgh" if rng.random() < 0.4]
        chosen = buffer.select_batch([KEYS[name] for name in batch], number)
        evicted = add(buffer, number, **{name: [rng.randrange(1, 12) for _ in range(3)] for name in batch})
        return [selection.serials.size for selection in chosen], [list(s.scores) for s in chosen], evicted

    undisturbed, other = start(), start()
    expected = [step(undisturbed, number) for number in range(1, 31)]
    found = []
    for number in range(1, 31):
        found.append(step(other, number))
        if number % 4 == 0:
            save_buffer(tmp_path / "b", other, {}, shard_bytes=200)
            other = start()
            load_buffer(tmp_path / "b", other)
    assert found == expected and held(other) == held(undisturbed)
    assert sum(evicted for _, _, evicted in expected) > 10 and any(sizes and max(sizes) for sizes, _, _ in expected)
    a, b = undisturbed.state_dict()["arrays"], other.state_dict()["arrays"]
    assert all(a[name].tolist() == b[name].tolist() for name in a)


@pytest.mark.parametrize("store", [HostStore, FakeStore])
def test_a_smaller_bound_at_the_resume_keeps_the_prompts_visited_last(store, tmp_path):
    buffer = make(None)
    for number, name in enumerate("abcd", start=1):
        add(buffer, number, **{name: [5, 5]})
    add(buffer, 5, a=[5])
    save_buffer(tmp_path / "b", buffer, {}, shard_bytes=1)
    small = make(26, store=store())
    loaded = load_buffer(tmp_path / "b", small)
    assert held(small) == {"d": [5, 5], "a": [5, 5, 5]}
    assert (loaded.rows, loaded.evicted_prompts, loaded.evicted_rows, loaded.over_capacity) == (5, 2, 4, 0)
    blobs = len(small._store) if store is HostStore else len(small._store.blobs)
    assert blobs == 2 + 5
    buffer.load_state_dict(small.state_dict())
    assert list(held(buffer)) == ["d", "a"]


def as_version_3(folder):
    """What the package wrote before there was ``max_tokens``."""

    def change(fields):
        fields["version"] = 3
        del fields["settings"]["max_tokens"]

    sign(folder, change)


def test_in_a_buffer_of_version_3_the_newest_row_tells_when_a_prompt_was_visited(tmp_path):
    buffer = make(None, capacity=2)
    for name, step, tokens in (("a", 9, [5, 5]), ("c", 2, [5]), ("b", 3, [5, 5]), ("c", 7, [5]), ("d", 3, [5, 5])):
        add(buffer, step, **{name: tokens})
    save_buffer(tmp_path / "b", buffer, {}, shard_bytes=1)
    as_version_3(tmp_path / "b")
    plain, small = make(None), make(20)
    assert load_buffer(tmp_path / "b", plain).evicted_prompts == 0
    assert list(held(plain)) == [*sorted("bd", key=KEYS.get), "c", "a"]
    assert load_buffer(tmp_path / "b", small).evicted_prompts == 2 and list(held(small)) == ["c", "a"]
    save_buffer(tmp_path / "b", plain, {})
    assert list(held(plain)) == list(held(load(tmp_path / "b")))


def load(folder):
    buffer = make(None)
    load_buffer(folder, buffer)
    return buffer
