"""From source records to rows: conversion and filters, one record at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_prep.account import Account
from data_prep.dataset import DataSet
from data_prep.matching import Benchmarks, digest, exact_form
from data_prep.schema import Row, RowError
from repo_verl.rewards.extract import truth_word


@dataclass(frozen=True)
class Filters:
    """Which rows are kept; the defaults keep all.

    Attributes:
        answers: ``yes-no`` for gold answers that are Yes, No, True or False, in any case.
        max_prompt_chars: longest prompt, template included, in characters.
        max_prompt_tokens: longest prompt in tokens of the model's chat template.
        count_tokens: a row's prompt in tokens; needed with ``max_prompt_tokens``.
        verifiable: only rows whose gold answer the grader can read.
        deduplicate: only the first of rows with the same problem.
        benchmarks: rows that repeat one of these problems are dropped.
        strict: a record that cannot be a row is an error.
    """

    answers: str | None = None
    max_prompt_chars: int | None = None
    max_prompt_tokens: int | None = None
    count_tokens: Callable[[Row], int] | None = None
    verifiable: bool = False
    deduplicate: bool = False
    benchmarks: Benchmarks | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        """Raises: ValueError naming key, value and remedy of a setting that cannot work."""
        if self.answers not in (None, "yes-no"):
            raise ValueError(f"answers={self.answers!r} is unknown; use yes-no or leave it out")
        for name in ("max_prompt_chars", "max_prompt_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be 1 or more")
        if self.max_prompt_tokens is not None and self.count_tokens is None:
            raise ValueError(f"max_prompt_tokens={self.max_prompt_tokens} needs a tokenizer: pass --tokenizer PATH")

    def refusal(self, row: Row) -> str | None:
        """Why ``row`` is dropped, looked at alone, in words that are counted; None if it is kept.

        Args:
            row: a converted row.
        """
        gold = row["reward_model"]["ground_truth"]
        if self.answers == "yes-no" and truth_word(gold) is None:
            return "answer is not yes, no, true or false"
        length = sum(len(message["content"]) for message in row["prompt"])
        if self.max_prompt_chars is not None and length > self.max_prompt_chars:
            return f"prompt longer than {self.max_prompt_chars} characters"
        if self.max_prompt_tokens is not None and self.count_tokens is not None:
            if self.count_tokens(row) > self.max_prompt_tokens:
                return f"prompt longer than {self.max_prompt_tokens} tokens"
        if self.verifiable and not _verifiable(gold):
            return "the grader cannot read the gold answer"
        return None


def convert(
    records: Iterable[Mapping[str, Any]],
    data_set: DataSet,
    split: str,
    template: str,
    filters: Filters,
    source: str,
    account: Account,
) -> Iterator[Row]:
    """The rows of all records that convert and pass the filters, in order.

    Args:
        records: from the source, in its order.
        data_set: what they are.
        split: ``train``, ``test`` or ``warmup``.
        template: a key of ``data_prep.schema.TEMPLATES``.
        filters: which rows are kept.
        source: file or hub name, for messages.
        account: filled on the way; complete when the last row is out.

    Raises: ValueError naming source, record and field if no row is left, or at the first bad record if the filters
        are strict.
    """
    seen: set[bytes] = set()
    for index, record in enumerate(records):
        account.records_in += 1
        try:
            item = data_set.read(record)
            row = data_set.item_row(item, index, split, template)
        except RowError as error:
            if filters.strict:
                raise ValueError(f"{source}: row {index}: {error} (--strict stops at the first such row)") from error
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
        raise ValueError(account.nothing_left(source))


def _repeats(problem: str, index: int, filters: Filters, seen: set[bytes], account: Account) -> str | None:
    if filters.deduplicate:
        form = digest(exact_form(problem))
        if form in seen:
            return "repeats an earlier problem"
        seen.add(form)
    matches = filters.benchmarks.matches(problem) if filters.benchmarks else []
    account.matches.extend({"record": index, **match} for match in matches)
    return "matches a benchmark problem" if matches else None


def _verifiable(gold: str) -> bool:
    from repo_verl import rewards

    return rewards.gold_is_verifiable(gold)
