"""``python -m repo_verl.preflight``: takes the arguments of ``python -m verl.trainer.main_ppo``.

The same as ``repo-verl preflight``, without importing the other commands. verl's configuration is composed as its own
command would, without importing verl, torch or Ray.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repo_verl.config import lookup
from repo_verl.preflight import Config, machine, requirements, resume, sizes


def main(arguments: Sequence[str]) -> int:
    """Compose and check; returns the exit status: 0, or 1 with one sentence per problem on standard error.

    Args:
        arguments: ``--dry-run`` first for the configuration on standard output and no check of this machine; the
            rest goes to Hydra.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: repo-verl preflight [--dry-run] [ARGUMENTS of python -m verl.trainer.main_ppo]")
        return 0
    dry = bool(arguments) and arguments[0] == "--dry-run"
    arguments = arguments[1:] if dry else arguments
    if flags := other_flags(arguments):
        print(f"preflight: nothing is checked with {' '.join(flags)}", file=sys.stderr)
        return 0
    from omegaconf import OmegaConf

    skip = "SKIP_PREFLIGHT"
    try:
        composed = compose(arguments)
        config: Any = OmegaConf.to_container(composed, resolve=True)
        gpus = machine.Gpus() if dry or lookup(config, "trainer.device") == "cpu" else machine.count_gpus()
        found = requirements.find_refusals(config)
        found += [] if dry else find_problems(config, gpus)
        if not found:
            for line in find_notices(config, None if dry else gpus):
                print(line, file=sys.stderr)
        if dry:
            print(OmegaConf.to_yaml(composed, resolve=True), end="")
        elif not found and os.environ.get("SKIP_DOUBTS", "0") != "1":
            found, skip = find_doubts(config), "SKIP_DOUBTS"
    except ValueError as error:
        found = [str(error)]
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    if found and not dry:
        print(f"{skip}=1 skips these checks", file=sys.stderr)
    return int(bool(found))


def find_problems(config: Config, gpus: machine.Gpus) -> list[str]:
    """What is certain to stop the run."""
    shape = sizes.find_shape(str(lookup(config, sizes.MODEL + "path", "")))
    return [
        *requirements.find_version_problems(config),
        *requirements.find_file_problems(config),
        *sizes.find_size_problems(config, shape, requirements.count_prompts(config)),
        *machine.find_gpu_problems(config, gpus),
    ]


def find_notices(config: Config, gpus: machine.Gpus | None) -> list[str]:
    """What does not stop the run, and should be known; of this machine's GPUs where they were counted."""
    return [
        *requirements.other_versions(),
        *requirements.find_validation_notice(config),
        *sizes.find_batch_notices(config),
        *(() if gpus is None else machine.find_gpu_notices(config, gpus)),
    ]


def find_doubts(config: Config) -> list[str]:
    """What is likely to stop the run, or to resume from another one by mistake."""
    return [
        *sizes.find_batch_doubts(config),
        *requirements.find_attention_doubt(config),
        *machine.find_cpu_doubt(config),
        *resume.find_other_settings(config),
    ]


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Hydra's flags and overrides; its own parser is private."""
    parser = argparse.ArgumentParser(prog="repo-verl preflight", add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("--config-name", "-cn", default="ppo_trainer")
    parser.add_argument("--run", "-r", action="store_true")
    for flags in ("--cfg -c", "--package -p", "--config-path -cp", "--experimental-rerun"):
        parser.add_argument(*flags.split())
    for flags in ("--help -h", "--hydra-help", "--version", "--resolve", "--multirun -m", "--shell-completion -sc"):
        parser.add_argument(*flags.split(), action="store_true")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    return parser.parse_known_args(arguments)


def other_flags(arguments: Sequence[str]) -> list[str]:
    """Hydra's flags among the arguments that print something or start several runs, and so are no run to check."""
    known, overrides = _parse(arguments)
    given = {name.replace("_", "-"): value for name, value in vars(known).items() if value not in (None, False)}
    flags = [f"--{name}" for name in given if name not in ("config-dir", "config-name", "run")]
    return flags + [word for word in overrides if word.replace(" ", "").lower() == "hydra.mode=multirun"]


def compose(arguments: Sequence[str]) -> Any:
    """The resolved configuration, a DictConfig, of arguments of ``python -m verl.trainer.main_ppo``.

    Raises:
        ValueError: one sentence, if verl is missing or Hydra refuses an argument.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    known, overrides = _parse(arguments)
    spec = importlib.util.find_spec("verl")
    if spec is None or spec.origin is None:
        raise ValueError("verl is not installed: bash run_scripts/setup.sh, or pip install '.[gpu]' in the checkout.")
    stock = Path(spec.origin).parent / "trainer" / "config"
    if known.config_dir is not None and not known.config_dir.is_dir():
        raise ValueError(
            f"--config-dir={known.config_dir} is no folder: name one, `repo-verl config-dir` prints RePO's."
        )
    primary = (known.config_dir or stock).absolute()
    try:
        with hydra.initialize_config_dir(config_dir=str(primary), job_name="main_ppo", version_base=None):
            words = [f"hydra.searchpath=['file://{stock}']", *overrides]
            return _resolve(hydra.compose(known.config_name, overrides=words, return_hydra_config=True))
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
