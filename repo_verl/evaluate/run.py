"""One evaluation: generate or read what is missing, grade, write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from repo_verl.atomic_files import write_atomically
from repo_verl.evaluate import Protocol, generate, results
from repo_verl.evaluate.benchmarks import (
    Benchmarks,
    benchmark_name,
    brief,
    is_missing,
    json_value,
    parquet_rows,
    problem_id,
    text,
    whole_number,
)
from repo_verl.evaluate.completions import Completion, Graded, Samples, Store, grade_all
from repo_verl.evaluate.model import resolve
from repo_verl.secrets import redact


def evaluate(
    model: str, benchmarks: Benchmarks, output: Path, protocol: Protocol, engine: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Evaluate a model and return the content of ``metrics.json``; what an earlier run of the same settings finished
    is not generated again.

    Args:
        model: see ``repo_verl.evaluate.model.resolve``.
        benchmarks: the problems.
        output: folder for ``settings.json``, ``completions/``, ``completions.parquet`` and ``metrics.json``.
        protocol: sampling settings.
        engine: further arguments of ``vllm.LLM``.

    Raises: ValueError for a model or folder that can't be used; what vLLM raises.
    """
    output.mkdir(parents=True, exist_ok=True)
    found = resolve(model, output)
    settings = {
        "model": redact(found.identity), "benchmarks": benchmarks.sha256, "engine": redact(engine or {}),
        **protocol.as_json(),
    }  # fmt: skip
    store = Store(output, settings)
    every = [problem for problems in benchmarks.problems.values() for problem in problems]
    for problem in every:
        wanted = protocol.samples_of(problem.benchmark)
        stored = len(store.finished.get((problem.benchmark, problem.id), range(wanted)))
        if stored != wanted:
            raise ValueError(
                f"{store.folder} has {stored} samples of problem {problem.id!r} of {problem.benchmark!r}, want "
                f"{wanted}: delete its line."
            )
    todo = [problem for problem in every if (problem.benchmark, problem.id) not in store.finished]
    if todo:
        with tqdm(total=len(every), initial=len(every) - len(todo), desc="problems", unit="") as progress:
            for problem, samples in generate.generate(found.path, protocol, todo, engine):
                store.add(problem.benchmark, problem.id, samples)
                progress.update()
    return _finish(benchmarks, store.finished, output, settings, protocol.template)


def grade_file(
    file: Path, benchmarks: Benchmarks, output: Path, template: str = "boxed", skip_others: bool = False
) -> dict[str, Any]:
    """Grade completions that exist already and return the content of ``metrics.json``.

    Args:
        file: see :func:`read_file`.
        benchmarks: the problems; all of them must have as many completions as the others of their benchmark.
        output: folder for ``completions.parquet`` and ``metrics.json``.
        template: where the answer is looked for.
        skip_others: leave out rows of other benchmarks instead of refusing them.

    Raises: ValueError naming the file, and the row or problem, where it does not fit the benchmarks.
    """
    found = read_file(file, benchmarks, skip_others)
    output.mkdir(parents=True, exist_ok=True)
    settings = {"completions": file.name, "benchmarks": benchmarks.sha256, "template": template}
    return _finish(benchmarks, found, output, settings, template)


def _finish(
    benchmarks: Benchmarks, completions: Samples, output: Path, settings: Mapping[str, Any], template: str
) -> dict[str, Any]:
    """Grade all completions and write ``completions.parquet`` and ``metrics.json``, whose content is returned."""
    rows = [
        (problem, number, completion)
        for problems in benchmarks.problems.values()
        for problem in problems
        for number, completion in enumerate(completions[problem.benchmark, problem.id])
    ]
    graded: dict[str, list[Graded]] = {}
    for sample in grade_all(tqdm(rows, desc="grading", unit=""), template):
        graded.setdefault(sample.problem.benchmark, []).append(sample)
    results.write_completions(graded, output / "completions.parquet")
    content = json.dumps(results.metrics(graded, settings), indent=2)
    write_atomically(output / "metrics.json", content + "\n")
    return dict(json.loads(content))


def read_file(file: Path, benchmarks: Benchmarks, skip_others: bool) -> Samples:
    """The completions of a jsonl or parquet file, as many for each problem of a benchmark.

    Args:
        file: with ``benchmark``, ``problem``, ``completion`` and, where known, ``sample``, ``tokens`` and ``finish``.
        benchmarks: the problems.
        skip_others: leave out rows of other benchmarks instead of refusing them.

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
            key, given, completion = _row_parts(row)
        except ValueError as error:
            raise ValueError(f"{file}, row {number}: {error}.") from error
        if skip_others and key[0] not in benchmarks.problems:
            continue
        if key not in found:
            raise ValueError(f"{file}, row {number}: benchmark {key[0]!r} has no problem {key[1]!r}.")
        sample = len(found[key]) if given is None else given
        if sample in found[key]:
            raise ValueError(
                f"{file}, row {number}: sample {sample} of problem {key[1]!r} of {key[0]!r} is there twice."
            )
        found[key][sample] = completion
    for name, problems in benchmarks.problems.items():
        most = max(len(found[name, problem.id]) for problem in problems)
        for problem in problems:
            if (count := len(found[name, problem.id])) != most or not count:
                raise ValueError(
                    f"{file}: problem {problem.id!r} of {name!r} has {count} completions, others {most}: add the "
                    "missing ones (an empty text counts as wrong), or name the benchmarks to grade with --only."
                )
    return {key: [samples[number] for number in sorted(samples)] for key, samples in found.items()}


def _row_parts(row: Mapping[str, Any]) -> tuple[tuple[str, str], int | None, Completion]:
    """Benchmark and problem, number of the sample where it is given, and the sample."""
    finish = "" if is_missing(row.get("finish")) else row["finish"]
    completion = Completion(text(row["completion"], "completion"), row.get("tokens"), finish)
    sample = None if is_missing(row.get("sample")) else whole_number(row["sample"], "sample")
    return (benchmark_name(row["benchmark"]), problem_id(row["problem"])), sample, completion


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
