"""What came out of an evaluation: graded samples, metrics with intervals, a table of completions, a table to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from repo_verl.atomic_files import write_atomically
from repo_verl.evaluate.benchmarks import Problem, benchmark_name, parquet_rows, problem_id
from repo_verl.evaluate.completions import TOO_LONG, Completion
from repo_verl.evaluate.differences import aligned
from repo_verl.evaluate.stats import macro_interval, maj_at_n, pass_at_k
from repo_verl.rewards import compute_score
from repo_verl.rewards.normalize import clean, compact
from repo_verl.rewards.quantities import exact_number

SCHEMA = pa.schema({
    "benchmark": pa.string(), "problem": pa.string(), "sample": pa.int32(), "completion": pa.string(),
    "tokens": pa.int32(), "finish": pa.string(), "extracted": pa.string(), "gold": pa.string(), "status": pa.string(),
    "correct": pa.bool_(),
})  # fmt: skip
THREADS = 8
CHUNK = 4096

Values = dict[str, np.ndarray]
"""Measures by name, (P,) values of the problems each."""


@dataclass(frozen=True)
class Graded:
    """One graded sample; ``extracted`` is the answer and ``status`` that of the grading, see ``repo_verl.rewards``."""

    problem: Problem
    sample: int
    completion: Completion
    correct: bool
    extracted: str
    status: str

    @property
    def vote(self) -> str | None:
        """What the sample votes for in maj@n: right answers for one thing, others for their number or text."""
        if self.correct:
            return "right"
        if not self.extracted:
            return None
        text = clean(self.extracted)
        number = exact_number(text)
        return compact(text) if number is None else f"{number.value}{'%' if number.percent else ''}"


def grade_all(completions: Iterable[tuple[Problem, int, Completion]], template: str = "boxed") -> Iterator[Graded]:
    """Grade completions, each with its problem and number, in order, from several threads.

    ``template`` says where the answer is looked for. Raises: JudgeError if the grader cannot start.
    """
    waiting = iter(completions)
    with ThreadPoolExecutor(THREADS) as threads:
        while chunk := list(islice(waiting, CHUNK)):
            yield from threads.map(partial(_grade, template), *zip(*chunk, strict=True))


def _grade(template: str, problem: Problem, sample: int, completion: Completion) -> Graded:
    extra = {"tolerance": problem.tolerance}
    score = compute_score(problem.benchmark, completion.text, problem.gold, extra, template=template)
    return Graded(problem, sample, completion, score["acc"] == 1.0, score["extracted"], score["status"])


def metrics(graded: Mapping[str, Sequence[Graded]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``metrics.json``, from the samples of every benchmark, ordered by problem, and the settings, which it repeats.

    Per benchmark ``problems``, ``samples``, the measures (``avg@n``, ``pass@k`` for powers of two up to n, ``maj@n``)
    with value and 95 % interval, shares of all samples, ``mean_tokens``, ``statuses``; and ``macro``, the plain means
    over benchmarks of the averages and of maj@n (a single sample is its own majority).
    """
    values = {name: measures(samples) for name, samples in graded.items()}
    content: dict[str, Any] = {"benchmarks": {}, "macro": {}, "settings": dict(settings)}
    for name, samples in graded.items():
        content["benchmarks"][name] = {
            "problems": len(next(iter(values[name].values()))),
            "samples": max(sample.sample for sample in samples) + 1,
            **{measure: _estimate({name: found}) for measure, found in values[name].items()},
            **_shares(samples),
        }
    for title, place in (("avg", 0), ("maj", -1)):  # the first and the last measure; of single samples they are one
        content["macro"][title] = _estimate({name: list(found.values())[place] for name, found in values.items()})
    return content


def measures(samples: Sequence[Graded]) -> Values:
    """The measures of one benchmark, problem by problem, from as many samples of each, ordered by problem."""
    by_problem: dict[str, list[Graded]] = {}
    for sample in samples:
        by_problem.setdefault(sample.problem.id, []).append(sample)
    right = np.array([[sample.correct for sample in group] for group in by_problem.values()], dtype=bool)
    n = right.shape[1]
    found: Values = {f"avg@{n}": right.mean(axis=1)}
    if n > 1:
        for k in sorted({*(2**power for power in range(n.bit_length())), n}):
            found[f"pass@{k}"] = pass_at_k(right.sum(axis=1), n, k)
        found[f"maj@{n}"] = maj_at_n([[sample.vote for sample in group] for group in by_problem.values()], right)
    return found


def _estimate(values: Values) -> dict[str, float]:
    """Mean over benchmarks of the mean over problems, and its 95 % interval."""
    low, high = macro_interval(values)
    return {"value": float(np.mean([found.mean() for found in values.values()])), "low": low, "high": high}


def _shares(samples: Sequence[Graded]) -> dict[str, Any]:
    finishes = Counter(sample.completion.finish for sample in samples)
    tokens = [sample.completion.tokens for sample in samples if sample.completion.tokens is not None]
    return {
        "truncated": (finishes["length"] + finishes[TOO_LONG]) / len(samples),
        "unanswered": sum(not sample.extracted for sample in samples) / len(samples),
        "prompt_too_long": finishes[TOO_LONG] / len(samples),
        "mean_tokens": float(np.mean(tokens)) if tokens else None,
        "statuses": dict(sorted(Counter(sample.status for sample in samples).items())),
    }


def write_completions(graded: Mapping[str, Sequence[Graded]], path: Path) -> None:
    """Write all samples as parquet, a row group per benchmark, whole or not at all."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA) as writer:
        for samples in graded.values():
            writer.write_table(pa.Table.from_pylist([_row(sample) for sample in samples], SCHEMA))
    write_atomically(path, sink.getvalue().to_pybytes())


def _row(sample: Graded) -> dict[str, Any]:
    return {
        "benchmark": sample.problem.benchmark,
        "problem": sample.problem.id,
        "sample": sample.sample,
        "completion": _storable(sample.completion.text),
        "tokens": sample.completion.tokens,
        "finish": _storable(sample.completion.finish),
        "extracted": _storable(sample.extracted),
        "gold": sample.problem.gold,
        "status": sample.status,
        "correct": sample.correct,
    }


def _storable(text: str) -> str:
    """The text with lone surrogates written out, which no file in UTF-8 can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def read_values(folder: Path) -> dict[str, dict[str, float]]:
    """Share of right samples of every problem, by benchmark, of a folder that ``repo-verl evaluate`` wrote.

    Raises: ValueError where it has no ``completions.parquet``, or naming what is wrong with it.
    """
    path = folder / "completions.parquet"
    if not path.is_file():
        raise ValueError(f"{folder} has no completions.parquet: let `repo-verl evaluate --output {folder}` end first.")
    found: dict[str, dict[str, list[bool]]] = {}
    for number, row in enumerate(parquet_rows(path, ("benchmark", "problem", "correct"))):
        try:
            name, problem = benchmark_name(row["benchmark"]), problem_id(row["problem"])
        except ValueError as error:
            raise ValueError(f"{path}: row {number}: {error}; let `repo-verl evaluate` write it again.") from error
        if not isinstance(row["correct"], bool):
            raise ValueError(f"{path}: row {number}: field 'correct' must be true or false; grade the problem again.")
        found.setdefault(name, {}).setdefault(problem, []).append(row["correct"])
    if not found:
        raise ValueError(f"{path} has no rows: let `repo-verl evaluate --output {folder}` write it again.")
    return {name: {key: float(np.mean(values)) for key, values in rows.items()} for name, rows in found.items()}


def table(content: Mapping[str, Any]) -> str:
    """The content of ``metrics.json`` as text, a line per benchmark, in per cent."""
    rows = [
        ["benchmark", "problems", "samples", "avg", "95 % interval", "pass@n", "maj@n", "cut", "no answer", "tokens"]
    ]
    for name, found in content["benchmarks"].items():
        n = found["samples"]
        many = [_percent(found[f"{measure}@{n}"]["value"]) if n > 1 else "-" for measure in ("pass", "maj")]
        tokens = "-" if found["mean_tokens"] is None else f"{found['mean_tokens']:.0f}"
        shares = [_percent(found["truncated"]), _percent(found["unanswered"])]
        rows.append([name, str(found["problems"]), str(n), *_interval(found[f"avg@{n}"]), *many, *shares, tokens])
    rows.append(["macro average", "", "", *_interval(content["macro"]["avg"]), "", "", "", "", ""])
    return aligned(rows)


def _interval(found: Mapping[str, float]) -> list[str]:
    return [_percent(found["value"]), f"{_percent(found['low'])} to {_percent(found['high'])}"]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
