"""What one command does: read the sources, write the files and their account."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep import (
    aime24,
    aime25,
    amc23,
    arithmetic,
    custom,
    deepmath,
    files,
    gsm8k,
    math500,
    math_train,
    minerva,
    olympiadbench,
    reading,
)
from data_prep.account import Account
from data_prep.checks import check_flags, check_outputs
from data_prep.content import make_content, merged
from data_prep.dataset import DataSet
from data_prep.hub import hub_records
from data_prep.inputs import benchmark_files, source_files
from data_prep.matching import read_benchmarks
from data_prep.prepare import Filters, convert
from data_prep.sampling import draw
from data_prep.splits import check_names, checked, split_in_name
from data_prep.tokens import prompt_counter

SETS = {
    module.SET.name: module.SET
    for module in (deepmath, gsm8k, math_train, math500, amc23, olympiadbench, minerva, aime24, aime25)
}
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

    Args:
        arguments: the parsed command line.

    Returns: what the JSON file says of this run's files.

    Raises: ValueError or OSError with one sentence naming what is wrong.
    """
    check_flags(arguments)
    jobs = _jobs(arguments)
    account_name = f"{arguments.name if arguments.set == 'custom' else arguments.set}.json"
    read = [path for job in jobs for path in job.paths]
    read += sorted(arguments.decontaminate.glob("*.parquet")) if arguments.decontaminate else []
    check_outputs(arguments.output, [*(job.name for job in jobs), account_name], read)
    filters = _filters(arguments)
    accounts: dict[str, Account] = {}
    with files.Staging(arguments.output) as staging:
        for job in jobs:
            accounts[job.name] = _prepare(job, arguments, filters, staging)
        hashes = {job.name: reading.sha256(staging.path(job.name)) for job in jobs}
        content = make_content(arguments, accounts, {job.name: job.source for job in jobs}, filters.benchmarks, hashes)
        staging.write_json(merged(content, arguments.output / account_name), account_name)
    return content


def _prepare(job: Job, arguments: argparse.Namespace, filters: Filters, staging: files.Staging) -> Account:
    account = Account()
    title = job.name.removesuffix(".parquet")
    progress = tqdm(job.records, desc=title, unit=" records", disable=arguments.quiet)
    rows = convert(progress, job.data_set, job.split, arguments.template, filters, job.label, account)
    tables = files.tables(rows, job.name)
    if arguments.sample_size is not None:
        kept = staging.scratch(f"{title}.arrow")
        files.write_arrow(tables, kept)
        tables = draw(kept, arguments.sample_size, arguments.seed, account, title)
    files.write_parquet(tables, staging.path(job.name))
    if arguments.set == "benchmarks" and not arguments.any_count and account.records_in != job.data_set.test_rows:
        raise ValueError(
            f"{job.label}: has {account.records_in} records, but {job.data_set.name} has {job.data_set.test_rows}; "
            f"pass its file with --input {job.data_set.name}=FILE, or --any-count to take it as it is"
        )
    return account


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
    data_set, split = _asked_for(arguments)
    if arguments.input is not None:
        split = split or _split_of(arguments.input, data_set)
        return [_local_job(data_set, split, arguments.input, "pass --split {split}")]
    splits = (split,) if split else data_set.hub_default
    return [_hub_job(data_set, split) for split in splits]


def _asked_for(arguments: argparse.Namespace) -> tuple[DataSet, str | None]:
    """The data set and the split of a command line; no split if none is said."""
    if arguments.set == "custom":
        return custom.data_set(arguments, (*SETS, "arithmetic", "benchmarks")), custom.split_of(arguments)
    is_r1 = arguments.set == "deepmath" and arguments.gold == "r1"
    return deepmath.R1_SET if is_r1 else SETS[arguments.set], arguments.split


def _split_of(path: Path, data_set: DataSet) -> str:
    """The split of a source if none is said: the file's name decides where the set is used for both."""
    if len(data_set.hub_default) < 2:
        return data_set.default_split
    said = {split_in_name(file) for file in source_files(path, data_set, data_set.default_split)}
    return (said.pop() if len(said) == 1 else None) or data_set.default_split


def _local_job(data_set: DataSet, split: str, path: Path, remedy: str) -> Job:
    paths = source_files(path, data_set, split)
    check_names(paths, split, data_set.hub_splits.get(split, split), remedy)
    if len(paths) == 1:
        source: dict[str, Any] = {"file": paths[0].name, "sha256": reading.sha256(paths[0])}
    else:
        source = {"folder": path.name, "sha256": {shard.name: reading.sha256(shard) for shard in paths}}
    label = str(paths[0] if len(paths) == 1 else path)
    records = checked(reading.read_records(paths), split, label, remedy)
    return Job(data_set, split, records, label, source, tuple(paths))


def _hub_job(data_set: DataSet, split: str) -> Job:
    source = {"hub": data_set.hub_name, "config": data_set.hub_config, "split": data_set.hub_splits.get(split)}
    return Job(data_set, split, hub_records(data_set, split, source), data_set.hub_name, source)


def _arithmetic_jobs(arguments: argparse.Namespace) -> list[Job]:
    sizes = {"train": arguments.train_size, "test": arguments.test_size, "warmup": arguments.warmup_size}
    records: dict[str, list[dict[str, str]]] = {split: [] for split in sizes}
    for split, record in arithmetic.records(arguments.form, arguments.digits, sizes, arguments.seed):
        records[split].append(record)
    made = {"made": "data_prep.arithmetic"}
    return [
        Job(arithmetic.SET, split, found, f"arithmetic_{split}.parquet", made)
        for split, found in records.items()
        if found
    ]


def _filters(arguments: argparse.Namespace) -> Filters:
    return Filters(
        answers=arguments.answers,
        max_prompt_chars=arguments.max_prompt_chars,
        max_prompt_tokens=arguments.max_prompt_tokens,
        count_tokens=prompt_counter(arguments.tokenizer) if arguments.tokenizer else None,
        verifiable=arguments.filter_unverifiable,
        deduplicate=arguments.deduplicate,
        benchmarks=read_benchmarks(arguments.decontaminate) if arguments.decontaminate else None,
        strict=arguments.strict,
    )
