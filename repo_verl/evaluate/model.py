"""The model to evaluate: a hub id, a folder, or a checkpoint of verl's FSDP engine, which is merged first.

verl's merger leaves a LoRA adapter beside the base model's weights; ``python -m repo_verl.evaluate.model FOLDER`` adds
it to them, in a process of its own, so that its memory is given back before vLLM starts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from repo_verl.safe_text import shown
from repo_verl.step_folders import TRACKER, folder_of, tracked_step, tracker_text

logger = logging.getLogger(__name__)

ADAPTER = "lora_adapter"
"""Folder of the adapter in what verl's merger writes."""
_WEIGHTS = ("*.safetensors", "*.bin")
_SHARDS = "model_world_size_*_rank_*.pt"
_LORA = "lora_train_meta.json"


class Model(NamedTuple):
    """A model that vLLM can load: hub id or folder, and what tells it from others, for ``settings.json``."""

    path: str
    identity: dict[str, Any]


def resolve(name: str, work: Path) -> Model:
    """Find the model, and merge it if it is a checkpoint of verl's.

    Args:
        name: hub id; folder with ``config.json``; ``global_step_N`` or its ``actor``; or a folder of checkpoints, the
            latest of which is taken.
        work: where a merged model is kept (``WORK/merged``), so that a resume need not merge again.

    Raises: ValueError for a folder that is none of these; RuntimeError if verl's merger fails, with its last lines.
    """
    folder = Path(name).expanduser()
    if not folder.exists():
        if name.count("/") > 1 or name.startswith((".", "/", "~")):
            raise ValueError(f"model {name} does not exist: name a folder, a checkpoint of verl's or a hub id.")
        return Model(name, {"hub": name})
    tracker = tracker_text(folder)
    if tracker is not None:
        step = tracked_step(folder)
        if step is None:
            raise ValueError(
                f"{folder / TRACKER} holds {shown(tracker)}, want the number of a step: name a global_step_N folder."
            )
        folder = Path(folder_of(str(folder), step))
    if (folder / "actor").is_dir():
        folder = folder / "actor"
    if list(folder.glob(_SHARDS)):
        identity = _identity(folder, (_SHARDS, _LORA))
        return Model(str(_merged(folder, identity, work)), identity)
    if (folder / ADAPTER).is_dir():
        raise ValueError(
            f"model {folder} has its LoRA adapter beside it in {ADAPTER}, which would not be used: name the checkpoint "
            f"(global_step_N), or add the adapter to the weights: python -m repo_verl.evaluate.model {folder}."
        )
    if not (folder / "config.json").is_file():
        raise ValueError(f"model {folder} has neither a config.json nor FSDP shards ({_SHARDS}): name such a folder.")
    return Model(str(folder), _identity(folder, _WEIGHTS))


def _identity(folder: Path, patterns: tuple[str, ...]) -> dict[str, Any]:
    """Size and hash of each file by name."""
    found = {}
    for file in sorted(file for pattern in patterns for file in folder.glob(pattern)):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()[:32]
        found[file.name] = f"{file.stat().st_size} bytes, sha256 {digest}"
    return found


def _merged(shards: Path, identity: dict[str, Any], work: Path) -> Path:
    target = work / "merged"
    mark = target / "merged_from.txt"
    source = "\n".join(f"{name} {found}" for name, found in identity.items())
    if mark.is_file() and mark.read_bytes() == source.encode():
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    logger.info("merging the FSDP shards in %s", shards)
    _run("verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(shards), "--target_dir", str(target))
    if not (target / "config.json").is_file():
        raise RuntimeError(f"verl's model merger left no config.json of {shards} in {target}.")
    if (target / ADAPTER).is_dir():
        _run("repo_verl.evaluate.model", str(target))
    mark.write_text(source, encoding="utf-8")
    return target


def _run(module: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"},  # verl's merger asks torch.load to run any pickle
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{module} failed on {arguments[-1]}: {done.stderr.strip()[-1500:]}")


def merge_adapter(folder: Path) -> None:
    """Add ``folder/lora_adapter`` to the weights of ``folder``, in float32, and remove it; their type stays.

    The new folder is written beside the old one and takes its place when it is whole, so that a repeat after a crash
    adds nothing twice. Raises ValueError if the checkpoint does not have the scale of the adapter (``lora_alpha``), or
    the adapter is not one of this model.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = json.loads((folder / ADAPTER / "adapter_config.json").read_text())
    if not settings["lora_alpha"]:
        raise ValueError(
            f"lora_alpha={settings['lora_alpha']} in {folder / ADAPTER}: the checkpoint has no lora_train_meta.json, "
            "so the scale of its adapter is unknown; write that file with r and lora_alpha beside its shards."
        )
    kept = AutoConfig.from_pretrained(folder).dtype or torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(model, folder / ADAPTER)
    saved = load_file(folder / ADAPTER / "adapter_model.safetensors").keys()
    unmatched = sorted(saved ^ get_peft_model_state_dict(adapted).keys())
    if unmatched:  # peft warns, and leaves such weights as they are
        raise ValueError(f"{unmatched[0]} of {folder / ADAPTER} has no counterpart: name the adapter's own model.")
    whole, base = (folder.with_name(f"{folder.name}.{part}") for part in ("whole", "base"))
    shutil.rmtree(whole, ignore_errors=True)
    shutil.copytree(folder, whole, ignore=shutil.ignore_patterns(ADAPTER, "*.safetensors", "*.safetensors.index.json"))
    adapted.merge_and_unload(safe_merge=True).to(kept).save_pretrained(whole)
    folder.rename(base)
    whole.rename(folder)
    shutil.rmtree(base)


if __name__ == "__main__":
    try:
        merge_adapter(Path(sys.argv[1]).resolve())
    except ValueError as error:
        sys.exit(str(error))
