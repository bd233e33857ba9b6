"""What this machine and its Ray offer a run: GPUs and logical CPUs."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from repo_verl.config import lookup
from repo_verl.preflight import Config
from repo_verl.preflight.sizes import whole

STORAGE_UNITS = "transfer_queue.backend.SimpleStorage.num_data_storage_units"


@dataclasses.dataclass(frozen=True)
class Gpus:
    """This machine's GPUs that CUDA would show, and why there may be others: "" where nvidia-smi's answer is clear."""

    count: int = 0
    doubt: str = ""


def count_gpus(environment: Mapping[str, str] = os.environ) -> Gpus:
    """The GPUs that CUDA would show here, as far as nvidia-smi tells."""
    query = ("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader")
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
        if "no devices were found" in (done.stdout + done.stderr).lower():
            return Gpus()
        if done.returncode:
            return Gpus(doubt=f"nvidia-smi failed with status {done.returncode}")
        return read_listing(done.stdout, environment.get("CUDA_VISIBLE_DEVICES"))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Gpus(doubt=f"nvidia-smi gave no answer ({type(error).__name__})")


def read_listing(listing: str, visible: str | None) -> Gpus:
    """GPUs of nvidia-smi's table, those that ``CUDA_VISIBLE_DEVICES`` leaves (numbers, UUIDs, MIG names; None: all).

    ValueError if a line is none of the table.
    """
    names = []
    for line in listing.strip().splitlines():
        index, uuid = (part.strip() for part in line.split(","))
        names += [index, uuid]
    if visible is None:
        return Gpus(len(names) // 2)
    count = 0
    for name in (part.strip() for part in visible.split(",")):
        listed = any(known == name or (len(name) > 4 and known.startswith(name)) for known in names)
        if not listed and not name.startswith("MIG-"):  # CUDA shows what stands before the first name it doesn't know
            known = re.fullmatch(r"-?[0-9]*", name)
            return Gpus(count, "" if known else f"CUDA_VISIBLE_DEVICES={visible} names what nvidia-smi does not list")
        count += 1
    return Gpus(count)


def has_cluster(config: Config, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether verl's ``ray.init`` would join a cluster that runs, instead of starting Ray on this machine."""
    if environment.get("RAY_ADDRESS") or lookup(config, "ray_kwargs.ray_init.address"):
        return True
    return (Path(environment.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster").exists()


def find_gpu_problems(config: Config, gpus: Gpus) -> Iterator[str]:
    """Fewer GPUs on this machine, or in Ray on the CPU backend, than the run asks for, where that is certain."""
    wanted = whole(config, "trainer.n_gpus_per_node")
    workers = wanted * whole(config, "trainer.nnodes")
    logical = lookup(config, "ray_kwargs.ray_init.num_gpus")  # null: Ray, or an existing cluster, decides
    if lookup(config, "trainer.device") == "cpu":
        if logical is not None and logical < workers and not has_cluster(config):
            yield (
                f"ray_kwargs.ray_init.num_gpus={logical} is less than the {workers} workers of "
                f"trainer.n_gpus_per_node={wanted}, which Ray would wait for: set it to {workers}."
            )
    elif gpus.count < wanted and _doubt(config, gpus) is None:
        yield (
            f"trainer.n_gpus_per_node={wanted} is more than the {gpus.count} GPUs that this machine shows: "
            f"set NUM_GPUS={gpus.count} (trainer.n_gpus_per_node), or CUDA_VISIBLE_DEVICES to more of them."
            if gpus.count
            else f"trainer.n_gpus_per_node={wanted} and this machine shows no GPU: look at nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or set CONFIG_NAME=repo_cpu and VERL_PLATFORM=cpu for a small model."
        )


def find_gpu_notices(config: Config, gpus: Gpus) -> Iterator[str]:
    """A line where GPUs could not be counted."""
    wanted, doubt = whole(config, "trainer.n_gpus_per_node"), _doubt(config, gpus)
    if lookup(config, "trainer.device") != "cpu" and gpus.count < wanted and doubt is not None:
        yield f"GPUs not checked, trainer.n_gpus_per_node={wanted} and {gpus.count} seen here: {doubt}"


def _doubt(config: Config, gpus: Gpus) -> str | None:
    """Why this machine's GPUs do not decide; None where they do."""
    device = lookup(config, "trainer.device")
    if device != "cuda":
        return f"trainer.device={device}"
    if has_cluster(config):
        return "a Ray cluster that runs already decides"
    if not gpus.count and whole(config, "trainer.nnodes") > 1:
        return "a run of several nodes"
    return gpus.doubt or None


def find_cpu_doubt(config: Config, cpus: int | None = None) -> Iterator[str]:
    """Fewer logical CPUs (None: this machine's) than Ray's processes reserve on one machine.

    They would wait for more without a message.
    """
    there = lookup(config, "ray_kwargs.ray_init.num_cpus") or cpus or os.cpu_count() or 1
    if lookup(config, "trainer.device") == "cpu" or whole(config, "trainer.nnodes") > 1 or has_cluster(config):
        return
    units, gpus = whole(config, STORAGE_UNITS, 8), whole(config, "trainer.n_gpus_per_node")
    # 2: the trainer's process and TransferQueue's controller; 3: for a GPU that trainer and engine share
    needed = 2 + units + 3 * gpus
    if there < needed:
        yield (
            f"{STORAGE_UNITS}={units} and trainer.n_gpus_per_node={gpus} reserve {needed} CPUs in Ray, which has "
            f"{there} and would wait for more: set {STORAGE_UNITS} to {max(1, units - (needed - there))}, or "
            f"ray_kwargs.ray_init.num_cpus={needed} (they are counted, not bound)."
        )
