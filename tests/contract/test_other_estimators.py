"""GRPO with this package installed and one of its hooks made to fail; and RePO, which must then be refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.contract, pytest.mark.full]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "helpers" / "sabotaged_plugin.py"
OF_GRPO = (
    "none", "_wrap_validation", "_register_estimator", "_register_trainer", "_mark_weight_sender",
    "_mark_weight_receiver", "_check_run", "_check_golds",
)  # fmt: skip
OF_REPO = ("none", "_wrap_validation", "_register_estimator", "_register_trainer", "_check_run")
OURS = {"repo_verl.plugin", "repo_verl.import_hooks"}
STOCK = ["PPOTrainerSync", "PPOTrainerColocateAsync"]
REFUSED = "RuntimeError: repo-verl did not load (RuntimeError: made to fail), so RePO can't run: run `repo-verl check`"


def run(folder, platform, cases):
    """What the program says of each case."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(ROOT / "recipe" / "repo" / "config"), *cases],
        capture_output=True, text=True, check=False, cwd=folder, timeout=580,
        env={**os.environ, "VERL_PLATFORM": platform, "REPO_VERL_CPU_FORK": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]
    assert [one["case"] for one in told] == cases, done.stderr[-3000:]
    return dict(zip(cases, told, strict=True)), done.stderr


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """By HOOK:ESTIMATOR."""
    grpo, repo = [f"{hook}:grpo" for hook in OF_GRPO], [f"{hook}:repo" for hook in OF_REPO]
    folder = tmp_path_factory.mktemp("runs")
    return run(folder, "", grpo)[0] | run(folder, "cpu", repo)[0]


@pytest.mark.parametrize("hook", OF_GRPO)
def test_grpo_is_verls_own_whatever_hook_fails(told, hook):
    one = told[f"{hook}:grpo"]
    assert one["command"] == "SystemExit: Ray was started"
    assert one["trainers"] == STOCK and one["advantages"] == "torch.Size([2, 2])"
    assert one["ends"] == "['vllm_rollout.py', 'vllm_async_server.py']"
    assert set(one["loaded"]) == OURS


def test_repo_reaches_ray_and_its_trainers(told):
    one = told["none:repo"]
    assert one["command"] == "SystemExit: Ray was started"
    assert one["trainers"] == ["RepoTrainer", "RepoColocateAsyncTrainer"]


@pytest.mark.parametrize("hook", OF_REPO[1:])
def test_repo_is_never_a_silent_grpo(told, hook):
    """Before Ray, but where verl's validation is not ours to wrap; then as the trainer is made."""
    one = told[f"{hook}:repo"]
    before_ray = {"_check_run": "RuntimeError: made to fail", "_wrap_validation": "SystemExit: Ray was started"}
    assert one["command"].startswith(before_ray.get(hook, REFUSED))
    if hook == "_register_trainer":
        assert one["trainers"] == STOCK, "they would train, so their first advantages are refused"
    elif hook != "_check_run":
        assert all(text.startswith(REFUSED) for text in one["trainers"])
    if hook == "_register_estimator":
        assert one["advantages"].startswith("ValueError: Unknown advantage estimator")
    elif hook != "_check_run":
        assert one["advantages"].startswith(REFUSED)


def test_grpo_needs_no_part_of_the_package_but_the_plugin_and_repo_does(tmp_path):
    told, _ = run(tmp_path, "", ["all:grpo", "all:repo"])
    grpo, repo = told["all:grpo"], told["all:repo"]
    assert grpo["command"] == "SystemExit: Ray was started" and grpo["failures"] == []
    assert grpo["trainers"] == STOCK and grpo["advantages"] == "torch.Size([2, 2])" and set(grpo["loaded"]) == OURS
    for text in (repo["command"], *repo["trainers"], repo["advantages"]):
        assert text.startswith("ImportError: made to fail: repo_verl.trainer")


def test_a_cpu_backend_that_fails_is_told_and_verl_refuses_the_platform(tmp_path):
    told, stderr = run(tmp_path, "cpu", ["cpu:grpo"])
    one = told["cpu:grpo"]
    assert "VERL_PLATFORM=cpu: the CPU backend did not load: ImportError: made to fail: repo_verl.cpu" in stderr
    assert one["command"].startswith("ValueError: Unknown platform 'cpu'")
    assert one["failures"] == ["made to fail: repo_verl.cpu"] and one["advantages"] == "torch.Size([2, 2])"
