"""What one command does: read the sources, write the files and their account."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep import aime, amc23, arithmetic, custom, deepmath, files, gsm8k, math_sets, minerva, olympiadbench
from data_prep.account import Account, make_content, merged
from data_prep.filters import Filters, convert, read_benchmarks
from data_prep.hub import hub_records, prompt_counter
from data_prep.reading import read_records, sha256
from data_prep.records import DataSet
from data_prep.sources import benchmark_files, check_names, checked, source_files, split_in_name

SETS = {
    data_set.name: data_set
    for data_set in (
        deepmath.SET, gsm8k.SET, math_sets.MATH, math_sets.MATH500, amc23.SET, olympiadbench.SET, minerva.SET,
        aime.AIME24, aime.AIME25,
    )
}  # fmt: skip
"""Data sets with a source file or a hub name, by the name on the command line."""

BENCHMARKS = ("math500", "amc23", "olympiadbench", "minerva", "aime24", "aime25", "gsm8k")
"""The paper's test sets."""


@dataclass(frozen=True)
class Job:
    """One file to write.

    Attributes:
        data_set: what the records are.
        split: of the file.
        records: from the source.
        label: file, folder or hub name, for messages.
        source: what the account says about where the records come from; may be completed while they are read.
        paths: the local files it reads.
    """

    data_set: DataSet
    split: str
    records: Iterable[Mapping[str, Any]]
    label: str
    source: dict[str, Any]
    paths: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.data_set.name}_{self.split}.parquet"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepares what the command line asks for, and writes it; all files appear together or none does.

    Returns: what the JSON file says of this run's files.

    Raises: ValueError or OSError with one sentence naming what is wrong.
    """
    _check_flags(arguments)
    jobs = _jobs(arguments)
    account_name = f"{arguments.name if arguments.set == 'custom' else arguments.set}.json"
    read = [path for job in jobs for path in job.paths]
    read += sorted(arguments.decontaminate.glob("*.parquet")) if arguments.decontaminate else []
    _check_outputs(arguments.output, [*(job.name for job in jobs), account_name], read)
    filters = Filters(
        answers=arguments.answers,
        max_prompt_chars=arguments.max_prompt_chars,
        max_prompt_tokens=arguments.max_prompt_tokens,
        count_tokens=prompt_counter(arguments.tokenizer) if arguments.tokenizer else None,
        verifiable=arguments.filter_unverifiable,
        deduplicate=arguments.deduplicate,
        benchmarks=read_benchmarks(arguments.decontaminate) if arguments.decontaminate else None,
        strict=arguments.strict,
    )
    with files.Staging(arguments.output) as staging:
        accounts = {job.name: _prepare(job, arguments, filters, staging) for job in jobs}
        hashes = {job.name: sha256(staging.scratch(job.name)) for job in jobs}
        compared = filters.benchmarks.files if filters.benchmarks else None
        content = make_content(arguments, accounts, {job.name: job.source for job in jobs}, compared, hashes)
        staging.write_json(merged(content, arguments.output / account_name), account_name)
    return content


def _prepare(job: Job, arguments: argparse.Namespace, filters: Filters, staging: files.Staging) -> Account:
    account = Account()
    title = job.name.removesuffix(".parquet")
    progress = tqdm(job.records, desc=title, unit=" records", disable=arguments.quiet)
    rows = convert(progress, job.data_set, job.split, arguments.template, filters, job.label, account)
    tables = files.tables(rows, job.name)
    if arguments.sample_size is not None:
        scratch = staging.scratch(f"{title}.arrow")
        tables = files.draw(tables, arguments.sample_size, arguments.seed, scratch, account, title)
    files.write_parquet(tables, staging.path(job.name))
    if arguments.set == "benchmarks" and not arguments.any_count and account.records_in != job.data_set.test_rows:
        raise ValueError(
            f"{job.label}: has {account.records_in} records, but {job.data_set.name} has {job.data_set.test_rows}; "
            f"pass its file with --input {job.data_set.name}=FILE, or --any-count to take it as it is"
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
            if target.resolve() == path.resolve() or (target.exists() and os.path.samefile(target, path)):
                raise ValueError(f"{path}: is read, and would be written over by {target}; pass another --output")


def _jobs(arguments: argparse.Namespace) -> list[Job]:
    if arguments.set == "arithmetic":
        return _arithmetic_jobs(arguments)
    if arguments.set == "benchmarks":
        if not arguments.input:
            return [_hub_job(SETS[name], "test") for name in BENCHMARKS]
        found = benchmark_files(arguments.input, {name: SETS[name] for name in BENCHMARKS})
        return [
            _local_job(SETS[name], "test", path, f"pass another with --input {name}=FILE")
            for name, path in found.items()
        ]
    if arguments.set == "custom":
        data_set = custom.data_set(arguments, (*SETS, "arithmetic", "benchmarks"))
        split = custom.split_of(arguments)
    else:
        is_r1 = arguments.set == "deepmath" and arguments.gold == "r1"
        data_set, split = deepmath.R1_SET if is_r1 else SETS[arguments.set], arguments.split
    if arguments.input is not None:
        split = split or _split_of(arguments.input, data_set)
        return [_local_job(data_set, split, arguments.input, "pass --split {split}")]
    every = ("train", "test") if data_set.both_splits else (data_set.default_split,)
    return [_hub_job(data_set, name) for name in ((split,) if split else every)]


def _split_of(path: Path, data_set: DataSet) -> str:
    """The split of a source if none is said: the file's name decides where the set is used for both."""
    if not data_set.both_splits:
        return data_set.default_split
    said = {split_in_name(file) for file in source_files(path, data_set, data_set.default_split)}
    return (said.pop() if len(said) == 1 else None) or data_set.default_split


def _local_job(data_set: DataSet, split: str, path: Path, remedy: str) -> Job:
    paths = source_files(path, data_set, split)
    check_names(paths, split, data_set.hub_splits.get(split, split), remedy)
    if len(paths) == 1:
        source: dict[str, Any] = {"file": paths[0].name, "sha256": sha256(paths[0])}
    else:
        source = {"folder": path.name, "sha256": {shard.name: sha256(shard) for shard in paths}}
    label = str(paths[0] if len(paths) == 1 else path)
    records = checked(read_records(paths), split, label, remedy)
    return Job(data_set, split, records, label, source, tuple(paths))


def _hub_job(data_set: DataSet, split: str) -> Job:
    source = {"hub": data_set.hub_name, "config": data_set.hub_config, "split": data_set.hub_splits.get(split)}
    return Job(data_set, split, hub_records(data_set, split, source), data_set.hub_name, source)


def _arithmetic_jobs(arguments: argparse.Namespace) -> list[Job]:
    sizes = {"train": arguments.train_size, "test": arguments.test_size, "warmup": arguments.warmup_size}
    records = arithmetic.records(arguments.form, arguments.digits, sizes, arguments.seed)
    made = {"made": "data_prep.arithmetic"}
    return [
        Job(arithmetic.SET, split, found, f"arithmetic_{split}.parquet", made)
        for split, found in records.items()
        if found
    ]
