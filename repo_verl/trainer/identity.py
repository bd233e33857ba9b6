"""What stored rows mean: the settings, tokenizer, vocabulary and data under which they were made."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from repo_verl.config import RepoConfigError
from repo_verl.secrets import fingerprint, redact, without_credentials
from repo_verl.trainer.content import content_of

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

TOKENIZER, VOCABULARY, DATA = "the tokenizer", "the model's vocabulary", "the content of data.train_files"
CONTENT = "the content of "
"""How the keys of what paths of the reward setting name begin; version 0.1.0 did not record them."""


def fixed_settings(config: Any) -> dict[str, Any]:
    """What stored log-probs and scores depend on: the temperature and what computes rewards.

    Credentials are left out; whatever else may be a secret is known by a fingerprint.
    """
    reward = OmegaConf.to_container(config.reward, resolve=True)
    model = reward.pop("reward_model", None) or {}
    for name in ("num_workers", "sandbox_fusion"):  # where rewards are computed, not which
        reward.pop(name, None)
    known = {
        "actor_rollout_ref.rollout.temperature": config.actor_rollout_ref.rollout.temperature,
        **{f"reward.{key}": value for key, value in sorted(reward.items())},
        **{f"reward.reward_model.{key}": model.get(key) for key in ("enable", "model_path")},
    }
    return redact(without_credentials(known), fingerprint)


def reward_contents(config: Any) -> dict[str, str]:
    """What the code and models that compute rewards are: the reward function, the reward manager and a reward model.

    Keys are ``the content of reward.PATH``. A path that is empty, that verl would not read, or under which nothing is
    found here is left out; settings of the user's own code, below ``reward_kwargs``, may name logs and are never read.

    Args:
        config: verl's whole configuration.
    """
    reward = config.reward
    read = {
        "custom_reward_function.path": True,
        "reward_manager.module.path": OmegaConf.select(reward, "reward_manager.source") == "importlib",
        "reward_model.model_path": OmegaConf.select(reward, "reward_model.enable"),
    }
    paths = {key: OmegaConf.select(reward, key) for key, used in read.items() if used}
    found = {f"{CONTENT}reward.{key}": content_of(path) for key, path in paths.items() if path}
    return {key: content for key, content in found.items() if content is not None}


SAMPLING = ("temperature", "top_p", "top_k", "logprobs_mode", "calculate_log_probs")


def sampling_settings(config: Any) -> dict[str, Any]:
    """What the log-probs of the rollout engine depend on."""
    rollout = config.actor_rollout_ref.rollout
    return {f"actor_rollout_ref.rollout.{name}": rollout.get(name) for name in SAMPLING}


def of_run(config: Any, tokenizer: Any, dataset: Any) -> dict[str, Any]:
    """Everything that a saved buffer must agree with.

    Args:
        config: verl's whole configuration.
        tokenizer: of the actor.
        dataset: of the training prompts.
    """
    return {
        **fixed_settings(config),
        **reward_contents(config),
        TOKENIZER: tokenizer_fingerprint(tokenizer),
        VOCABULARY: vocabulary_size(config.actor_rollout_ref.model),
        DATA: data_fingerprint(dataset),
    }


def vocabulary_size(model: Any) -> int:
    """Token ids of the model that verl's ``actor_rollout_ref.model`` names."""
    from verl.utils.config import omega_conf_to_dataclass  # takes seconds; the rest needs no verl

    return int(omega_conf_to_dataclass(model).hf_config.get_text_config().vocab_size)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 of which text every token id stands for: of the sorted vocabulary, added tokens included."""
    entries = sorted(tokenizer.get_vocab().items(), key=lambda entry: (entry[1], repr(entry[0])))
    return hashlib.sha256(json.dumps(entries, default=repr).encode()).hexdigest()


def data_fingerprint(dataset: Any) -> str:
    """SHA-256 of the bytes of verl's local copies of the training files, in order; of the name of what is no file.

    A data set of another class that has no ``data_files`` is known by its number of prompts.
    """
    files = getattr(dataset, "data_files", None) or []
    if not files:
        return f"{len(dataset)} prompts"
    total = hashlib.sha256()
    for path in map(str, files):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        else:
            total.update(hashlib.sha256(path.encode()).digest())
    return total.hexdigest()


def refuse_other_settings(saved: Mapping[str, Any], current: Mapping[str, Any], folder: str) -> None:
    """Refuse to resume where stored log-probs or scores would mean something else.

    What paths name is not compared where the checkpoint did not record it; one line says so.

    Args:
        saved: of the checkpoint.
        current: of the run.
        folder: of the saved buffer.

    Raises:
        RepoConfigError: naming the first key that differs and both values.
    """
    unknown = [key for key in current if key.startswith(f"{CONTENT}reward.") and key not in saved]
    if unknown:
        logger.info("RePO: %s did not record %s, which is taken to be the same", folder, ", ".join(unknown))
    for key, value in current.items():
        if saved.get(key) != value and key not in unknown:
            raise RepoConfigError(
                f"{key}={value!r} differs from {saved.get(key)!r} in {folder}, so stored rows would mean other things: "
                f"resume with the saved one, or set algorithm.repo.persist=false to start with an empty buffer."
            )
