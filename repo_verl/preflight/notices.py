"""GPUs of this machine against those of the run, and what a run should know that does not stop it."""

from __future__ import annotations

from collections.abc import Iterator

from repo_verl import versions
from repo_verl.config import lookup
from repo_verl.preflight import batches, checks
from repo_verl.preflight.machine import Seen
from repo_verl.preflight.settings import Config


def find_gpu_problems(config: Config, seen: Seen, cluster: bool) -> Iterator[str]:
    """Fewer GPUs on this machine than the run asks of a node, where that is certain.

    Args:
        config: the configuration.
        seen: this machine's GPUs.
        cluster: whether the run would join a cluster that runs already.
    """
    wanted, count = batches.whole(config, "trainer.n_gpus_per_node"), len(seen.gpus)
    if count >= wanted or _doubt(config, seen, cluster) is not None:
        return
    if count:
        yield (
            f"trainer.n_gpus_per_node={wanted} is more than the {count} GPUs that this machine shows: "
            f"set NUM_GPUS={count} (trainer.n_gpus_per_node), or CUDA_VISIBLE_DEVICES to more of them."
        )
    else:
        yield (
            f"trainer.n_gpus_per_node={wanted} and this machine shows no GPU: look at nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or set CONFIG_NAME=repo_cpu and VERL_PLATFORM=cpu for a small model."
        )


def find_gpu_notices(config: Config, seen: Seen, cluster: bool, gpu_gib: float) -> Iterator[str]:
    """A line where GPUs could not be counted, and one where their memory is not known.

    Args:
        config: the configuration.
        seen: this machine's GPUs.
        cluster: whether the run would join a cluster that runs already.
        gpu_gib: GiB of a GPU that the estimate takes.
    """
    if lookup(config, "trainer.device") == "cpu":
        return
    wanted, doubt = batches.whole(config, "trainer.n_gpus_per_node"), _doubt(config, seen, cluster)
    if len(seen.gpus) < wanted and doubt is not None:
        yield f"GPUs not checked, trainer.n_gpus_per_node={wanted} and {len(seen.gpus)} seen here: {doubt}"
    if any(gpu.total is None or gpu.free is None for gpu in seen.gpus[:wanted]):
        yield f"nvidia-smi does not tell a GPU's memory: the estimate takes {gpu_gib:.0f} GiB (GPU_GIB)"


def _doubt(config: Config, seen: Seen, cluster: bool) -> str | None:
    """Why this machine's GPUs do not decide; None where they do."""
    device = lookup(config, "trainer.device")
    if device != "cuda":
        return f"trainer.device={device}"
    if cluster:
        return "a Ray cluster that runs already decides"
    if not seen.gpus and batches.whole(config, "trainer.nnodes") > 1:
        return "a run of several nodes"
    return seen.doubt or None


def other_versions() -> list[str]:
    """One line for each installed version that is neither tested nor pinned: no problem by itself."""
    found = {name: (versions.installed(name), wanted) for name, wanted in versions.pinned().items()}
    return [
        f"another version: {name} {version} (pinned: {wanted})"
        for name, (version, wanted) in found.items()
        if version is not None and version not in versions.TESTED.get(name, (wanted,))
    ]


def find_validation_notice(config: Config) -> list[str]:
    """A line where validation is on and its file is one that is trained on."""
    files = [set(checks.as_list(lookup(config, f"data.{name}_files"))) for name in ("train", "val")]
    test_freq, before = (lookup(config, f"trainer.{key}") for key in ("test_freq", "val_before_train"))
    if not files[0] & files[1] or (not before and (not isinstance(test_freq, int) or test_freq <= 0)):
        return []
    name = sorted(files[0] & files[1])[0]
    return [f"validation accuracy is training accuracy: data.val_files={name} is trained on (VAL_FILE for another)"]
