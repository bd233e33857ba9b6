"""The problems of a benchmark, from the parquet files that ``python -m data_prep benchmarks`` writes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

ORDER = ("math500", "amc23", "olympiadbench", "minerva", "aime24", "aime25", "gsm8k")
"""The paper's benchmarks, in the order of tables; others follow by name."""


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        benchmark: its ``data_source``.
        id: number of its record in the source, as text; unique in its benchmark.
        messages: the chat, as ``apply_chat_template`` takes it.
        gold: the gold answer.
        tolerance: largest absolute difference that is right, or None.
    """

    benchmark: str
    id: str
    messages: tuple[tuple[str, str], ...]
    gold: str
    tolerance: float | None

    @property
    def chat(self) -> list[dict[str, str]]:
        """The messages as dictionaries of role and content."""
        return [{"role": role, "content": content} for role, content in self.messages]


@dataclass(frozen=True)
class Benchmarks:
    """All problems by benchmark, in order, and what they were read from.

    Attributes:
        problems: by benchmark.
        sha256: of the files, by name.
    """

    problems: dict[str, list[Problem]]
    sha256: dict[str, str]


def read_benchmarks(folder: Path, only: Sequence[str] | None = None) -> Benchmarks:
    """The problems of all test files in a folder.

    Args:
        folder: with ``SET_test.parquet`` files in verl's schema.
        only: benchmarks to keep; None for all.

    Raises: ValueError naming folder or file and the remedy, where there is none, one that is wanted is missing, a
        column is missing or an id comes twice.
    """
    files = sorted(folder.glob("*_test.parquet"))
    found: dict[str, list[Problem]] = {}
    sha256 = {}
    for file in files:
        problems = _read(file)
        names = {problem.benchmark for problem in problems}
        if only is not None and not names & set(only):
            continue
        for problem in problems:
            if only is None or problem.benchmark in only:
                found.setdefault(problem.benchmark, []).append(problem)
        sha256[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    for name in only or ():
        if name not in found:
            raise ValueError(f"{folder} has no benchmark {name!r}; it has {', '.join(sorted(found)) or 'none'}.")
    if not found:
        raise ValueError(f"{folder} has no *_test.parquet: python -m data_prep benchmarks --output {folder}")
    for name, members in found.items():
        if len({problem.id for problem in members}) < len(members):
            raise ValueError(f"{folder}: benchmark {name!r} has an extra_info.index twice: prepare it again.")
    ranks = {name: number for number, name in enumerate(ORDER)}
    ordered = sorted(found, key=lambda name: (ranks.get(name, len(ranks)), name))
    return Benchmarks({name: found[name] for name in ordered}, sha256)


def _read(file: Path) -> list[Problem]:
    columns = ["data_source", "prompt", "reward_model", "extra_info"]
    missing = [name for name in columns if name not in pq.read_schema(file).names]
    if missing:
        raise ValueError(f"{file} has no column {missing[0]!r}: prepare it with `python -m data_prep benchmarks`.")
    return [
        Problem(
            row["data_source"],
            str(row["extra_info"]["index"]),
            tuple((message["role"], message["content"]) for message in row["prompt"]),
            row["reward_model"]["ground_truth"],
            row["extra_info"].get("tolerance"),
        )
        for row in pq.read_table(file, columns=columns).to_pylist()
    ]
