"""The run scripts, whole: verl's command with vLLM, FSDP2, Ray and TransferQueue on the CPU."""

import contextlib
import json
import os
import subprocess
import threading
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from repo_verl.report import read_log

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
DEEPMATH = ROOT.parent / "shared" / "data" / "train" / "alibaba__ROLL__math_deepmath_deal.jsonl"


def script(name, *arguments, **environment):
    return subprocess.run(
        ["bash", str(ROOT / "run_scripts" / name), *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.full
@pytest.mark.shared_data
def test_main_job_on_real_deepmath_prompts(tmp_path):
    done = script("deepmath_cpu.sh", str(DEEPMATH), OUTPUT=str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    steps = {step: data for step, data in read_log(tmp_path)}
    assert sorted(steps) == list(range(1, 13)), "3 epochs over 16 prompts, 4 a step"
    assert all(steps[step]["repo/replayed_rows"] == 0 for step in range(1, 9)), "16 rows are held from epoch 3 on"
    third = [steps[step] for step in range(9, 13)]
    assert all(data["repo/replayed_rows"] == 4 * 8 for data in third)
    # prompts are shuffled in each epoch; over an epoch the rows are one epoch old on average
    assert sum(data["repo/age_mean"] for data in third) / 4 == pytest.approx(4)
    assert sum(data["repo/effective_prompts_all"] for data in third) > 0
    assert sum(data["repo/grad_norm_replayed"] for data in third) > 0
    assert all(data["repo/effective_prompts_all"] >= data["repo/effective_prompts_fresh"] for data in third)
    accuracy = json.loads((tmp_path / "base-42" / "tiny.json").read_text())["accuracy"]
    assert 0.2 <= accuracy <= 0.6
    assert steps[12]["repo/buffer_rows"] == 16 * 16


@pytest.mark.full
@pytest.mark.shared_data
def test_two_steps_on_real_prompts_with_gold_answers_of_any_kind(tmp_path):
    """The model boxes golds of other prompts too, TeX among them, so the reward workers need the symbolic engine."""
    graders, ended = set(), threading.Event()

    def watch():
        while not ended.wait(0.2):
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if "repo_verl.rewards.judge" in " ".join(process.cmdline()):
                        graders.add(process.parent().name())

    watcher = threading.Thread(target=watch)
    watcher.start()
    done = script(
        "deepmath_cpu.sh", str(DEEPMATH), "trainer.total_training_steps=2", OUTPUT=str(tmp_path), ANSWERS="golds"
    )
    ended.set()
    watcher.join()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = pq.read_table(tmp_path / "data" / "deepmath_train.parquet").to_pylist()
    golds = [row["reward_model"]["ground_truth"] for row in rows]
    assert len(golds) == 16 and any("\\" in gold for gold in golds) and any(gold.isdigit() for gold in golds)
    steps = dict(read_log(tmp_path))
    assert sorted(steps) == [1, 2] and steps[2]["repo/buffer_rows"] == 2 * 4 * 8
    for data in steps.values():
        counts = [data[f"repo/reward_{status}"] for status in ("timeout", "error", "no_answer", "gold_unparseable")]
        assert all(count >= 0 for count in counts) and sum(counts) < 16 and data["repo/reward_gold_unparseable"] == 0
    assert "ray::RewardLoopWorker" in graders, graders


KEYS = (
    "steps val_accuracy_first val_accuracy_last effective_prompts_fresh effective_prompts_all effective_steps "
    "replayed_rows seconds_per_step tokens_trained"
).split()


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The folder of ten steps of RePO's arm."""
    folder = tmp_path_factory.mktemp("quickstart")
    done = script("quickstart.sh", "--steps", "10", "--seed", "1", "--only", "repo", OUTPUT=str(folder))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def read_summary(folder, arms):
    """The summary of a quickstart whose arms took ten steps each."""
    summary = json.loads((folder / "summary.json").read_text())
    for arm in arms:
        assert all(isinstance(summary[arm][key], int | float) for key in KEYS), summary[arm]
        assert summary[arm]["steps"] == 10
    assert summary["seed"] == 1
    return summary


def test_quickstart_of_one_arm_replays_and_reports(quickstart):
    repo = read_summary(quickstart, ["repo"])["repo"]
    assert repo["val_accuracy_first"] > 0.1 and repo["replayed_rows"] == 2 * 16 * 8
    # two steps replay: they may happen to revive no prompt, and can never silence one (40 steps always revive some)
    assert repo["effective_prompts_all"] >= repo["effective_prompts_fresh"] > 0
    assert (quickstart / "report.png").stat().st_size > 10_000


@pytest.mark.full
def test_quickstart_ends_with_a_table_and_is_reused(quickstart):
    """The other arm joins; what was trained before is kept."""
    done = script("quickstart.sh", "--steps", "10", "--seed", "1", OUTPUT=str(quickstart))
    assert done.returncode == 0 and done.stderr.count("kept") == 1, done.stdout[-3000:] + done.stderr[-3000:]
    summary = read_summary(quickstart, ["grpo", "repo"])
    # one model, greedy; vLLM's batches round differently, which can change a few of 512 answers
    first = [summary[arm]["val_accuracy_first"] for arm in ("grpo", "repo")]
    assert first[0] == pytest.approx(first[1], abs=0.02) and first[0] > 0.1
    assert summary["grpo"]["replayed_rows"] == 0 and summary["repo"]["replayed_rows"] == 2 * 16 * 8
    assert (quickstart / "report.png").stat().st_size > 10_000
    again = script("quickstart.sh", "--steps", "10", "--seed", "1", OUTPUT=str(quickstart))
    assert again.returncode == 0 and again.stderr.count("kept") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--steps", "many"], "--steps and --seed take numbers"), (["--fast", "1"], "unknown argument --fast")],
)
def test_quickstart_says_what_is_wrong(arguments, message):
    done = script("quickstart.sh", *arguments)
    assert done.returncode == 1 and message in done.stderr


@pytest.mark.full
@pytest.mark.parametrize("name", ["run_qwen25_math.sh", "run_grpo_qwen25_math.sh"])
def test_dry_run_prints_yaml(name):
    import yaml

    done = script(name, DRY_RUN="1")
    assert done.returncode == 0, done.stderr[-2000:]
    config = yaml.safe_load(done.stdout)
    assert config["actor_rollout_ref"]["model"]["path"] == "Qwen/Qwen2.5-Math-1.5B"
    assert config["trainer"]["n_gpus_per_node"] == 8 and config["trainer"]["total_epochs"] == 3
    assert config["algorithm"]["adv_estimator"] == ("grpo" if "grpo" in name else "repo")


@pytest.mark.full
def test_twins_differ_in_the_switch_and_names_alone():
    repo, grpo = (
        script(name, DRY_RUN="1", OUTPUT="x").stdout.splitlines()
        for name in ("run_qwen25_math.sh", "run_grpo_qwen25_math.sh")
    )
    differing = {
        line.split(":")[0].strip() for pair in zip(repo, grpo, strict=True) if pair[0] != pair[1] for line in pair
    }
    assert differing == {"adv_estimator", "experiment_name"}


def test_missing_data_is_one_sentence(tmp_path):
    done = script("run_qwen25_math.sh", DATA=str(tmp_path))
    assert done.returncode == 1 and "python -m data_prep deepmath" in done.stderr


def test_check_finds_nothing_wrong_here():
    done = subprocess.run(["repo-verl", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "PROBLEM" not in done.stdout and "no GPU" in done.stdout and "dispatches to RePO" in done.stdout
