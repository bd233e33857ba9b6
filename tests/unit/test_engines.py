"""Which engines and which of their settings RePO refuses, in one sentence each."""

from types import SimpleNamespace

import pytest

from repo_verl.config import RepoConfigError
from repo_verl.trainer.validation import check_config, refuse_experts


def config(strategy="megatron", model=None, repo=None, optim=None, fsdp=None, **megatron):
    """verl's settings of an actor."""
    actor = {"strategy": strategy, "megatron": megatron or {"context_parallel_size": 1}, "optim": optim or {}}
    actor["fsdp_config"] = fsdp or {}
    return {
        "algorithm": {"repo": repo or {}},
        "actor_rollout_ref": {"actor": actor, "model": model or {}, "rollout": {"n": 8}},
    }


FLOAT16 = {"mixed_precision": {"param_dtype": "fp16"}}
SERVED = {
    "fsdp": config("fsdp"),
    "fsdp2": config("fsdp2", context_parallel_size=2),
    "parallel": config(tensor_model_parallel_size=4, pipeline_model_parallel_size=2, sequence_parallel=True),
    "vpp_of_one": config(virtual_pipeline_model_parallel_size=1),
    "verl_defaults": config(
        virtual_pipeline_model_parallel_size=None, context_parallel_size=1, dynamic_context_parallel=False,
        use_megatron_fsdp=False, router_replay={"mode": "disabled"},
    ),
    "fp16_counted": config("fsdp2", repo={"on_nonfinite": "skip"}, fsdp=FLOAT16),
    "w4a16": config("fsdp", fsdp={"qat": {"enable": True, "mode": "w4a16"}}),
    "replay_off": config(context_parallel_size=2, repo={"strategy": "none"}),
}  # fmt: skip

ACTOR = "actor_rollout_ref.actor."
REFUSED = {
    "veomni": (config("veomni"), ACTOR + "strategy=veomni", "use fsdp, fsdp2 or megatron."),
    "vpp": (
        config(virtual_pipeline_model_parallel_size=2),
        ACTOR + "megatron.virtual_pipeline_model_parallel_size=2",
        "set " + ACTOR + "megatron.virtual_pipeline_model_parallel_size=null.",
    ),
    "cp": (config(context_parallel_size=2), "context_parallel_size=2", "context_parallel_size=1."),
    "dcp": (config(dynamic_context_parallel=True), "dynamic_context_parallel=True", "dynamic_context_parallel=False."),
    "fsdp": (config(use_megatron_fsdp=True), "use_megatron_fsdp=True", "use_megatron_fsdp=False."),
    "routes": (config(router_replay={"mode": "R2"}), "router_replay.mode=R2", "router_replay.mode=disabled."),
    "skip": (config(repo={"on_nonfinite": "skip"}), "algorithm.repo.on_nonfinite=skip", "on_nonfinite=stop."),
    "no_clip": (config(optim={"clip_grad": 0.0}), "optim.clip_grad=0.0", "such as 1e9."),
    "clip_below": (
        config(optim={"override_optimizer_config": {"clip_grad": 0.0}}),
        "override_optimizer_config.clip_grad=0.0",
        "override_optimizer_config.clip_grad=null.",
    ),
    "cp_below": (
        config(override_transformer_config={"context_parallel_size": 2}),
        "override_transformer_config.context_parallel_size=2",
        "context_parallel_size=null.",
    ),
    "fp8": (config(override_transformer_config={"fp8": "e4m3"}), "fp8=e4m3", "fp8=null."),
    "qat": (config(qat={"enable": True}), "qat.enable=True", "qat.enable=False."),
    "fp16": (
        config("fsdp2", fsdp=FLOAT16),
        "fsdp_config.mixed_precision.param_dtype=fp16",
        "set algorithm.repo.on_nonfinite=skip or use bf16.",
    ),
    "w4a4": (
        config("fsdp", fsdp={"qat": {"enable": True, "mode": "w4a4"}}),
        "fsdp_config.qat.mode=w4a4",
        "fsdp_config.qat.mode=w4a16.",
    ),
    "mtp": (config(model={"mtp": {"enable": True}}), "model.mtp.enable=True", "model.mtp.enable=False."),
}


@pytest.mark.parametrize("name", SERVED)
def test_served(name):
    assert check_config(SERVED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name):
    given, key, remedy = REFUSED[name]
    with pytest.raises(RepoConfigError) as error:
        check_config(given)
    text = str(error.value)
    assert key in text and " can't be combined with RePO (" in text and text.endswith(remedy), text


def test_strategy_without_the_engines_block_is_refused():
    given = config()
    del given["actor_rollout_ref"]["actor"]["megatron"]
    with pytest.raises(RepoConfigError, match=r"strategy=megatron can't .* add model_engine=megatron\.$"):
        check_config(given)


@pytest.mark.parametrize("name", ["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"])
def test_mixture_of_experts_is_refused_under_megatron_alone(name):
    model = SimpleNamespace(text_config=SimpleNamespace(**{name: 8}))
    with pytest.raises(RepoConfigError, match=f"model.path=m has {name}=8, which can't be combined"):
        refuse_experts(config(model={"path": "m"}), model)
    refuse_experts(config("fsdp2"), model)


@pytest.mark.parametrize(
    "model", [SimpleNamespace(), SimpleNamespace(num_experts=1), SimpleNamespace(num_experts=None)]
)
def test_dense_models_have_no_experts(model):
    refuse_experts(config(), model)
