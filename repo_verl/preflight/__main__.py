"""``python -m repo_verl.preflight``: takes the arguments of ``python -m verl.trainer.main_ppo``.

The same as ``repo-verl preflight``, without importing the other commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from repo_verl.config import lookup
from repo_verl.preflight import machine, requirements, resume, sizes
from repo_verl.preflight.compose import Config, compose, other_flags


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
        found = list(requirements.find_refusals(config))
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
    lines = [
        *requirements.other_versions(),
        *requirements.find_validation_notice(config),
        *sizes.find_batch_notices(config),
    ]
    return lines if gpus is None else [*lines, *machine.find_gpu_notices(config, gpus)]


def find_doubts(config: Config) -> list[str]:
    """What is likely to stop the run, or to resume from another one by mistake."""
    return [
        *sizes.find_batch_doubts(config),
        *requirements.find_attention_doubt(config),
        *machine.find_cpu_doubt(config),
        *resume.find_other_settings(config),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
