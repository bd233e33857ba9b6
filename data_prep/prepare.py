"""From source records to rows: conversion, filters, sampling, and the account of what was dropped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_prep.schema import Row, RowError
from repo_verl.rewards.extract import truth_word

ToRow = Callable[[Mapping[str, Any], int, str, str], Row]
"""A data set's ``to_row(record, index, split, template)``."""


@dataclass(frozen=True)
class Filters:
    """Which rows are kept; None keeps all.

    Attributes:
        answers: ``yes-no`` for gold answers that are Yes, No, True or False, in any case.
        max_prompt_chars: longest prompt, template included, in characters.
        max_prompt_tokens: longest prompt in tokens of the model's chat template.
        count_tokens: a row's prompt in tokens; needed with ``max_prompt_tokens``.
    """

    answers: str | None = None
    max_prompt_chars: int | None = None
    max_prompt_tokens: int | None = None
    count_tokens: Callable[[Row], int] | None = None

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
        """Why ``row`` is dropped, in words that are counted; None if it is kept.

        Args:
            row: a converted row.
        """
        if self.answers == "yes-no" and truth_word(row["reward_model"]["ground_truth"]) is None:
            return "answer is not yes, no, true or false"
        length = sum(len(message["content"]) for message in row["prompt"])
        if self.max_prompt_chars is not None and length > self.max_prompt_chars:
            return f"prompt longer than {self.max_prompt_chars} characters"
        if self.max_prompt_tokens is not None and self.count_tokens is not None:
            if self.count_tokens(row) > self.max_prompt_tokens:
                return f"prompt longer than {self.max_prompt_tokens} tokens"
        return None


@dataclass
class Account:
    """What came in and why rows went: ``records_in`` equals the rows kept plus all dropped."""

    records_in: int = 0
    rows_out: int = 0
    dropped: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def as_json(self) -> dict[str, Any]:
        """Counts, and for every reason the record numbers of its rows, written as ranges."""
        return {
            "records_in": self.records_in,
            "rows_out": self.rows_out,
            "dropped": {
                reason: {"count": len(numbers), "records": as_ranges(numbers)}
                for reason, numbers in sorted(self.dropped.items())
            },
        }


def convert(
    records: Iterable[Mapping[str, Any]], to_row: ToRow, split: str, template: str, filters: Filters, source: str
) -> tuple[list[Row], Account]:
    """Rows of all records that convert and pass the filters, in order, and the account of the rest.

    Args:
        records: from the source, in its order.
        to_row: the data set's conversion.
        split: ``train``, ``test`` or ``warmup``.
        template: a key of ``data_prep.schema.TEMPLATES``.
        filters: which rows are kept.
        source: file or hub name, for messages.

    Raises: ValueError naming source, record and field if not one record converts.
    """
    rows: list[Row] = []
    account = Account()
    first_failure = None
    converted = False
    for index, record in enumerate(records):
        account.records_in += 1
        try:
            row = to_row(record, index, split, template)
        except RowError as error:
            first_failure = first_failure or f"{source}: row {index}: {error}"
            account.dropped[error.reason].append(index)
            continue
        converted = True
        reason = filters.refusal(row)
        if reason is None:
            rows.append(row)
        else:
            account.dropped[reason].append(index)
    if not converted:
        raise ValueError(first_failure or f"{source}: has no records")
    account.rows_out = len(rows)
    return rows, account


def sample(rows: list[Row], size: int, seed: int, account: Account) -> list[Row]:
    """``size`` rows as ``datasets.Dataset.shuffle(seed).select(range(size))`` draws them.

    Args:
        rows: what is left after the filters.
        size: rows to keep.
        seed: of the shuffle; the paper's subset is seed 42, size 1024.
        account: the rows not drawn are added to it.

    Raises: ValueError if size is below 1 or there are fewer rows.
    """
    import datasets

    if size < 1 or size > len(rows):
        raise ValueError(f"sample_size={size} must be from 1 to the {len(rows)} rows left; change --sample-size")
    order = datasets.Dataset.from_dict({"number": list(range(len(rows)))}).shuffle(seed=seed)["number"]
    numbers = list(order)
    account.dropped["not drawn"].extend(sorted(rows[n]["extra_info"]["index"] for n in numbers[size:]))
    account.rows_out = size
    if not account.dropped["not drawn"]:
        del account.dropped["not drawn"]
    return [rows[n] for n in numbers[:size]]


def as_ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers in the short form of page ranges.

    Args:
        numbers: ascending, without repetition.

    Example:
        >>> as_ranges([0, 2, 3, 4, 9])
        '0,2-4,9'
    """
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in _runs(numbers))


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = last = number
        elif number == last + 1:
            last = number
        else:
            yield first, last
            first = last = number
    if first is not None and last is not None:
        yield first, last
