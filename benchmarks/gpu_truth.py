"""On a GPU: seconds of a whole RePO step over a whole GRPO step, tokens per second and peak memory.

    python benchmarks/gpu_truth.py [--size 1.5b] [--tokens 1024] [--prompts 4] [--rounds 9]

One run of verl's default stack (vLLM, FSDP2, bf16, flash attention) that alternates steps of four kinds, as
step_ratio.py does on the CPU, on a model with random weights that is made on the spot (``1.5b``: Qwen2.5-1.5B's blocks
with a small vocabulary), ``prompts`` x 8 responses of exactly ``tokens`` tokens, coin_reward.py, a learning rate of 0.
Writes ``results/gpu_truth.json`` with the device's name. Never run on a GPU yet. ``--device cpu`` tries the program on
the CPU backend and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import write_result
from step_ratio import KINDS, ROOT, WARM_UP, schedule, spread, summarise

sys.path.insert(0, str(ROOT / "tests" / "helpers"))

Steps = list[dict[str, Any]]


def run(folder: Path, options: argparse.Namespace) -> Steps:
    """Train and return what was logged of every step after the warm-up."""
    from gpu_stack import make_model, settings, train

    size = options.size if options.device == "cuda" else "cpu"
    model = make_model(folder / "model", size)
    kinds = schedule(options.rounds)
    arguments = [
        *settings(options.device, folder, model, options.prompts, options.tokens),
        "algorithm.adv_estimator=repo", "algorithm.repo.min_size=8", "actor_rollout_ref.rollout.ignore_eos=True",
        "actor_rollout_ref.actor.optim.lr=0.0",
    ]  # fmt: skip
    environment = {
        "REPO_STEP_KINDS": ",".join(kinds), "REPO_VERL_CPU_FORK": "0", "VERL_USE_EXTERNAL_MODULES": "step_kinds",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }  # fmt: skip
    steps = train(options.device, folder / "run", arguments, len(kinds), **environment)
    if [step["step_kind"] for step in steps] != kinds:
        raise RuntimeError("steps are not of the kinds that were asked for")
    return steps[WARM_UP:]


def throughput(steps: Steps) -> dict[str, Any]:
    """Tokens a second and memory of every kind of step, median and range."""
    result = {}
    for kind in KINDS:
        mine = [step for step in steps if step["step_kind"] == kind]
        result[f"tokens_a_second_{kind}"] = spread([step["perf/throughput"] for step in mine], 0)
        # tokens of the update, replayed rows included, over its seconds; verl's own trains on all that it generated
        tokens = [step.get("repo/update_tokens", step["perf/total_num_tokens"]) for step in mine]
        updates = [count / step["timing_s/update_actor"] for count, step in zip(tokens, mine, strict=True)]
        result[f"update_tokens_a_second_{kind}"] = spread(updates, 0)
        peak = [step["actor/perf/max_memory_allocated_gb"] for step in mine]
        result[f"peak_memory_gib_{kind}"] = spread(peak, 2)
    return result


def describe_device(device: str) -> dict[str, Any]:
    """The device's name and memory, and the versions that its speed depends on."""
    import torch

    if device == "cpu":
        return {"device": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name, "device_memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda, "torch": torch.__version__,
    }  # fmt: skip


def main() -> None:
    """Run and write ``results/gpu_truth.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("small", "1.5b"), default="1.5b", help="of the model on a GPU")
    parser.add_argument("--tokens", type=int, default=1024, help="of every response")
    parser.add_argument("--prompts", type=int, default=4, help="a step; 8 responses each")
    parser.add_argument("--rounds", type=int, default=9, help="steps of every kind")
    options = parser.parse_args()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device: run it on a machine with one (docs/gpu.md)")
    with tempfile.TemporaryDirectory() as name:
        steps = run(Path(name), options)
    values = {
        **describe_device(options.device), "size": options.size, "tokens": options.tokens, "prompts": options.prompts,
        **throughput(steps), **summarise(steps),
    }  # fmt: skip
    if options.device == "cpu":
        print("\n".join(f"{key:<40} {value}" for key, value in values.items()))
    else:
        write_result("gpu_truth", values)


if __name__ == "__main__":
    main()
