"""The buffer in a checkpoint folder."""

import json

import numpy as np
import pytest

from repo_verl.config import RepoConfigError
from repo_verl.replay import PromptReplayBuffer, Record, prompt_key
from repo_verl.trainer.checkpoint import load_state, refuse_other_settings, save_state


def test_round_trip_through_files_without_pickle(tmp_path):
    buffer = PromptReplayBuffer(capacity=4, min_size=1, num_replay=2, strategy="random")
    key = prompt_key([1, 2])
    rows = [Record.create([3, 4, 5], [-0.1, -0.2, -0.3], s, 1, mask=[1, 0, 1], parts={"acc": s}) for s in (0.0, 1.0)]
    buffer.add(key, [1, 2], rows)
    save_state(str(tmp_path), buffer.state_dict(), {"effective_steps": 7})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prompt_replay"]
    assert sorted(p.name for p in (tmp_path / "prompt_replay").iterdir()) == ["arrays.safetensors", "meta.json"]
    json.loads((tmp_path / "prompt_replay" / "meta.json").read_text())
    state, extra = load_state(str(tmp_path))
    twin = PromptReplayBuffer(capacity=4, min_size=1, num_replay=2, strategy="random", seed=1)
    twin.load_state_dict(state)
    assert extra == {"effective_steps": 7}
    for mine, theirs in zip(buffer.rows(key), twin.rows(key), strict=True):
        assert np.array_equal(mine.log_probs, theirs.log_probs) and mine.mask.tolist() == theirs.mask.tolist()
        assert mine.parts == theirs.parts
    assert [r.score for r in buffer.sample(key, 2)] == [r.score for r in twin.sample(key, 2)]


def test_saving_twice_replaces_and_an_empty_buffer_is_saved(tmp_path):
    buffer = PromptReplayBuffer()
    for _ in range(2):
        save_state(str(tmp_path), buffer.state_dict(), {})
    state, _ = load_state(str(tmp_path))
    buffer.load_state_dict(state)
    assert len(buffer) == 0


def test_a_checkpoint_without_a_buffer_is_none(tmp_path):
    assert load_state(str(tmp_path)) is None


def test_another_temperature_or_reward_is_refused():
    saved = {"actor_rollout_ref.rollout.temperature": 1.0, "reward.custom_reward_function": {"path": "a.py"}}
    refuse_other_settings(saved, saved, "x")
    with pytest.raises(RepoConfigError, match="temperature=0.7 differs from 1.0 in x"):
        refuse_other_settings(saved, {**saved, "actor_rollout_ref.rollout.temperature": 0.7}, "x")
    with pytest.raises(RepoConfigError, match="custom_reward_function"):
        refuse_other_settings(saved, {**saved, "reward.custom_reward_function": {"path": "b.py"}}, "x")
