"""Settings are validated with one sentence that names key, value and remedy."""

import dataclasses

import pytest

from repo_verl.config import RepoConfig, RepoConfigError
from repo_verl.replay import PromptReplayBuffer
from repo_verl.trainer.run_warnings import pruning_obstacle
from repo_verl.trainer.validation import check_config


def test_defaults_are_the_design():
    config = RepoConfig()
    assert (config.strategy, config.num_replay, config.capacity, config.min_size) == ("recency", 8, 16, 16)
    assert (config.advantage, config.normalize, config.off_policy_coef, config.start_step) == ("split", "group", 1.0, 0)
    assert config.max_age is config.max_uses is config.max_tokens is config.clip_ratio_c is None
    assert config.active and config.prune
    assert (config.storage, config.storage_processes, config.log_prob_dtype) == ("host", None, "float32")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.capacity = 3  # type: ignore[misc]  # frozen: that is the test


def test_none_and_a_zero_coefficient_switch_replay_off():
    assert not RepoConfig(strategy="none").active
    assert not RepoConfig(off_policy_coef=0).active
    assert not RepoConfig(off_policy_coef=0.0).active


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stratgy": "reward"}, r"algorithm.repo.stratgy='reward' is no setting.*algorithm.repo.strategy\?"),
        ({"strategy": "recent"}, r"algorithm.repo.strategy='recent' is unknown: did you mean recency\?"),
        ({"strategy": "xyz"}, r"use one of recency, reward, variance, full, random, none"),
        ({"min_size": 17}, r"algorithm.repo.min_size=17 exceeds algorithm.repo.capacity=16.*at most 16"),
        ({"num_replay": 0}, r"algorithm.repo.num_replay=0 must be an integer of at least 1"),
        ({"num_replay": 9, "capacity": 8, "min_size": 8}, r"num_replay=9 exceeds algorithm.repo.capacity=8"),
        ({"num_replay": True}, r"num_replay=True must be an integer"),
        ({"capacity": "16"}, r"capacity='16' must be an integer"),
        ({"start_step": -1}, r"start_step=-1 must be an integer of at least 0"),
        ({"max_age": 0}, r"max_age=0 must be an integer of at least 1; leave it null"),
        ({"max_tokens": 0}, r"repo.max_tokens=0 must be an integer of at least 1; leave it null for no limit"),
        ({"max_tokens": 1e6}, r"repo.max_tokens=1000000.0 must be an integer of at least 1"),
        ({"max_tokens": True}, r"repo.max_tokens=True must be an integer of at least 1"),
        ({"off_policy_coef": -0.5}, r"off_policy_coef=-0.5 must be a finite number at least 0"),
        ({"off_policy_coef": float("nan")}, r"off_policy_coef=nan must be a finite number"),
        ({"clip_ratio_c": 1.0}, r"clip_ratio_c=1.0 must be a finite number greater than 1"),
        ({"advantage": "both"}, r"advantage='both' is unknown: use one of split, mixed"),
        ({"prune": "yes"}, r"algorithm.repo.prune='yes' must be true or false"),
        ({"storage": "disk"}, r"storage='disk' is unknown: use one of host, distributed"),
        ({"storage_processes": 0}, r"storage_processes=0 must be an integer of at least 1; leave it null"),
        ({"log_prob_dtype": "float16"}, r"log_prob_dtype='float16' is unknown: did you mean"),
        ({"normalize": "row"}, r"normalize='row' is unknown: did you mean rows\?"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(RepoConfigError, match=message) as caught:
        RepoConfig.from_mapping(settings)
    assert "\n" not in str(caught.value)


def test_a_block_that_is_no_mapping_is_refused():
    with pytest.raises(RepoConfigError, match="algorithm.repo='variance' is no mapping"):
        RepoConfig.from_mapping("variance")


def test_the_buffer_refuses_what_the_settings_refuse():
    with pytest.raises(RepoConfigError, match="min_size=5 exceeds"):
        PromptReplayBuffer(capacity=4, min_size=5, num_replay=2)


@pytest.mark.parametrize(
    ("actor", "obstacle"),
    [
        ({}, None),
        ({"use_kl_loss": True}, "actor_rollout_ref.actor.use_kl_loss=True"),
        ({"entropy_coeff": 0.01}, "actor_rollout_ref.actor.entropy_coeff=0.01"),
        ({"entropy_coeff": 0, "use_kl_loss": False}, None),
    ],
)
def test_what_switches_pruning_off(actor, obstacle):
    assert pruning_obstacle({"actor_rollout_ref": {"actor": actor}}) == obstacle
    mtp = {"actor_rollout_ref": {"model": {"mtp": {"enable_train": True}}}}
    assert pruning_obstacle(mtp) == "actor_rollout_ref.model.mtp.enable_train=True"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"num_replay": 1},
            r"^algorithm.repo.num_replay=1 replays one row per prompt.*num_replay to at least 2, or algo",
        ),
        ({"capacity": 1, "min_size": 1, "num_replay": 1}, r"^algorithm.repo.capacity=1 replays one row"),
        ({"capacity": 1, "min_size": 1, "strategy": "full"}, r"^algorithm.repo.capacity=1 replays one row"),
        ({"num_replay": 1, "advantage": "mixed"}, None),
        ({"num_replay": 1, "strategy": "full"}, None),
        ({"num_replay": 1, "off_policy_coef": 0}, None),
        ({"num_replay": 2}, None),
    ],
)
def test_one_replayed_row_alone_would_train_nothing(settings, message):
    config = {"algorithm": {"repo": settings}, "actor_rollout_ref": {"rollout": {"n": 8}}}
    if message is None:
        assert check_config(config)
        return
    with pytest.raises(RepoConfigError, match=message):
        check_config(config)
