"""What RePO refuses in verl's asynchronous trainers, option by option."""

import copy

import pytest
from small_inputs import set_paths

from repo_verl.config import RepoConfigError
from repo_verl.trainer.validation import check_config

GOOD = {
    "algorithm": {"adv_estimator": "repo"},
    "actor_rollout_ref": {
        "rollout": {
            "n": 8, "name": "vllm", "calculate_log_probs": True, "logprobs_mode": "processed_logprobs", "top_p": 1.0,
            "top_k": -1,
        },
        "model": {"mtp": {"enable_rollout": False}},
    },
    "trainer": {"v1": {"trainer_mode": "colocate_async"}},
    "skip": {"rollout_tq": {"enable": False}},
}  # fmt: skip

REFUSED = {
    "actor_rollout_ref.rollout.calculate_log_probs": False,
    "actor_rollout_ref.rollout.logprobs_mode": "raw_logprobs",
    "actor_rollout_ref.rollout.top_p": 0.9,
    "actor_rollout_ref.rollout.top_k": 50,
    "actor_rollout_ref.rollout.name": "sglang",
    "actor_rollout_ref.model.mtp.enable_rollout": True,
    "actor_rollout_ref.rollout.engine_kwargs.vllm.logprobs_mode": "raw_logprobs",
    "actor_rollout_ref.rollout.engine_kwargs.vllm.speculative_config": "ngram",
    "skip.rollout_tq.enable": True,
}


def changed(**values):
    return set_paths(copy.deepcopy(GOOD), values, ".")


def test_the_mode_with_verls_defaults_is_accepted():
    assert check_config(GOOD).active


def test_updates_a_step_count_for_the_mode_that_runs():
    check_config(changed(**{"trainer.v1.sync": {"parameter_sync_step": 2}}))
    check_config(changed(**{"trainer.v1": {"trainer_mode": "sync", "colocate_async": {"parameter_sync_step": 2}}}))
    with pytest.raises(RepoConfigError, match="sync.parameter_sync_step=2"):
        check_config(changed(**{"trainer.v1": {"trainer_mode": "sync", "sync": {"parameter_sync_step": 2}}}))


@pytest.mark.parametrize("key", REFUSED)
def test_what_makes_log_probs_or_versions_mean_other_things_is_refused(key):
    with pytest.raises(RepoConfigError, match=rf"^{key}={REFUSED[key]} can't be combined with RePO \(.*\): set {key}="):
        check_config(changed(**{key: REFUSED[key]}))
    check_config(changed(**{key: REFUSED[key], "trainer.v1.trainer_mode": "sync"}))
    check_config(changed(**{key: REFUSED[key], "algorithm.repo": {"strategy": "none"}}))


def test_several_updates_a_step_are_refused():
    key = "trainer.v1.colocate_async.parameter_sync_step"
    with pytest.raises(RepoConfigError, match=f"^{key}=2 can't be combined with RePO"):
        check_config(changed(**{key: 2}))


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("separate_async", "of which verl keeps no copy under fsdp2 where parameters lie on the CPU"),
        ("other", "no mode of verl"),
    ],
)
@pytest.mark.parametrize("strategy", ["recency", "none"])
def test_other_modes_are_refused_whatever_the_strategy(mode, reason, strategy):
    config = changed(**{"trainer.v1.trainer_mode": mode, "algorithm.repo": {"strategy": strategy}})
    with pytest.raises(RepoConfigError, match=f"^trainer.v1.trainer_mode={mode} can't .*{reason}") as caught:
        check_config(config)
    assert str(caught.value).endswith("): use sync or colocate_async.") and str(caught.value).count(".") == 3
