"""A storage process of the buffer is killed in the middle of a run: one sentence, and nothing hangs."""

import pytest
from recorded_jobs import RecordedJobs

pytestmark = [pytest.mark.e2e, pytest.mark.full]

COMMON = [
    "actor_rollout_ref.actor.ppo_mini_batch_size=4", "trainer.total_epochs=6", "algorithm.adv_estimator=repo",
    "algorithm.repo.min_size=4", "algorithm.repo.num_replay=4", "algorithm.repo.storage=distributed",
    "algorithm.repo.storage_processes=2",
]  # fmt: skip


def test_a_killed_storage_process_stops_the_run_with_one_sentence(player, tmp_path):
    jobs = RecordedJobs(player, tmp_path, [f"{i}+{i}=?" for i in range(4)], 4, 4, COMMON)
    jobs.add("out", [], alone=True, kill_storage_at=4)
    status, output = jobs.play(timeout=240)
    assert status != 0 and "Training Progress:  50%" in output, output[-3000:]
    sentence = "replay buffer: a storage process died (unit 1 of 2 on node "
    assert f"StorageProcessError: {sentence}" in output, output[-3000:]
    assert "resume from the last checkpoint, or set algorithm.repo.storage=host." in output
