"""Completions: on disk, a line per finished problem, written once and kept; or read from a file of a user's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from repo_verl.atomic_files import write_atomically
from repo_verl.evaluate.benchmarks import (
    Benchmarks,
    benchmark_name,
    brief,
    is_missing,
    json_value,
    of_type,
    parquet_rows,
    problem_id,
    whole_number,
)
from repo_verl.safe_text import printable, shown

MOST_SHOWN = 500
"""Characters of a setting in a message."""
TOO_LONG = "prompt_too_long"
"""``finish`` of a sample that was not generated, because its prompt leaves no room for a response."""


@dataclass(frozen=True)
class Completion:
    """One response and its tokens; ``finish`` is ``stop``, ``length``, ``prompt_too_long``, or "" if not known."""

    text: str
    tokens: int | None
    finish: str

    def __post_init__(self) -> None:
        """Raises: ValueError naming a field of another type."""
        of_type(self.text, "text", str)
        of_type(self.finish, "finish", str)
        object.__setattr__(self, "tokens", None if is_missing(self.tokens) else whole_number(self.tokens, "tokens"))


Samples = dict[tuple[str, str], list[Completion]]
"""By benchmark and problem."""


class Store:
    """Finished problems of one evaluation, in ``FOLDER/completions/BENCHMARK.jsonl``.

    In the file's name a slash is ``%2F``, as in a URL, so that no benchmark's name leads out of the folder. What the
    completions depend on, the settings, is kept in ``settings.json``.

    Raises: ValueError where the folder holds completions of other settings, naming the first that differs, or a line
        that is broken in the middle of a file, or a link.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Opens the folder, and reads what is finished."""
        self.folder = folder / "completions"
        self.folder.mkdir(parents=True, exist_ok=True)
        _settle(folder / "settings.json", settings)
        self.finished: Samples = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            if path.is_symlink():
                raise ValueError(f"{path} is a link, and links are not written to: replace it with a file.")
            for problem, samples in _read_stored(path):
                self.finished[unquote(path.stem), problem] = samples

    def add(self, benchmark: str, problem: str, samples: Sequence[Completion]) -> None:
        """Put a finished problem's samples on disk; they are there when this returns, also if the machine then stops.

        Raises ValueError if the problem is there already.
        """
        if (benchmark, problem) in self.finished:
            raise ValueError(f"problem {problem!r} of {benchmark!r} is finished already.")
        line = json.dumps({"problem": problem, "samples": [asdict(sample) for sample in samples]}) + "\n"
        with (self.folder / f"{quote(benchmark, safe='')}.jsonl").open("ab", buffering=0) as file:
            file.write(line.encode("ascii"))
            os.fsync(file.fileno())
        self.finished[benchmark, problem] = list(samples)


def _settle(path: Path, settings: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(settings))
    if not path.is_file():
        write_atomically(path, json.dumps(wanted, indent=2) + "\n")
        return
    try:
        there = json_value(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is broken ({brief(error)}): take another --output.") from error
    if not isinstance(there, dict):
        raise ValueError(f"{path} holds no settings: take another --output.")
    for key in sorted(set(there) | set(wanted)):
        if there.get(key) != wanted.get(key):
            before, now = shown(there.get(key), MOST_SHOWN), shown(wanted.get(key), MOST_SHOWN)
            raise ValueError(
                f"{path.parent} holds completions made with {printable(key, 100)}={before}, now it is {now}: "
                "take another --output, or the settings of before."
            )


def _read_stored(path: Path) -> Iterator[tuple[str, list[Completion]]]:
    """The lines of a file; one cut short at its end, by a stop in mid-write, is removed."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            entry = json_value(line)
            yield problem_id(entry["problem"]), [Completion(**sample) for sample in entry["samples"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is no finished problem ({brief(error)}): delete the line."
            ) from error


def read_file(file: Path, benchmarks: Benchmarks, skip_others: bool) -> Samples:
    """The completions of a jsonl or parquet file, as many for each problem of a benchmark.

    It has ``benchmark``, ``problem``, ``completion`` and, where known, ``sample``, ``tokens`` and ``finish``. Rows of
    other benchmarks are refused or, with ``skip_others``, left out.

    Raises: ValueError naming the file, and the row or problem, where it does not fit the benchmarks.
    """
    found: dict[tuple[str, str], dict[int, Completion]] = {
        (problem.benchmark, problem.id): {} for problems in benchmarks.problems.values() for problem in problems
    }
    for number, row in enumerate(_file_rows(file)):
        missing = [name for name in ("benchmark", "problem", "completion") if row.get(name) is None]
        if missing:
            raise ValueError(f"{file}, row {number}: field {missing[0]!r} is missing.")
        try:
            finish = "" if is_missing(row.get("finish")) else row["finish"]
            completion = Completion(of_type(row["completion"], "completion", str), row.get("tokens"), finish)
            given = None if is_missing(row.get("sample")) else whole_number(row["sample"], "sample")
            key = benchmark_name(row["benchmark"]), problem_id(row["problem"])
        except ValueError as error:
            raise ValueError(f"{file}, row {number}: {error}.") from error
        if skip_others and key[0] not in benchmarks.problems:
            continue
        if key not in found:
            raise ValueError(f"{file}, row {number}: benchmark {key[0]!r} has no problem {key[1]!r}.")
        sample = len(found[key]) if given is None else given
        if sample in found[key]:
            raise ValueError(f"{file}, row {number}: sample {sample} of problem {key[1]!r} of {key[0]!r} occurs twice.")
        found[key][sample] = completion
    for name, problems in benchmarks.problems.items():
        counts = {problem.id: len(found[name, problem.id]) for problem in problems}
        most = max(counts.values())
        for problem, count in counts.items():
            if count != most or not count:
                raise ValueError(
                    f"{file}: problem {problem!r} of {name!r} has {count} completions, others {most}: add the "
                    "missing ones (an empty text counts as wrong), or name the benchmarks to grade with --only."
                )
    return {key: [samples[number] for number in sorted(samples)] for key, samples in found.items()}


def _file_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.suffix == ".parquet":
        yield from parquet_rows(file, ("benchmark", "problem", "completion"), ("sample", "tokens", "finish"))
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json_value(line)
            except ValueError as error:
                raise ValueError(f"{file}, line {number} is no JSON object ({brief(error)}).") from error
            if not isinstance(row, dict):
                raise ValueError(f"{file}, line {number} is no JSON object (but a {type(row).__name__}).")
            yield row
