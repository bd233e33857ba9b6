"""Which rows a step replays and what of them is put into TransferQueue; and how often verl's queue is looked at."""

import numpy as np
import pytest
import torch
from oracles import group_advantages

pytestmark = pytest.mark.contract

PROMPTS = {"a": np.array([5, 6], np.int32), "b": np.array([7, 8, 9], np.int32), "new": np.array([3], np.int32)}
SCORES = {"a": [1.0, 0.0, 1.0, 0.0], "b": [1.0, 1.0, 1.0, 1.0]}


@pytest.fixture
def put(monkeypatch):
    """Rows that went into TransferQueue, by key."""
    from repo_verl.trainer import queue_rows

    stored = {}

    def _put(partition, keys, rows, tags=None):
        stored.update(zip(keys, rows, strict=True))

    monkeypatch.setattr(queue_rows, "_put", _put)
    return stored


def key_of(name):
    from repo_verl.replay import prompt_key

    return prompt_key(PROMPTS[name])


def make_buffer(**settings):
    from repo_verl.replay import PromptReplayBuffer, Record

    buffer = PromptReplayBuffer(**{"capacity": 4, "min_size": 4, "num_replay": 4, **settings})
    for name, scores in SCORES.items():
        rows = [Record.create([i, i + 1], [-0.5, -1.0 - i], score, 1) for i, score in enumerate(scores)]
        buffer.add(key_of(name), PROMPTS[name], rows)
    return buffer


def fresh_rows(blocks):
    """Fresh rows of these (prompt, scores)."""
    from repo_verl.trainer.rollouts import FreshRows

    rows = [(block, number) for block, (_, scores) in enumerate(blocks) for number in range(len(scores))]
    masks = [torch.ones(2, dtype=torch.int64)] * len(rows)
    return FreshRows(
        keys=[f"u{block}_{number}_0" for block, number in rows], tags=[{}] * len(rows),
        blocks=[block for block, _ in rows], prompt_keys=[key_of(name) for name, _ in blocks],
        prompt_ids=[PROMPTS[name] for name, _ in blocks], responses=masks, masks=masks, tokens=[2] * len(rows),
        scores=torch.tensor([blocks[block][1][number] for block, number in rows]), parts=[{}] * len(rows),
        statuses=[""] * len(rows),
    )  # fmt: skip


def retrieve(buffer, blocks, prune=False, step=2, **settings):
    """The update of a step on one rank; key and tag of its replayed rows in the queue, by row number."""
    from repo_verl.config import RepoConfig
    from repo_verl.trainer import retrieval
    from repo_verl.trainer.minibatches import UpdateShape
    from repo_verl.trainer.queue_rows import QueuedUpdate

    fresh = fresh_rows(blocks)
    shape = UpdateShape(
        prompts=len(blocks), rows=len(fresh.keys), num_mini_batches=1, ranks=1, micro_batch_rows=None,
        loss_agg_mode="token-mean",
    )  # fmt: skip
    dtypes = dict.fromkeys(("old_log_probs", "advantages"), torch.float32)
    selections = retrieval.choose_rows(buffer, fresh, step)
    update = retrieval.plan_step(RepoConfig(**settings), shape, prune, fresh.keys, fresh, selections)
    if update.plan is None:
        return update, {}
    queued = QueuedUpdate("train", update, dtypes)
    for group in retrieval.read_kept(buffer, update):
        queued.put_replayed(group)
    replayed = {row: place for row, place in queued.places.items() if row >= len(fresh.keys)}
    assert set(queued.added) == {key for key, _ in replayed.values()}
    return update, replayed


ONE_EACH = [("a", [1.0, 0.0]), ("b", [1.0, 0.0]), ("new", [1.0, 0.0])]


def test_chosen_rows_are_put_with_their_advantages_and_their_uses_count(put):
    buffer = make_buffer()
    update, added = retrieve(buffer, ONE_EACH)
    assert [len(one) for one in update.selections] == [4, 4, 0] and len(put) == 8
    assert update.lengths == [4, 4, 5, 5, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5], "each with its own prompt"
    assert sorted(added) == list(range(6, 14)) and {key for key, _ in added.values()} == set(put)
    first = put[added[6][0]]
    assert first["input_ids"].tolist() == [5, 6, 0, 1] and first["position_ids"].tolist() == [0, 1, 2, 3]
    assert first["old_log_probs"].tolist() == [-0.5, -1.0] and first["loss_mask"].tolist() == [0, 0]
    expected = group_advantages(SCORES["a"], 1e-6)
    given = [put[added[row][0]]["advantages"].tolist() for row in range(6, 10)]
    assert given == [pytest.approx([value] * 2, rel=1e-5) for value in expected]
    assert all(row.uses == 1 for name in SCORES for row in buffer.rows(key_of(name)))


def test_rows_of_zero_advantage_are_not_even_read(put, monkeypatch):
    buffer, read = make_buffer(), []
    fetch = buffer.fetch
    monkeypatch.setattr(buffer, "fetch", lambda chosen: read.extend(map(len, chosen)) or fetch(chosen))
    update, added = retrieve(buffer, ONE_EACH, prune=True)
    assert len(put) == 4 == sum(read) and update.selections[1].scores.tolist() == [1.0] * 4
    assert sorted(added) == [6, 7, 8, 9] and list(update.kept[10:]) == [False] * 4
    assert all(row.uses == 1 for name in SCORES for row in buffer.rows(key_of(name))), "they were chosen all the same"


def test_a_row_behind_pruned_ones_gets_its_own_tokens_and_advantage(put):
    update, added = retrieve(make_buffer(), [("b", [1.0, 0.0]), ("a", [1.0, 0.0])], prune=True)
    assert sorted(added) == [8, 9, 10, 11] and list(update.kept[4:8]) == [False] * 4
    for row, value, number in zip(range(8, 12), group_advantages(SCORES["a"], 1e-6), range(4), strict=True):
        held = put[added[row][0]]
        assert held["prompts"].tolist() == [5, 6] and held["responses"].tolist() == [number, number + 1]
        assert held["advantages"].tolist() == pytest.approx([value] * 2, rel=1e-5)


def test_a_row_of_the_smallest_advantage_is_read_all_the_same(put, monkeypatch):
    from repo_verl.replay import Record
    from repo_verl.trainer import minibatches

    tiny, buffer = 2.0**-40, make_buffer(min_size=3)
    rows = [Record.create([i], [-1.0], score, 1) for i, score in enumerate([0.0, tiny, tiny / 2])]
    buffer.add(key_of("new"), PROMPTS["new"], rows)
    stock = minibatches.plan_advantages
    monkeypatch.setattr(minibatches, "plan_advantages", lambda *args: stock(*args[:-1], False))
    update, added = retrieve(buffer, [("new", [1.0, 0.0])], prune=True)
    assert update.replayed_advantages.tolist() == [-tiny / 2, tiny / 2, 0.0]
    assert sorted(added) == [2, 3], "only 0 itself is left out"


def test_advantages_of_mixed_are_over_both_kinds_of_rows(put):
    """And a row whose advantage by itself would be 0 is read where the fresh ones differ from it."""
    update, added = retrieve(make_buffer(), [("a", [1.0, 0.0]), ("b", [0.0, 0.5])], prune=True, advantage="mixed")
    assert len(put) == 8
    for block, (name, fresh) in enumerate([("a", [1.0, 0.0]), ("b", [0.0, 0.5])]):
        both = group_advantages(fresh + SCORES[name], 1e-6)
        assert update.fresh_advantages[2 * block : 2 * block + 2].tolist() == pytest.approx(both[:2], rel=1e-5)
        places = [added[4 + 4 * block + i][0] for i in range(4)]
        assert [put[key]["advantages"].tolist() for key in places] == [
            pytest.approx([value] * 2, rel=1e-5) for value in both[2:]
        ]


def test_one_prompt_several_times_stays_within_its_caps(put):
    update, added = retrieve(make_buffer(), [("a", [1.0, 0.0])] * 2)
    keys = [key for key, _ in added.values()]
    assert len(set(keys)) == 8 and [len(one) for one in update.selections] == [4, 4]
    buffer = make_buffer(min_size=2, num_replay=2, max_uses=1)
    update, _ = retrieve(buffer, [("a", [1.0, 0.0])] * 3)
    assert [one.serials.tolist() for one in update.selections] == [[2, 3], [0, 1], []]
    assert [row.uses for row in buffer.rows(key_of("a"))] == [1, 1, 1, 1]


def test_a_strategy_gets_the_fresh_scores_of_its_own_block_by_response_number(put):
    seen = []

    def pick(key, scores, ages, k, rng, fresh_scores):
        seen.append((key, fresh_scores.tolist(), fresh_scores.dtype))
        return np.arange(k)

    buffer = make_buffer()
    buffer._pick = pick
    arrived = fresh_rows([("b", [0.0, 1.0, 0.5]), ("a", [0.25, 0.75])])
    order = [4, 2, 0, 3, 1]  # as the responses finished
    shuffled = type(arrived)(
        **{
            **vars(arrived), "keys": [arrived.keys[i] for i in order], "blocks": [arrived.blocks[i] for i in order],
            "scores": arrived.scores[order],
        }
    )  # fmt: skip
    from repo_verl.trainer.retrieval import choose_rows

    chosen = choose_rows(buffer, shuffled, 2)
    assert [one.key for one in chosen] == [key_of("b"), key_of("a")], "a selection for every block, in their order"
    by_key = {key_of("b"): [0.0, 1.0, 0.5], key_of("a"): [0.25, 0.75]}
    assert seen == [(key, by_key[key], np.dtype(np.float64)) for key in sorted(by_key)]


def test_draws_go_by_the_prompts_keys_and_not_by_the_order_in_which_responses_finished(put):
    """Two buffers of one seed, a batch in two orders; and the same prompt twice goes by its fresh scores."""
    blocks = [("a", [0.0, 1.0]), ("b", [1.0, 0.0]), ("a", [1.0, 1.0])]
    found = []
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        buffer = make_buffer(strategy="random", num_replay=2, seed=7)
        update, _ = retrieve(buffer, [blocks[i] for i in order])
        found.append({i: update.selections[place].serials.tolist() for place, i in enumerate(order)})
    assert found[0] == found[1] == found[2]
    draws = np.random.default_rng(7)
    by_hand = {}
    for i in sorted(range(3), key=lambda i: (key_of(blocks[i][0]), blocks[i][1])):
        by_hand[i] = sorted(draws.choice(4, size=2, replace=False).tolist())
    assert found[0] == by_hand


def test_long_retrievals_go_in_groups(put, monkeypatch):
    from repo_verl.trainer import retrieval as module

    monkeypatch.setattr(module, "GROUP_TOKENS", 12)
    assert list(module._groups([8, 8, 2, 2, 30, 1])) == [slice(0, 1), slice(1, 4), slice(4, 5), slice(5, 6)]
    assert list(module._groups([])) == [] and list(module._groups([0, 0])) == [slice(0, 2)]
    buffer = make_buffer()
    calls, fetch = [], buffer.fetch
    monkeypatch.setattr(buffer, "fetch", lambda chosen: calls.append(len(chosen)) or fetch(chosen))
    update, added = retrieve(buffer, [("a", [1.0, 0.0]), ("b", [1.0, 0.0]), ("a", [0.0, 0.0])])
    assert calls == [1, 1, 1], "8 tokens each"
    prompts = [put[added[row][0]]["prompts"].tolist() for row in range(6, 18)]
    assert prompts == [[5, 6]] * 4 + [[7, 8, 9]] * 4 + [[5, 6]] * 4


def test_the_estimator_gives_the_advantages_of_the_plan_and_only_for_its_rows():
    from repo_verl.trainer import estimator

    mask, rewards = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]]), torch.zeros(3, 3)
    batch, fresh = ["u1_0_0", "pad_0_0", "u0_3_0"], ["u0_3_0", "u1_0_0"]
    with estimator.handing(batch, fresh, torch.tensor([0.25, -1.5])):
        values, returns = estimator.compute_repo_outcome_advantage(rewards, mask, index=np.array(["u1", "pad", "u0"]))
        assert values.tolist() == [[-1.5, -1.5, 0.0], [0.0, 0.0, 0.0], [0.25, 0.25, 0.25]] and returns is values
        for other in (["u0", "pad", "u1"], ["u1", "pad"]):
            with pytest.raises(RuntimeError, match="other rows than the step was planned with"):
                estimator.compute_repo_outcome_advantage(rewards, mask, index=np.array(other))
    with pytest.raises(RuntimeError, match="reached a trainer that replays nothing"):
        estimator.compute_repo_outcome_advantage(rewards, mask, index=np.array(["u1", "pad", "u0"]))


def test_pauses_between_looks():
    from repo_verl.verl_workarounds.driver import next_pause

    assert next_pause(0.0, 0.001, 2.0) == pytest.approx(0.05), "at first often"
    assert next_pause(10.0, 0.001, 2.0) == pytest.approx(0.2), "a share of what was waited"
    assert next_pause(1.0, 0.02, 2.0) == pytest.approx(0.4), "a dear look less often"
    assert next_pause(500.0, 0.001, 2.0) == 2.0 and next_pause(1.0, 5.0, 2.0) == 2.0, "never less often than verl"


def test_a_queue_is_looked_at_sooner_and_counts_from_its_own_start(monkeypatch):
    from repo_verl.verl_workarounds import driver

    now = [0.0]
    monkeypatch.setattr(driver.time, "perf_counter", lambda: now[0])

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
    driver.poll_adaptively(queue)
    done = queue.sample(until=5.0)
    assert done - 5.0 < 0.02 * 5.0 + 0.05 and queue.pauses[0] == pytest.approx(0.05)
    count = len(queue.pauses)
    queue.sample(until=done + 1.0)
    assert queue.pauses[count] == pytest.approx(0.05), "a second wait starts anew"
    assert torch.tensor(queue.pauses).max() < 0.12


def test_parts_of_a_reward_that_no_float_holds_are_left_out():
    from repo_verl.trainer import rollouts

    info = {"acc": 1, "low": -0.5, "long": 10**400, "text": "x", "none": None, "inf": float("inf"), 3: True}
    assert rollouts._numbers(info) == {"acc": 1.0, "low": -0.5, "inf": float("inf"), "3": 1.0}
