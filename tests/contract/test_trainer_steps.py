"""Steps through verl's own trainer methods and a real TransferQueue, without an engine: an update's rows by hand."""

import itertools
import random
import sys
import time

import pytest
import torch
from tiny_model import make_tiny_model

pytestmark = [pytest.mark.contract, pytest.mark.serial]

TEXTS = ["1+1=", "2+2=?", "33", "4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("steps") / "model")


@pytest.fixture(scope="module", autouse=True)
def queue():
    from engineless import transfer_queue

    with transfer_queue():
        yield


@pytest.fixture(autouse=True)
def emptied(queue):
    """What a failed test left does not reach the next one."""
    import transfer_queue as tq

    yield
    for partition, keys in (tq.kv_list() or {}).items():
        if keys:
            tq.kv_clear(keys=list(keys), partition_id=partition)


def start(model, n, prompts, *overrides, mini=None, estimator="repo", **options):
    """A run of ``prompts`` prompts a step with ``n`` responses each, ``mini`` prompts a mini-batch."""
    from engineless import Run

    sizes = [
        f"data.train_batch_size={prompts}", f"actor_rollout_ref.rollout.n={n}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={mini or prompts}", f"algorithm.adv_estimator={estimator}",
    ]  # fmt: skip
    return Run(model, [*sizes, *overrides], **options)


def answers(scores, seed, sizes=(2, 12)):
    """A response for every score, of drawn ids and log-probs whose float32 needs all its digits."""
    rng = random.Random(seed)
    rows = []
    for score in scores:
        length = rng.randrange(*sizes)
        rows.append(
            {
                "ids": [*(rng.randrange(5, 60) for _ in range(length)), 1], "score": score,
                "log_probs": [-rng.expovariate(1.0) - 1e-3 for _ in range(length + 1)],
            }
        )  # fmt: skip
    return rows


def replaying(*more, size=2, rows=2):
    """Overrides of a small buffer."""
    return [f"algorithm.repo.min_size={size}", f"algorithm.repo.num_replay={rows}", *more]


def by_key(batch, said):
    """What every fresh row was said to be."""
    uids = list(dict.fromkeys(sorted((key.rsplit("_", 2)[0] for key in batch.keys if "pad" not in key), key=number_of)))
    held = dict(zip(uids, (rows for rows in said.values() if rows), strict=True))
    return {key: held[key.rsplit("_", 2)[0]][int(key.rsplit("_", 2)[1])] for key in batch.keys if "pad" not in key}


def number_of(uid):
    return int(uid.partition("x")[2])


@pytest.mark.parametrize("ranks", [1, 2])
def test_fresh_rows_are_read_past_verls_padding_and_missing_rows(model, ranks):
    """5 of 8 responses came; verl adds 3 padding rows and mixes them in, over two ranks."""
    from repo_verl.trainer import rollouts

    run = start(model, 4, 2, *replaying(), ranks=ranks)
    said = {TEXTS[0]: answers([0.25, 0.5, 1.0], 1), TEXTS[1]: answers([0.0, 0.75], 2, sizes=(20, 30))}
    said[TEXTS[0]][1]["mask"] = [1, 0, *[1] * (len(said[TEXTS[0]][1]["ids"]) - 2)]
    batch, metrics, _ = run.step(said)
    pads = [place for place, tag in enumerate(batch.tags) if tag.get("is_padding")]
    assert len(batch.keys) == 8 and len(pads) == 3
    behind = any(place not in pads for place in range(pads[0], 8))
    assert behind == (ranks == 2), "on two ranks a fresh row lies behind a padding row"
    expected = by_key(batch, said)
    fresh = rollouts.read_fresh(batch)
    assert fresh.keys == [key for place, key in enumerate(batch.keys) if place not in pads] == list(expected)
    for place, row in enumerate(expected.values()):
        assert float(fresh.scores[place]) == row["score"]
        assert fresh.masks[place].tolist() == row.get("mask", [1] * len(row["ids"]))
        assert fresh.tokens[place] == sum(row.get("mask", [1] * len(row["ids"])))
        prompt = fresh.prompt_ids[fresh.blocks[place]].tolist()
        assert fresh.lengths[place] == len(prompt) + len(row["ids"])
        assert run.tokenizer.decode(prompt[1:-1]) == TEXTS[0 if row in said[TEXTS[0]] else 1]
    assert [tag["seq_len"] for tag in fresh.tags] == fresh.lengths
    assert metrics["repo/missing_rows"] == 3 and metrics["repo/buffer_rows"] == 5
    run.end_step(batch)


def test_replayed_rows_have_the_very_log_probs_of_the_step_they_were_fresh_in(model):
    """To the last bit of float32: ids, mask and log π_b of step 1 in step 2's update."""
    run = start(model, 3, 2, *replaying(size=3, rows=3))
    first = {TEXTS[0]: answers([0.0, 0.25, 1.0], 3), TEXTS[1]: answers([1.0, 0.0, 0.25], 4)}
    first[TEXTS[1]][0]["mask"] = [1, 0, *[1] * (len(first[TEXTS[1]][0]["ids"]) - 2)]
    run.end_step(run.step(first)[0])
    batch, metrics, _ = run.step({text: answers([0.0, 1.0, 0.0], 5 + i) for i, text in enumerate(first)})
    run.end_step(batch)
    replayed = [row for row in run.workers.updates[-1] if row["repo_origin"] == 1]
    assert len(replayed) == metrics["repo/replayed_rows"] == 6
    wanted = {tuple(row["ids"]): row for rows in first.values() for row in rows}
    for row in replayed:
        written = wanted.pop(tuple(row["responses"].tolist()))
        values = torch.tensor(written["log_probs"], dtype=torch.float32)
        assert torch.equal(row["old_log_probs"], values), "float32, bit for bit"
        assert not torch.equal(values.half().float(), values) and not torch.equal(values.bfloat16().float(), values)
        assert row["response_mask"].tolist() == written.get("mask", [1] * len(values))
        assert not row["loss_mask"].any()
    assert not wanted


def test_ages_and_uses_by_hand(model):
    """min_size 2: in step 2 the rows of step 1 are one step old, in step 4 those of steps 1 and 2 three and two."""
    run = start(model, 2, 1, *replaying(rows=4))
    logged = []
    for step, text in enumerate([TEXTS[0], TEXTS[0], TEXTS[1], TEXTS[0]]):
        batch, metrics, _ = run.step({text: answers([0.0, 1.0], step)})
        run.end_step(batch)
        logged.append([metrics[f"repo/{name}"] for name in ("replayed_rows", "age_mean", "age_max", "uses_mean")])
    assert logged == [[0, 0, 0, 0], [2, 1.0, 1, 1.0], [0, 0, 0, 0], [4, 2.5, 3, 1.5]]
    assert metrics["repo/uses_max"] == 2


def test_exposed_work_is_timed_where_it_lies_within_verls_timers(model):
    run = start(model, 2, 1, *replaying())
    for step in range(2):
        batch, _, times = run.step({TEXTS[0]: answers([0.0, 1.0], step)})
        run.end_step(batch)
    assert (
        0 < times["repo_exposed_adv"] < times["adv"] and 0 < times["repo_exposed_update_actor"] < times["update_actor"]
    )
    between = times["repo_exposed"] - times["repo_exposed_adv"] - times["repo_exposed_update_actor"]
    assert between > 0, "handing rows over to be cleared lies behind verl's timers"
    beside = times["repo_select"] + times["repo_retrieve"] + times["repo_place"]
    assert 0 < beside < times["old_log_prob"] + times["repo_exposed_adv"]
    assert min(times["repo_select"], times["repo_retrieve"], times["repo_place"], times["repo_insert"]) > 0
    prepare = run.trainer._prepare

    def slow(batch):
        time.sleep(1.0)
        return prepare(batch)

    run.trainer._prepare = slow
    batch, _, times = run.step({TEXTS[0]: answers([0.0, 1.0], 2)})
    run.end_step(batch)
    waited = 1.0 - times["old_log_prob"]  # what of planning is left behind the old log-probs is waited for in adv
    assert 0.9 * waited < times["repo_exposed_adv"] < times["adv"] and waited > 0.2


@pytest.mark.parametrize("kind", ["split", "mixed", "kl"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_rows_go_back_in_the_dtype_of_the_engines_log_probs(model, dtype, kind):
    """Stored is exactly what the forward pass gave, in float32; also in a process whose first step replays at once."""
    more = {
        "split": [],
        "mixed": ["algorithm.repo.advantage=mixed"],
        "kl": ["actor_rollout_ref.actor.use_kl_loss=True"],
    }
    settings = [*replaying(size=3, rows=3), *more[kind]]
    run = start(model, 3, 2, *settings, ranks=2, dtype=dtype)
    first = {TEXTS[0]: answers([0.0, 0.25, 1.0], 3), TEXTS[1]: answers([1.0, 0.0, 0.25], 4)}
    later = {text: answers([0.0, 0.6, 1.0], 5 + i) for i, text in enumerate(first)}
    run.end_step(run.step(first)[0])
    rounded = {tuple(row["ids"]): torch.tensor(row["log_probs"]).to(dtype) for rows in first.values() for row in rows}
    state = run.trainer.prompt_replay.state_dict()
    stored = torch.from_numpy(state["arrays"]["log_probs"])
    assert stored.dtype == torch.float32
    assert sorted(stored.tolist()) == sorted(value for row in rounded.values() for value in row.float().tolist())

    resumed = start(model, 3, 2, *settings, ranks=2, dtype=dtype)
    resumed.trainer.prompt_replay.load_state_dict(state)
    resumed.trainer.global_steps = 1
    updates = []
    for one in (run, resumed):
        batch, metrics, _ = one.step(later)
        one.end_step(batch)
        assert metrics["repo/replayed_rows"] == 6
        rows = one.workers.updates[-1]
        replayed = [row for row in rows if row["repo_origin"] == 1]
        assert len(replayed) == 6
        for row in replayed:
            value = row["old_log_probs"]
            assert value.dtype == dtype and torch.equal(value, rounded[tuple(row["responses"].tolist())])
        for name in ("old_log_probs", "advantages", *(["ref_log_prob"] if kind == "kl" else [])):
            assert {row[name].dtype for row in rows} == {torch.float32 if name == "advantages" else dtype}
        assert all("ref_log_prob" not in row or not row["ref_log_prob"].any() for row in replayed)
        updates.append(sorted(rows, key=lambda row: row["responses"].tolist()))
    for one, other in zip(*updates, strict=True):  # two runs, so other uids: the rows themselves are the same
        assert all(torch.equal(one[name], other[name]) for name in set(one) - {"key"})


def test_padding_rows_of_the_first_step_have_the_engines_dtype(model):
    """Three rows of two groups are left over pruning, so that two ranks need a padding row."""
    run = start(model, 3, 2, ranks=2, dtype=torch.bfloat16)
    run.end_step(run.step({TEXTS[0]: answers([0.0, 0.25, 1.0], 3), TEXTS[1]: answers([1.0, 1.0, 1.0], 4)})[0])
    pads = [row for row in run.workers.updates[-1] if row["repo_origin"] == 2]
    assert len(pads) == 1 and pads[0]["old_log_probs"].tolist() == pads[0]["advantages"].tolist() == [0.0]
    assert pads[0]["old_log_probs"].dtype == torch.bfloat16 and pads[0]["advantages"].dtype == torch.float32


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_stock_mini_batches_are_those_of_verls_own_iterator(ranks):
    """verl's chunks to ranks and its mini-batches of each, row by row; the padding's keys are among them."""
    from tensordict import TensorDict
    from transfer_queue import KVBatchMeta
    from verl.utils.tensordict_utils import make_iterator

    from repo_verl.trainer.minibatches import UpdateShape

    keys = [f"{'pad' if place % 5 == 2 else 'u'}{place}_0_0" for place in range(24)]
    shape = UpdateShape(
        prompts=2, rows=8, num_mini_batches=3, ranks=ranks, micro_batch_rows=None, loss_agg_mode="token-mean"
    )
    place = {key: number for number, key in enumerate(keys)}
    expected = {}
    for chunk in KVBatchMeta(keys=keys, tags=[{}] * 24, partition_id="train").chunk(ranks):
        numbers = TensorDict({"number": torch.tensor([place[key] for key in chunk.keys])}, batch_size=24 // ranks)
        for mini, data in enumerate(make_iterator(numbers, mini_batch_size=8 // ranks, epochs=1)):
            expected.update({keys[number]: mini for number in data["number"].tolist()})
    asked = [key for key in keys if not key.startswith("pad")]
    assert shape.stock_mini_batches(keys, asked) == [expected[key] for key in asked]
    assert sorted(set(expected.values())) == [0, 1, 2]


@pytest.mark.parametrize("ranks", [1, 2])
def test_pruned_fresh_rows_alone_keep_verls_mini_batches(model, ranks):
    """The same responses through GRPO's own update and a pruned one that replays nothing."""
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    scores = [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
    said = {text: answers(one, i) for i, (text, one) in enumerate(zip(TEXTS, scores, strict=True))}
    places = []
    for cls, name in ((PPOTrainerSync, "grpo"), (None, "repo")):
        run = start(model, 2, 4, mini=2, estimator=name, ranks=ranks, cls=cls)
        run.end_step(run.step(said)[0])
        keys = [row["key"] for row in run.workers.updates[-1]]
        share = len(keys) // ranks
        places.append({key: place % share // (share // 2) for place, key in enumerate(keys) if key.startswith("u")})
    stock, pruned = places
    assert len(stock) == 8 and len(pruned) == 4 and {stock[key] for key in pruned} == {0, 1}
    assert pruned == {key: stock[key] for key in pruned}


def test_a_step_that_replays_and_prunes_nothing_is_verls_own_batch(model):
    """RePO is on, the buffer is empty and no advantage is 0: GRPO's rows, in GRPO's order, on GRPO's ranks."""
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    said = {text: answers([1.0, 0.0], i) for i, text in enumerate(TEXTS)}
    said[TEXTS[1]].pop()
    updates = []
    for cls, name, more in ((PPOTrainerSync, "grpo", []), (None, "repo", ["algorithm.repo.prune=False"])):
        run = start(model, 2, 4, *more, mini=2, estimator=name, ranks=2, cls=cls)
        run.end_step(run.step(said)[0])
        updates.append(run.workers.updates[-1])
    stock, ours = ([(row["key"][:3], row["responses"].tolist()) for row in one] for one in updates)
    assert stock == ours and len(stock) == 8
    assert not any("repo_origin" in row for row in updates[1])


@pytest.mark.parametrize("off", ["algorithm.repo.strategy=none", "algorithm.repo.off_policy_coef=0"])
def test_none_is_grpo_bit_for_bit_where_grpo_rounds(model, off):
    """Scores of 0.45 each, to which GRPO gives what rounding leaves; a group of one, which has its raw score."""
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    scores = [[0.45, 0.45, 0.45], [0.7], [0.1, 0.9, 0.35], [1.0, 0.0, 1.0]]
    said = {text: answers(one, i) for i, (text, one) in enumerate(zip(TEXTS, scores, strict=True))}
    updates = []
    for cls, settings in ((PPOTrainerSync, {"estimator": "grpo"}), (None, {})):
        run = start(model, 3, 4, *([off] if cls is None else []), ranks=2, cls=cls, mini=2, **settings)
        for _ in range(2):  # the second step would replay
            run.end_step(run.step(said)[0])
        updates.append(list(itertools.chain(*run.workers.updates)))
    stock, none = updates
    flat = [float(row["advantages"][0]) for row in stock if row["key"].startswith("u1x0_")]
    assert len(flat) == 3 and all(0.02 < abs(value) < 0.04 for value in flat), "GRPO's rounding is not 0 here"
    (single,) = (row["advantages"] for row in stock if row["key"].startswith("u1x1_"))
    assert single.tolist() == pytest.approx([0.7] * len(said[TEXTS[1]][0]["ids"]), rel=1e-5)
    assert len(stock) == len(none) == 24
    for one, other in zip(stock, none, strict=True):
        assert one.keys() == other.keys()
        padding = one["key"].startswith("pad")
        assert other["key"].startswith("pad") if padding else one["key"] == other["key"]
        for name in set(one) - {"key"}:
            assert torch.equal(one[name], other[name]), name


def replayed_scores(run, said):
    """Scores of the rows that the last update replays, by prompt; told by their tokens, which differ."""
    known = {tuple(row["ids"]): (text, row["score"]) for rows in said for text, own in rows.items() for row in own}
    found = {}
    for row in run.workers.updates[-1]:
        if row.get("repo_origin", 0) == 1:
            text, score = known[tuple(row["responses"].tolist())]
            found.setdefault(text, []).append(score)
    return {text: sorted(scores) for text, scores in found.items()}


def test_a_users_strategy_chooses_by_the_fresh_scores_of_the_step(model):
    """It replays the best rows of the prompt whose fresh responses all fail, and nothing of the other one."""
    strategy = "algorithm.repo.strategy=own_strategies:best_where_all_fail"
    run = start(model, 3, 2, *replaying(strategy, "algorithm.repo.prune=False", size=3, rows=2))
    first = {TEXTS[0]: answers([0.0, 0.25, 1.0], 3), TEXTS[1]: answers([1.0, 0.0, 0.25], 4)}
    run.end_step(run.step(first)[0])
    for seed, failing in ((5, TEXTS[1]), (7, TEXTS[0])):
        scores = {text: [0.0, 0.0, 0.0] if text == failing else [0.0, 1.0, 0.0] for text in first}
        later = {text: answers(scores[text], seed + i) for i, text in enumerate(first)}
        batch, metrics, _ = run.step(later)
        run.end_step(batch)
        assert metrics["repo/prompts_with_replay"] == 1 and metrics["repo/replayed_rows"] == 2
        if seed == 5:
            assert replayed_scores(run, [first, later]) == {failing: [0.25, 1.0]}


@pytest.mark.parametrize("advantage", ["split", "mixed"])
def test_no_field_of_a_fresh_row_is_fetched_twice_and_no_advantage_computed_twice(model, advantage, monkeypatch):
    from repo_verl.trainer import minibatches, queue_rows, rollouts

    run = start(model, 3, 2, *replaying(f"algorithm.repo.advantage={advantage}", size=3, rows=3))
    said = {TEXTS[0]: answers([0.0, 0.25, 1.0], 3), TEXTS[1]: answers([1.0, 0.0, 0.25], 4)}
    for _ in range(2):  # the first update learns the dtypes of verl's fields from one row
        run.end_step(run.step(said)[0])
    fetched, computed = [], []
    get, stock = rollouts.tq.kv_batch_get, minibatches.block_advantages

    def kv_batch_get(keys, partition_id, select_fields=None):
        if sys._getframe(1).f_globals["__name__"].startswith("repo_verl."):
            fetched.extend((key, name) for key in keys for name in select_fields)
        return get(keys=keys, partition_id=partition_id, select_fields=select_fields)

    monkeypatch.setattr(queue_rows.tq, "kv_batch_get", kv_batch_get)
    monkeypatch.setattr(
        minibatches, "block_advantages", lambda scores, *rest: computed.append(len(scores)) or stock(scores, *rest)
    )
    batch, metrics, _ = run.step(said)
    run.end_step(batch)
    names = {"prompts", "responses", "response_mask", "rm_scores", "extra_fields", "old_log_probs"}
    assert set(fetched) == {(key, name) for key in batch.keys for name in names}
    assert len(fetched) == len(set(fetched))
    assert metrics["repo/replayed_rows"] == 6
    assert computed == ([6, 6] if advantage == "split" else [12])


@pytest.mark.parametrize("advantage", ["split", "mixed"])
def test_verl_and_the_workers_get_the_advantages_of_the_plan(model, advantage):
    """What TransferQueue holds for verl's own metrics, as advantages and as returns, is what the update trains on."""
    import transfer_queue as tq
    from oracles import group_advantages

    run = start(model, 3, 1, *replaying(f"algorithm.repo.advantage={advantage}", size=3, rows=3))
    first = {TEXTS[0]: answers([0.0, 0.25, 1.0], 3)}
    run.end_step(run.step(first)[0])
    batch, metrics, _ = run.step({TEXTS[0]: answers([1.0, 0.0, 0.0], 5)})
    replayed = [0.0, 0.25, 1.0]
    on, off = group_advantages([1.0, 0.0, 0.0], 1e-6), group_advantages(replayed, 1e-6)
    if advantage == "mixed":
        both = group_advantages([1.0, 0.0, 0.0, *replayed], 1e-6)
        on, off = both[:3], both[3:]
    data = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["advantages", "returns"])
    for name in ("advantages", "returns"):
        given = {key: float(row[0]) for key, row in zip(batch.keys, data[name].unbind(), strict=True)}
        assert [given[key] for key in sorted(given)] == pytest.approx(on, rel=1e-5)
    rows = run.workers.updates[-1]
    fresh = {row["key"]: float(row["advantages"][0]) for row in rows if row["repo_origin"] == 0}
    assert [fresh[key] for key in sorted(fresh)] == pytest.approx([v for v in on if v], rel=1e-5)
    again = sorted(float(row["advantages"][0]) for row in rows if row["repo_origin"] == 1)
    assert again == pytest.approx(sorted(v for v in off if v), rel=1e-5)
    run.end_step(batch)


def test_every_row_has_the_weight_and_the_mini_batch_of_the_plan_by_hand(model):
    """Of two mini-batches of a prompt each one replays two rows, w = λ / (N_on + N_off) / |o|; the other is padded."""
    settings = ("algorithm.repo.normalize=rows", "algorithm.repo.off_policy_coef=0.5")
    mode = "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean"
    run = start(model, 2, 2, *replaying(*settings, mode), mini=1)
    first = answers([0.0, 1.0], 1)
    first[0]["mask"] = [1, 0, *[1] * (len(first[0]["ids"]) - 2)]
    run.end_step(run.step({TEXTS[0]: first, TEXTS[2]: answers([0.0, 1.0], 2)})[0])
    batch, metrics, _ = run.step({TEXTS[0]: answers([0.0, 1.0], 3), TEXTS[1]: answers([0.0, 1.0], 4, sizes=(20, 30))})
    run.end_step(batch)
    rows, found = run.workers.updates[-1], {}
    for part in (rows[:4], rows[4:]):
        kinds = [int(row["repo_origin"]) for row in part]
        fresh = sum(int(row["response_mask"].sum()) for row, kind in zip(part, kinds, strict=True) if kind == 0)
        assert {int(row["repo_fresh_tokens"]) for row in part} == {fresh}
        (scale,) = {float(row["repo_fresh_scale"]) for row in part}
        found[tuple(sorted(kinds))] = scale, fresh
        for row, kind in zip(part, kinds, strict=True):
            by_hand = 0.5 / 4 / int(row["response_mask"].sum()) if kind == 1 else 0.0
            assert float(row["repo_weight"]) == pytest.approx(by_hand, rel=1e-12)
    assert {kinds: scale for kinds, (scale, _) in found.items()} == {(0, 0, 1, 1): 0.5, (0, 0, 2, 2): 1.0}
    assert len({fresh for _, fresh in found.values()}) == 2
    weights = {float(row["repo_weight"]) for row in rows if row["repo_origin"] == 1}
    assert len(weights) == metrics["repo/replayed_rows"] == 2, "of two lengths"


def test_a_critics_warm_up_stores_rows_and_replays_nothing(model):
    """verl updates the actor from step ``critic_warmup`` on; the fresh advantages are those of the plan's function."""
    import transfer_queue as tq
    from oracles import group_advantages

    run = start(model, 3, 1, *replaying(size=3, rows=3), "trainer.critic_warmup=3")
    for step in (1, 2):
        batch, metrics, times = run.step({TEXTS[0]: answers([0.0, 0.25, 1.0], step)})
        data = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["advantages"])
        given = {key: float(row[0]) for key, row in zip(batch.keys, data["advantages"].unbind(), strict=True)}
        assert [given[k] for k in sorted(given)] == pytest.approx(group_advantages([0.0, 0.25, 1.0], 1e-6), rel=1e-5)
        assert metrics["repo/buffer_rows"] == 3 * step and "repo/replayed_rows" not in metrics
        assert times["repo_select"] == times["repo_retrieve"] == 0 < times["repo_insert"]
        run.end_step(batch)
    assert not run.workers.updates
    batch, metrics, _ = run.step({TEXTS[0]: answers([0.0, 0.25, 1.0], 3)})
    assert metrics["repo/replayed_rows"] == 3 and len(run.workers.updates) == 1
    run.end_step(batch)
