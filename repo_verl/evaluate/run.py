"""One evaluation: generate what is missing, grade, write."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from repo_verl.evaluate import results
from repo_verl.evaluate.grading import Graded, grade_all
from repo_verl.evaluate.problems import Benchmarks, Problem
from repo_verl.evaluate.protocol import Protocol
from repo_verl.evaluate.reading import (
    benchmark_name,
    brief,
    is_missing,
    json_value,
    parquet_rows,
    problem_id,
    text,
    whole_number,
)
from repo_verl.evaluate.store import Completion, Store, write_json
from repo_verl.secrets import redact

logger = logging.getLogger(__name__)

Samples = dict[tuple[str, str], list[Completion]]


def evaluate(
    model: str, benchmarks: Benchmarks, output: Path, protocol: Protocol, engine: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Evaluate a model; what an earlier run of the same settings finished is not generated again.

    Args:
        model: see ``repo_verl.evaluate.model.resolve``.
        benchmarks: the problems.
        output: folder for ``settings.json``, ``completions/``, ``completions.parquet`` and ``metrics.json``.
        protocol: sampling settings.
        engine: further arguments of ``vllm.LLM``.

    Returns: the content of ``metrics.json``.

    Raises: ValueError for a model or folder that can't be used; what vLLM raises.
    """
    from repo_verl.evaluate.model import resolve

    output.mkdir(parents=True, exist_ok=True)
    found = resolve(model, output)
    settings = {
        "model": redact(found.identity), "benchmarks": benchmarks.sha256, "engine": redact(engine or {}),
        **protocol.as_json(),
    }  # fmt: skip
    store = Store(output, settings)
    _check_stored(store, benchmarks, protocol)
    every = [problem for problems in benchmarks.problems.values() for problem in problems]
    todo = [problem for problem in every if (problem.benchmark, problem.id) not in store.finished]
    if todo:
        from repo_verl.evaluate.generate import generate

        progress = tqdm(total=len(every), initial=len(every) - len(todo), desc="problems", unit="")
        for problem, samples in generate(found.path, protocol, todo, engine):
            store.add(problem.benchmark, problem.id, samples)
            progress.update()
        progress.close()
    return finish(benchmarks, store.finished, output, settings, protocol.template)


def _check_stored(store: Store, benchmarks: Benchmarks, protocol: Protocol) -> None:
    for name, problems in benchmarks.problems.items():
        wanted = protocol.samples_of(name)
        for problem in problems:
            found = len(store.finished.get((name, problem.id), range(wanted)))
            if found != wanted:
                raise ValueError(
                    f"{store.folder} has {found} samples of problem {problem.id!r} of {name!r}, want {wanted}: "
                    "delete its line."
                )


def grade_file(
    file: Path, benchmarks: Benchmarks, output: Path, template: str = "boxed", skip_others: bool = False
) -> dict[str, Any]:
    """Grade completions that exist already.

    Args:
        file: jsonl or parquet with the columns ``benchmark``, ``problem`` (the id, see :class:`Problem`) and
            ``completion``, and, where known, ``sample``, ``tokens`` and ``finish``.
        benchmarks: the problems; all of them must have as many completions as the others of their benchmark.
        output: folder for ``completions.parquet`` and ``metrics.json``.
        template: where the answer is looked for.
        skip_others: leave out rows of other benchmarks instead of refusing them.

    Returns: the content of ``metrics.json``.

    Raises: ValueError naming the file, and the row or problem, where it does not fit the benchmarks.
    """
    found = _read_file(file, benchmarks, skip_others)
    output.mkdir(parents=True, exist_ok=True)
    settings = {"completions": file.name, "benchmarks": benchmarks.sha256, "template": template}
    return finish(benchmarks, found, output, settings, template)


def finish(
    benchmarks: Benchmarks, completions: Samples, output: Path, settings: Mapping[str, Any], template: str
) -> dict[str, Any]:
    """Grade all completions and write ``completions.parquet`` and ``metrics.json``.

    Args:
        benchmarks: the problems.
        completions: samples by benchmark and problem.
        output: the folder.
        settings: repeated in ``metrics.json``.
        template: where the answer is looked for.

    Returns: the content of ``metrics.json``.
    """
    total = sum(len(samples) for samples in completions.values())
    progress = tqdm(_rows(benchmarks, completions), total=total, desc="grading", unit="")
    graded: dict[str, list[Graded]] = {}
    for sample in grade_all(progress, template):
        graded.setdefault(sample.problem.benchmark, []).append(sample)
    results.write_completions(graded, output / "completions.parquet")
    content = results.metrics(graded, settings)
    write_json(content, output / "metrics.json")
    return json.loads(json.dumps(content))


def _rows(benchmarks: Benchmarks, completions: Samples) -> Iterator[tuple[Problem, int, Completion]]:
    for problems in benchmarks.problems.values():
        for problem in problems:
            for number, completion in enumerate(completions[problem.benchmark, problem.id]):
                yield problem, number, completion


def _read_file(file: Path, benchmarks: Benchmarks, skip_others: bool) -> Samples:
    known = {(p.benchmark, p.id) for problems in benchmarks.problems.values() for p in problems}
    found: dict[tuple[str, str], dict[int, Completion]] = {key: {} for key in known}
    for number, row in enumerate(_file_rows(file)):
        missing = [name for name in ("benchmark", "problem", "completion") if row.get(name) is None]
        if missing:
            raise ValueError(f"{file}, row {number}: field {missing[0]!r} is missing.")
        try:
            key, given, completion = _row_parts(row)
        except ValueError as error:
            raise ValueError(f"{file}, row {number}: {error}.") from error
        if skip_others and key[0] not in benchmarks.problems:
            continue
        if key not in known:
            raise ValueError(f"{file}, row {number}: benchmark {key[0]!r} has no problem {key[1]!r}.")
        sample = len(found[key]) if given is None else given
        if sample in found[key]:
            raise ValueError(
                f"{file}, row {number}: sample {sample} of problem {key[1]!r} of {key[0]!r} is there twice."
            )
        found[key][sample] = completion
    _same_counts(file, benchmarks, found)
    return {key: [samples[number] for number in sorted(samples)] for key, samples in found.items()}


def _row_parts(row: Mapping[str, Any]) -> tuple[tuple[str, str], int | None, Completion]:
    """Benchmark and problem, number of the sample where it is given, and the sample."""
    finish = "" if is_missing(row.get("finish")) else row["finish"]
    completion = Completion(text(row["completion"], "completion"), row.get("tokens"), finish)
    sample = None if is_missing(row.get("sample")) else whole_number(row["sample"], "sample")
    return (benchmark_name(row["benchmark"]), problem_id(row["problem"])), sample, completion


def _same_counts(file: Path, benchmarks: Benchmarks, found: Mapping[tuple[str, str], Mapping[int, Completion]]) -> None:
    for name, problems in benchmarks.problems.items():
        counts = {problem.id: len(found[name, problem.id]) for problem in problems}
        most = max(counts.values())
        for problem, count in counts.items():
            if count != most or not count:
                raise ValueError(
                    f"{file}: problem {problem!r} of {name!r} has {count} completions, others {most}: add the missing "
                    "ones (an empty text counts as wrong), or name the benchmarks to grade with --only."
                )


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


def select(benchmarks: Benchmarks, limit: int | None) -> Benchmarks:
    """The first ``limit`` problems of every benchmark, for a quick look.

    Args:
        benchmarks: all problems.
        limit: how many; None for all.

    Raises: ValueError if it is below 1.
    """
    if limit is None:
        return benchmarks
    if limit < 1:
        raise ValueError(f"limit={limit} must be 1 or more.")
    kept: dict[str, Sequence[Problem]] = {name: problems[:limit] for name, problems in benchmarks.problems.items()}
    return Benchmarks(
        {name: list(problems) for name, problems in kept.items()}, {**benchmarks.sha256, "limit": str(limit)}
    )
