"""``repo-verl preflight``: takes the arguments of ``python -m verl.trainer.main_ppo``."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repo_verl.config import lookup
from repo_verl.preflight import batches, checks, engines, machine, notices, resume
from repo_verl.preflight.compose import compose, other_flags
from repo_verl.preflight.estimate import ASSUMED_PROMPTS, BANDWIDTH_SHARE, GIB, MFU, Estimate, make_estimate
from repo_verl.preflight.models import Dims, find_dims
from repo_verl.preflight.settings import FSDP, Config

DEFAULT_GPU_GIB = "80"


def main(arguments: Sequence[str]) -> int:
    """Compose, estimate, check; returns the exit status: 0, or 1 with one sentence a problem on standard error.

    Args:
        arguments: ``--dry-run`` first for the configuration on standard output and no check of this machine; the
            rest goes to Hydra.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: repo-verl preflight [--dry-run] [ARGUMENTS of python -m verl.trainer.main_ppo]")
        return 0
    dry = bool(arguments) and arguments[0] == "--dry-run"
    arguments = arguments[1:] if dry else arguments
    if flags := other_flags(arguments):
        print(f"preflight: nothing is checked with {' '.join(flags)}", file=sys.stderr)
        return 0
    try:
        composed = compose(arguments)
        config = _plain(composed)
        seen = machine.Seen() if lookup(config, "trainer.device") == "cpu" else machine.find_gpus()
        size = machine.gibibytes("GPU_GIB", os.environ.get("GPU_GIB") or DEFAULT_GPU_GIB)
        if seen.gpus and seen.gpus[0].total is not None:
            size = seen.gpus[0].total
        dims = find_dims(str(lookup(config, "actor_rollout_ref.model.path", "")))
        prompts = checks.count_prompts(config)
        problems = list(checks.find_refusals(config))
        problems += [] if dry else find_problems(config, dims, prompts, seen)
        estimate = None if problems else _estimate(config, dims, size, prompts)
        if not problems:
            lines = [*find_notices(config, seen, size, dry), *describe(config, estimate, size, prompts)]
            print("\n".join(lines), file=sys.stderr)
        if dry:
            print(_yaml(composed), end="")
        elif not problems and os.environ.get("SKIP_ESTIMATE", "0") != "1":
            problems = find_doubts(config, estimate, seen)
    except ValueError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems and not dry:
        print("SKIP_PREFLIGHT=1 goes on all the same", file=sys.stderr)
    return int(bool(problems))


def find_problems(config: Config, dims: Dims | None, prompts: int | None, seen: machine.Seen) -> list[str]:
    """What is certain to stop the run, whatever the estimate says."""
    return [
        *checks.find_version_problems(config),
        *checks.find_file_problems(config),
        *checks.find_size_problems(config, dims, prompts),
        *engines.find_megatron_problems(config, dims),
        *notices.find_gpu_problems(config, seen, machine.has_cluster(config)),
    ]


def find_notices(config: Config, seen: machine.Seen, gpu_bytes: float, dry: bool) -> list[str]:
    """What does not stop the run, and should be known; of this machine's GPUs not in a dry run."""
    lines = [*notices.other_versions(), *notices.find_validation_notice(config)]
    if lookup(config, "actor_rollout_ref.actor.strategy") in FSDP:
        lines += batches.find_batch_notices(config)
    if not dry:
        lines += notices.find_gpu_notices(config, seen, machine.has_cluster(config), gpu_bytes / GIB)
    return lines


def find_doubts(config: Config, estimate: Estimate | None, seen: machine.Seen) -> list[str]:
    """What is likely to stop the run: sizes, and what the estimate says is too little on this machine."""
    engine = lookup(config, "actor_rollout_ref.actor.strategy")
    found = list(batches.find_batch_doubts(config)) if engine in FSDP else []
    found += [*engines.find_attention_doubt(config), *engines.find_cpu_doubt(config)]
    found += resume.find_other_settings(config)
    if estimate is None:
        return found
    host = machine.available_memory(most=os.environ.get("HOST_GIB"))
    output = str(lookup(config, "trainer.default_local_dir", "."))
    free, there = math.inf, 0.0
    if "://" not in output:
        free, there = machine.free_disk(Path(output)), machine.checkpoint_bytes(Path(output))
    return [*found, *checks.find_estimate_problems(config, estimate, seen.gpus, host, free, there)]


def _estimate(config: Config, dims: Dims | None, gpu_bytes: float, prompts: int | None) -> Estimate | None:
    if dims is None or lookup(config, "actor_rollout_ref.actor.strategy") not in FSDP:
        return None
    try:
        return make_estimate(config, dims, gpu_bytes, prompts)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"no estimate, a size of the configuration is off ({error}): correct it.") from error


def describe(config: Config, e: Estimate | None, gpu_bytes: float, prompts: int | None) -> list[str]:
    """The estimate in lines."""
    name, engine = lookup(config, "actor_rollout_ref.model.path"), lookup(config, "actor_rollout_ref.actor.strategy")
    if e is None:
        return [f"no estimate: for FSDP and models whose dimensions are known alone (engine {engine}, model {name})"]
    lines = ["estimate, not measured on a GPU (formulas and assumptions: docs/run_scripts.md):"]
    trained = "" if e.trained == e.parameters else f", {e.trained / 1e6:.1f} M of adapters trained"
    lines.append(f"  model  {name}: {e.parameters / 1e9:.3f} G parameters{trained}")
    if e.gpu:
        count = int(lookup(config, "trainer.n_gpus_per_node", 1)) * int(lookup(config, "trainer.nnodes", 1))
        phases = ", ".join(f"{phase.replace('_', '-')} {size / GIB:.1f}" for phase, size in e.gpu.items())
        lines.append(f"  GPU    {count} x {gpu_bytes / GIB:.0f} GiB; needed {e.gpu_peak / GIB:.1f} GiB ({phases})")
        vllm = {key: value / GIB for key, value in e.vllm.items()}
        lines.append(
            f"  vLLM   {vllm['share']:.1f} GiB: weights {vllm['weights']:.1f}, cache {vllm['cache']:.1f} "
            f"= {e.vllm['rows']:.0f} rows of full length at once"
        )
    host = {key: value / GIB for key, value in e.host.items()}
    lines.append(
        f"  host   {e.host_peak / GIB:.1f} GiB: processes {host['processes']:.1f} + the larger of loading "
        f"{host['loading']:.1f} and running {host['running']:.1f} (replay buffer {host['buffer']:.2f})"
    )
    assumed = "" if prompts else f", {ASSUMED_PROMPTS} prompts assumed"
    lines.append(f"  disk   {e.disk / GIB:.1f} GiB: {e.checkpoints} checkpoints in {e.steps} steps{assumed}")
    if e.seconds:
        parts = ", ".join(f"{part.replace('_', '-')} {seconds:.1f}" for part, seconds in e.seconds.items())
        lines.append(
            f"  time   {e.step_seconds:.1f} s a step with full replay ({parts}), {e.run_hours:.1f} h in all: "
            f"{e.card}, {MFU:.0%} of its FLOP/s, {BANDWIDTH_SHARE:.0%} of its bandwidth, every row at full length"
        )
    return lines


def _plain(composed: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)
    return plain


def _yaml(composed: Any) -> str:
    from omegaconf import OmegaConf

    return str(OmegaConf.to_yaml(composed, resolve=True))
