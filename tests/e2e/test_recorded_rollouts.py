"""RePO in verl's real trainer, actor and TransferQueue, on recorded rollouts: exact numbers, without vLLM."""

import json
import math
from functools import partial

import pytest
import torch
from oracles import group_advantages, token_surrogate
from recorded_jobs import RecordedJobs
from recorded_run import rollout
from safetensors.torch import load_file
from tiny_model import VOCABULARY

pytestmark = pytest.mark.e2e

PROMPTS = [f"{i}+{i}=?" + "." * (i % 3) for i in range(8)]
N, PER_STEP, STEPS_AN_EPOCH = 4, 4, 2
PRUNED = ["algorithm.adv_estimator=repo", "algorithm.repo.min_size=4", "algorithm.repo.num_replay=4"]
REPLAY = [*PRUNED, "algorithm.repo.prune=False"]
TOKEN_MEAN = "actor_rollout_ref.actor.loss_agg_mode=token-mean"
DYNAMIC = [
    "actor_rollout_ref.actor.use_dynamic_bsz=True",
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=80",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=80",
]

DISTRIBUTED = ["algorithm.repo.storage=distributed", "algorithm.repo.storage_processes=2"]

# one mini-batch and plain gradient descent: what is learned then depends on rounding alone, not on verl's shuffling
ALIKE = [
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.actor.optim.optimizer=SGD",
    "actor_rollout_ref.actor.optim.lr=1.0",
]
ROWS_MIXED = [*REPLAY, *ALIKE, "algorithm.repo.normalize=rows", "algorithm.repo.advantage=mixed", TOKEN_MEAN]
KL = ["actor_rollout_ref.actor.use_kl_loss=True", "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4"]

SCENARIOS = {
    "grpo": ["algorithm.adv_estimator=grpo", TOKEN_MEAN],
    "none": ["algorithm.adv_estimator=repo", "algorithm.repo.strategy=none", TOKEN_MEAN],
    "zero": [*REPLAY, "algorithm.repo.off_policy_coef=0", TOKEN_MEAN],
    "replay": REPLAY,
    "epochs": [*REPLAY, "actor_rollout_ref.actor.ppo_epochs=2"],
    "kl_0": [*REPLAY, *ALIKE, *KL, "actor_rollout_ref.actor.kl_loss_coef=0"],
    "kl_grpo": ["algorithm.adv_estimator=grpo", *ALIKE, *KL, "actor_rollout_ref.actor.kl_loss_coef=0"],
    "kl": [*REPLAY, *ALIKE, *KL, "actor_rollout_ref.actor.kl_loss_coef=0.1"],
    "flat": REPLAY,
    "ragged": [*REPLAY, "algorithm.repo.min_size=7"],
    "saved": [*REPLAY, "trainer.total_epochs=2", "trainer.save_freq=4"],
    "resumed": [*REPLAY, *DISTRIBUTED],
    "distributed": [*REPLAY, *DISTRIBUTED],
    "one_rank": [*REPLAY, *ALIKE],
    "two_ranks": [*REPLAY, *ALIKE, "trainer.n_gpus_per_node=2"],
    "two_ranks_dynamic": [*REPLAY, *ALIKE, "trainer.n_gpus_per_node=2", *DYNAMIC],
    "pruned": [*PRUNED, *ALIKE, "actor_rollout_ref.actor.calculate_entropy=True"],
    "pruned_two_ranks": [*PRUNED, *ALIKE, "trainer.n_gpus_per_node=2"],
    "pruned_rows_mixed": [*(one for one in ROWS_MIXED if "prune" not in one), *DYNAMIC],
    "pruned_grpo": [*PRUNED, "algorithm.repo.start_step=100", *ALIKE, TOKEN_MEAN],
    "alike_grpo": ["algorithm.adv_estimator=grpo", *ALIKE, TOKEN_MEAN],
    "entropy": [*PRUNED, *ALIKE, "actor_rollout_ref.actor.entropy_coeff=0.01"],
    "rows_mixed": ROWS_MIXED,
    "rows_mixed_dynamic": [*ROWS_MIXED, *DYNAMIC],
}
FULL = {
    "epochs", "kl_0", "kl_grpo", "kl", "two_ranks_dynamic", "pruned_two_ranks", "pruned_rows_mixed", "pruned_grpo",
    "alike_grpo", "rows_mixed", "rows_mixed_dynamic",
}  # fmt: skip
"""Scenarios of ``--all`` only; contract tests have their gradients in the default tier."""
only_all = partial(pytest.param, marks=pytest.mark.full)

# in step 3 a group loses three of four rows, in step 1 one loses all
DROPPED = {"ragged": [[3, PROMPTS[1], n] for n in (0, 1, 2)] + [[1, PROMPTS[2], n] for n in range(4)]}


COMMON = [
    "data.shuffle=False", "actor_rollout_ref.actor.ppo_mini_batch_size=2", "trainer.total_epochs=3",
    "actor_rollout_ref.actor.optim.lr=1e-3", "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(request):
    """Names of the scenarios of this tier."""
    return [name for name in SCENARIOS if request.config.getoption("--all") or name not in FULL]


@pytest.fixture(scope="module")
def runs(player, trained, tmp_path_factory):
    """Every scenario of this tier, trained once."""
    jobs = RecordedJobs(player, tmp_path_factory.mktemp("recorded"), PROMPTS, PER_STEP, N, COMMON)
    for name in trained:
        options = {"flat_after": STEPS_AN_EPOCH} if name == "flat" else {}
        again = name == "resumed"
        jobs.add(
            name, SCENARIOS[name], local="saved" if again else name, drop=DROPPED.get(name, []), alone=again, **options
        )
    status, output = jobs.play()
    assert status == 0, output[-6000:]
    return jobs.folder


def losses(runs, name):
    """What the loss was given, in order, all ranks; and the steps' metrics."""
    files = sorted((runs / name).glob("loss.jsonl.*"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def metrics(runs, name):
    return json.loads((runs / name / "metrics.json").read_text())


def rows_of(entries):
    """Rows of micro-batches, flattened."""
    for entry in entries:
        for i in range(len(entry["responses"])):
            row = {key: entry[key][i] for key in ("prompts", "responses", "old_log_probs", "advantages", "log_prob")}
            row["mask"] = entry["response_mask"][i]
            for key in ("repo_origin", "repo_weight", "repo_fresh_scale"):
                row[key] = entry[key][i] if entry[key] is not None else None
            yield row


def scores_of(prompt, step):
    return [row["score"] for row in rollout(prompt, step, N, VOCABULARY)]


@pytest.mark.parametrize("twin", ["none", "zero"])
def test_switched_off_is_grpo_bit_for_bit(runs, player, twin):
    stock, off = losses(runs, "grpo")[0], losses(runs, twin)[0]
    assert len(stock) == len(off) > 0
    for one, other in zip(stock, off, strict=True):
        assert one == other, "log-probs, advantages and loss of every micro-batch"
    weights, twin_weights = (load_file(runs / name / "weights.safetensors") for name in ("grpo", twin))
    assert weights.keys() == twin_weights.keys()
    for name in weights:
        assert torch.equal(weights[name], twin_weights[name]), name
    start = load_file(player.model / "model.safetensors")
    assert not torch.equal(weights["lm_head.weight"], start["lm_head.weight"]), "the run trained nothing"


def test_replay_is_real(runs):
    """Rows of the epoch before are in the loss with the ratio, advantage and weight worked out from the logs."""
    entries = losses(runs, "replay")[0]
    steps = split_steps(entries)
    logged = fresh_log_probs(steps)
    away = 0
    for step in range(STEPS_AN_EPOCH + 1, 3 * STEPS_AN_EPOCH + 1):
        replayed = [row for row in rows_of(steps[step]) if row["repo_origin"] == 1]
        assert len(replayed) == PER_STEP * N
        for row in replayed:
            prompt = tuple(row["prompts"])
            earlier = logged[(prompt, step - STEPS_AN_EPOCH)]
            assert tuple(row["responses"]) in earlier, "a replayed row is one of the epoch before"
            assert tuple(row["responses"]) not in logged[(prompt, step)], "never one of its own step"
            written = earlier[tuple(row["responses"])]
            assert row["old_log_probs"] == written["old_log_probs"], "the log-probs logged when it was fresh"
            scores = [other["score"] for other in earlier.values()]
            expected = group_advantages(scores, 1e-6)[list(earlier).index(tuple(row["responses"]))]
            assert row["advantages"] == pytest.approx([expected] * len(row["responses"]), rel=1e-5, abs=1e-7)
            assert row["repo_weight"] == pytest.approx(1 / (2 * N * len(row["responses"])), rel=1e-12)
            ratios = [math.exp(new - old) for new, old in zip(row["log_prob"], written["old_log_probs"], strict=True)]
            away += sum(abs(ratio - 1) > 1e-3 for ratio in ratios)
    assert away > 50, "the policy has moved, so ratios must differ from 1"


@pytest.mark.parametrize("name", ["replay", "ragged", only_all("epochs")])
def test_the_loss_of_every_micro_batch_by_hand(runs, name):
    for entry in losses(runs, name)[0]:
        if entry["repo_origin"] is None:
            continue
        by_hand = 0.0
        for row in rows_of([entry]):
            surrogate = [
                token_surrogate(new, old, advantage, 0.2, 0.2, dual=3.0 if row["repo_origin"] == 0 else None)
                for new, old, advantage, kept in zip(
                    row["log_prob"], row["old_log_probs"], row["advantages"], row["mask"], strict=True
                )
                if kept
            ]
            if row["repo_origin"] == 0:
                by_hand -= math.fsum(surrogate) / len(surrogate) / (2 * N)
            elif row["repo_origin"] == 1:
                by_hand -= math.fsum(surrogate) * row["repo_weight"]
            else:
                assert surrogate == []
        assert entry["loss"] == pytest.approx(by_hand, rel=1e-5, abs=2e-7)
        fresh_tokens = sum(sum(row["mask"]) for row in rows_of([entry]) if row["repo_origin"] == 0)
        assert entry["global_batch_size"] == 2 * N and entry["batch_num_tokens"] >= fresh_tokens


@pytest.mark.full
def test_a_second_epoch_of_an_update_trains_on_the_same_rows(runs):
    """Each mini-batch comes twice, with the same rows, weights and old log-probs; only the policy has moved."""
    entries = losses(runs, "epochs")[0]
    once = losses(runs, "replay")[0]
    assert len(entries) == 2 * len(once)
    fixed = ("responses", "old_log_probs", "advantages", "repo_origin", "repo_weight", "repo_fresh_scale")
    steps, moved = split_steps(entries), 0
    for step in range(1, 3 * STEPS_AN_EPOCH + 1):
        rows = sorted(([row[key] for key in fixed], row["log_prob"]) for row in rows_of(steps[step]))
        for first, second in zip(rows[::2], rows[1::2], strict=True):
            assert first[0] == second[0]
            moved += first[1] != second[1]
    assert moved > 50
    assert metrics(runs, "epochs")[-1]["repo/effective_steps"] > metrics(runs, "replay")[-1]["repo/effective_steps"]


@pytest.mark.full
def test_kl_acts_beside_replay_and_on_fresh_rows_alone(runs):
    """Coefficient 0 changes nothing; in the first step with replay, KL is GRPO's, that of the fresh rows."""
    plain, without, with_kl = (load_file(runs / name / "weights.safetensors") for name in ("one_rank", "kl_0", "kl"))
    for name, one in plain.items():
        torch.testing.assert_close(without[name], one, rtol=0, atol=1e-6)
    assert any(float((with_kl[name] - one).abs().max()) > 1e-4 for name, one in plain.items())
    for one, other in zip(metrics(runs, "kl_0"), metrics(runs, "one_rank"), strict=True):
        assert one["repo/replayed_rows"] == other["repo/replayed_rows"]
    ours, stock = ([step["actor/kl_loss"] for step in metrics(runs, name)] for name in ("kl_0", "kl_grpo"))
    assert ours[:3] == pytest.approx(stock[:3], rel=1e-3), "until step 3's update the policies are the same"
    assert stock[2] > 10 * stock[0] and min(ours[3:]) > ours[2]


def test_missing_responses_are_counted(runs):
    """Step 1 lost all of a prompt, step 3 three of four rows."""
    assert [step["repo/missing_rows"] for step in metrics(runs, "ragged")] == [4, 0, 3, 0, 0, 0]
    assert not any(step["repo/missing_rows"] for step in metrics(runs, "replay"))


def test_steps_and_learning_rates_are_grpos(runs):
    stock = metrics(runs, "grpo")
    for name in ("replay", "flat", "ragged"):
        ours = metrics(runs, name)
        assert [m["actor/lr"] for m in ours] == [m["actor/lr"] for m in stock]
        # two mini-batches a step: every optimizer step is counted, those with a zero gradient are not
        assert ours[-1]["repo/effective_steps"] <= 2 * len(stock)
    more, fewer = metrics(runs, "replay")[-1], metrics(runs, "none")[-1]
    assert more["repo/effective_steps"] > fewer["repo/effective_steps"]


def test_a_prompts_rows_share_a_mini_batch_of_the_common_size(runs):
    for name, parts in (("replay", 2), ("ragged", 2), ("two_ranks", 1)):
        per_rank = [split_steps(entries) for entries in losses(runs, name)]
        for step in range(STEPS_AN_EPOCH + 1, 3 * STEPS_AN_EPOCH + 1):
            if per_rank[0][step][0]["repo_origin"] is None:
                continue
            micro = [len(steps[step]) for steps in per_rank]
            assert len(set(micro)) == 1 and micro[0] % parts == 0, "equal counts on all ranks and in all mini-batches"
            share = micro[0] // parts
            for mini in (slice(part * share, (part + 1) * share) for part in range(parts)):
                inside = [row for steps in per_rank for row in rows_of(steps[step][mini])]
                prompts = {tuple(row["prompts"]) for row in inside if row["repo_origin"] != 2}
                assert len(prompts) <= PER_STEP // parts
                outside = [
                    row for steps in per_rank for entry in steps[step] if entry not in steps[step][mini]
                    for row in rows_of([entry])
                ]  # fmt: skip
                assert not prompts & {tuple(row["prompts"]) for row in outside if row["repo_origin"] != 2}
                assert len({row["repo_fresh_scale"] for row in inside}) == 1


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("one_rank", "two_ranks"),
        only_all("one_rank", "two_ranks_dynamic"),
        only_all("rows_mixed", "rows_mixed_dynamic"),
        ("one_rank", "pruned"),
        only_all("one_rank", "pruned_two_ranks"),
        only_all("rows_mixed", "pruned_rows_mixed"),
    ],
)
def test_ranks_and_micro_batches_do_not_change_what_is_learned(runs, player, name, twin):
    one, other = (load_file(runs / which / "weights.safetensors") for which in (name, twin))
    start = load_file(player.model / "model.safetensors")
    moved = math.sqrt(sum(float((one[key] - start[key]).square().sum()) for key in one))
    apart = math.sqrt(sum(float((one[key] - other[key]).square().sum()) for key in one))
    assert moved > 0.01
    assert apart < 1e-4 * moved
    for mine, theirs in zip(metrics(runs, name), metrics(runs, twin), strict=True):
        kept_only = ("ratio_mean_replayed", "ess_replayed") if "pruned" not in twin else ()
        clipped = ("clip_low_fresh", "clip_high_fresh", "clip_low_replayed", "clip_high_replayed")
        for key in ("loss_fresh", "loss_replayed", "grad_norm_replayed", *clipped, *kept_only):
            assert mine[f"repo/{key}"] == pytest.approx(theirs[f"repo/{key}"], rel=1e-4, abs=1e-7), (mine["step"], key)
        assert mine["actor/grad_norm"] == pytest.approx(theirs["actor/grad_norm"], rel=1e-4, abs=1e-8)
        for key in ("replayed_rows", "effective_steps", "buffer_rows", "zero_advantage_share_fresh"):
            assert mine[f"repo/{key}"] == theirs[f"repo/{key}"]


@pytest.mark.parametrize(
    "name",
    ["pruned", only_all("pruned_two_ranks"), only_all("pruned_rows_mixed"), only_all("pruned_grpo")],
)
def test_pruned_rows_never_reach_a_worker(runs, name):
    total = 0
    for step, logged in enumerate(metrics(runs, name), start=1):
        seen = [row for entries in losses(runs, name) for row in rows_of(split_steps(entries)[step])]
        real = [row for row in seen if row["repo_origin"] != 2 and any(row["mask"])]
        if any(row["repo_origin"] is not None for row in real):
            assert all(any(row["advantages"]) for row in real)
            assert logged["repo/pruned_rows"] == PER_STEP * N + logged["repo/replayed_rows"] - len(real)
        total += logged["repo/pruned_rows"]
        assert "actor/entropy_loss" not in logged or not logged["repo/pruned_rows"]
        assert logged["repo/buffer_rows"] == PER_STEP * N * step, "pruning touches the update alone"
    assert total > 5


@pytest.mark.full
def test_pruned_grpo_learns_what_grpo_learns(runs, player):
    ours, stock = (load_file(runs / name / "weights.safetensors") for name in ("pruned_grpo", "alike_grpo"))
    start = load_file(player.model / "model.safetensors")
    moved = math.sqrt(sum(float((stock[key] - start[key]).square().sum()) for key in stock))
    apart = math.sqrt(sum(float((stock[key] - ours[key]).square().sum()) for key in stock))
    assert moved > 0.01 and apart < 1e-4 * moved
    for mine, theirs in zip(metrics(runs, "pruned_grpo"), metrics(runs, "alike_grpo"), strict=True):
        for key in ("actor/grad_norm", "actor/pg_loss", "actor/pg_clipfrac", "actor/lr"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-6), (mine["step"], key)


def test_an_entropy_term_switches_pruning_off(runs):
    assert not any(step["repo/pruned_rows"] for step in metrics(runs, "entropy"))
    assert any(step["repo/zero_advantage_share_fresh"] for step in metrics(runs, "entropy"))
    assert "gives zero-advantage rows a gradient" in (runs / "log").read_text()


@pytest.mark.parametrize("name", ["replay", "pruned", "ragged", only_all("rows_mixed")])
def test_rows_are_chosen_and_read_beside_the_old_log_probs(runs, name):
    for step in metrics(runs, name):
        own = sum(step[f"timing_s/repo_{part}"] for part in ("select", "retrieve", "place"))
        assert 0 < own < step["timing_s/old_log_prob"] + step["timing_s/repo_exposed_adv"]
        assert "repo/late_rows" not in step and step["timing_s/repo_exposed"] > 0


def test_every_metric_is_logged_every_step(runs, trained):
    names = (
        "replayed_rows prompts_with_replay age_mean age_max uses_mean uses_max score_fresh_mean score_fresh_std "
        "score_replayed_mean score_replayed_std loss_fresh loss_replayed ratio_mean_replayed ratio_max_replayed "
        "clip_low_fresh clip_high_fresh clip_low_replayed clip_high_replayed ess_replayed zero_advantage_share_fresh "
        "zero_advantage_share_replayed effective_prompts_fresh effective_prompts_all effective_steps pruned_rows "
        "pruned_tokens update_tokens "
        "buffer_rows buffer_tokens buffer_bytes evicted_prompts"
    ).split()
    for name in {"replay", "none", "two_ranks", "two_ranks_dynamic"}.intersection(trained):
        for step in metrics(runs, name):
            for key in names:
                assert isinstance(step[f"repo/{key}"], int | float), (name, step["step"], key)
            assert {"timing_s/repo_retrieve", "timing_s/repo_insert", "timing_s/repo_select"} <= step.keys()
    assert not [key for key in metrics(runs, "grpo")[0] if "repo" in key]


def test_metrics_by_hand(runs):
    steps = split_steps(losses(runs, "replay")[0])
    for step in metrics(runs, "replay"):
        number = step["step"]
        rows = list(rows_of(steps[number]))
        fresh = [row for row in rows if row["repo_origin"] in (0, None)]
        replayed = [row for row in rows if row["repo_origin"] == 1]
        assert step["repo/replayed_rows"] == len(replayed) == (0 if number <= 2 else 16)
        assert step["repo/buffer_rows"] == 16 * number
        by_prompt, zero = {}, 0
        for row in fresh:
            by_prompt.setdefault(tuple(row["prompts"]), []).append(any(row["advantages"]))
            zero += not any(row["advantages"])
        assert step["repo/zero_advantage_share_fresh"] == pytest.approx(zero / len(fresh))
        share = sum(any(flags) for flags in by_prompt.values()) / len(by_prompt)
        assert step["repo/effective_prompts_fresh"] == pytest.approx(share)
        assert step["repo/reward_no_answer"] == len(by_prompt), "recorded so for one row of every prompt"
        assert not any(step[f"repo/reward_{status}"] for status in ("timeout", "error", "gold_unparseable"))
        for row in replayed:
            by_prompt[tuple(row["prompts"])].append(any(row["advantages"]))
        share = sum(any(flags) for flags in by_prompt.values()) / len(by_prompt)
        assert step["repo/effective_prompts_all"] == pytest.approx(share)
        if not replayed:
            continue
        assert step["repo/age_mean"] == step["repo/age_max"] == STEPS_AN_EPOCH
        logs = [[n - o for n, o in zip(r["log_prob"], r["old_log_probs"], strict=True)] for r in replayed]
        ratios = [math.exp(value) for row in logs for value in row]
        assert step["repo/ratio_mean_replayed"] == pytest.approx(sum(ratios) / len(ratios), rel=1e-5)
        assert step["repo/ratio_max_replayed"] == pytest.approx(max(ratios), rel=1e-5)
        weights = [math.exp(sum(row)) for row in logs]
        ess = sum(weights) ** 2 / len(weights) / sum(w * w for w in weights)
        assert step["repo/ess_replayed"] == pytest.approx(ess, rel=1e-4)
        signs = [(r, row["advantages"][0]) for row, own in zip(replayed, logs, strict=True) for r in map(math.exp, own)]
        assert step["repo/clip_high_replayed"] == pytest.approx(sum(r > 1.2 and a > 0 for r, a in signs) / len(signs))
        assert step["repo/clip_low_replayed"] == pytest.approx(sum(r < 0.8 and a < 0 for r, a in signs) / len(signs))


def test_ragged_batches_keep_every_fresh_row(runs):
    steps = metrics(runs, "ragged")
    assert [m["repo/buffer_rows"] for m in steps] == [12, 28, 41, 57, 73, 89]
    # prompts of the first batch hold 4 rows in step 3 (one holds none, min_size is 7), and 8, 5, 4, 8 in step 5
    assert [m["repo/replayed_rows"] for m in steps] == [0, 0, 0, 0, 8, 16]
    assert [m["repo/prompts_with_replay"] for m in steps] == [0, 0, 0, 0, 2, 4]


def test_replay_alone_moves_the_weights(runs):
    """Where all fresh advantages are 0, GRPO's gradient is 0 and verl's gradient norm is the replay term's."""
    for step in metrics(runs, "flat")[STEPS_AN_EPOCH : 2 * STEPS_AN_EPOCH]:
        assert step["repo/effective_prompts_fresh"] == 0 and step["repo/loss_fresh"] == 0
        assert step["repo/effective_prompts_all"] > 0
        assert step["repo/grad_norm_replayed"] > 1e-4 and step["actor/grad_norm"] > 1e-4
    steps = [m["repo/effective_steps"] for m in metrics(runs, "flat")]
    assert steps[2 * STEPS_AN_EPOCH - 1] > steps[STEPS_AN_EPOCH - 1]
    # from epoch 3 on the replayed rows are flat as well: nothing has a gradient
    assert steps[-1] == steps[2 * STEPS_AN_EPOCH - 1] and metrics(runs, "flat")[-1]["actor/grad_norm"] == 0


def test_a_resumed_run_replays_what_the_checkpoint_held(runs):
    """Saved from host memory, restored into storage processes."""
    whole, resumed = metrics(runs, "replay"), metrics(runs, "resumed")
    assert [m["step"] for m in resumed] == [5, 6]
    for mine, theirs in zip(resumed, whole[4:], strict=True):
        for key in ("replayed_rows", "age_mean", "score_replayed_mean", "buffer_rows", "buffer_tokens", "uses_mean"):
            assert mine[f"repo/{key}"] == theirs[f"repo/{key}"], (mine["step"], key)
        assert mine["repo/replayed_rows"] == 16
    before = metrics(runs, "saved")[-1]["repo/effective_steps"]
    assert before < resumed[-1]["repo/effective_steps"] <= before + 4


def test_rows_in_storage_processes_train_the_same(runs):
    host, away = losses(runs, "replay")[0], losses(runs, "distributed")[0]
    assert host == away, "every micro-batch and its loss, bit for bit"
    for mine, theirs in zip(metrics(runs, "distributed"), metrics(runs, "replay"), strict=True):
        assert mine["repo/buffer_rows"] == theirs["repo/buffer_rows"]
        assert mine["repo/uses_mean"] == theirs["repo/uses_mean"]


def test_nothing_is_left_in_the_queue(runs, trained):
    for name in trained:
        left = json.loads((runs / name / "left.json").read_text())
        assert not [key for keys in left.values() for key in keys if key.startswith("repo")], name


def split_steps(entries):
    """Micro-batches by training step, told apart by which prompts they hold: 1-based list."""
    steps, current, seen = [None], [], None
    for entry in entries:
        group = {tuple(row["prompts"]) for row in rows_of([entry]) if len(row["prompts"]) > 1}
        first = frozenset(group)
        parity = None if not first else prompt_parity(first)
        if parity is not None and seen is not None and parity != seen:
            steps.append(current)
            current = []
        seen = seen if parity is None else parity
        current.append(entry)
    steps.append(current)
    return steps


def prompt_parity(prompts):
    """Which half of the data set the prompts are of: steps alternate between the two."""
    digits = {prompt[1] - 5 for prompt in prompts}
    return all(digit >= 4 for digit in digits)


def fresh_log_probs(steps):
    """(prompt, step) -> {response: row with old_log_probs and score} of the fresh rows."""
    logged = {}
    for step in range(1, len(steps)):
        for row in rows_of(steps[step]):
            if row["repo_origin"] in (0, None) and any(row["mask"]):
                digit = row["prompts"][1] - 5
                recorded = rollout(PROMPTS[digit], step, N, VOCABULARY)
                score = next(r["score"] for r in recorded if r["ids"] == row["responses"])
                key = (tuple(row["prompts"]), step)
                order = [tuple(r["ids"]) for r in recorded]
                entry = {"old_log_probs": row["old_log_probs"], "score": score}
                logged.setdefault(key, {})[tuple(row["responses"])] = entry
                logged[key] = dict(sorted(logged[key].items(), key=lambda item: order.index(item[0])))
    return logged
