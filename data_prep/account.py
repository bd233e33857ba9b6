"""The account of a file: what came in, what went out, and why the rest was dropped."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


def _numbers() -> array[int]:
    return array("q")


@dataclass
class Account:
    """Counts of one file: ``records_in`` equals the rows kept plus all dropped.

    Attributes:
        records_in: records read.
        kept: record numbers of the rows that are left, ascending.
        dropped: record numbers by reason, ascending.
        details: the message of the first record dropped for a reason, where there is one.
        without_box: those of them whose prompt asks for no box.
        instruction_removed: records whose prompt held an instruction that is no part of the problem.
        matches: the benchmark problems that dropped records repeat.
    """

    records_in: int = 0
    kept: array[int] = field(default_factory=_numbers)
    without_box: array[int] = field(default_factory=_numbers)
    dropped: dict[str, array[int]] = field(default_factory=lambda: defaultdict(_numbers))
    details: dict[str, str] = field(default_factory=dict)
    instruction_removed: int = 0
    matches: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, reason: str, number: int, detail: str = "") -> None:
        """Counts a dropped record.

        Args:
            reason: why, in words that are the same for all such records.
            number: of the record.
            detail: what was wrong with this one.
        """
        self.dropped[reason].append(number)
        self.details.setdefault(reason, detail)

    def keep_only(self, numbers: Iterable[int]) -> None:
        """Counts the rows that a random draw left out.

        Args:
            numbers: the records drawn.
        """
        drawn = set(numbers)
        for number in self.kept:
            if number not in drawn:
                self.drop("not drawn", number)
        self.kept = array("q", sorted(drawn))
        self.without_box = array("q", (number for number in self.without_box if number in drawn))

    def nothing_left(self, source: str) -> str:
        """Why no row is left, in one sentence with the commonest reason.

        Args:
            source: file or hub name.
        """
        if not self.records_in:
            return f"{source}: has no records"
        reason = max(sorted(self.dropped), key=lambda name: len(self.dropped[name]))
        count, first = len(self.dropped[reason]), self.dropped[reason][0]
        if self.details[reason]:
            return (
                f"{source}: row {first}: {self.details[reason]}; no rows are left of {self.records_in}, "
                f"{count} dropped like this one"
            )
        return (
            f"{source}: no rows are left of {self.records_in}, most ({count}, first row {first}) for the reason "
            f"'{reason}'; loosen that filter or check the input"
        )

    def as_json(self) -> dict[str, Any]:
        """Counts, and for every reason the record numbers of its rows, written as ranges."""
        return {
            "records_in": self.records_in,
            "rows_out": len(self.kept),
            "without_box": len(self.without_box),
            "instruction_removed": self.instruction_removed,
            "dropped": {
                reason: {"count": len(numbers), "records": as_ranges(numbers)}
                for reason, numbers in sorted(self.dropped.items())
            },
            "benchmark_matches": self.matches,
        }


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
