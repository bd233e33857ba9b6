"""What can be seen to be wrong before anything is read."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path


def check_flags(arguments: argparse.Namespace) -> None:
    """Refuses flags out of range, and flags that need or contradict others.

    Args:
        arguments: the parsed command line.

    Raises: ValueError naming flag, value and remedy.
    """
    for name, least in (("sample_size", 1), ("max_prompt_chars", 1), ("max_prompt_tokens", 1), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value}: must be {least} or more")
    if arguments.max_prompt_tokens is not None and not arguments.tokenizer:
        raise ValueError(f"--max-prompt-tokens {arguments.max_prompt_tokens}: pass --tokenizer PATH with it")
    if arguments.tokenizer is not None and arguments.max_prompt_tokens is None:
        raise ValueError(f"--tokenizer {arguments.tokenizer}: counts nothing without --max-prompt-tokens N; pass both")
    if arguments.decontaminate is not None and not arguments.decontaminate.is_dir():
        raise ValueError(
            f"--decontaminate {arguments.decontaminate}: is no folder; pass the one that "
            "`python -m data_prep benchmarks --output DIR` wrote"
        )


def check_outputs(folder: Path, names: Iterable[str], read: Iterable[Path]) -> None:
    """Refuses to write over a source, a benchmark file or a folder.

    Args:
        folder: of the output.
        names: of the files to write there.
        read: files that are read, and are to stay.

    Raises: ValueError naming the file and the remedy.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output {folder}: is no folder; pass another")
    targets = [folder / name for name in names]
    for target in targets:
        if target.is_dir():
            raise ValueError(f"{target}: is a folder where a file is to be written; remove it or pass another --output")
    for path in read:
        for target in targets:
            if target.resolve() == path.resolve() or (target.exists() and os.path.samefile(target, path)):
                raise ValueError(f"{path}: is read, and would be written over by {target}; pass another --output")
