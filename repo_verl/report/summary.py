"""A run in numbers, and the numbers of several runs as a table."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping

from repo_verl.report.logs import Log

Summary = Mapping[str, float | None]

ACCURACY = re.compile(r"val-core/(.+)/acc/mean@(\d+)")
COLUMNS = (
    ("steps", "steps", "{:.0f}"),
    ("val_accuracy_first", "accuracy before", "{:.1%}"),
    ("val_accuracy_last", "after", "{:.1%}"),
    ("effective_prompts_fresh", "effective prompts, fresh", "{:.1%}"),
    ("effective_prompts_all", "with replay", "{:.1%}"),
    ("effective_steps", "effective steps", "{:.0f}"),
    ("replayed_rows", "replayed rows", "{:.0f}"),
    ("seconds_per_step", "s / step", "{:.2f}"),
    ("tokens_trained", "tokens trained", "{:.0f}"),
)


def accuracies(log: Log) -> list[tuple[int, float]]:
    """Steps and held-out accuracies: the mean over data sources of verl's ``val-core/*/acc/mean@N``, N the largest.

    Args:
        log: of one run.

    Returns:
        The steps with a validation, each with a share of 0 to 1.
    """
    points = []
    for step, data in log:
        sources: dict[str, tuple[int, float]] = {}
        for key, value in data.items():
            if found := ACCURACY.fullmatch(key):
                sources[found[1]] = max(sources.get(found[1], (0, 0.0)), (int(found[2]), value))
        if sources:
            points.append((step, statistics.fmean(value for _, value in sources.values())))
    return points


def series(log: Log, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric.

    Args:
        log: of one run.
        key: of the metric, as verl logs it.

    Returns:
        The steps that have it, and its values.
    """
    points = [(step, data[key]) for step, data in log if key in data]
    return [step for step, _ in points], [value for _, value in points]


def summarize(log: Log) -> dict[str, float | None]:
    """One run in numbers; docs/results.md says what each means.

    Args:
        log: of one run.

    Returns:
        Shares of 0 to 1, counts, and the median seconds a step; None where the log lacks it.
    """
    steps = [data for _, data in log if "timing_s/step" in data]
    points = accuracies(log)

    def over(combine: Callable[[list[float]], float], key: str) -> float | None:
        values = [data[key] for data in steps if key in data]
        return combine(values) if values else None

    return {
        "steps": len(steps),
        "val_accuracy_first": points[0][1] if points else None,
        "val_accuracy_last": points[-1][1] if points else None,
        "effective_prompts_fresh": over(statistics.fmean, "repo/effective_prompts_fresh"),
        "effective_prompts_all": over(statistics.fmean, "repo/effective_prompts_all"),
        "effective_steps": steps[-1].get("repo/effective_steps") if steps else None,
        "replayed_rows": over(sum, "repo/replayed_rows"),
        "seconds_per_step": statistics.median(data["timing_s/step"] for data in steps) if steps else None,
        "tokens_trained": over(sum, "repo/update_tokens"),
    }


def table(summaries: Mapping[str, Summary]) -> str:
    """The summaries as text, a row a run.

    Args:
        summaries: of `summarize`, by the run's name.

    Returns:
        Lines of equal width.
    """
    rows = [["run", *(title for _, title, _ in COLUMNS)]]
    for name, values in summaries.items():
        cells = (show(values[key], form) for key, _, form in COLUMNS)
        rows.append([name, *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def show(value: float | None, form: str) -> str:
    """A value in a format, or a dash where there is none."""
    return "-" if value is None else form.format(value)
