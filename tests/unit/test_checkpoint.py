"""What a saved buffer must agree with, and what is kept of checkpoints."""

import logging
import os
import shutil
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from repo_verl.config import RepoConfig, RepoConfigError
from repo_verl.replay import PromptReplayBuffer, Record, prompt_key
from repo_verl.replay.checkpoint import BufferFilesError, has_buffer
from repo_verl.replay.state import RowLimits
from repo_verl.step_folders import BUFFER as FOLDER
from repo_verl.trainer.checkpoint import CheckpointKeeper
from repo_verl.trainer.identity import (
    data_fingerprint,
    fixed_settings,
    refuse_other_settings,
    tokenizer_fingerprint,
)
from repo_verl.verl_workarounds import tracker
from repo_verl.verl_workarounds.tracker import TRACKER, CheckpointError, read_marker

SETTINGS = {"capacity": 4, "min_size": 1, "num_replay": 2}


class Actor:
    """verl's worker group with its rule for old checkpoints."""

    def __init__(self):
        self.paths, self.asked = [], []

    def save_checkpoint(self, path, remote, step, max_ckpt_to_keep=None):
        self.asked.append(max_ckpt_to_keep)
        os.makedirs(path, exist_ok=True)
        self.paths.append(path)
        while max_ckpt_to_keep and len(self.paths) > max_ckpt_to_keep:
            shutil.rmtree(self.paths.pop(0), ignore_errors=True)


def filled(rows=6):
    buffer = PromptReplayBuffer(**{**SETTINGS, "capacity": 16})
    made = [Record.create([3, 4], [-0.5, -0.25], float(i), i + 1) for i in range(rows)]
    buffer.add(prompt_key([1, 2]), [1, 2], made)
    return buffer


def trainer(root, **changes):
    values = {"default_local_dir": str(root), "resume_mode": "auto", "max_actor_ckpt_to_keep": None, **changes}
    return OmegaConf.create(values)


def keeper(root, fixed=None, **changes):
    repo = RepoConfig(**{**SETTINGS, **{key: changes.pop(key) for key in list(changes) if hasattr(RepoConfig, key)}})
    return CheckpointKeeper(trainer(root, **changes), repo, fixed or {"a": 1})


def save(kept, root, step, actor=None, buffer=None, effective=7):
    actor = actor or Actor()
    with kept.saving(step, effective, buffer or filled(), actor):
        limit = 1 if kept._trainer.get("remove_previous_ckpt_in_save") else kept._trainer.max_actor_ckpt_to_keep
        actor.save_checkpoint(f"{root}/global_step_{step}/actor", None, step, max_ckpt_to_keep=limit)
        assert read_marker(f"{root}/global_step_{step}").files is None
        (root / TRACKER).write_text(str(step))


def test_a_buffer_comes_back_with_the_effective_steps(tmp_path, caplog):
    save(keeper(tmp_path), tmp_path, 3)
    fresh, kept = PromptReplayBuffer(**{**SETTINGS, "capacity": 16}), keeper(tmp_path, capacity=16)
    folder = kept.find()
    with caplog.at_level(logging.INFO):
        assert folder == str(tmp_path / "global_step_3") and kept.restore(folder, fresh) == 7
    assert [row.score for row in fresh.rows(prompt_key([1, 2]))] == [0, 1, 2, 3, 4, 5]
    assert "restored 6 rows from" in caplog.text


def test_a_smaller_capacity_keeps_the_newest_and_says_so(tmp_path, caplog):
    save(keeper(tmp_path), tmp_path, 3)
    fresh, kept = PromptReplayBuffer(**SETTINGS), keeper(tmp_path, log_prob_dtype="bfloat16")
    with caplog.at_level(logging.INFO):
        kept.restore(kept.find(), fresh)
    assert [row.score for row in fresh.rows(prompt_key([1, 2]))] == [2, 3, 4, 5]
    assert "capacity=4, where the buffer was saved with 16: the 2 oldest rows are left out" in caplog.text
    assert "log_prob_dtype=bfloat16, where the buffer was saved with float32" in caplog.text


def test_rows_that_are_too_long_now_are_left_out_in_one_sentence(tmp_path, caplog):
    buffer = filled(2)
    buffer.add(prompt_key([1, 2]), [1, 2], [Record.create([3] * 9, [-0.5] * 9, 9.0, 3)])
    save(keeper(tmp_path), tmp_path, 3, buffer=buffer)
    repo = RepoConfig(**{**SETTINGS, "capacity": 16})
    kept = CheckpointKeeper(trainer(tmp_path), repo, {"a": 1}, limits=RowLimits(None, 8, None))
    fresh = PromptReplayBuffer(**{**SETTINGS, "capacity": 16})
    with caplog.at_level(logging.INFO):
        kept.restore(kept.find(), fresh)
    assert [row.score for row in fresh.rows(prompt_key([1, 2]))] == [0, 1]
    assert caplog.text.count("1 saved rows are left out") == 1 and "1 over data.max_response_length=8" in caplog.text
    assert "restored 2 rows from" in caplog.text and "oldest" not in caplog.text
    caplog.clear()
    keeper(tmp_path, capacity=16).restore(str(tmp_path / "global_step_3"), fresh)
    assert len(fresh) == 3 and "left out" not in caplog.text


def test_a_smaller_bound_says_what_it_leaves_out(tmp_path, caplog):
    buffer = filled(2)
    buffer.add(prompt_key([3]), [3], [Record.create([3, 4], [-0.5, -0.25], 9.0, 3)])
    save(keeper(tmp_path), tmp_path, 3, buffer=buffer)
    settings = {**SETTINGS, "capacity": 16, "max_tokens": 5}
    fresh, kept = PromptReplayBuffer(**settings), keeper(tmp_path, capacity=16, max_tokens=5)
    with caplog.at_level(logging.INFO):
        kept.restore(kept.find(), fresh)
    assert len(fresh) == 1 and prompt_key([3]) in fresh
    assert "max_tokens=5, where 6 response tokens were saved: 1 prompts with 2 rows, visited longest" in caplog.text


def test_another_identity_is_refused_before_verl_loads(tmp_path):
    save(keeper(tmp_path, {"the tokenizer": "x", "b": None}), tmp_path, 3)
    keeper(tmp_path, {"the tokenizer": "x", "b": None}).find()
    save(keeper(tmp_path, {"kwargs": {1: (2, 3)}}), tmp_path, 4)
    assert keeper(tmp_path, {"kwargs": {1: (2, 3)}}).find()
    (tmp_path / TRACKER).write_text("3")
    with pytest.raises(RepoConfigError, match=r"the tokenizer='y' differs from 'x' in .*persist=false"):
        keeper(tmp_path, {"the tokenizer": "y", "b": None}).find()
    assert keeper(tmp_path, {"the tokenizer": "y"}, persist=False).find()


def test_persist_false_neither_saves_nor_restores(tmp_path, caplog):
    save(keeper(tmp_path, persist=False), tmp_path, 3)
    assert not (tmp_path / "global_step_3" / FOLDER).exists()
    fresh, kept = PromptReplayBuffer(**SETTINGS), keeper(tmp_path)
    assert kept.restore(kept.find(), fresh) == 7 and len(fresh) == 0
    assert "has no replay buffer, so it starts empty" in caplog.text
    save(keeper(tmp_path), tmp_path, 4)
    kept = keeper(tmp_path, persist=False)
    assert kept.restore(kept.find(), fresh) == 7 and len(fresh) == 0
    assert "algorithm.repo.persist=false, so the replay buffer starts empty" in caplog.text


def test_a_checkpoint_of_grpo_starts_empty_and_says_so(tmp_path, caplog):
    (tmp_path / "global_step_5" / "actor").mkdir(parents=True)
    (tmp_path / "global_step_5" / "actor" / "model.pt").write_text("x")
    (tmp_path / TRACKER).write_text("5")
    fresh, kept = PromptReplayBuffer(**SETTINGS), keeper(tmp_path)
    assert kept.restore(kept.find(), fresh) == 0 and len(fresh) == 0
    assert f"{tmp_path}/global_step_5 has no replay buffer, so it starts empty" in caplog.text
    assert read_marker(str(tmp_path / "global_step_5")).files == {"actor/model.pt": 1}  # verl's tracker names it


HOT, COLD = {"rollout.temperature": 1.0, "rollout.top_k": -1}, {"rollout.temperature": 1.0, "rollout.top_k": 50}


def queueing(root, sampling, **changes):
    repo = RepoConfig(**{**SETTINGS, **changes})
    return CheckpointKeeper(trainer(root), repo, {"a": 1}, sampling)


@pytest.mark.parametrize("saved", [COLD, None], ids=["otherwise", "not_noted"])
def test_a_queue_of_responses_that_were_sampled_otherwise_is_refused(saved, tmp_path):
    (tmp_path / "global_step_5" / "transfer_queue").mkdir(parents=True)
    save(queueing(tmp_path, saved, strategy="none"), tmp_path, 5)
    assert read_marker(str(tmp_path / "global_step_5")).sampling == saved
    what = "under another rollout.top_k" if saved else "by a run that did not note how"
    with pytest.raises(CheckpointError, match=f"transfer_queue holds responses that were sampled {what}, .*mode=sync"):
        queueing(tmp_path, HOT).find()
    assert queueing(tmp_path, HOT, strategy="none").find(), "without replay no log-prob is stored"
    assert queueing(tmp_path, None).find(), "the synchronous trainer leaves the queue out"


def test_a_queue_that_was_sampled_alike_is_resumed(tmp_path):
    save(queueing(tmp_path, HOT), tmp_path, 4)
    assert queueing(tmp_path, COLD).find(), "nothing is in flight"
    (tmp_path / "global_step_5" / "transfer_queue").mkdir(parents=True)
    save(queueing(tmp_path, HOT), tmp_path, 5)
    assert queueing(tmp_path, dict(HOT)).find() == f"{tmp_path}/global_step_5"


def test_plain_grpo_keeps_effective_steps_alone(tmp_path, caplog):
    save(keeper(tmp_path, strategy="none"), tmp_path, 3)
    kept = keeper(tmp_path, strategy="none")
    assert kept.restore(kept.find(), PromptReplayBuffer(**SETTINGS)) == 7
    assert not (tmp_path / "global_step_3" / FOLDER).exists() and not caplog.text


def test_a_checkpoint_that_was_named_but_not_marked_counts_as_finished_once_it_is_resumed(tmp_path):
    save(keeper(tmp_path), tmp_path, 3)
    actor, kept = Actor(), keeper(tmp_path)
    with pytest.raises(KeyboardInterrupt), kept.saving(4, 9, filled(), actor):
        actor.save_checkpoint(f"{tmp_path}/global_step_4/actor", None, 4)
        (tmp_path / TRACKER).write_text("4")
        raise KeyboardInterrupt  # as a kill would, behind the tracker and before the marker
    assert read_marker(str(tmp_path / "global_step_4")).files is None
    kept = keeper(tmp_path)
    assert kept.restore(kept.find(), PromptReplayBuffer(**SETTINGS)) == 9
    assert read_marker(str(tmp_path / "global_step_4")).files is not None
    (tmp_path / TRACKER).write_text("")
    assert keeper(tmp_path).find() == str(tmp_path / "global_step_4")


@pytest.mark.parametrize("keep", [1, 2, 3, "previous"])
def test_old_buffers_go_with_their_actors(tmp_path, keep):
    limit = {"remove_previous_ckpt_in_save": True} if keep == "previous" else {"max_actor_ckpt_to_keep": keep}
    keep = 1 if keep == "previous" else keep
    kept, actor = keeper(tmp_path, **limit), Actor()
    for step in range(1, 6):
        save(kept, tmp_path, step, actor)
        held = [n for n in range(1, 6) if (tmp_path / f"global_step_{n}" / "actor").exists()]
        assert held == list(range(max(1, step - keep + 1), step + 1))
        for n in range(1, 6):
            folder = tmp_path / f"global_step_{n}"
            assert has_buffer(folder / FOLDER) == (n in held) == (folder / "repo_checkpoint.json").exists()


def test_the_last_checkpoint_stays_until_the_next_is_named(tmp_path):
    """verl removes it as soon as the actor is saved, where one is to be kept."""
    kept, actor = keeper(tmp_path, max_actor_ckpt_to_keep=1), Actor()
    save(kept, tmp_path, 1, actor)
    with pytest.raises(KeyboardInterrupt), kept.saving(2, 7, filled(), actor):
        actor.save_checkpoint(f"{tmp_path}/global_step_2/actor", None, 2, max_ckpt_to_keep=1)
        raise KeyboardInterrupt
    assert (tmp_path / "global_step_1" / "actor").exists()
    assert keeper(tmp_path).find() == str(tmp_path / "global_step_1")
    assert actor.asked == [2, 2] and "save_checkpoint" in repr(actor.save_checkpoint)
    actor.save_checkpoint(str(tmp_path / "x"), None, 3, max_ckpt_to_keep=1)
    assert actor.asked[-1] == 1


def test_a_step_that_is_saved_again_is_not_named_until_it_is_finished(tmp_path, caplog):
    """As after a roll-back: a kill in the second saving of step 3 must not leave verl's tracker at a mixture."""
    for step in (1, 2, 3, 4):
        save(keeper(tmp_path), tmp_path, step)
    (tmp_path / TRACKER).write_text("3")
    back = {"resume_mode": "resume_path", "resume_from_path": str(tmp_path / "global_step_2")}
    kept = keeper(tmp_path, **back)
    kept.restore(kept.find(), PromptReplayBuffer(**SETTINGS))
    with pytest.raises(KeyboardInterrupt), kept.saving(3, 8, filled(), Actor()):
        raise KeyboardInterrupt
    assert keeper(tmp_path).find() == str(tmp_path / "global_step_2") and "is being overwritten" in caplog.text
    with pytest.raises(CheckpointError, match="global_step_3 is incomplete .it was never finished.*from_path=.*step_4"):
        keeper(tmp_path, **{**back, "resume_from_path": str(tmp_path / "global_step_3")}).find()
    (tmp_path / TRACKER).write_text("")  # torn by that saving
    assert keeper(tmp_path).find() == str(tmp_path / "global_step_2")


def test_a_run_from_scratch_over_an_old_one_is_not_mixed_with_it(tmp_path):
    save(keeper(tmp_path), tmp_path, 1)
    with pytest.raises(KeyboardInterrupt), keeper(tmp_path, resume_mode="disable").saving(1, 8, filled(), Actor()):
        raise KeyboardInterrupt
    assert keeper(tmp_path).find() is None and not (tmp_path / TRACKER).exists()


def test_a_step_that_is_saved_again_without_a_buffer_has_none(tmp_path, caplog):
    save(keeper(tmp_path), tmp_path, 1)
    save(keeper(tmp_path, persist=False), tmp_path, 1)
    kept, buffer = keeper(tmp_path), PromptReplayBuffer(**SETTINGS)
    kept.restore(kept.find(), buffer)
    assert len(buffer) == 0 and "has no replay buffer" in caplog.text


def test_a_damaged_buffer_can_be_deleted_or_left_unread(tmp_path, caplog):
    save(keeper(tmp_path), tmp_path, 1)
    folder = tmp_path / "global_step_1" / FOLDER
    (folder / "meta.json").write_text("{")
    for changes in ({"persist": False}, {"strategy": "none"}):
        assert keeper(tmp_path, **changes).find()
    shutil.rmtree(folder)
    kept, buffer = keeper(tmp_path), PromptReplayBuffer(**SETTINGS)
    assert kept.restore(kept.find(), buffer) == 7 and "has no replay buffer" in caplog.text


def test_a_folder_that_can_not_be_marked_is_resumed_from(tmp_path, monkeypatch, caplog):
    (tmp_path / "global_step_5" / "actor").mkdir(parents=True)
    (tmp_path / TRACKER).write_text("5")
    kept = keeper(tmp_path)

    def refuse(path, text):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tracker, "write_atomically", refuse)
    assert kept.restore(kept.find(), PromptReplayBuffer(**SETTINGS)) == 0
    assert "can't be marked as finished" in caplog.text


def test_settings_that_json_has_not_are_compared_too(tmp_path):
    save(keeper(tmp_path, {"kwargs": {"limit": float("inf"), "odd": float("nan")}}), tmp_path, 1)
    assert keeper(tmp_path, {"kwargs": {"limit": float("inf"), "odd": float("nan")}}).find()
    with pytest.raises(RepoConfigError, match="differs"):
        keeper(tmp_path, {"kwargs": {"limit": float("-inf"), "odd": float("nan")}}).find()


def test_without_a_limit_nothing_goes(tmp_path):
    kept, actor = keeper(tmp_path), Actor()
    for step in (1, 2, 3):
        save(kept, tmp_path, step, actor)
    os.rmdir(tmp_path / "global_step_1" / "actor")
    save(kept, tmp_path, 4, actor)
    assert all(has_buffer(tmp_path / f"global_step_{n}" / FOLDER) for n in (1, 2, 3, 4))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_save_that_fails_is_one_sentence_and_the_last_checkpoint_resumes(tmp_path, error):
    kept = keeper(tmp_path)
    save(kept, tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"step 2 could not be saved below .*the last finished") as e:
        with kept.saving(2, 9, filled(), Actor()):
            raise error
    assert str(error).rsplit("]", 1)[-1].strip() in str(e.value) and str(tmp_path / "global_step_1") in str(e.value)
    assert e.value.__cause__ is error and "\n" not in str(e.value)
    assert keeper(tmp_path).find() == str(tmp_path / "global_step_1")


def test_a_buffer_that_can_not_be_written_stops_before_verl_saves(tmp_path):
    (tmp_path / "global_step_2").mkdir()
    (tmp_path / "global_step_2" / FOLDER).write_text("a file where the folder is to be")
    with pytest.raises(CheckpointError, match=r"step 2 could not be saved .*no checkpoint of this run is finished yet"):
        with keeper(tmp_path).saving(2, 9, filled(), Actor()):
            raise AssertionError("verl must not save now")


def test_a_damaged_buffer_is_refused(tmp_path):
    save(keeper(tmp_path), tmp_path, 1)
    shard = tmp_path / "global_step_1" / FOLDER / "rows-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    kept, buffer = keeper(tmp_path), PromptReplayBuffer(**SETTINGS)
    with pytest.raises(BufferFilesError, match="rows-00000.safetensors has the checksum"):
        kept.restore(kept.find(), buffer)
    assert len(buffer) == 0
    shard.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"incomplete \(prompt_replay/rows-00000.safetensors has \d+ of"):
        kept.find()


def test_modes_of_resuming(tmp_path):
    assert keeper(tmp_path).find() is None
    save(keeper(tmp_path), tmp_path, 1)
    save(keeper(tmp_path), tmp_path, 2)
    assert keeper(tmp_path, resume_mode="disable").find() is None
    path = str(tmp_path / "global_step_1")
    assert keeper(tmp_path, resume_mode="resume_path", resume_from_path=path).find() == path


def test_a_resumed_checkpoint_elsewhere_is_not_written_to(tmp_path):
    folder = tmp_path / "other" / "global_step_5"
    (folder / "actor").mkdir(parents=True)
    kept = keeper(tmp_path / "mine", resume_mode="resume_path", resume_from_path=str(folder))
    assert kept.restore(kept.find(), PromptReplayBuffer(**SETTINGS)) == 0
    assert [p.name for p in folder.iterdir()] == ["actor"]


def test_another_temperature_or_reward_is_refused():
    saved = {"actor_rollout_ref.rollout.temperature": 1.0, "reward.custom_reward_function": {"path": "a.py"}}
    refuse_other_settings(saved, saved, "x")
    with pytest.raises(RepoConfigError, match="temperature=0.7 differs from 1.0 in x"):
        refuse_other_settings(saved, {**saved, "actor_rollout_ref.rollout.temperature": 0.7}, "x")
    with pytest.raises(RepoConfigError, match="custom_reward_function"):
        refuse_other_settings(saved, {**saved, "reward.custom_reward_function": {"path": "b.py"}}, "x")


def test_a_tokenizer_is_known_by_what_its_ids_mean():
    def of(vocabulary):
        return tokenizer_fingerprint(SimpleNamespace(get_vocab=lambda: vocabulary))

    assert of({"a": 0, "b": 1}) == of({"b": 1, "a": 0})
    assert of({b"a": 0, "b": 0}) == of({"b": 0, b"a": 0}) != of({b"c": 0, "b": 0})
    assert len({of({"a": 0, "b": 1}), of({"a": 1, "b": 0}), of({"a": 0}), of({"a": 0, "b": 1, "c": 2})}) == 4


def test_data_is_known_by_its_bytes_and_length(tmp_path):
    class Data(list):
        data_files: list

    def of(*contents, length=3):
        data = Data(range(length))
        data.data_files = []
        for number, content in enumerate(contents):
            (tmp_path / str(number)).write_bytes(content)
            data.data_files.append(str(tmp_path / str(number)))
        return data_fingerprint(data)

    assert of(b"ab", b"c") == of(b"ab", b"c") == of(b"ab", b"c", length=2)
    assert len({of(b"ab", b"c"), of(b"a", b"bc"), of(b"c", b"ab"), of(b"ab")}) == 4
    assert data_fingerprint([1, 2]) == "2 prompts"
    pattern = Data([1])
    pattern.data_files = [str(tmp_path / "*.parquet")]  # verl hands it on to datasets
    assert len(data_fingerprint(pattern)) == 64


def test_what_stored_scores_depend_on():
    def of(**reward):
        base = {
            "num_workers": 8, "sandbox_fusion": {"url": "a"}, "reward_manager": {"name": "naive"},
            "custom_reward_function": {"path": "a.py", "name": "f", "reward_kwargs": {"weight": 1, "api_key": "x"}},
            "reward_model": {"enable": False, "model_path": "m", "rollout": {"n": 1}},
        }  # fmt: skip
        rollout = {"temperature": reward.pop("temperature", 1.0)}
        merged = OmegaConf.merge(base, reward)
        return fixed_settings(OmegaConf.create({"reward": merged, "actor_rollout_ref": {"rollout": rollout}}))

    assert of()["actor_rollout_ref.rollout.temperature"] == 1.0 and "api_key" not in str(of())
    same = [{"num_workers": 1}, {"sandbox_fusion": {"url": "b"}}, {"reward_model": {"rollout": {"n": 2}}}]
    same.append({"custom_reward_function": {"reward_kwargs": {"api_key": "y"}}})
    assert all(of(**one) == of() for one in same)
    other = [{"temperature": 0.5}, {"reward_manager": {"name": "dapo"}}, {"reward_model": {"enable": True}}]
    other += [{"reward_model": {"model_path": "n"}}, {"custom_reward_function": {"path": "b.py"}}]
    other.append({"custom_reward_function": {"reward_kwargs": {"end_token": "</a>"}}})
    other.append({"custom_reward_function": {"reward_kwargs": {"end_token": "</b>"}}})
    assert len({str(of(**one)) for one in other}) == len(other) and all(of(**one) != of() for one in other)
    assert "hf_abcdefghijklmnopqrst" not in str(of(custom_reward_function={"path": "hf_abcdefghijklmnopqrst"}))
