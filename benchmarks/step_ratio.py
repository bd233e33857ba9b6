"""A whole RePO step over a whole GRPO step: one run on the quickstart's model that alternates steps of four kinds.

    python benchmarks/step_ratio.py [--rounds 12] [--quickstart runs/quickstart]
    python benchmarks/step_ratio.py --large [--rounds 9]

Every round has one step of each kind (see step_kinds.py), in rotating order, on the same 16 prompts, with the base
model of the quickstart and a learning rate of 0: model, prompts and generation are the same, the scores the grader's.
The ratio of a round compares its steps; the median and the range over rounds are reported. Needs the quickstart's data
and base model (``bash run_scripts/quickstart.sh --steps 1`` makes them). ``--large`` takes a random model of 31.5 M
parameters instead, 4 prompts x 4 responses of 224 tokens, and coin_reward.py: steps in which the model's work counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import write_result

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("grpo_stock", "repo_stock", "grpo_pruned", "repo")
PAIRS = {
    "a_stock_poll_unpruned": ("repo_stock", "grpo_stock"),
    "b_pruned_both": ("repo", "grpo_pruned"),
    "c_defaults_over_stock_grpo": ("repo", "grpo_stock"),
}
WARM_UP = 4
OWN = tuple(f"timing_s/repo_{part}" for part in ("select", "retrieve", "place", "insert"))


def schedule(rounds: int) -> list[str]:
    """The kind of every step: a warm-up with replay, then rounds of all kinds in rotating order."""
    turns = [KINDS[(number + turn) % len(KINDS)] for turn in range(rounds) for number in range(len(KINDS))]
    return ["repo"] * WARM_UP + turns


def quickstart_settings(folder: Path, quickstart: Path) -> list[str]:
    """The quickstart's base model and its first 16 prompts."""
    import pyarrow.parquet as pq

    data = folder / "prompts.parquet"
    pq.write_table(pq.read_table(quickstart / "data" / "arithmetic_train.parquet").slice(0, 16), data)
    return [
        f"actor_rollout_ref.model.path={quickstart / 'base-0'}", f"data.train_files={data}", f"data.val_files={data}",
    ]  # fmt: skip


def large_settings(folder: Path) -> list[str]:
    """A random model of 31.5 M parameters and 4 prompts with 4 responses of 224 tokens each."""
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    from tiny_model import make_tiny_model, write_prompts

    make_tiny_model(folder / "model", hidden=512, layers=12)
    data = write_prompts(folder / "prompts.parquet", [f"{number}+{number}=?" for number in range(4)])
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    return [
        f"actor_rollout_ref.model.path={folder / 'model'}", f"data.train_files={data}", f"data.val_files={data}",
        "data.train_batch_size=4", "data.max_response_length=224", f"{actor}.ppo_mini_batch_size=4",
        f"{actor}.ppo_micro_batch_size_per_gpu=8", f"{rollout}.n=4", f"{rollout}.ignore_eos=True",
        f"{rollout}.log_prob_micro_batch_size_per_gpu=8", "algorithm.repo.min_size=4", "algorithm.repo.num_replay=4",
        "algorithm.repo.capacity=8", f"reward.custom_reward_function.path={ROOT / 'benchmarks/coin_reward.py'}",
    ]  # fmt: skip


def run(folder: Path, settings: list[str], kinds: list[str]) -> list[dict[str, Any]]:
    """Train and return what was logged of every step after the warm-up."""
    command = [
        sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(ROOT / "recipe/repo/config"),
        "--config-name", "repo_quickstart", f"hydra.run.dir={folder}", *settings, "data.shuffle=False",
        "actor_rollout_ref.actor.optim.lr=0.0", "trainer.val_before_train=False", "trainer.test_freq=-1",
        "trainer.save_freq=-1", "trainer.logger=[file]", f"trainer.total_training_steps={len(kinds)}",
        "trainer.total_epochs=100000", f"trainer.default_local_dir={folder / 'checkpoints'}",
    ]  # fmt: skip
    log, metrics = folder / "log", folder / "metrics.jsonl"
    environment = {
        **os.environ, "VERL_PLATFORM": "cpu", "REPO_STEP_KINDS": ",".join(kinds), "REPO_VERL_CPU_FORK": "0",
        "VERL_USE_EXTERNAL_MODULES": "step_kinds", "PYTHONPATH": str(ROOT / "benchmarks"),
        "VERL_FILE_LOGGER_PATH": str(metrics),
    }  # fmt: skip
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode != 0:
        sys.exit(f"the run ended with {done.returncode}; the end of its log:\n{log.read_text()[-3000:]}")
    steps = [json.loads(line)["data"] for line in metrics.read_text().splitlines()]
    steps = [step for step in steps if "timing_s/step" in step]
    if [step["step_kind"] for step in steps] != kinds:
        sys.exit("steps are not of the kinds that were asked for")
    return steps[WARM_UP:]


def spread(values: list[float], digits: int = 3) -> str:
    """``median [least - most]``."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f} - {max(values):.{digits}f}]"


def summarise(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios a round, as median and range, and what RePO's own work took."""
    rounds = [{step["step_kind"]: step for step in steps[i : i + len(KINDS)]} for i in range(0, len(steps), len(KINDS))]
    result: dict[str, Any] = {"rounds": len(rounds)}
    for name, (ours, theirs) in PAIRS.items():
        for label, key in (("step", "timing_s/step"), ("update", "timing_s/update_actor")):
            ratios = [turn[ours][key] / turn[theirs][key] for turn in rounds]
            result[f"{name}_{label}"] = spread(ratios)
    for kind in KINDS:
        mine = [turn[kind] for turn in rounds]
        result[f"seconds_step_{kind}"] = spread([step["timing_s/step"] for step in mine])
        result[f"seconds_update_{kind}"] = spread([step["timing_s/update_actor"] for step in mine])
    mine = [turn["repo"] for turn in rounds]
    result["own_work_share_of_step"] = spread([sum(s[k] for k in OWN) / s["timing_s/step"] for s in mine], 4)
    for key in OWN:
        result[f"own_work_ms_{key.rsplit('_', 1)[1]}"] = spread([s[key] * 1e3 for s in mine], 1)
    result["own_work_exposed_share"] = spread([s["timing_s/repo_exposed"] / s["timing_s/step"] for s in mine], 4)
    result["own_work_exposed_ms"] = spread([s["timing_s/repo_exposed"] * 1e3 for s in mine], 1)
    result["zero_advantage_share_fresh"] = spread([s["repo/zero_advantage_share_fresh"] for s in mine])
    result["zero_advantage_share_replayed"] = spread([s["repo/zero_advantage_share_replayed"] for s in mine])
    gain = [
        turn["repo"]["repo/effective_prompts_all"] / turn["repo"]["timing_s/step"]
        / (turn["repo"]["repo/effective_prompts_fresh"] / turn["grpo_stock"]["timing_s/step"])
        for turn in rounds
    ]  # fmt: skip
    result["effective_prompts_per_second"] = spread(gain)
    return result


def main() -> None:
    """Run and write ``results/step_ratio.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="steps of every kind (default 12)")
    parser.add_argument("--quickstart", type=Path, default=ROOT / "runs/quickstart", help="the quickstart's folder")
    parser.add_argument("--large", action="store_true", help="a random model of 31.5 M parameters")
    arguments = parser.parse_args()
    if not arguments.large and not (arguments.quickstart / "base-0" / "tiny.json").exists():
        parser.error(f"{arguments.quickstart} has no base-0: bash run_scripts/quickstart.sh --steps 1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = (
            large_settings(folder) if arguments.large else quickstart_settings(folder, arguments.quickstart.resolve())
        )
        steps = run(folder, settings, schedule(arguments.rounds))
    write_result("step_ratio_large" if arguments.large else "step_ratio", summarise(steps))


if __name__ == "__main__":
    main()
