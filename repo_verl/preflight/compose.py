"""verl's configuration as its own command would compose it, without importing verl, torch or Ray."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def verl_config_dir() -> Path:
    """The folder with verl's Hydra configurations.

    Raises:
        ValueError: if verl is not installed.
    """
    spec = importlib.util.find_spec("verl")
    if spec is None or spec.origin is None:
        raise ValueError("verl is not installed: bash run_scripts/setup.sh, or pip install '.[gpu]' in the checkout.")
    return Path(spec.origin).parent / "trainer" / "config"


def compose(arguments: Sequence[str]) -> Any:
    """Compose the arguments of ``python -m verl.trainer.main_ppo``.

    Args:
        arguments: ``--config-dir``, ``--config-name`` and Hydra overrides.

    Returns:
        the resolved configuration, a DictConfig of OmegaConf's.

    Raises:
        ValueError: one sentence, if verl is missing or Hydra refuses an argument.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    parser = argparse.ArgumentParser(prog="repo-verl preflight", add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("--config-name", "-cn", default="ppo_trainer")
    known, overrides = parser.parse_known_args(arguments)
    stock = verl_config_dir()
    if known.config_dir is not None and not known.config_dir.is_dir():
        raise ValueError(
            f"--config-dir={known.config_dir} is no folder: name one, `repo-verl config-dir` prints RePO's."
        )
    primary = (known.config_dir or stock).absolute()
    try:
        with hydra.initialize_config_dir(config_dir=str(primary), job_name="main_ppo", version_base=None):
            config = hydra.compose(known.config_name, overrides=[f"hydra.searchpath=['file://{stock}']", *overrides])
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"the configuration can't be composed ({first}): correct that argument.") from error
    return config
