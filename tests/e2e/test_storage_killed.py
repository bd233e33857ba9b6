"""A storage process of the buffer is killed in the middle of a run: one sentence, and nothing hangs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import make_tiny_model, write_prompts

pytestmark = pytest.mark.e2e

HELPERS = Path(__file__).resolve().parents[1] / "helpers"


def test_a_killed_storage_process_stops_the_run_with_one_sentence(tmp_path):
    model = make_tiny_model(tmp_path / "model")
    data = write_prompts(tmp_path / "train.parquet", [f"{i}+{i}=?" for i in range(4)])
    overrides = [
        f"actor_rollout_ref.model.path={model}", f"data.train_files={data}", f"data.val_files={data}",
        "data.train_batch_size=4", "actor_rollout_ref.rollout.n=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4", "trainer.total_epochs=6",
        "trainer.logger=[console]", "trainer.test_freq=-1", "trainer.save_freq=-1",
        "trainer.val_before_train=False", f"trainer.default_local_dir={tmp_path / 'checkpoints'}",
        "algorithm.adv_estimator=repo", "algorithm.repo.min_size=4", "algorithm.repo.num_replay=4",
        "algorithm.repo.storage=distributed", "algorithm.repo.storage_processes=2",
    ]  # fmt: skip
    (tmp_path / "out").mkdir()
    scenario = {"out": str(tmp_path / "out"), "overrides": overrides, "kill_storage_at": 4}
    (tmp_path / "scenarios.json").write_text(json.dumps([scenario]))
    done = subprocess.run(
        [sys.executable, str(HELPERS / "recorded_run.py"), str(tmp_path / "scenarios.json")],
        capture_output=True, text=True, cwd=tmp_path, timeout=240, check=False,
        env={**os.environ, "VERL_PLATFORM": "cpu"},
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode != 0 and "Training Progress:  50%" in output, output[-3000:]
    sentence = "replay buffer: a storage process died (unit 1 of 2 on node "
    assert f"StorageProcessError: {sentence}" in output, output[-3000:]
    assert "resume from the last checkpoint, or set algorithm.repo.storage=host." in output
