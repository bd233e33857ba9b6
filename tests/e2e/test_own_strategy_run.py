"""A user's own strategy in verl's real trainer: on recorded rollouts, and where Ray's process can't import it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import own_strategies
import pytest
from recorded_run import ROOT, rollout
from tiny_model import make_tiny_model, write_prompts

pytestmark = pytest.mark.e2e

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
PROMPTS = [f"{i}+{i}=?" for i in range(4)]
N, STEPS, K = 4, 3, 3
VOCABULARY = 5 + 10 + 52 + len("+-*/=?.,:;()[]{}\\ \n")
PLAIN_RAY = {"VERL_PLATFORM": "cpu", "REPO_VERL_CPU_FORK": "0"}


def expected(prompt, step):
    """Responses that a prompt replays in a step, by the function and the recorded rollouts."""
    held = [(row, before) for before in range(1, step) for row in rollout(prompt, before, N, VOCABULARY)]
    scores = own_strategies.np.array([row["score"] for row, _ in held])
    ages = own_strategies.np.array([step - before for _, before in held])
    picked = own_strategies.oldest_of_mixed(scores, ages, min(K, len(held)), None) if held else None
    return [held[i][0]["ids"] for i in picked or []]


def test_the_run_replays_what_the_function_says(tmp_path):
    model, data = make_tiny_model(tmp_path / "model"), write_prompts(tmp_path / "train.parquet", PROMPTS)
    (tmp_path / "out").mkdir()
    overrides = [
        "algorithm.adv_estimator=repo", "algorithm.repo.strategy=own_strategies:oldest_of_mixed",
        "algorithm.repo.min_size=4", f"algorithm.repo.num_replay={K}", "algorithm.repo.prune=False",
        f"actor_rollout_ref.model.path={model}", f"data.train_files={data}", f"data.val_files={data}",
        f"data.train_batch_size={len(PROMPTS)}", f"actor_rollout_ref.rollout.n={N}", "data.shuffle=False",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4", f"trainer.total_epochs={STEPS}",
        "trainer.logger=[console]", "trainer.test_freq=-1", "trainer.save_freq=-1", "trainer.val_before_train=False",
        f"trainer.default_local_dir={tmp_path / 'checkpoints'}",
    ]  # fmt: skip
    (tmp_path / "scenarios.json").write_text(json.dumps([{"out": str(tmp_path / "out"), "overrides": overrides}]))
    done = subprocess.run(
        [sys.executable, str(HELPERS / "recorded_run.py"), str(tmp_path / "scenarios.json")],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "VERL_PLATFORM": "cpu"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
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


def test_a_function_that_the_drivers_process_alone_can_import_is_refused_in_rays(tmp_path):
    """verl's own command on plain Ray; the folder is on this process's path, not on PYTHONPATH."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "alone.py").write_text("def f(scores, ages, k, rng):\n    return [0]\n")
    (tmp_path / "start.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path / 'rules')!r})\n"
        f"sys.argv[1:] = ['--config-dir', {str(ROOT / 'recipe' / 'repo' / 'config')!r}, '--config-name', 'repo_cpu',"
        " 'algorithm.repo.strategy=alone:f', 'actor_rollout_ref.model.path=/no/model']\n"
        "from verl.trainer.main_ppo import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "start.py"], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **PLAIN_RAY},
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0 and "ray init kwargs" in done.stdout, done.stderr[-3000:]
    said = [line for line in done.stderr.splitlines() if "RepoConfigError: algorithm.repo.strategy=alone:f" in line]
    assert said and "can't be imported in" in said[-1], done.stderr[-3000:]
    assert "No module named 'alone'): install it, or put its folder on PYTHONPATH" in said[-1]
