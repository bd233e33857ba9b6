"""verl's configuration as its own command would compose it, without importing verl, torch or Ray."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]
"""A composed configuration in plain dicts and lists."""


def verl_config_dir() -> Path:
    """The folder with verl's Hydra configurations.

    Raises:
        ValueError: if verl is not installed.
    """
    spec = importlib.util.find_spec("verl")
    if spec is None or spec.origin is None:
        raise ValueError("verl is not installed: bash run_scripts/setup.sh, or pip install '.[gpu]' in the checkout.")
    return Path(spec.origin).parent / "trainer" / "config"


class _Noted(argparse.Action):
    """Notes that a flag was given, whatever its value."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        namespace.others = [*(namespace.others or ()), self.option_strings[0]]


def _parser() -> argparse.ArgumentParser:
    """Hydra's flags; its own parser is private."""
    parser = argparse.ArgumentParser(prog="repo-verl preflight", add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("--config-name", "-cn", default="ppo_trainer")
    parser.add_argument("--run", "-r", action="store_true")
    for flags in ("--help -h", "--hydra-help", "--version", "--resolve", "--multirun -m", "--shell-completion -sc"):
        parser.add_argument(*flags.split(), action=_Noted, nargs=0, dest="others")
    for flags in ("--cfg -c", "--package -p", "--config-path -cp", "--experimental-rerun"):
        parser.add_argument(*flags.split(), action=_Noted, dest="others")
    parser.add_argument("--info", "-i", action=_Noted, nargs="?", dest="others")
    return parser


def other_flags(arguments: Sequence[str]) -> list[str]:
    """Hydra's flags among the arguments that print something or start several runs, and so are no run to check."""
    known, overrides = _parser().parse_known_args(arguments)
    several = [word for word in overrides if word.replace(" ", "").lower() == "hydra.mode=multirun"]
    return [*(known.others or ()), *several]


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
    from omegaconf.errors import OmegaConfBaseException

    known, overrides = _parser().parse_known_args(arguments)
    stock = verl_config_dir()
    if known.config_dir is not None and not known.config_dir.is_dir():
        raise ValueError(
            f"--config-dir={known.config_dir} is no folder: name one, `repo-verl config-dir` prints RePO's."
        )
    primary = (known.config_dir or stock).absolute()
    try:
        with hydra.initialize_config_dir(config_dir=str(primary), job_name="main_ppo", version_base=None):
            words = [f"hydra.searchpath=['file://{stock}']", *overrides]
            config = hydra.compose(known.config_name, overrides=words, return_hydra_config=True)
            return _resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"the configuration can't be composed ({first}): correct that argument.") from error


def _resolve(config: Any) -> Any:
    """Resolve as in a run, where ``${hydra:...}`` is known, and leave Hydra's own settings out."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict, read_write

    with read_write(config), open_dict(config):
        config.hydra.runtime.output_dir = os.path.abspath(config.hydra.run.dir)
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        try:
            del config["hydra"]
            OmegaConf.resolve(config)
        finally:
            HydraConfig.instance().cfg = before
    return config
