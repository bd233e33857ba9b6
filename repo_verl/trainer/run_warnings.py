"""What a run says but is not stopped for: its objective, settings that replay little, drift, memory, missing rows."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from repo_verl.config import PREFIX, RepoConfig, lookup

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

GIB = 2.0**30
MEMINFO, CGROUP, OWN = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

MEGATRON_NOTICE = (
    "RePO: the Megatron engine: checked on the CPU with Megatron-Core 0.16.1 in float32 (data, tensor and pipeline "
    "parallel); never run on a GPU, with Megatron-Bridge, in bfloat16 or with LoRA (docs/megatron.md)"
)


def describe_objective(config: Any, repo: RepoConfig) -> str:
    """One line that says which objective is in effect."""
    if not repo.active:
        reason = "strategy=none" if repo.strategy == "none" else f"off_policy_coef={repo.off_policy_coef:g}"
        return f"RePO: {reason}, plain GRPO; nothing is replayed"
    mode = lookup(config, "actor_rollout_ref.actor.loss_agg_mode", "token-mean")
    paper = mode == "seq-mean-token-mean" and repo.normalize == "group" and repo.advantage == "split"
    return (
        f"RePO: strategy={repo.strategy} num_replay={repo.num_replay} capacity={repo.capacity} "
        f"min_size={repo.min_size} advantage={repo.advantage} normalize={repo.normalize} "
        f"off_policy_coef={repo.off_policy_coef:g}; terms aggregated by {mode}"
        f"{' (the paper’s objective)' if paper else ', not the paper’s seq-mean-token-mean split group'}"
    )


def pruning_obstacle(config: Any) -> str | None:
    """The setting that gives rows of zero advantage a gradient, so that none may be left out; None without one."""
    for key in ("actor.use_kl_loss", "actor.entropy_coeff", "model.mtp.enable_train"):
        value = lookup(config, f"actor_rollout_ref.{key}", 0)
        if value != 0:
            return f"actor_rollout_ref.{key}={value}"
    return None


def find_doubts(repo: RepoConfig, n: int, steps: int, epoch: int) -> Iterator[str]:
    """Sentences on a schedule that replays nothing, or little.

    A prompt has ``n`` responses per visit, and ``epoch`` of the run's ``steps`` between two visits, on average.
    """
    if not repo.active:
        return
    visits = -(-steps // max(1, epoch))
    first = -(-repo.min_size // n) + 1
    if visits < first:
        sooner = f", or set {PREFIX}min_size={n * (visits - 1)} or less" if visits > 1 else ""
        yield (
            f"{PREFIX}min_size={repo.min_size} lets a prompt replay from its visit {first} on and {steps} steps, "
            f"{epoch} per epoch, are {visits} visits: unless prompts occur several times in data.train_files nothing "
            f"is replayed, this is GRPO; train for {(first - 1) * epoch + 1} steps or more{sooner}."
        )
    elif repo.start_step >= steps:
        yield (
            f"{PREFIX}start_step={repo.start_step} leaves none of {steps} steps to replay in, this is GRPO: "
            f"set it to less than {steps}."
        )
    elif repo.max_age is not None and repo.max_age < epoch:
        yield (
            f"{PREFIX}max_age={repo.max_age} is less than the {epoch} steps after which a prompt comes back on "
            f"average, so that little or nothing is replayed: set it to {2 * epoch} or more, or null."
        )


def find_date(template: Any, given: Any) -> Iterator[str]:
    """A sentence on a tokenizer's chat template (or several by name) that writes today's date into prompts.

    ``given`` are ``data.apply_chat_template_kwargs``, which may fix the date.
    """
    if "strftime_now" in str(template or "") and not any("date" in str(name) for name in given or {}):
        yield (
            "the tokenizer's chat template writes today's date into prompts (strftime_now), so that from midnight on "
            "stored rows are not found: fix it, e.g. +data.apply_chat_template_kwargs.date_string='1 Jan 2026'."
        )


def warn_missing(missing: int, expected: int, step: int) -> None:
    """Warn that verl went on without responses whose generation or reward raised, if any are missing."""
    if missing:
        logger.warning(
            "RePO: step %d: %d of %d responses are missing (repo/missing_rows): their generation or reward raised, and "
            "verl continues without them, which biases the rest of their groups; the agent loop's log has the error",
            step, missing, expected,
        )  # fmt: skip


class DriftWatch:
    """Warns once when replayed rows are too far from the policy, and once when their ESS is too small."""

    def __init__(self, config: RepoConfig, warn: Callable[[str], None] = logger.warning) -> None:
        self._config, self._warn = config, warn
        self._warned: set[str] = set()

    def look(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at a step's ``ratio_max_replayed`` and ``ess_replayed``; 0 where nothing was replayed."""
        ratio, ess = metrics["ratio_max_replayed"], metrics["ess_replayed"]
        most, least = self._config.warn_ratio, self._config.warn_ess
        found = {}
        if most is not None and ratio > most:
            found["ratio"] = f"a replayed token's ratio reached {ratio:.4g}, above {PREFIX}warn_ratio={most:g}"
        if least is not None and 0 < ess < least:
            found["ess"] = (
                f"replayed rows have an effective sample size of {ess:.4g} of them, below {PREFIX}warn_ess={least:g} "
                "(sequences of many tokens have a low one even when each token's ratio is near 1)"
            )
        age = "" if self._config.max_age is None else f" below {self._config.max_age}"
        change = "" if self._config.strategy == "recency" else f" or {PREFIX}strategy=recency"
        for kind, what in found.items():
            if kind not in self._warned:
                self._warned.add(kind)
                self._warn(
                    f"RePO: step {step}: {what}: old rows are far from the policy, so set {PREFIX}max_age{age}{change}"
                    f", or {PREFIX}clip_ratio_c to bound rows with negative advantage; this warning is given once."
                )


def available_memory(meminfo: Path = MEMINFO, cgroup: Path = CGROUP, own: Path = OWN) -> float:
    """Bytes that are left: the least of the kernel's MemAvailable and what limits of this process's groups leave.

    Groups are those of version 2, mounted at ``cgroup``. A container's own group is its root; a job of Slurm or systemd
    has its limit in the group of the line ``0::PATH`` of ``own``, or above it.
    """
    lines = [line.split() for line in meminfo.read_text().splitlines()]
    kernel = [float(line[1]) * 1024 for line in lines if line[:1] == ["MemAvailable:"]]
    return min(kernel + [left for folder in _groups(cgroup, own) for left in _left_in_group(folder)])


def _groups(cgroup: Path, own: Path) -> list[Path]:
    """Folders of this process's control group and of those above it, up to the mount's root."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return [cgroup]
    path = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    inside = [cgroup / path, *(cgroup / path).parents]
    return [folder for folder in inside if folder == cgroup or cgroup in folder.parents]


def _left_in_group(folder: Path) -> Iterator[float]:
    """Bytes that a group's limit leaves, what can be dropped from its file cache included; nothing without a limit."""
    try:
        limit, used = (folder / "memory.max").read_text().strip(), (folder / "memory.current").read_text()
        lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
        if limit != "max":
            yield float(limit) - float(used) + sum(float(line[1]) for line in lines if line[:1] == ["inactive_file"])
    except (OSError, ValueError):
        return  # the root group has no limit; the first version of control groups other files


class BufferWatch:
    """Warns when the buffer takes half of the driver's free memory, and when ``max_tokens`` is under an epoch.

    Free memory is measured once, at the first look, and what the buffer holds by then is added. With
    ``storage=distributed`` the rows are not in the driver's memory, and nothing is measured. ``epoch`` counts prompts.
    """

    def __init__(self, repo: RepoConfig, epoch: int, measure: Callable[[], float] = available_memory) -> None:
        self._repo, self._epoch, self._measure = repo, epoch, measure
        self._room: float | None = None
        self._watches_memory, self._watches_evictions = repo.active and repo.storage == "host", repo.active

    def look(self, stats: Mapping[str, int], evicted: int) -> None:
        """Look at the buffer after a step, which evicted so many prompts for ``max_tokens``."""
        if self._watches_memory:
            self._look_at_memory(stats)
        if evicted and stats["prompts"] < self._epoch and self._watches_evictions:
            self._watches_evictions = False
            logger.warning(
                "RePO: %smax_tokens=%s holds %d prompts, fewer than the %d of an epoch, so that prompts are evicted "
                "before they come back and little is replayed: raise max_tokens, or lower %scapacity",
                PREFIX, self._repo.max_tokens, stats["prompts"], self._epoch, PREFIX,
            )  # fmt: skip

    def _look_at_memory(self, stats: Mapping[str, int]) -> None:
        if self._room is None:
            try:
                self._room = self._measure() + stats["bytes"]
            except (OSError, ValueError) as error:  # no /proc/meminfo, or one without MemAvailable
                self._watches_memory = False
                logger.info("RePO: free memory can't be measured, so the buffer's share is not watched: %s", error)
                return
        if 2 * stats["bytes"] >= self._room:
            self._watches_memory = False
            logger.warning(
                "RePO: the replay buffer takes %.1f GiB (%d response tokens), half of the %.1f GiB of memory that the "
                "driver had free: bound it with %smax_tokens, or lower %scapacity, or set %sstorage=distributed",
                stats["bytes"] / GIB, stats["tokens"], self._room / GIB, PREFIX, PREFIX, PREFIX,
            )  # fmt: skip
