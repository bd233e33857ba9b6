r"""From records to the rows that are kept: conversion, filters, repeats and benchmark problems.

Repeats inside a set are compared with only their blanks made equal: the loose form takes "Compute $\sin 225^\circ$."
and "Compute $\tan 225^\circ$." for one problem. It is right against benchmarks, where dropping one problem too many
costs less than training on a test problem.
"""

import argparse
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.account import Account
from data_prep.hub import prompt_counter
from data_prep.reading import read_records, sha256
from data_prep.records import extra_info, read_item
from data_prep.schema import Row, RowError
from data_prep.sources import Source
from repo_verl import rewards
from repo_verl.rewards.extract import truth_word

_COMMAND = re.compile(r"\\[A-Za-z]+")


class Filters:
    """Which rows are kept: the command line's flags, the tokenizer and the benchmarks that they name."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        self.count_tokens = prompt_counter(flags.tokenizer) if flags.tokenizer else None
        self.benchmarks = read_benchmarks(flags.decontaminate) if flags.decontaminate else None

    def refusal(self, row: Row) -> str | None:
        """Why a row is dropped whatever the others are, in words that are counted; None if it is kept."""
        flags, gold = self.flags, row["reward_model"]["ground_truth"]
        if flags.answers == "yes-no" and truth_word(gold) is None:
            return "answer is not yes, no, true or false"
        length = sum(len(message["content"]) for message in row["prompt"])
        if flags.max_prompt_chars is not None and length > flags.max_prompt_chars:
            return f"prompt longer than {flags.max_prompt_chars} characters"
        if self.count_tokens is not None and self.count_tokens(row) > flags.max_prompt_tokens:
            return f"prompt longer than {flags.max_prompt_tokens} tokens"
        if flags.filter_unverifiable and not rewards.gold_is_verifiable(gold):
            return "the grader cannot read the gold answer"
        return None


def convert(records: Iterable[Mapping[str, Any]], source: Source, filters: Filters, account: Account) -> Iterator[Row]:
    """The rows of all records that convert and pass the filters, in order; ``account`` is complete after the last.

    Raises: ValueError naming source and record if no row is left, or at the first bad record with ``--strict``.
    """
    seen: set[bytes] = set()
    for index, record in enumerate(records):
        account.records_in += 1
        try:
            item = source.data_set.read(record)
            row = item.to_row(source.data_set.name, index, source.split, filters.flags.template)
        except RowError as error:
            if filters.flags.strict:
                place = f"{source.label}: row {index}"
                raise ValueError(f"{place}: {error} (--strict stops at the first such row)") from error
            account.drop(error.reason, index, str(error))
            continue
        account.instruction_removed += item.instruction_removed
        reason = filters.refusal(row) or _repeats(item.problem, index, filters, seen, account)
        if reason is not None:
            account.drop(reason, index)
            continue
        account.kept.append(index)
        if "\\boxed" not in row["prompt"][0]["content"]:
            account.without_box.append(index)
        yield row
    if not account.kept:
        raise ValueError(account.nothing_left(source.label))


def _repeats(problem: str, index: int, filters: Filters, seen: set[bytes], account: Account) -> str | None:
    if filters.flags.deduplicate:
        form = hashlib.blake2b(exact_form(problem).encode(), digest_size=16).digest()  # 100 MB for a million problems
        if form in seen:
            return "repeats an earlier problem"
        seen.add(form)
    matches = filters.benchmarks.matches(problem) if filters.benchmarks else []
    account.matches.extend({"record": index, **match} for match in matches)
    return "matches a benchmark problem" if matches else None


def exact_form(problem: str) -> str:
    """The problem with every run of blanks made one space, none at its ends."""
    return " ".join(problem.split())


def loose_form(problem: str) -> str:
    r"""Letters and digits of any script only, their case and width aside, after deleting TeX commands; the exact form
    if that leaves fewer than 8, which say too little ("find" is all that is left of some problems).

    Example:
        >>> loose_form(r"What is $\frac{1}{2}$ of 10?"), loose_form(r"Find $\sec 120^\circ.$")
        ('whatis12of10', 'Find $\\sec 120^\\circ.$')
    """
    folded = unicodedata.normalize("NFKC", _COMMAND.sub("", problem)).casefold()
    loose = "".join(filter(str.isalnum, folded))
    return loose if len(loose) >= 8 else exact_form(problem)


@dataclass(frozen=True)
class Benchmarks:
    """The problems of a folder of verl parquet files: loose form to the rows that have it, each by ``data_source`` and
    ``index``; and by file name its SHA-256, how many rows count and how many do not.
    """

    problems: dict[str, list[dict[str, Any]]]
    files: dict[str, dict[str, Any]]

    def matches(self, problem: str) -> list[dict[str, Any]]:
        """The benchmark rows that a bare problem repeats."""
        return self.problems.get(loose_form(problem), [])


def read_benchmarks(folder: Path) -> Benchmarks:
    """The problems of a folder that ``python -m data_prep benchmarks`` wrote, those of train and warmup rows left out.

    Raises: ValueError naming the folder if it has no parquet file, a file without a row that counts, or file and row
        of one that is not verl's.
    """
    problems: dict[str, list[dict[str, Any]]] = {}
    files = {}
    for path in sorted(folder.glob("*.parquet")):
        used = skipped = 0
        for number, record in enumerate(read_records([path])):
            try:
                extra = extra_info(record)
                if extra.get("split") in ("train", "warmup"):
                    skipped += 1
                    continue
                item = read_item(record, ("prompt",), ("reward_model",))
            except RowError as error:
                raise ValueError(f"{path}: row {number}: {error}; want verl's columns") from error
            place = {"data_source": record.get("data_source", path.stem), "index": extra.get("index", number)}
            problems.setdefault(loose_form(item.problem), []).append(place)
            used += 1
        if not used:
            raise ValueError(
                f"{path}: no benchmark rows ({skipped} of the split train or warmup); take it out of the folder of "
                "--decontaminate, or prepare it as test"
            )
        files[path.name] = {"sha256": sha256(path), "rows_used": used, "rows_skipped": skipped}
    if not files:
        raise ValueError(
            f"{folder}: no benchmark files (*.parquet); make them with `python -m data_prep benchmarks --output DIR`"
        )
    return Benchmarks(problems, files)
