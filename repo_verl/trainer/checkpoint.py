"""The buffer beside verl's checkpoint of the same step: ``global_step_N/prompt_replay``.

``arrays.safetensors`` holds the columns of :mod:`repo_verl.replay.state`, ``meta.json`` the rest. The folder is written
under another name and renamed, before verl's tracker file names the step.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from safetensors.numpy import load_file, save_file

from repo_verl.config import RepoConfigError

FOLDER = "prompt_replay"


def save_state(step_folder: str, state: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Write the buffer's state into a checkpoint folder.

    Args:
        step_folder: verl's ``global_step_N``; made if missing.
        state: of ``PromptReplayBuffer.state_dict``.
        extra: JSON-ready values kept with it.
    """
    target, beside = os.path.join(step_folder, FOLDER), os.path.join(step_folder, f".{FOLDER}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    os.makedirs(beside)
    save_file(dict(state["arrays"]), os.path.join(beside, "arrays.safetensors"))
    with open(os.path.join(beside, "meta.json"), "w", encoding="utf-8") as file:
        json.dump({"state": state["meta"], "extra": dict(extra)}, file)
        file.flush()
        os.fsync(file.fileno())
    if os.path.isdir(target):
        shutil.rmtree(target)
    os.replace(beside, target)


def load_state(step_folder: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What :func:`save_state` wrote: state and extra; None where the checkpoint has no buffer."""
    folder = os.path.join(step_folder, FOLDER)
    if not os.path.isdir(folder):
        return None
    with open(os.path.join(folder, "meta.json"), encoding="utf-8") as file:
        meta = json.load(file)
    return {"meta": meta["state"], "arrays": load_file(os.path.join(folder, "arrays.safetensors"))}, meta["extra"]


def step_folder(trainer: Any) -> str:
    """verl's checkpoint folder that a run resumes from; ``trainer`` is verl's ``trainer`` block."""
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path  # takes seconds; the rest needs no verl

    if trainer.resume_mode == "resume_path":
        return os.path.abspath(trainer.resume_from_path)
    return str(find_latest_ckpt_path(os.path.abspath(trainer.default_local_dir)))


def fixed_settings(config: Any) -> dict[str, Any]:
    """What stored log-probs and scores depend on: the temperature and what computes rewards."""
    reward = OmegaConf.to_container(config.reward, resolve=True)
    model = reward.pop("reward_model", None) or {}
    reward.pop("num_workers", None)
    return {
        "actor_rollout_ref.rollout.temperature": config.actor_rollout_ref.rollout.temperature,
        **{f"reward.{key}": value for key, value in sorted(reward.items())},
        **{f"reward.reward_model.{key}": model.get(key) for key in ("enable", "model_path")},
    }


def refuse_other_settings(saved: Mapping[str, Any], current: Mapping[str, Any], step_folder: str) -> None:
    """Refuse to resume where stored log-probs or scores would mean something else.

    Raises:
        RepoConfigError: naming the first key that differs and both values.
    """
    for key, value in current.items():
        if saved.get(key) != value:
            raise RepoConfigError(
                f"{key}={value!r} differs from {saved.get(key)!r} in {step_folder}, so stored rows would mean other "
                f"things: resume with the saved value, or delete {FOLDER} there to start with an empty buffer."
            )
