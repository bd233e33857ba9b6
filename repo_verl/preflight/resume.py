"""A run that would resume from another experiment's checkpoint: settings that differ from those in its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from repo_verl.config import lookup
from repo_verl.preflight import Config
from repo_verl.safe_text import shown
from repo_verl.secrets import hidden, redact, without_credentials
from repo_verl.step_folders import tracker_text

SECTIONS = (
    "algorithm", "actor_rollout_ref.actor.optim", "actor_rollout_ref.actor.policy_loss",
    "reward.custom_reward_function",
)  # fmt: skip
"""All keys below them make another experiment, except those of `FREE`."""

_SINGLE = {
    "actor_rollout_ref.model": "path lora_rank lora_alpha lora.rank lora.alpha custom_chat_template",
    "actor_rollout_ref.rollout": "n temperature top_k top_p",
    "actor_rollout_ref.actor": "ppo_mini_batch_size ppo_epochs clip_ratio clip_ratio_low clip_ratio_high clip_ratio_c "
    "loss_agg_mode loss_scale_factor use_kl_loss kl_loss_coef kl_loss_type entropy_coeff",
    "data": "train_files train_batch_size max_prompt_length max_response_length seed shuffle "
    "apply_chat_template_kwargs",
    "reward": "reward_manager.name",
}
KEYS = frozenset(f"{section}.{name}" for section, names in _SINGLE.items() for name in names.split())
"""Single keys that do."""

_FREE = "storage storage_processes max_tokens persist prune log_prob_dtype on_nonfinite warn_ratio warn_ess"
FREE = frozenset(f"algorithm.repo.{name}" for name in _FREE.split())
"""Where and how, not what is trained, and what a run that stopped is asked to change."""

MISSING = object()


def find_other_settings(config: Config) -> Iterator[str]:
    """Settings that differ from those of the run whose checkpoints are in the output folder and would be resumed.

    verl's command keeps its settings in ``.hydra/config.yaml`` of the run's folder, which holds the folder of
    checkpoints in our scripts; where there is no such file, or it is of other checkpoints, nothing is known.
    Credentials are not compared, other secrets not shown.
    """
    folder = str(lookup(config, "trainer.default_local_dir", "."))
    known = Path(folder).parent / ".hydra" / "config.yaml"
    if lookup(config, "trainer.resume_mode", "auto") != "auto" or "://" in folder:
        return
    if tracker_text(Path(folder)) is None or not known.is_file():
        return
    saved = _load(known)
    if Path(str(_saved(saved, "trainer.default_local_dir"))).name != Path(folder).name:
        return
    found = set(KEYS)
    for section in SECTIONS:
        found.update(_paths(without_credentials(lookup(config, section) or {}), section))
    for key in sorted(found - FREE):
        now, before = _at(config, key), _saved(saved, key)
        if before is not MISSING and now is not MISSING and _real(now) != _real(before):
            yield (
                f"{key}={_safe(key, now)} was {_safe(key, before)} at the last start in trainer.default_local_dir="
                f"{folder}, whose checkpoints would be resumed: name another folder (OUTPUT) for another run."
            )


def _real(value: Any) -> Any:
    """What two names of one file have in common; other values as they are, or as good as that."""
    if isinstance(value, list):
        return [_real(one) for one in value]
    return os.path.realpath(value) if isinstance(value, str) else value


def _safe(key: str, value: Any) -> str:
    """The value as a message may show it."""
    nested = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return shown(_at(redact(nested, hidden), key))


def _at(config: Any, key: str) -> Any:
    """The value at a dotted path; null is a value here, unlike for `lookup`, and `MISSING` that there is none."""
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return MISSING
        config = config[part]
    return config


def _paths(values: Mapping[str, Any], section: str) -> Iterator[str]:
    """Dotted paths of all in a section that is no section."""
    for name, value in values.items():
        path = f"{section}.{name}"
        yield from _paths(value, path) if isinstance(value, dict) else [path]


def _load(path: Path) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]  # ships no types

    try:
        return OmegaConf.load(path)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} can't be read ({reason}): move it away, or name another folder (OUTPUT).") from error


def _saved(saved: Any, key: str) -> Any:
    """The value of a key in a saved configuration; `MISSING` where there is none, or one that only Hydra resolves."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = OmegaConf.select(saved, key, default=MISSING)
        return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
    except OmegaConfBaseException:
        return MISSING
