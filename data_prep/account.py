"""The account of a file's records, and of earlier runs: what came in and went out, and why the rest was dropped."""

import json
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, MutableSequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from data_prep.reading import sha256

_FILE = re.compile(r"[\w-]{1,100}\.parquet")
_OF_A_RUN = ("flags", "decontaminate", "versions")


def _numbers() -> MutableSequence[int]:
    return array("q")


@dataclass
class Account:
    """Counts of one file: ``records_in`` equals the rows kept plus all dropped.

    Attributes:
        kept: record numbers of the rows that are left, ascending.
        without_box: those of them whose prompt asks for no box.
        dropped: record numbers by reason, ascending.
        details: the message of the first record dropped for a reason, where there is one.
        instruction_removed: how many records had an instruction in their prompt that is no part of the problem.
        matches: the benchmark problems that dropped records repeat.
    """

    records_in: int = 0
    kept: MutableSequence[int] = field(default_factory=_numbers)
    without_box: MutableSequence[int] = field(default_factory=_numbers)
    dropped: dict[str, MutableSequence[int]] = field(default_factory=lambda: defaultdict(_numbers))
    details: dict[str, str] = field(default_factory=dict)
    instruction_removed: int = 0
    matches: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, reason: str, number: int, detail: str = "") -> None:
        """Counts a dropped record: the reason, in words that all such records share, and this one's message."""
        self.dropped[reason].append(number)
        self.details.setdefault(reason, detail)

    def keep_only(self, numbers: Iterable[int]) -> None:
        """Counts the rows that a random draw left out; ``numbers`` are the records drawn."""
        drawn = set(numbers)
        for number in self.kept:
            if number not in drawn:
                self.drop("not drawn", number)
        self.kept = array("q", sorted(drawn))
        self.without_box = array("q", (number for number in self.without_box if number in drawn))

    def nothing_left(self, source: str) -> str:
        """Why no row is left of a file or hub set, in one sentence with the commonest reason."""
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

    Example:
        >>> as_ranges([0, 2, 3, 4, 9])
        '0,2-4,9'
    """
    parts = []
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        parts.append(f"{found[0]}-{found[-1]}" if len(found) > 1 else str(found[0]))
    return ",".join(parts)


def merged(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content of a run with the entries of earlier runs whose files are still there as they were written.

    ``earlier`` then has the flags, benchmarks and versions of each such file. ``path`` is the JSON file of the earlier
    runs, beside their files; another file in its place is no account.
    """
    old = _earlier(path, content["set"])
    kept = [name for name in old.get("files", {}) if name not in content["files"] and _unchanged(old, name, path)]
    if not kept:
        return content
    files = {**{name: old["files"][name] for name in kept}, **content["files"]}
    sources = {name: (old if name in kept else content)["source"] for name in files}
    runs = old.get("earlier", {})
    return {
        **content,
        "files": files,
        "source": {name: source.get(name, source) for name, source in sources.items()},
        "sha256": {**{name: old["sha256"][name] for name in kept}, **content["sha256"]},
        "earlier": {name: runs.get(name) or {key: old.get(key) for key in _OF_A_RUN} for name in kept},
    }


def _earlier(path: Path, name: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        old = json.loads(path.read_bytes())
        parts = [*(old[key] for key in ("files", "source", "sha256")), old.get("earlier", {})]
        is_account = old["set"] == name and all(isinstance(part, dict) for part in parts) and all(parts[:3])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return old if is_account else {}


def _unchanged(old: dict[str, Any], name: str, path: Path) -> bool:
    """Whether the account's file is still there; a name that is no parquet file of the folder is none of ours."""
    file = path.parent / name
    if _FILE.fullmatch(name) is None or not file.is_file() or file.is_symlink():
        return False
    return sha256(file) == old["sha256"].get(name)
