"""What stored rows mean: the settings, code, tokenizer, vocabulary and data under which they were made."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
from collections.abc import Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from repo_verl.config import RepoConfigError
from repo_verl.secrets import fingerprint, redact, without_credentials

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

CONTENT = "the content of reward."  # how keys of what paths name begin; version 0.1.0 did not record them
SAMPLING = ("temperature", "top_p", "top_k", "logprobs_mode", "calculate_log_probs")
PACKAGE, FILE = "pkg://", "file://"
WHOLE = 64 << 20  # bytes up to which a file is hashed whole; of a larger one its size and some pieces
PIECES, PIECE = 64, 1 << 16


def of_run(config: Any, tokenizer: Any, dataset: Any) -> dict[str, Any]:
    """Everything that a saved buffer must agree with, by verl's configuration, the tokenizer and the training set."""
    return {
        **fixed_settings(config),
        **reward_contents(config),
        "the tokenizer": tokenizer_fingerprint(tokenizer),
        "the model's vocabulary": vocabulary_size(config.actor_rollout_ref.model),
        "the content of data.train_files": data_fingerprint(dataset),
    }


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


def sampling_settings(config: Any) -> dict[str, Any]:
    """What the log-probs of the rollout engine depend on."""
    rollout = config.actor_rollout_ref.rollout
    return {f"actor_rollout_ref.rollout.{name}": rollout.get(name) for name in SAMPLING}


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
        total.update(_sha256(Path(path)) if os.path.isfile(path) else hashlib.sha256(path.encode()).digest())
    return total.hexdigest()


def reward_contents(config: Any) -> dict[str, str]:
    """What the code and models that compute rewards are: the reward function, the reward manager and a reward model.

    Keys are ``the content of reward.PATH``. A path that is empty, that verl would not read, or under which nothing is
    found here is left out; settings of the user's own code, below ``reward_kwargs``, may name logs and are never read.
    """
    reward = config.reward
    read = {
        "custom_reward_function.path": True,
        "reward_manager.module.path": OmegaConf.select(reward, "reward_manager.source") == "importlib",
        "reward_model.model_path": OmegaConf.select(reward, "reward_model.enable"),
    }
    paths = {key: OmegaConf.select(reward, key) for key, used in read.items() if used}
    found = {f"{CONTENT}{key}": content_of(path) for key, path in paths.items() if path}
    return {key: content for key, content in found.items() if content is not None}


def content_of(path: str) -> str | None:
    """What a path names, as text that differs where it does; None where nothing is there.

    The path is of a file or folder, ``file://PATH``, or a module as ``pkg://a.b`` or ``pkg://a/b``, as verl reads them.
    A package that pip installed is known by name and version; any other package, a module, a folder or a file by
    SHA-256 of its files. A module of another package that it imports is not looked at.
    """
    if not path.startswith(PACKAGE):
        place = Path(path.removeprefix(FILE))
        return _digest(place) if place.exists() else None
    spec = _find_module(path.removeprefix(PACKAGE).replace("/", "."))
    if spec is None:
        return None
    places = [Path(place) for place in spec.submodule_search_locations or [spec.origin or ""]]
    if not all(place.exists() for place in places):
        return None
    return _installed(spec.origin) or " ".join(map(_digest, places))


def _find_module(name: str) -> ModuleSpec | None:
    """The spec of a module, without importing the packages above it."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        top = f"{top}.{part}"
        spec = PathFinder.find_spec(top, list(spec.submodule_search_locations))
    return spec


def _installed(origin: str | None) -> str | None:
    """Name and version of the distribution whose record has this file; None for one that lies elsewhere."""
    for found in importlib.metadata.distributions() if origin else ():
        relative = Path(os.path.relpath(str(origin), str(found.locate_file("")))).as_posix()
        if not relative.startswith("..") and f"\n{relative}," in "\n" + (found.read_text("RECORD") or ""):
            return f"{found.name} {found.version}"
    return None


def _digest(place: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder but hidden and compiled ones."""
    total = hashlib.sha256()
    for file in [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file()):
        name = file.relative_to(place)
        if any(part.startswith((".", "__pycache__")) for part in name.parts) or name.suffix == ".pyc":
            continue
        if file != place:
            total.update(f"{name.as_posix()}\0".encode())
        total.update(_sha256(file, WHOLE))
    return f"sha256 {total.hexdigest()[:32]}"


def _sha256(file: Path, whole: float = float("inf")) -> bytes:
    """SHA-256 of a file; of one above so many bytes, of its size and some pieces."""
    size = file.stat().st_size
    with open(file, "rb") as opened:
        if size <= whole:
            return hashlib.file_digest(opened, "sha256").digest()
        total = hashlib.sha256(str(size).encode())
        for piece in range(PIECES):
            opened.seek(piece * (size - PIECE) // (PIECES - 1))
            total.update(opened.read(PIECE))
        return total.digest()


def refuse_other_settings(saved: Mapping[str, Any], current: Mapping[str, Any], folder: str) -> None:
    """Refuse to resume where stored log-probs or scores would mean something else: RepoConfigError with both values.

    What paths name is not compared where the checkpoint did not record it; a log line reports it.
    """
    unknown = [key for key in current if key.startswith(CONTENT) and key not in saved]
    if unknown:
        logger.info("RePO: %s did not record %s, which is assumed to be unchanged", folder, ", ".join(unknown))
    for key, value in current.items():
        if saved.get(key) != value and key not in unknown:
            raise RepoConfigError(
                f"{key}={value!r} differs from {saved.get(key)!r} in {folder}, so stored log-probs and "
                "scores would not be comparable: resume with the saved one, or set "
                "algorithm.repo.persist=false to start with an empty buffer."
            )
