"""Problems of benchmarks, from ``python -m data_prep benchmarks``; fields of files that anyone may have written."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from repo_verl.safe_text import shown

ORDER = ("math500", "amc23", "olympiadbench", "minerva", "aime24", "aime25", "gsm8k")
"""The paper's benchmarks, in the order of tables; others follow by name."""
BATCH = 256
NAME_LENGTH = 64
ID_LENGTH = 512


@dataclass(frozen=True)
class Problem:
    """One problem: its ``data_source``, and the number of its record there as text, unique in its benchmark.

    ``chat`` is what ``apply_chat_template`` takes, ``tolerance`` the largest absolute difference that is right.
    """

    benchmark: str
    id: str
    chat: Sequence[Mapping[str, str]]
    gold: str
    tolerance: float | None


@dataclass(frozen=True)
class Benchmarks:
    """Problems by benchmark, in order; the SHA-256 of the files they were read from, and the limit if there is one."""

    problems: dict[str, list[Problem]]
    sha256: dict[str, str]


def read_benchmarks(folder: Path, only: Sequence[str] | None = None, limit: int | None = None) -> Benchmarks:
    """The problems of all ``SET_test.parquet`` files in a folder, or of the benchmarks ``only``, each up to ``limit``.

    Raises: ValueError naming folder or file and the remedy, where there is none, one that is wanted is missing, a
        column is missing, a row is not verl's or an id comes twice; or for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be 1 or more.")
    found: dict[str, list[Problem]] = {}
    sha256 = {}
    for file in sorted(folder.glob("*_test.parquet")):
        problems = [problem for problem in _read(file) if only is None or problem.benchmark in only]
        if only is not None and not problems:
            continue
        for problem in problems:
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
    limited = {} if limit is None else {"limit": str(limit)}
    return Benchmarks({name: found[name][:limit] for name in ordered}, {**sha256, **limited})


def _read(file: Path) -> Iterator[Problem]:
    for number, row in enumerate(parquet_rows(file, ("data_source", "prompt", "reward_model", "extra_info"))):
        try:
            yield _problem(row)
        except ValueError as error:
            raise ValueError(
                f"{file}: row {number}: {error}; prepare it with `python -m data_prep benchmarks`."
            ) from error


def _problem(row: dict[str, Any]) -> Problem:
    extra = of_type(row["extra_info"], "extra_info", Mapping)
    gold = of_type(row["reward_model"], "reward_model", Mapping).get("ground_truth")
    prompt, tolerance = row["prompt"], extra.get("tolerance")
    if not isinstance(prompt, list) or not prompt:
        raise ValueError("field 'prompt' is empty or no list, want a chat")
    messages = [of_type(message, "prompt", Mapping) for message in prompt]
    if not is_missing(tolerance) and (not _is_number(tolerance) or tolerance < 0):
        raise ValueError("field 'extra_info.tolerance' must be a finite number of 0 or more, or null")
    return Problem(
        benchmark_name(row["data_source"]),
        problem_id(extra.get("index")),
        [{key: of_type(one.get(key), f"prompt.{key}", str) for key in ("role", "content")} for one in messages],
        str(gold) if _is_number(gold) else of_type(gold, "reward_model.ground_truth", str),
        None if is_missing(tolerance) else float(tolerance),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def parquet_rows(file: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, a batch in memory at a time, with ``columns`` and those of ``optional`` it has.

    Raises: ValueError naming the file if it is no readable parquet, has a column twice or lacks one.
    """
    number, wrong = 0, ""
    try:
        with pq.ParquetFile(file) as content:
            names = content.schema_arrow.names
            wrong = next((name for name in columns if names.count(name) != 1), "")
            wanted = [name for name in names if name in {*columns, *optional}]
            for batch in () if wrong else content.iter_batches(BATCH, columns=wanted):
                for row in batch.to_pylist():
                    yield row
                    number += 1
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{file}: row {number} or after is no readable parquet ({brief(error)}): make it again."
        ) from error
    if wrong:
        found = f"has {names.count(wrong)} columns {wrong!r}" if wrong in names else f"has no column {wrong!r}"
        raise ValueError(f"{file} {found}: it must have one each of {', '.join(columns)}.")


def json_value(text: str | bytes) -> Any:
    """The value of a text, in UTF-8 if it is bytes; ValueError also where it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def benchmark_name(value: Any) -> str:
    """The name of a benchmark, which is printed and names a file; ValueError without the place, as the caller adds."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > NAME_LENGTH:
        raise ValueError(f"the benchmark {shown(value)} must be printable text of 1 to {NAME_LENGTH} characters")
    return value


def problem_id(value: Any) -> str:
    """The id of a problem as text, from text or a whole number; ValueError without the place."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else value
    if not isinstance(text, str) or not text or not text.isprintable() or len(text) > ID_LENGTH:
        raise ValueError(
            f"the problem {shown(value)} must be a number or printable text of at most {ID_LENGTH} characters"
        )
    return text


def of_type(value: Any, name: str, kind: type) -> Any:
    """A field that must be ``str`` or ``Mapping``; ValueError without the place."""
    if not isinstance(value, kind):
        raise ValueError(f"field {name!r} is {shown(value)}, want {'text' if kind is str else 'a mapping'}")
    return value


def whole_number(value: Any, name: str) -> int:
    """A field that must be 0 or more and fit into 31 bits (``3.0`` does, as pandas writes 3); ValueError otherwise."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**31 and value == int(value):
        return int(value)
    raise ValueError(f"field {name!r} is {shown(value)}, want a whole number of 0 or more")


def is_missing(value: Any) -> bool:
    """Whether a field says nothing: null, or the NaN that pandas makes of it."""
    return value is None or isinstance(value, float) and math.isnan(value)


def brief(error: BaseException) -> str:
    """What a library's error says, on one line and not long."""
    return " ".join(str(error).split())[:300] or type(error).__name__
