"""RePO in verl's colocate_async trainer: recorded rollouts that lag behind the weights, and a run with vLLM."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recorded_jobs import RecordedJobs
from recorded_run import rollout, sampled_log_prob, versions_of
from safetensors.torch import load_file
from tiny_model import VOCABULARY, make_tiny_model, write_prompts

pytestmark = [pytest.mark.e2e, pytest.mark.full]

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = [f"{i}+{i}=?" + "." * (i % 3) for i in range(8)]
N, PER_STEP, STEPS, SAVED = 4, 4, 6, 4
REPO = [
    "algorithm.adv_estimator=repo", "algorithm.repo.min_size=4", "algorithm.repo.num_replay=4",
    "algorithm.repo.prune=False",
]  # fmt: skip
COLOCATE = "trainer.v1.trainer_mode=colocate_async"
NO_WARM_UP = "trainer.v1.colocate_async.num_warmup_batches=0"

SCENARIOS = {
    "grpo": ["algorithm.adv_estimator=grpo", COLOCATE],
    "none": ["algorithm.adv_estimator=repo", "algorithm.repo.strategy=none", COLOCATE],
    "replay": [*REPO, COLOCATE, f"trainer.save_freq={SAVED}"],
    "resumed": [*REPO, COLOCATE],
    "sync": REPO,
    "no_warm_up": [*REPO, COLOCATE, NO_WARM_UP],
}
WITHOUT_LAG = ("sync", "no_warm_up")


COMMON = [
    "data.shuffle=False", "actor_rollout_ref.actor.ppo_mini_batch_size=2", "trainer.total_epochs=3",
    "actor_rollout_ref.actor.optim.lr=1e-3",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(player, tmp_path_factory):
    """Every scenario, trained once."""
    jobs = RecordedJobs(player, tmp_path_factory.mktemp("async"), PROMPTS, PER_STEP, N, COMMON)
    saved = jobs.folder / "replay" / f"global_step_{SAVED}"
    resume = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={saved}"]
    for name, overrides in SCENARIOS.items():
        own = [*overrides, *(resume if name == "resumed" else [])]
        jobs.add(name, own, lag=int(name not in WITHOUT_LAG), alone=name == "resumed")
    status, output = jobs.play()
    assert status == 0, output[-6000:]
    return jobs.folder


def losses(runs, name):
    """What the loss was given, a dictionary a micro-batch."""
    return [json.loads(line) for line in (runs / name / "loss.jsonl.0").read_text().splitlines()]


def metrics(runs, name):
    return {one["step"]: one for one in json.loads((runs / name / "metrics.json").read_text())}


def rows_of(entries, origin):
    """Rows of one origin (1: replayed, 0: fresh, or of an update without replay): response and old log-probs."""
    for entry in entries:
        kinds = entry["repo_origin"] or [0] * len(entry["responses"])
        for kind, ids, values in zip(kinds, entry["responses"], entry["old_log_probs"], strict=True):
            if kind == origin:
                yield tuple(ids), values


def same_weights(runs, one, other):
    first, second = (load_file(runs / name / "weights.safetensors") for name in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_switched_off_is_the_grpo_of_the_mode_bit_for_bit(runs):
    stock, off = losses(runs, "grpo"), losses(runs, "none")
    assert len(stock) == STEPS * PER_STEP * N // 4 and stock == off
    assert same_weights(runs, "grpo", "none")
    lags = [metrics(runs, name)[3]["training/off_policy/trajectory_staleness_worst/max"] for name in ("grpo", "none")]
    assert lags == [1, 1]


def test_without_warm_up_it_is_the_synchronous_replay_bit_for_bit(runs):
    """Every row is then written by the weights of the forward pass: what is stored and replayed is the same."""
    stock, other = losses(runs, "sync"), losses(runs, "no_warm_up")
    assert stock == other and any(1 in (entry["repo_origin"] or []) for entry in stock)
    assert same_weights(runs, "sync", "no_warm_up")
    for step in range(1, STEPS + 1):
        one, two = metrics(runs, "sync")[step], metrics(runs, "no_warm_up")[step]
        same = ("replayed_rows", "age_mean", "age_max", "ratio_max_replayed", "loss_replayed", "buffer_rows")
        assert all(one[f"repo/{key}"] == two[f"repo/{key}"] for key in same)


def test_ages_count_model_versions(runs):
    """Prompts 0-3 are trained in steps 1, 3, 5, the others in 2, 4, 6; each was submitted one step before, 0-3 in 1."""
    steps = metrics(runs, "replay")
    assert [steps[s]["repo/replayed_rows"] for s in range(1, 7)] == [0, 0, 16, 16, 16, 16]
    # step 3: rows of step 1, by version 0 alone: the current version is 2
    assert (steps[3]["repo/age_mean"], steps[3]["repo/age_max"]) == (2.0, 2)
    # steps 4, 5, 6: rows of two steps ago, three of four begun one version before that step's, one wholly by it
    for step in (4, 5, 6):
        assert (steps[step]["repo/age_mean"], steps[step]["repo/age_max"]) == (2.75, 3)


def known_rows(steps):
    """Recorded responses by their ids: the versions that wrote each, and whether the forward pass's wrote it alone."""
    found = {}
    for submitted, now in steps:
        for text in PROMPTS:
            for number, row in enumerate(rollout(text, submitted, N, VOCABULARY)):
                oldest, newest = versions_of(number, submitted, now)
                found[(tuple(row["ids"]))] = oldest == newest == now - 1
    return found


def test_replayed_rows_have_the_log_probs_of_the_policies_that_wrote_them(runs):
    entries = losses(runs, "replay")
    wrote_alone = known_rows([(s - 1, s) for s in range(2, STEPS + 1)])
    first = known_rows([(1, 1)])  # of step 1: those prompts were submitted in it
    fresh = {}
    for ids, values in rows_of(entries, 0):
        fresh.setdefault(ids, values)
    seen = {True: 0, False: 0}
    for ids, values in rows_of(entries, 1):
        in_first_step = ids in {tuple(r["ids"]) for text in PROMPTS[:4] for r in rollout(text, 1, N, VOCABULARY)}
        alone = first[ids] if in_first_step else wrote_alone[ids]
        assert values == (fresh[ids] if alone else [sampled_log_prob(token) for token in ids]), ids
        seen[alone] += 1
    # step 3 replays 16 rows of version 0; steps 4-6 one of four rows of each prompt was written by one version alone
    assert seen == {True: 16 + 3 * 4, False: 3 * 12}


def test_a_resumed_run_goes_on_with_buffer_and_rows_in_flight(runs):
    before, after = metrics(runs, "replay"), metrics(runs, "resumed")
    assert sorted(after) == [5, 6]
    assert before[4]["repo/buffer_rows"] == 64 and after[5]["repo/buffer_rows"] == 80
    assert after[5]["repo/replayed_rows"] == 16 and after[5]["repo/effective_steps"] > before[4]["repo/effective_steps"]
    left = json.loads((runs / "resumed" / "left.json").read_text())
    assert not [key for key in left.get("train", []) if key.startswith("repo")], "rows of RePO's in the saved queue"


@pytest.fixture(scope="module")
def with_vllm(tmp_path_factory):
    """Metrics by step of a run with vLLM that aborts responses in every step, with a learning rate of 0."""
    folder = tmp_path_factory.mktemp("vllm")
    model, data = make_tiny_model(folder / "model", hidden=128), write_prompts(folder / "train.parquet", PROMPTS)
    overrides = [
        f"actor_rollout_ref.model.path={model}", f"data.train_files={data}", f"data.val_files={data}",
        f"data.train_batch_size={PER_STEP}", f"actor_rollout_ref.rollout.n={N}", "data.shuffle=False",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4", "actor_rollout_ref.actor.optim.lr=0", *REPO, COLOCATE,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16", "data.max_response_length=96",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16", "actor_rollout_ref.rollout.ignore_eos=True",
        "actor_rollout_ref.rollout.max_num_seqs=12", f"trainer.default_local_dir={folder / 'checkpoints'}",
        "reward.custom_reward_function.path=pkg://repo_verl.rewards", "trainer.total_training_steps=7",
        "reward.custom_reward_function.name=compute_score", "trainer.total_epochs=100", "trainer.save_freq=7",
    ]  # fmt: skip
    command = ["-m", "verl.trainer.main_ppo", "--config-dir", str(ROOT / "recipe/repo/config"), "--config-name"]
    log = folder / "log"
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, *command, "repo_cpu", *overrides], stdout=file, stderr=subprocess.STDOUT, check=False,
            env={**os.environ, "VERL_PLATFORM": "cpu", "VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl")},
        )  # fmt: skip
    assert done.returncode == 0, log.read_text()[-6000:]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["data"] for line in lines}


def test_rows_that_span_versions_are_replayed_against_what_wrote_them(with_vllm):
    """All versions have the same weights here, so that vLLM's log-probs of any row are the actor's but for rounding."""
    spans = [one["training/off_policy/trajectory_spans/max"] for one in with_vllm.values()]
    assert sorted(with_vllm) == list(range(1, 8)) and max(spans) >= 2, "some rows were aborted and continued"
    replaying = [one for one in with_vllm.values() if one["repo/replayed_rows"]]
    replayed = [one["repo/replayed_rows"] for one in replaying]
    assert all(rows % 4 == 0 and rows <= PER_STEP * 4 for rows in replayed)
    assert sum(replayed) >= 15 * 4, "of 28 visits some 8 are a prompt's first; every other replays 4 rows"
    for one in replaying:
        assert one["repo/ratio_max_replayed"] == pytest.approx(1, abs=1e-3)
        assert one["repo/ratio_mean_replayed"] == pytest.approx(1, abs=1e-4)
        assert one["repo/age_max"] >= one["repo/age_mean"] >= 1
    assert max(one["repo/age_max"] for one in replaying) >= 2
    assert with_vllm[7]["repo/buffer_rows"] == 7 * PER_STEP * N
