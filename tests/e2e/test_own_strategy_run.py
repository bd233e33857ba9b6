"""A user's own strategy in verl's real trainer, on recorded rollouts, and its import in Ray's processes."""

import json
import subprocess
import sys

import numpy as np
import own_strategies
import pytest
from recorded_jobs import RecordedJobs
from recorded_run import rollout
from tiny_model import VOCABULARY

pytestmark = [pytest.mark.e2e, pytest.mark.full]

PROMPTS = [f"{i}+{i}=?" for i in range(4)]
N, STEPS, K = 4, 3, 3


def expected(prompt, step):
    """Responses that a prompt replays in a step, by the function and the recorded rollouts."""
    held = [(row, before) for before in range(1, step) for row in rollout(prompt, before, N, VOCABULARY)]
    scores = np.array([row["score"] for row, _ in held])
    ages = np.array([step - before for _, before in held])
    picked = own_strategies.oldest_of_mixed(scores, ages, min(K, len(held)), None) if held else None
    return [held[i][0]["ids"] for i in picked or []]


def test_the_run_replays_what_the_function_says(player, tmp_path):
    overrides = [
        "algorithm.adv_estimator=repo", "algorithm.repo.strategy=own_strategies:oldest_of_mixed",
        "algorithm.repo.min_size=4", f"algorithm.repo.num_replay={K}", "algorithm.repo.prune=False",
        "data.shuffle=False", "actor_rollout_ref.actor.ppo_mini_batch_size=4", f"trainer.total_epochs={STEPS}",
    ]  # fmt: skip
    jobs = RecordedJobs(player, tmp_path, PROMPTS, len(PROMPTS), N, overrides)
    jobs.add("out", [], by_length=True)  # the function sees them by response number all the same
    status, output = jobs.play()
    assert status == 0, output[-6000:]
    wanted = [[expected(prompt, step) for prompt in PROMPTS] for step in range(1, STEPS + 1)]
    sizes = [[len(rows) for rows in step] for step in wanted]
    assert sizes[0] == [0] * 4 and {0, K} == {*sizes[1], *sizes[2]}, "some prompts replay and some do not"
    logged = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [step["repo/replayed_rows"] for step in logged] == [sum(step) for step in sizes]
    assert [step["repo/prompts_with_replay"] for step in logged] == [sum(map(bool, step)) for step in sizes]
    entries = [json.loads(line) for line in (tmp_path / "out" / "loss.jsonl.0").read_text().splitlines()]
    trained = [
        ids
        for entry in entries
        if entry["repo_origin"] is not None
        for ids, origin in zip(entry["responses"], entry["repo_origin"], strict=True)
        if origin == 1
    ]
    assert sorted(trained) == sorted(ids for step in wanted for rows in step for ids in rows)


IN_RAY = """
import json, sys
import ray

sys.path.insert(0, "rules")  # of this process alone

def look(strategy):
    from repo_verl.trainer.validation import check_config
    try:
        check_config({"algorithm": {"repo": {"strategy": strategy}}, "actor_rollout_ref": {"rollout": {"n": 2}}})
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"

names = ["here:f", "alone:f"]
ray.init(num_cpus=1, include_dashboard=False, runtime_env={"working_dir": None})  # None: as verl has it
said = ray.get([ray.remote(look).remote(name) for name in names])
print(json.dumps([[look(name) for name in names], said]))
"""


def test_rays_processes_have_the_working_directory_and_refuse_what_only_the_driver_can_import(tmp_path):
    """What the trainer in Ray's process asks again before anything else; the folder ``rules`` is not on PYTHONPATH."""
    (tmp_path / "rules").mkdir()
    for place in ("here.py", "rules/alone.py"):
        (tmp_path / place).write_text("def f(scores, ages, k, rng):\n    return [0]\n")
    done = subprocess.run(
        [sys.executable, "-c", IN_RAY], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    driver, (here, alone) = json.loads(done.stdout.splitlines()[-1])
    assert driver == ["accepted", "accepted"] and here == "accepted"
    assert alone.startswith("RepoConfigError: algorithm.repo.strategy=alone:f can't be imported in ")
    assert "No module named 'alone'): install it, or put its folder on PYTHONPATH" in alone
