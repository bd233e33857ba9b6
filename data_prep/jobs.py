"""What one command does: read the sources, write the files and their account."""

import argparse
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

import repo_verl
from data_prep import arithmetic, custom, files
from data_prep.account import Account, merged
from data_prep.filters import Filters, convert
from data_prep.hub import hub_records
from data_prep.reading import read_records, sha256
from data_prep.records import DataSet
from data_prep.sets import BENCHMARKS, DEEPMATH_R1, SETS
from data_prep.sources import Source, benchmark_files, check_names, checked, source_files, split_in_name

_NO_FLAGS = ("output", "input", "quiet", "decontaminate")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepares what the command line asks for, and writes it; all files appear together or none does.

    Returns: what the JSON file says of this run's files. Raises ValueError or OSError with one sentence.
    """
    _check_flags(arguments)
    sources = _sources(arguments)
    account_name = f"{arguments.name if arguments.set == 'custom' else arguments.set}.json"
    read = [path for source in sources for path in source.paths]
    read += sorted(arguments.decontaminate.glob("*.parquet")) if arguments.decontaminate else []
    _check_outputs(arguments.output, [*(source.file for source in sources), account_name], read)
    filters = Filters(arguments)
    with files.Staging(arguments.output) as staging:
        accounts = {source.file: _prepare(source, arguments, filters, staging) for source in sources}
        facts = {source.file: source.facts for source in sources}
        content = {
            "set": arguments.set,
            "files": {name: account.as_json() for name, account in accounts.items()},
            "source": sources[0].facts if all(source.facts == sources[0].facts for source in sources) else facts,
            "flags": {key: value for key, value in vars(arguments).items() if key not in _NO_FLAGS},
            "decontaminate": filters.benchmarks.files if filters.benchmarks else None,
            "versions": _versions(arguments),
            "sha256": {name: sha256(staging.scratch(name)) for name in accounts},
        }
        staging.write_json(merged(content, arguments.output / account_name), account_name)
    return content


def _versions(arguments: argparse.Namespace) -> dict[str, str]:
    used = ["pyarrow", "datasets"]
    used += ["math-verify"] if arguments.filter_unverifiable else []
    used += ["transformers"] if arguments.tokenizer else []
    versions = {name: metadata.version(name) for name in used}
    return {"repo_verl": repo_verl.__version__, **versions, "python": platform.python_version()}


def _prepare(source: Source, arguments: argparse.Namespace, filters: Filters, staging: files.Staging) -> Account:
    account, name = Account(), source.data_set.name
    title = source.file.removesuffix(".parquet")
    progress = tqdm(source.records, desc=title, unit=" records", disable=arguments.quiet)
    tables = files.tables(convert(progress, source, filters, account))
    if arguments.sample_size is not None:
        scratch = staging.scratch(f"{title}.arrow")
        tables = files.draw(tables, arguments.sample_size, arguments.seed, scratch, account, title)
    files.write_parquet(tables, staging.path(source.file))
    wanted = source.data_set.test_rows
    if arguments.set == "benchmarks" and not arguments.any_count and account.records_in != wanted:
        raise ValueError(
            f"{source.label}: has {account.records_in} records, but {name} has {wanted}; "
            f"pass its file with --input {name}=FILE, or --any-count to take it as it is"
        )
    return account


def _check_flags(arguments: argparse.Namespace) -> None:
    """Refuses flags out of range, and flags that need or contradict others, before anything is read."""
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


def _check_outputs(folder: Path, names: Iterable[str], read: Iterable[Path]) -> None:
    """Refuses to write over a folder, a source or a benchmark file."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output {folder}: is no folder; pass another")
    targets = [folder / name for name in names]
    for target in targets:
        if target.is_dir():
            raise ValueError(f"{target}: is a folder where a file is to be written; remove it or pass another --output")
    for path in read:
        for target in targets:
            if target.exists() and os.path.samefile(target, path):
                raise ValueError(f"{path}: is read, and would be written over by {target}; pass another --output")


def _sources(arguments: argparse.Namespace) -> list[Source]:
    if arguments.set == "arithmetic":
        return _arithmetic_sources(arguments)
    if arguments.set == "benchmarks":
        if not arguments.input:
            return [_hub_source(SETS[name], "test") for name in BENCHMARKS]
        found = benchmark_files(arguments.input, {name: SETS[name] for name in BENCHMARKS})
        return [
            _local_source(SETS[name], "test", path, f"pass another with --input {name}=FILE")
            for name, path in found.items()
        ]
    if arguments.set == "custom":
        data_set = custom.data_set(arguments, (*SETS, "arithmetic", "benchmarks"))
        split = custom.split_of(arguments)
    else:
        is_r1 = arguments.set == "deepmath" and arguments.gold == "r1"
        data_set, split = DEEPMATH_R1 if is_r1 else SETS[arguments.set], arguments.split
    if arguments.input is not None:
        split = split or _split_of(arguments.input, data_set)
        return [_local_source(data_set, split, arguments.input, "pass --split {split}")]
    every = ("train", "test") if data_set.both_splits else (data_set.default_split,)
    return [_hub_source(data_set, name) for name in ((split,) if split else every)]


def _split_of(path: Path, data_set: DataSet) -> str:
    """The split of a source if none is said: the file's name decides where the set is used for both."""
    if not data_set.both_splits:
        return data_set.default_split
    said = {split_in_name(file) for file in source_files(path, data_set, data_set.default_split)}
    return (said.pop() if len(said) == 1 else None) or data_set.default_split


def _local_source(data_set: DataSet, split: str, path: Path, remedy: str) -> Source:
    paths = source_files(path, data_set, split)
    check_names(paths, split, data_set.hub_splits.get(split, split), remedy)
    if len(paths) == 1:
        facts: dict[str, Any] = {"file": paths[0].name, "sha256": sha256(paths[0])}
    else:
        facts = {"folder": path.name, "sha256": {shard.name: sha256(shard) for shard in paths}}
    label = str(paths[0] if len(paths) == 1 else path)
    records = checked(read_records(paths), split, label, remedy)
    return Source(data_set, split, records, label, facts, tuple(paths))


def _hub_source(data_set: DataSet, split: str) -> Source:
    facts = {"hub": data_set.hub_name, "config": data_set.hub_config, "split": data_set.hub_splits.get(split)}
    return Source(data_set, split, hub_records(data_set, split, facts), data_set.hub_name, facts)


def _arithmetic_sources(arguments: argparse.Namespace) -> list[Source]:
    sizes = {"train": arguments.train_size, "test": arguments.test_size, "warmup": arguments.warmup_size}
    made = arithmetic.records(arguments.form, arguments.digits, sizes, arguments.seed)
    facts = {"made": "data_prep.arithmetic"}
    return [Source(arithmetic.SET, split, made[split], f"arithmetic_{split}.parquet", facts) for split in made]
