"""The run scripts themselves: dry runs of all of them, and real runs that are refused before Ray starts."""

import os
import re
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from small_inputs import write_inputs

pytestmark = pytest.mark.contract

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "run_scripts").glob("run_*.sh"))
BRANCHES = [name for name in SCRIPTS if not name.startswith("run_grpo_")]
SETTINGS = (
    "CONFIG_NAME",
    "VERL_PLATFORM",
    "SKIP_DOUBTS",
    "SKIP_PREFLIGHT",
    "RAY_ADDRESS",
    "ADV_ESTIMATOR",
    "STRATEGY",
    "MODEL",
)


def script(name, *arguments, **environment):
    inherited = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    inherited["PATH"] = f"{Path(sys.executable).parent}:{inherited['PATH']}"
    return subprocess.run(
        ["bash", str(ROOT / "run_scripts" / name), *arguments],
        capture_output=True, text=True, check=False, env={**inherited, **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def dry_runs():
    """Every script's dry run, two at a time: name -> finished process."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(SCRIPTS, pool.map(lambda name: script(name, DRY_RUN="1", OUTPUT="x"), SCRIPTS), strict=True))


def flat(node, path=""):
    if not isinstance(node, dict):
        return {path: node}
    return {key: value for name, child in node.items() for key, value in flat(child, f"{path}.{name}").items()}


def test_every_script_composes_and_differs_from_its_twin_in_the_estimator_alone(dry_runs):
    assert len(BRANCHES) >= 5 and {f"run_grpo_{name[4:]}" for name in BRANCHES} | set(BRANCHES) == set(SCRIPTS)
    configs = {}
    for name, done in dry_runs.items():
        assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"
        configs[name] = flat(yaml.safe_load(done.stdout))
    for name in BRANCHES:
        repo, grpo = configs[name], configs[f"run_grpo_{name[4:]}"]
        differing = {key: (repo.get(key), grpo.get(key)) for key in {*repo, *grpo} if repo.get(key) != grpo.get(key)}
        arm = f"repo_{repo['.algorithm.repo.strategy']}"
        names = dict.fromkeys(
            (".trainer.experiment_name", ".actor_rollout_ref.rollout.trace.experiment_name"), (arm, "grpo")
        )
        assert differing == {".algorithm.adv_estimator": ("repo", "grpo"), **names}, name


def test_a_seed_reaches_data_buffer_and_vllm():
    found = flat(yaml.safe_load(script("run_qwen25_math.sh", DRY_RUN="1", SEED="7").stdout))
    assert {found[f".{key}"] for key in ("data.seed", "algorithm.repo.seed", "actor_rollout_ref.rollout.seed")} == {7}
    assert found[".trainer.default_local_dir"].endswith("/runs/qwen25_math_repo_recency_seed7/checkpoints")
    twin = flat(yaml.safe_load(script("run_grpo_qwen25_math.sh", DRY_RUN="1", SEED="7").stdout))
    assert twin[".trainer.default_local_dir"].endswith("/runs/qwen25_math_grpo_seed7/checkpoints")


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("Qwen/Qwen2.5-Math-1.5B", "Qwen_Qwen2.5-Math-1.5B"),
        ("runs/x_grpo_seed1/checkpoints/", "runs_x_grpo_seed1_checkpoints"),
        ("/a/runs/x_grpo_seed1/checkpoints/global_step_8/actor", "runs_x_grpo_seed1_checkpoints_global_step_8_actor"),
        ("/a/x_grpo/checkpoints/global_step_8/actor/huggingface", "x_grpo_checkpoints_global_step_8_actor_huggingface"),
    ],
)
def test_evaluations_of_two_runs_have_two_folders(tmp_path, model, folder):
    (tmp_path / "benchmarks.json").touch()
    (tmp_path / "repo-verl").write_text('#!/usr/bin/env bash\necho "$@"\n')
    (tmp_path / "repo-verl").chmod(0o755)
    python = Path(sys.executable).parent
    path = f"{tmp_path}:{python}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(ROOT / "run_scripts" / "evaluate_math.sh"), model], capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": path, "BENCHMARKS": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.split()[-1] == str(ROOT / "runs" / "evaluations" / folder)


def test_settings_of_the_scripts(dry_runs):
    found = {name: flat(yaml.safe_load(dry_runs[name].stdout)) for name in BRANCHES}
    rollout, actor = ".actor_rollout_ref.rollout.", ".actor_rollout_ref.actor."
    assert found["run_qwen3_1b7.sh"][".algorithm.repo.strategy"] == "reward"
    assert found["run_qwen25_math_7b.sh"][".algorithm.repo.strategy"] == "recency"
    assert found["run_qwen25_math_7b.sh"][".data.max_response_length"] == 1024
    lora = found["run_qwen25_0b5_lora.sh"]
    assert lora[".actor_rollout_ref.model.lora_rank"] == 32 and lora[".trainer.n_gpus_per_node"] == 1
    assert lora[rollout + "load_format"] == "safetensors" and lora[rollout + "layered_summon"] is True
    offload = found["run_qwen25_math_7b_offload.sh"]
    assert offload[actor + "strategy"] == "fsdp2" and offload[actor + "fsdp_config.param_offload"] is True
    assert offload[actor + "fsdp_config.optimizer_offload"] is True


def test_verl_and_repo_accept_every_script(dry_runs, monkeypatch):
    """Their own validation, which comes before Ray in a run; vLLM's limit of LoRA's rank alone is left out."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    ranks = []
    helper = types.SimpleNamespace(get_vllm_max_lora_rank=ranks.append)
    monkeypatch.setitem(sys.modules, "verl.workers.rollout.vllm_rollout.utils", helper)
    for name, done in dry_runs.items():
        config = OmegaConf.create(done.stdout)
        validate_config(config, need_reference_policy(config), need_critic(config))
        OmegaConf.update(config, "actor_rollout_ref.rollout.n", 1)
        if not name.startswith("run_grpo_"):
            with pytest.raises(ValueError, match="rollout.n=1"):
                validate_config(config, need_reference_policy(config), need_critic(config))
    assert ranks == [32, 32]


def test_the_table_of_the_documentation_has_the_scripts_models_and_gpus(dry_runs):
    first = (ROOT / "docs" / "run_scripts.md").read_text().split("\n## ")[0]
    rows = [line for line in first.splitlines() if line.startswith("| `run_")]
    table = {re.match(r"\| `(\S+?)`", row).group(1): [cell.strip() for cell in row.split("|")[2:-1]] for row in rows}
    assert set(table) == set(BRANCHES)
    for name in BRANCHES:
        found = flat(yaml.safe_load(dry_runs[name].stdout))
        model, gpus = found[".actor_rollout_ref.model.path"], found[".trainer.n_gpus_per_node"]
        assert table[name][0].startswith(f"`{model}`") and table[name][1] == str(gpus), name


@pytest.fixture
def recorder(tmp_path):
    """A folder for the PATH whose `python` notes its arguments, and is Python but where it would start verl."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shim = folder / "python"
    shim.write_text(
        f"""#!/usr/bin/env bash
printf '%s\\0' "$@" >>{folder}/words; printf '\\n' >>{folder}/words
[ "$2" = verl.trainer.main_ppo ] && exit 77
exec {sys.executable} "$@"
"""
    )
    shim.chmod(0o755)
    return folder


def calls(recorder):
    return [line.split("\0")[:-1] for line in (recorder / "words").read_text().splitlines()]


def test_the_dry_run_is_what_verl_composes(dry_runs, recorder):
    """Ours does not import verl; its own command on the same arguments prints the same."""
    name = "run_qwen25_0b5_lora.sh"
    done = script(name, DRY_RUN="1", OUTPUT="x", PATH=f"{recorder}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    words = calls(recorder)[-1]
    assert words[:3] == ["-m", "repo_verl.preflight", "--dry-run"]
    stock = subprocess.run(
        [sys.executable, "-m", "verl.trainer.main_ppo", "--cfg", "job", "--resolve", *words[3:]],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert stock.stdout == done.stdout == dry_runs[name].stdout


@pytest.fixture
def run(tmp_path, recorder):
    """The main job's script on the CPU backend, 8 prompts, a tiny model: status, errors, whether it reached verl."""
    data, model = write_inputs(tmp_path)
    ray = tmp_path / "ray"
    ray.mkdir()

    def start(*arguments, **environment):
        settings = {
            "PATH": f"{recorder}:{os.environ['PATH']}", "CONFIG_NAME": "repo_cpu", "VERL_PLATFORM": "cpu",
            "NUM_GPUS": "1", "MODEL": str(model),
            "TRAIN_FILE": str(data), "OUTPUT": str(tmp_path / "out"), "RAY_TMPDIR": str(ray),
        }  # fmt: skip
        done = script("run_qwen25_math.sh", *arguments, **{**settings, **environment})
        reached = any(words[:2] == ["-m", "verl.trainer.main_ppo"] for words in calls(recorder))
        (recorder / "words").unlink()
        assert not list(ray.iterdir()) and done.stdout == ""
        return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("error: ")], reached

    return start


ROWS = (
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
)
"""4 prompts of 8 responses in mini-batches of 3: verl pads 32 rows to 48, two mini-batches of 24."""


def test_a_run_with_nothing_wrong_reaches_verl(run):
    assert run() == (77, [], True)


def test_a_wrong_batch_size_stops_before_ray(run):
    status, (error,), reached = run("actor_rollout_ref.actor.ppo_mini_batch_size=5")
    assert status == 1 and not reached
    assert "actor_rollout_ref.actor.ppo_mini_batch_size=5 is more than data.train_batch_size=4" in error


def test_a_batch_that_verl_pads_reaches_verl(run):
    assert run("actor_rollout_ref.actor.ppo_mini_batch_size=3", *ROWS) == (77, [], True)


def test_a_refusal_can_be_overruled(run):
    assert run("actor_rollout_ref.actor.ppo_mini_batch_size=5", SKIP_PREFLIGHT="1") == (77, [], True)


def test_a_flag_of_hydra_reaches_verl(run):
    assert run("--cfg", "job") == (77, [], True)


def test_missing_files_stop_before_ray(run, tmp_path):
    missing = str(tmp_path / "none.parquet")
    status, errors, reached = run(VAL_FILE=missing, MODEL=str(tmp_path / "nothing"))
    assert status == 1 and not reached and len(errors) == 2
    assert f"data.val_files={missing} is missing" in errors[0]
    assert "actor_rollout_ref.model.path=" in errors[1] and "no folder with a config.json" in errors[1]


def test_what_is_likely_stops_before_ray_unless_doubts_are_skipped(run):
    actor = "actor_rollout_ref.actor."
    log_probs = "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=9999"  # else the actor's
    short = (f"{actor}use_dynamic_bsz=True", f"{actor}ppo_max_token_len_per_gpu=95", log_probs)
    status, (error,), reached = run(*short)
    assert status == 1 and not reached and "ppo_max_token_len_per_gpu=95 is less" in error
    assert run(*short, SKIP_DOUBTS="1") == (77, [], True)
    status, (error,), reached = run("actor_rollout_ref.actor.ppo_mini_batch_size=5", SKIP_DOUBTS="1")
    assert status == 1 and not reached and "ppo_mini_batch_size=5 is more" in error, "exact checks are never skipped"


def test_a_gpu_run_on_a_machine_without_gpus_stops_before_ray(run, recorder):
    (recorder / "nvidia-smi").write_text("#!/bin/sh\necho No devices were found\n")
    (recorder / "nvidia-smi").chmod(0o755)
    status, errors, reached = run(CONFIG_NAME="repo_gpu", CUDA_VISIBLE_DEVICES="")
    assert status == 1 and not reached
    assert any("trainer.n_gpus_per_node=1 and this machine shows no GPU" in error for error in errors)
    status, (error,), reached = run("algorithm.rpo=1")
    assert status == 1 and not reached and "algorithm.rpo" in error and "can't be composed" in error


def test_preflight_is_a_command(capsys):
    from repo_verl.cli import main

    assert main(["preflight", "--config-dir", "nowhere", "--config-name", "repo_gpu"]) == 1
    assert "--config-dir=nowhere is no folder" in capsys.readouterr().err
