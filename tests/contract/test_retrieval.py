"""What is retrieved ahead of generation and what only after it, and how often verl's rollout queue is looked at."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from oracles import group_advantages

pytestmark = pytest.mark.contract

PROMPTS = {"a": np.array([5, 6], np.int32), "b": np.array([7, 8, 9], np.int32), "new": np.array([3], np.int32)}
SCORES = {"a": [1.0, 0.0, 1.0, 0.0], "b": [1.0, 1.0, 1.0, 1.0]}


@dataclasses.dataclass
class Fresh:
    """The part of FreshRows that a retrieval looks at."""

    uids: list
    prompt_keys: list
    prompt_ids: list


@pytest.fixture
def put(monkeypatch):
    """Rows that went into TransferQueue, by key."""
    from repo_verl.trainer import placing

    stored = {}

    def put_rows(partition, rows, floats):
        keys = [f"repo{len(stored) + i}" for i in range(len(rows))]
        stored.update(zip(keys, rows, strict=True))
        return keys, [{"is_padding": True} for _ in rows]

    monkeypatch.setattr(placing, "put_rows", put_rows)
    return stored


def make(prune=True, mixed=False, encode=None):
    from repo_verl.replay import PromptReplayBuffer, Record, prompt_key
    from repo_verl.trainer import placing
    from repo_verl.trainer.retrieval import Retrieval, selection_advantages

    buffer = PromptReplayBuffer(capacity=4, min_size=4, num_replay=4)
    for name, scores in SCORES.items():
        rows = [Record.create([i, i + 1], [-0.5, -1.0 - i], score, 1) for i, score in enumerate(scores)]
        buffer.add(prompt_key(PROMPTS[name]), PROMPTS[name], rows)
    alone = None if mixed else partial(selection_advantages, eps=1e-6, norm_by_std=True)
    encode = encode or (lambda message: PROMPTS[message])
    return Retrieval(buffer, alone, prune, encode, placing.FloatTypes()), buffer


def batch_of(*names):
    from repo_verl.replay import prompt_key

    return Fresh([f"u{i}" for i in range(len(names))], [prompt_key(PROMPTS[n]) for n in names],
                 [PROMPTS[n] for n in names])  # fmt: skip


def test_rows_are_in_the_queue_before_the_batch_is_there(put):
    retrieval, buffer = make(prune=False)
    retrieval.expect(["u0", "u1", "u2"], ["a", "b", "new"])
    retrieval.ahead(step=2)
    assert len(put) == 8
    found, late = retrieval.take(batch_of("a", "b", "new"), 2)
    assert late == 0 and len(put) == 8
    assert [len(one.placed) for one in found] == [4, 4, 0]
    first = put[found[0].placed[0][0]]
    assert first["input_ids"].tolist() == [5, 6, 0, 1] and first["position_ids"].tolist() == [0, 1, 2, 3]
    assert first["old_log_probs"].tolist() == [-0.5, -1.0] and first["loss_mask"].tolist() == [0, 0]
    expected = group_advantages(SCORES["a"], 1e-6)
    given = [put[key]["advantages"].tolist() for key, _ in found[0].placed]
    assert given == [pytest.approx([value] * 2, rel=1e-5) for value in expected]
    assert all(row.uses == 1 for key in map(_key, SCORES) for row in buffer.rows(key))
    assert sorted(retrieval.drain()) == sorted(put) and retrieval.drain() == []


def test_rows_of_zero_advantage_are_not_even_read(put):
    retrieval, _ = make(prune=True)
    retrieval.expect(["u0", "u1"], ["a", "b"])
    retrieval.ahead(step=2)
    found, _ = retrieval.take(batch_of("a", "b"), 2)
    assert len(put) == 4 and found[1].placed == [None] * 4 and found[1].selection.scores.tolist() == [1.0] * 4


def test_a_row_of_the_smallest_advantage_is_read_all_the_same(put):
    from repo_verl.trainer.retrieval import selection_advantages

    retrieval, _ = make(prune=True)
    tiny = 2.0**-40
    values = selection_advantages(np.array([0.0, tiny, tiny / 2]), eps=1e-6, norm_by_std=False)
    assert values.tolist() == [-tiny / 2, tiny / 2, 0.0]
    assert retrieval._wanted(values, 3) == [0, 1], "only 0 itself is left out"


def test_advantages_of_mixed_wait_for_the_fresh_rows(put):
    retrieval, _ = make(prune=True, mixed=True)
    retrieval.expect(["u0", "u1"], ["a", "b"])
    retrieval.ahead(step=2)
    assert len(put) == 8 and not any("advantages" in row for row in put.values())


@pytest.mark.parametrize("guess", ["a", None], ids=["another prompt", "no guess"])
def test_what_the_agent_loop_wrote_decides(put, guess):
    retrieval, _ = make(prune=False, encode=lambda message: None if guess is None else PROMPTS[guess])
    retrieval.expect(["u0"], ["b"])
    retrieval.ahead(step=2)
    found, late = retrieval.take(batch_of("b"), 2)
    assert late == 4 and [put[key]["prompts"].tolist() for key, _ in found[0].placed] == [[7, 8, 9]] * 4
    assert sorted(retrieval.drain()) == sorted(put), "rows of a wrong guess are cleared too"


def test_one_prompt_twice_replays_twice_and_respects_its_caps(put):
    from repo_verl.replay import PromptReplayBuffer, Record

    retrieval, _ = make(prune=False)
    retrieval.expect(["u0", "u1"], ["a", "a"])
    retrieval.ahead(step=2)
    found, _ = retrieval.take(batch_of("a", "a"), 2)
    keys = [key for one in found for key, _ in one.placed]
    assert len(set(keys)) == 8
    capped = PromptReplayBuffer(capacity=4, min_size=2, num_replay=2, max_uses=1)
    capped.add(_key("a"), PROMPTS["a"], [Record.create([i], [-1.0], float(i), 1) for i in range(4)])
    first, second, third = capped.select_batch([_key("a")] * 3, 2)
    assert first.scores.tolist() == [2.0, 3.0] and second.scores.tolist() == [0.0, 1.0] and third.scores.size == 0


def capped(put, guesses, max_uses=1, num_replay=2):
    """A retrieval whose guess of each message is ``guesses[message]``, and its buffer of one prompt's four rows."""
    from repo_verl.replay import PromptReplayBuffer, Record
    from repo_verl.trainer import placing
    from repo_verl.trainer.retrieval import Retrieval

    buffer = PromptReplayBuffer(capacity=4, min_size=2, num_replay=num_replay, max_uses=max_uses)
    buffer.add(_key("a"), PROMPTS["a"], [Record.create([i], [-1.0], float(i), 1) for i in range(4)])
    return Retrieval(buffer, None, False, guesses.get, placing.FloatTypes()), buffer


def uses(buffer):
    return [row.uses for row in buffer.rows(_key("a"))]


def test_a_prompt_retrieved_ahead_and_late_in_one_step_stays_within_max_uses(put):
    retrieval, buffer = capped(put, {"known": PROMPTS["a"]})
    retrieval.expect(["u0", "u1", "u2"], ["known", "unknown", "unknown"])
    retrieval.ahead(step=2)
    found, late = retrieval.take(batch_of("a", "a", "a"), 2)
    assert [one.selection.scores.tolist() for one in found] == [[2.0, 3.0], [0.0, 1.0], []] and late == 2
    assert uses(buffer) == [1, 1, 1, 1]


def test_rows_selected_ahead_that_are_not_used_are_given_back_before_the_late_ones(put):
    retrieval, buffer = capped(put, {"known": PROMPTS["a"]}, num_replay=4)
    retrieval.expect(["gone", "u0"], ["known", "unknown"])  # no response to the first one arrives
    retrieval.ahead(step=2)
    found, _ = retrieval.take(batch_of("a"), 2)
    assert found[0].selection.scores.tolist() == [0.0, 1.0, 2.0, 3.0] and uses(buffer) == [1, 1, 1, 1]
    wrong, buffer = capped(put, {"a new one": PROMPTS["a"]}, num_replay=4)
    wrong.expect(["u0", "u1"], ["a new one", "not known"])  # the agent loop wrote another prompt than was expected
    wrong.ahead(step=2)
    found, _ = wrong.take(batch_of("new", "a"), 2)
    assert [len(one.selection) for one in found] == [0, 4] and uses(buffer) == [1, 1, 1, 1]


def test_an_abandoned_step_leaves_no_pending_use(put):
    retrieval, buffer = capped(put, {"known": PROMPTS["a"]}, num_replay=4)
    retrieval.expect(["u0", "u0"], ["known", "known"])  # sent twice
    retrieval.ahead(step=2)
    retrieval.drain()
    assert uses(buffer) == [0, 0, 0, 0]
    retrieval.expect(["u0"], ["known"])
    retrieval.ahead(step=3)
    found, late = retrieval.take(batch_of("a"), 3)
    assert len(found[0].selection) == 4 and late == 0 and uses(buffer) == [1, 1, 1, 1]


def test_long_retrievals_go_in_groups(put, monkeypatch):
    from repo_verl.trainer import retrieval as module

    monkeypatch.setattr(module, "GROUP_TOKENS", 12)
    assert list(module._groups([8, 8, 2, 2, 30, 1])) == [slice(0, 1), slice(1, 4), slice(4, 5), slice(5, 6)]
    assert list(module._groups([])) == [] and list(module._groups([0, 0])) == [slice(0, 2)]
    retrieval, _ = make(prune=False)
    retrieval.expect(["u0", "u1", "u2"], ["a", "b", "a"])
    retrieval.ahead(step=2)
    found, late = retrieval.take(batch_of("a", "b", "a"), 2)
    prompts = [[put[key]["prompts"].tolist() for key, _ in one.placed] for one in found]
    assert late == 0 and prompts == [[[5, 6]] * 4, [[7, 8, 9]] * 4, [[5, 6]] * 4]
    retrieval.expect(["dead"], ["a"])
    retrieval.drain()
    count = len(put)
    retrieval.ahead(step=2)
    assert len(put) == count, "a prompt that was sent again within a step is not retrieved for in the next"


def test_a_chat_template_that_fails_is_no_guess():
    from repo_verl.trainer.retrieval import chat_encoder

    class Tokenizer:
        def apply_chat_template(self, chat, **settings):
            if chat == ["bad"]:
                raise KeyError("role")
            return [len(chat), int(settings["enable_thinking"])]

    encode = chat_encoder(Tokenizer(), {"enable_thinking": True})
    assert encode(["x", "y"]).tolist() == [2, 1] and encode(["bad"]) is None


def test_pauses_between_looks():
    from repo_verl.verl_workarounds.polling import next_pause

    assert next_pause(0.0, 0.001, 2.0) == pytest.approx(0.05), "at first often"
    assert next_pause(10.0, 0.001, 2.0) == pytest.approx(0.2), "a share of what was waited"
    assert next_pause(1.0, 0.02, 2.0) == pytest.approx(0.4), "a dear look less often"
    assert next_pause(500.0, 0.001, 2.0) == 2.0 and next_pause(1.0, 5.0, 2.0) == 2.0, "never less often than verl"


def test_a_queue_is_looked_at_sooner_and_counts_from_its_own_start(monkeypatch):
    from repo_verl.verl_workarounds import polling

    now = [0.0]
    monkeypatch.setattr(polling.time, "perf_counter", lambda: now[0])

    class Queue:
        poll_interval = 2.0
        pauses: list = []

        def _sync_metadata_from_transfer_queue(self):
            now[0] += 0.001

        def sample(self, until):
            while now[0] < until:
                self._sync_metadata_from_transfer_queue()
                self.pauses.append(self.poll_interval)
                now[0] += self.poll_interval
            return now[0]

    queue = Queue()
    polling.poll_adaptively(queue)
    done = queue.sample(until=5.0)
    assert done - 5.0 < 0.02 * 5.0 + 0.05 and queue.pauses[0] == pytest.approx(0.05)
    count = len(queue.pauses)
    queue.sample(until=done + 1.0)
    assert queue.pauses[count] == pytest.approx(0.05), "a second wait starts anew"
    assert torch.tensor(queue.pauses).max() < 0.12


def _key(name):
    from repo_verl.replay import prompt_key

    return prompt_key(PROMPTS[name])


def test_parts_of_a_reward_that_no_float_holds_are_left_out():
    from repo_verl.trainer import texts

    info = {"acc": 1, "low": -0.5, "long": 10**400, "text": "x", "none": None, "inf": float("inf"), 3: True}
    assert texts._numbers(info) == {"acc": 1.0, "low": -0.5, "inf": float("inf"), "3": 1.0}
