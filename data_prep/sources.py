"""Which local files an ``--input`` stands for, and whether they are of the split that they are prepared as."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.reading import SUFFIXES, kind, unzipped
from data_prep.records import DataSet
from repo_verl.safe_text import printable

_SPLIT = re.compile(r"(?<![a-z])(train|test)(?![a-z])")
_SHARD = re.compile(r"(\w+)-(\d+)-of-(\d+)(?:\.\w+)+")
_ACCOUNT_START = b'{\n  "set": "'
_HUB_NOTES = ("dataset_info.json", "dataset_infos.json", "state.json")


@dataclass(frozen=True)
class Source:
    """Where the rows of one file come from.

    Messages name it by its label (a file, a folder or a hub name), the account has its facts, which may be completed
    while the records are read. Its paths are the local files that are read.
    """

    data_set: DataSet
    split: str
    records: Iterable[Mapping[str, Any]]
    label: str
    facts: dict[str, Any]
    paths: tuple[Path, ...] = ()

    @property
    def file(self) -> str:
        """The name of the file that is made of it."""
        return f"{self.data_set.name}_{self.split}.parquet"


def source_files(path: Path, data_set: DataSet, split: str) -> list[Path]:
    """The files of one split of a data set at a path: of a file the file itself.

    In a folder, or in ``data`` or the hub configuration's name below it, they are the hub's shards of the split
    (``train-00000-of-00010.parquet``) or those of ``datasets.save_to_disk``, or ``SET_SPLIT.parquet`` (or another
    suffix), or the only data file.

    Raises: ValueError naming the path if it is not there, or the folder and its files if they are not one source.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: there is no such file; check --input")
    shards = data_set.hub_splits.get(split, split)
    for folder in _places(path, data_set):
        every = data_files(folder)
        found = [file for file in every if _shard_of(file) in (None, "data", shards)]
        named = [file for file in found if unzipped(file).stem == f"{data_set.name}_{split}"]
        if found and all(_shard_of(file) for file in found):
            return _complete(found, folder)
        if len(named or found) == 1:
            return named or found
        if every:
            raise ValueError(
                f"{folder}: its files ({_names(every)}) are not one file or the hub's shards of the split {shards}; "
                f"pass the file with --input, or name it {data_set.name}_{split} (then {', '.join(SUFFIXES)})"
            )
    raise ValueError(
        f"{path}: the folder has no {', '.join(SUFFIXES)} file of the split {shards}; pass the file with --input"
    )


def benchmark_files(inputs: Sequence[str], sets: Mapping[str, DataSet]) -> dict[str, Path]:
    """A file for every benchmark, from folders and ``SET=FILE``; the latter rule.

    In a folder, the file of a set is ``SET.jsonl`` or ``SET_test.jsonl`` (or another suffix), or in the sub-folder SET
    (or its ``data``) the only data file, or the only one there that ends in ``test``; training files are left out.

    Raises: ValueError naming the set for which there is no file or more than one, and what to pass.
    """
    files: dict[str, Path] = {}
    folders = []
    for text in inputs:
        name, equals, file = text.partition("=")
        if equals and name in sets:
            if name in files:
                raise ValueError(f"--input {text}: {name} was given before ({files[name]}); pass one file for a set")
            files[name] = Path(file)
        elif Path(text).is_dir():
            folders.append(Path(text))
        else:
            raise ValueError(f"--input {text} is neither a folder nor SET=FILE with SET one of {', '.join(sets)}")
    return {name: files[name] if name in files else _find(data_set, name, folders) for name, data_set in sets.items()}


def data_files(folder: Path) -> list[Path]:
    """The data files of a folder, if it is there, by name; accounts of this package and hidden files are none."""
    files = (file for file in folder.glob("*") if kind(file) and not file.name.startswith("."))
    return sorted(file for file in files if file.is_file() and not _is_note(file))


def split_in_name(path: Path) -> str | None:
    """The one split, train or test, that a file's name has as a word; None if it has neither or both."""
    words = set(_SPLIT.findall(path.stem.lower()))
    return words.pop() if len(words) == 1 else None


def check_names(paths: Iterable[Path], split: str, hub_split: str, remedy: str) -> None:
    """Refuses files whose names say another split than the one they are prepared as, or than the hub's name of it.

    AIME 2024's test problems are the hub's ``train``. In ``remedy``, ``{split}`` is where the name's split goes.
    """
    for path in paths:
        said = split_in_name(path)
        if said not in (None, split, hub_split):
            raise ValueError(
                f"{path}: the name says {said}, but the file is to be prepared as {split}; {remedy.format(split=said)}"
            )


def checked(records: Iterable[Mapping[str, Any]], split: str, label: str, remedy: str) -> Iterator[Mapping[str, Any]]:
    """The records; ValueError, with the remedy of :func:`check_names`, at the first that says the other split."""
    for number, record in enumerate(records):
        extra = record.get("extra_info")
        said = extra.get("split") if isinstance(extra, Mapping) else None
        if said in ("train", "test") and said != split:
            raise ValueError(
                f"{label}: row {number}: field 'extra_info.split' is {said!r}, but the file is to be prepared as "
                f"{split}; {remedy.format(split=said)}"
            )
        yield record


def _find(data_set: DataSet, name: str, folders: Sequence[Path]) -> Path:
    left_out: list[Path] = []
    for folder in folders:
        found = [file for file in data_files(folder) if unzipped(file).stem in (name, f"{name}_test")]
        for place in _places(folder / name, data_set):
            found = found or data_files(place)
        if data_set.hub_splits.get("test") != "train":  # as AIME 2024's is
            left_out += [file for file in found if split_in_name(file) == "train"]
        found = [file for file in found if file not in left_out]
        if len(found) > 1:
            found = [file for file in found if unzipped(file).stem.endswith("test")] or found
        if len(found) > 1:
            raise ValueError(f"{folder}: several files could be {name} ({_names(found)}); pass --input {name}=FILE")
        if found:
            return found[0]
    places = ", ".join(map(str, folders)) or "--input"
    named = f" ({', '.join(str(file) for file in left_out)} is named as training data)" if left_out else ""
    raise ValueError(f"{places}: no file for {name}{named}; pass --input {name}=FILE")


def _places(folder: Path, data_set: DataSet) -> list[Path]:
    """A folder, and those in it where hub downloads have their shards."""
    return [folder, folder / "data", *([folder / data_set.hub_config] if data_set.hub_config else [])]


def _complete(shards: list[Path], folder: Path) -> list[Path]:
    parts = [match.groups()[1:] for match in (_SHARD.fullmatch(file.name) for file in shards) if match]
    totals = {int(total) for _, total in parts}
    if len(totals) != 1 or sorted(int(number) for number, _ in parts) != list(range(totals.pop())):
        named = _names(shards)
        raise ValueError(f"{folder}: the shards ({named}) are not each of one set once; download what is missing")
    return shards


def _names(files: Sequence[Path], most: int = 12) -> str:
    """The first of the names, on one line."""
    names = [printable(file.name) for file in files[:most]]
    return ", ".join(names) + (", ..." if len(files) > most else "")


def _shard_of(file: Path) -> str | None:
    match = _SHARD.fullmatch(file.name)
    return match.group(1) if match else None


def _is_note(file: Path) -> bool:
    if file.suffix != ".json" or file.name in _HUB_NOTES:
        return file.suffix == ".json"
    with file.open("rb") as stream:
        return stream.read(len(_ACCOUNT_START)) == _ACCOUNT_START
