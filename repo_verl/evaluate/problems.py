"""The problems of a benchmark, from the parquet files that ``python -m data_prep benchmarks`` writes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo_verl.evaluate.reading import benchmark_name, is_missing, mapping, parquet_rows, problem_id, text

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
        column is missing, a row is not verl's or an id comes twice.
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
    problems: list[Problem] = []
    for row in parquet_rows(file, ("data_source", "prompt", "reward_model", "extra_info")):
        try:
            problems.append(_problem(row))
        except ValueError as error:
            raise ValueError(
                f"{file}: row {len(problems)}: {error}; prepare it with `python -m data_prep benchmarks`."
            ) from error
    return problems


def _problem(row: dict[str, Any]) -> Problem:
    extra = mapping(row["extra_info"], "extra_info")
    gold = mapping(row["reward_model"], "reward_model").get("ground_truth")
    return Problem(
        benchmark_name(row["data_source"]),
        problem_id(extra.get("index")),
        _messages(row["prompt"]),
        str(gold) if _is_number(gold) else text(gold, "reward_model.ground_truth"),
        _tolerance(extra.get("tolerance")),
    )


def _messages(prompt: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(prompt, list) or not prompt:
        raise ValueError("field 'prompt' is empty or no list, want a chat")
    messages = [mapping(message, "prompt") for message in prompt]
    return tuple(
        (text(message.get("role"), "prompt.role"), text(message.get("content"), "prompt.content"))
        for message in messages
    )


def _tolerance(value: Any) -> float | None:
    if is_missing(value):
        return None
    if not _is_number(value) or value < 0:
        raise ValueError("field 'extra_info.tolerance' must be a finite number of 0 or more, or null")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
