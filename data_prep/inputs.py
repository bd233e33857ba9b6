"""Which local files an ``--input`` stands for."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from data_prep.reading import SUFFIXES

_SHARD = re.compile(r"\w+-\d+-of-\d+\.")


def source_files(path: Path, shards: str) -> list[Path]:
    """The files of one data set.

    Args:
        path: a file, or a folder of them, read in order of their names.
        shards: the hub's name of the split; if files are named as the hub names shards (``train-00000-of-00010``),
            only those of this split count.

    Raises: ValueError naming the path if it is not there or a folder without such files.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: there is no such file; check --input")
    found = _data_files(path)
    if any(_SHARD.match(file.name) for file in found):
        found = [file for file in found if file.name.startswith(f"{shards}-")]
    if not found:
        raise ValueError(
            f"{path}: the folder has no {', '.join(SUFFIXES)} file of the split {shards}; pass the file with --input"
        )
    return found


def benchmark_files(inputs: Sequence[str], names: Collection[str]) -> dict[str, Path]:
    """A file for every benchmark.

    Args:
        inputs: folders and ``SET=FILE``; the latter rule. In a folder, the file of a set is ``SET.jsonl`` or
            ``SET_test.jsonl`` (or json, parquet), the only data file in the sub-folder SET, or the only one there
            whose name ends in ``test.jsonl`` (or json, parquet).
        names: the benchmarks.

    Raises: ValueError naming the set for which there is no file or more than one, and what to pass.
    """
    files: dict[str, Path] = {}
    folders = []
    for text in inputs:
        name, equals, file = text.partition("=")
        if equals and name in names:
            files[name] = Path(file)
        elif Path(text).is_dir():
            folders.append(Path(text))
        else:
            raise ValueError(f"--input {text} is neither a folder nor SET=FILE with SET one of {', '.join(names)}")
    for name in names:
        if name not in files:
            files[name] = _find(name, folders)
    return {name: files[name] for name in names}


def _find(name: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        found = [file for file in _data_files(folder) if file.stem in (name, f"{name}_test")]
        found = found or _data_files(folder / name)
        if len(found) > 1:
            found = [file for file in found if file.stem.endswith("test")] or found
        if len(found) > 1:
            several = ", ".join(file.name for file in found)
            raise ValueError(f"{folder}: several files could be {name} ({several}); pass --input {name}=FILE")
        if found:
            return found[0]
    places = ", ".join(map(str, folders)) or "--input"
    raise ValueError(f"{places}: no file for {name}; pass --input {name}=FILE")


def _data_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix in SUFFIXES and not file.name.startswith("."))
