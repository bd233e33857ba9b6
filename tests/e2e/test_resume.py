"""Stopped and resumed runs, and runs with bad rows, in verl's real trainer on recorded rollouts."""

import json
import math

import pytest
from recorded_jobs import RecordedJobs
from recorded_run import rollout
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from tiny_model import write_prompts

pytestmark = [pytest.mark.e2e, pytest.mark.full]

PROMPTS = [f"{i}+{i}=?" + "." * (i % 3) for i in range(8)]
N, PER_STEP, STEPS = 4, 4, 6
REPLAY = ["algorithm.adv_estimator=repo", "algorithm.repo.min_size=4", "algorithm.repo.num_replay=3"]
EXACT = [*REPLAY, "algorithm.repo.strategy=random", "algorithm.repo.capacity=6", "data.shuffle=True", "data.seed=3"]
# of 8 prompts with 4 to 6 rows of 4 to 12 tokens about 5 fit
BOUNDED = [*EXACT, "algorithm.repo.max_tokens=200", "algorithm.repo.max_uses=1"]
SKIP = [*REPLAY, "data.shuffle=False", "algorithm.repo.on_nonfinite=skip"]
# two responses of one prompt and one of another; both prompts have rows in step 3, so replay is going on
BAD = [[3, PROMPTS[0], 1], [3, PROMPTS[0], 2], [3, PROMPTS[1], 0]]
NOTHING = [[3, prompt, number] for prompt in PROMPTS for number in range(N)]
EXPLODE = "actor_rollout_ref.actor.optim.lr=1e20"

SCENARIOS = {
    "whole": (EXACT, {}),
    "middle": ([*EXACT, "trainer.save_freq=1"], {"stop_before": 4}),  # in the middle of an epoch
    "boundary": ([*EXACT, "trainer.save_freq=1"], {"stop_before": 5}),  # at the end of one
    "end": ([*EXACT, "trainer.save_freq=1"], {}),
    "bounded": (BOUNDED, {}),
    "bounded_middle": ([*BOUNDED, "trainer.save_freq=1"], {"stop_before": 4}),
    "bounded_end": ([*BOUNDED, "trainer.save_freq=1", "algorithm.repo.storage=distributed"], {}),
    "nan_stop": ([*REPLAY, "data.shuffle=False", "trainer.save_freq=1"], {"nan": BAD, "fails": True}),
    "nan_mended": ([*REPLAY, "data.shuffle=False", "trainer.save_freq=1"], {}),
    "nan_skip": (SKIP, {"nan": BAD}),
    "nan_dropped": (SKIP, {"drop": BAD}),
    "diverged_stop": ([*REPLAY, EXPLODE], {"fails": True}),
    "diverged_skip": ([*SKIP, EXPLODE], {}),
    "one_rank_stop": ([*REPLAY, "trainer.n_gpus_per_node=2"], {"poisoned_rank": 1, "fails": True}),
    "failed_step": ([*REPLAY, "data.shuffle=False"], {"drop": NOTHING, "fails": True}),
    "twice": ([*REPLAY, "data.shuffle=False", "algorithm.repo.warn_ratio=1.0001"], {}),
}  # fmt: skip
FOLDERS = {"boundary": "middle", "end": "middle", "bounded_end": "bounded_middle", "nan_mended": "nan_stop"}


COMMON = [
    "actor_rollout_ref.actor.ppo_mini_batch_size=2", "trainer.total_epochs=3",
    "actor_rollout_ref.actor.optim.lr=1e-3", "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=2", "trainer.save_freq=6",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(player, tmp_path_factory):
    """Every scenario, trained once."""
    jobs = RecordedJobs(player, tmp_path_factory.mktemp("resume"), PROMPTS, PER_STEP, N, COMMON)
    twice = write_prompts(jobs.folder / "twice.parquet", [PROMPTS[i] for i in (0, 1, 0, 2, 3, 4, 3, 5)])
    for name, (overrides, options) in SCENARIOS.items():
        data = twice if name == "twice" else None
        alone = name in FOLDERS or "fails" in options  # nothing in memory of what it resumes, or of what failed
        jobs.add(name, overrides, data=data, local=f"{FOLDERS.get(name, name)}/checkpoints", alone=alone, **options)
    status, output = jobs.play()
    assert status == 0, output[-6000:]
    return jobs.folder


def metrics(runs, name):
    return {row["step"]: row for row in json.loads((runs / name / "metrics.json").read_text())}


def error(runs, name):
    return json.loads((runs / name / "error.json").read_text())["text"]


def timeless(row):
    """A step's metrics without those that measure time or memory."""
    left_out = ("timing", "perf/", "time", "throughput", "cpu_memory", "/mfu")
    return {key: value for key, value in row.items() if not any(part in key for part in left_out)}


def test_a_stopped_and_resumed_run_has_the_metrics_of_one_that_went_on(runs):
    whole = metrics(runs, "whole")
    parts = [metrics(runs, name) for name in ("middle", "boundary", "end")]
    assert [sorted(part) for part in parts] == [[1, 2, 3], [4], [5, 6]] and sorted(whole) == [1, 2, 3, 4, 5, 6]
    joined = {step: row for part in parts for step, row in part.items()}
    for step, row in whole.items():
        mine, its = timeless(joined[step]), timeless(row)
        assert len(its) > 60 and mine == its, {k: (v, mine.get(k)) for k, v in its.items() if mine.get(k) != v}
    assert whole[6]["repo/replayed_rows"] == 12 and whole[6]["repo/uses_max"] > 1 and whole[6]["repo/age_max"] > 1


def test_a_stopped_and_resumed_run_has_the_weights_of_one_that_went_on(runs):
    whole, end = (load_file(runs / name / "weights.safetensors") for name in ("whole", "end"))
    assert whole.keys() == end.keys() and all(bool((whole[key] == end[key]).all()) for key in whole)
    middle = load_file(runs / "middle" / "weights.safetensors")
    assert any(bool((whole[key] != middle[key]).any()) for key in whole)


def test_a_stopped_and_resumed_run_has_the_buffer_of_one_that_went_on(runs):
    ours, theirs = (runs / name / "checkpoints" / "global_step_6" / "prompt_replay" for name in ("whole", "middle"))
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in theirs.iterdir())
    first, second = (json.loads((folder / "meta.json").read_text()) for folder in (ours, theirs))
    assert first == second and sum(shard["rows"] for shard in first["shards"]) == 48
    arrays = load_arrays(ours / "rows-00000.safetensors")
    assert arrays["uses"].max() == 1 and set(arrays["step"].tolist()) >= {4, 5, 6}


def test_a_bounded_buffer_evicts_in_a_resumed_run_what_it_would_have_evicted(runs):
    """The first part keeps rows in the driver, the second in a storage process."""
    whole, first, second = (metrics(runs, name) for name in ("bounded", "bounded_middle", "bounded_end"))
    assert [sorted(part) for part in (first, second)] == [[1, 2, 3], [4, 5, 6]]
    for step, row in whole.items():
        mine, its = timeless({**first, **second}[step]), timeless(row)
        assert mine == its, {k: (v, mine.get(k)) for k, v in its.items() if mine.get(k) != v}
        assert row["repo/buffer_tokens"] <= 200 and row["repo/uses_max"] <= 1
    assert whole[1]["repo/evicted_prompts"] == 0 and min(whole[n]["repo/evicted_prompts"] for n in (2, 3, 4, 5, 6)) > 0
    assert sum(row["repo/replayed_rows"] for row in whole.values()) > 0
    ours, theirs = (
        load_arrays(runs / name / "checkpoints" / "global_step_6" / "prompt_replay" / "rows-00000.safetensors")
        for name in ("bounded", "bounded_middle")
    )
    assert all(ours[name].tolist() == theirs[name].tolist() for name in ours) and len(ours["prompt_key"]) < 8


def test_scores_of_nan_stop_the_run_and_name_the_rows(runs):
    text = error(runs, "nan_stop")
    assert "step 3: the reward function gave a score that is not finite for 3 row(s) (response 1 of prompt" in text
    assert "0+0=?" in text and "1+1=?." in text and "algorithm.repo.on_nonfinite=skip" in text
    assert sorted(metrics(runs, "nan_stop")) == [1, 2]


def test_the_last_checkpoint_resumes_once_the_reward_is_mended(runs):
    assert sorted(metrics(runs, "nan_mended")) == [3, 4, 5, 6]


def test_skipping_scores_of_nan_is_leaving_out_these_rows(runs):
    """The same numbers as where these rows were never generated, but for those that count them."""
    skipped, dropped = metrics(runs, "nan_skip"), metrics(runs, "nan_dropped")
    assert [skipped[step]["repo/nonfinite_scores"] for step in range(1, 7)] == [0, 0, 3, 0, 0, 0]
    for step, row in dropped.items():
        assert row["repo/missing_rows"] == skipped[step]["repo/nonfinite_scores"], "it knows that they should be there"
        mine = {**timeless(skipped[step]), "repo/nonfinite_scores": 0, "repo/missing_rows": row["repo/missing_rows"]}
        assert mine == timeless(row), {k: (v, mine.get(k)) for k, v in timeless(row).items() if mine.get(k) != v}
    ours, theirs = (load_file(runs / name / "weights.safetensors") for name in ("nan_skip", "nan_dropped"))
    assert all(bool((ours[key] == theirs[key]).all()) for key in ours)
    assert json.loads((runs / "nan_skip" / "left.json").read_text()) == json.loads(
        (runs / "nan_dropped" / "left.json").read_text()
    )


def test_a_diverged_policy_stops_the_run_and_names_the_rows(runs):
    text = error(runs, "diverged_stop")
    assert "the update was stopped before its optimizer step, since values are not finite in" in text
    assert (
        " row of prompt" in text and "response tokens: log-prob" in text and "algorithm.repo.on_nonfinite=skip" in text
    )


def test_values_that_are_bad_on_one_rank_alone_stop_all(runs):
    """The other rank waits in a collective for a gradient that never comes."""
    text = error(runs, "one_rank_stop")
    assert "values are not finite in" in text and ": log-prob" in text
    assert metrics(runs, "one_rank_stop") == {}


def test_a_diverged_policy_is_skipped_and_counted(runs):
    rows = metrics(runs, "diverged_skip")
    assert sorted(rows) == list(range(1, STEPS + 1))
    bad = [row["repo/nonfinite_steps"] for row in rows.values()]
    assert sum(bad) > 0 and rows[6]["repo/nonfinite_rows"] > 0
    assert math.isfinite(rows[6]["repo/effective_steps"])
    stored = rows[6]["repo/buffer_rows"]
    assert 0 < stored < STEPS * PER_STEP * N


def test_a_step_without_any_response_stops_with_verls_sentence(runs):
    assert "no materializable trajectories" in error(runs, "failed_step")
    assert sorted(metrics(runs, "failed_step")) == [1, 2]


def test_replayed_rows_far_from_the_policy_warn_once(runs):
    assert max(row["repo/ratio_max_replayed"] for row in metrics(runs, "twice").values()) > 1.0001
    said = [line for line in (runs / "log").read_text().splitlines() if "algorithm.repo.warn_ratio=1.0001" in line]
    assert len(said) == 1 and "RePO: step 3: a replayed token's ratio reached" in said[0], said


def test_a_prompt_twice_in_a_batch_is_two_fresh_blocks_and_one_buffer(runs):
    rows = metrics(runs, "twice")
    # batches are prompts 0 1 0 2 and 3 4 3 5, in turn: from step 3 on every block replays 3 rows of earlier steps
    assert [rows[step]["repo/replayed_rows"] for step in range(1, 7)] == [0, 0, 12, 12, 12, 12]
    assert [rows[step]["repo/prompts_with_replay"] for step in range(1, 7)] == [0, 0, 4, 4, 4, 4]
    assert [rows[step]["repo/age_mean"] for step in (3, 5)] == [2, 2]
    # recency: both blocks of prompt 0 replay the same 3 rows, so the second is their second use in the step
    assert rows[3]["repo/buffer_rows"] == 3 * 2 * N + 2 * 2 * N + 2 * N
    scores = [row["score"] for row in rollout(PROMPTS[0], 3, N, 100)]
    assert len(scores) == N
