"""A run in numbers, the numbers of several runs as a table, and the parts of a training step's time."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence

from repo_verl.report.runs import Group, Log

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
STEP = "timing_s/step"
PARTS = {
    "generate": ("gen",), "reward": ("reward",), "old log-probs": ("old_log_prob",),
    "reference, critic": ("ref", "values", "update_critic"), "advantages": ("adv",), "update": ("update_actor",),
    "replay": ("repo_exposed",), "sync weights": ("update_weights",), "checkpoint": ("save_checkpoint",),
}  # fmt: skip
"""Parts of a step and their timers. verl's run one after the other. RePO's own count work beside verl's, all but
`repo_exposed`: what nothing ran beside."""
WITHIN = {"advantages": "repo_exposed_adv", "update": "repo_exposed_update_actor"}
"""Parts whose timers hold some of `repo_exposed`, and how much; logs of older versions don't say."""
REST = "rest"
ALL_PARTS = (*PARTS, REST)


def accuracies(log: Log) -> dict[int, float]:
    """Held-out accuracies by step: the mean over data sources of verl's ``val-core/*/acc/mean@N``, N the largest."""
    found = {}
    for step, data in log:
        sources: dict[str, tuple[int, float]] = {}
        for key, value in data.items():
            if match := ACCURACY.fullmatch(key):
                sources[match[1]] = max(sources.get(match[1], (0, 0.0)), (int(match[2]), value))
        if sources:
            found[step] = statistics.fmean(value for _, value in sources.values())
    return found


def summarize(log: Log) -> dict[str, float | None]:
    """One run in numbers, None where the log lacks it: shares of 0 to 1, counts, and the median seconds per step."""
    steps = [data for _, data in log if STEP in data]
    points = list(accuracies(log).values())

    def over(combine: Callable[[list[float]], float], key: str) -> float | None:
        values = [data[key] for data in steps if key in data]
        return combine(values) if values else None

    return {
        "steps": len(steps),
        "val_accuracy_first": points[0] if points else None,
        "val_accuracy_last": points[-1] if points else None,
        "effective_prompts_fresh": over(statistics.fmean, "repo/effective_prompts_fresh"),
        "effective_prompts_all": over(statistics.fmean, "repo/effective_prompts_all"),
        "effective_steps": steps[-1].get("repo/effective_steps") if steps else None,
        "replayed_rows": over(sum, "repo/replayed_rows"),
        "seconds_per_step": over(statistics.median, STEP),
        "tokens_trained": over(sum, "repo/update_tokens"),
    }


def table(summaries: Mapping[str, Summary]) -> str:
    """The summaries, by the run's name, as lines of equal width."""
    rows = [["run", *(title for _, title, _ in COLUMNS)]]
    for name, values in summaries.items():
        rows.append([name, *("-" if values[key] is None else form.format(values[key]) for key, _, form in COLUMNS)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def step_parts(data: dict[str, float]) -> dict[str, float]:
    """One step's seconds by part, in the order of `ALL_PARTS`: no second is in two, and together they are the step.

    In a log that does not say which timers hold RePO's exposed work, it is in the others' parts and "replay" is 0.
    """
    seconds = {name.removeprefix("timing_s/"): value for name, value in data.items() if name.startswith("timing_s/")}
    parts = {part: sum(seconds.get(name, 0.0) for name in names) for part, names in PARTS.items()}
    if all(name in seconds for name in WITHIN.values()):
        for part, name in WITHIN.items():
            parts[part] = max(0.0, parts[part] - seconds[name])
    else:
        parts["replay"] = 0.0
    parts[REST] = max(0.0, seconds["step"] - sum(parts.values()))
    return parts


def _timed_runs(group: Group) -> list[list[dict[str, float]]]:
    """Each run's training steps, fastest first, but its first step, which also warms up, unless it is the only one."""
    runs = [[data for _, data in run.log if STEP in data] for run in group.runs]
    return [sorted(steps[1:] or steps, key=lambda data: data[STEP]) for steps in runs if steps]


def _mean_parts(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {part: statistics.fmean(parts[part] for parts in found) for part in ALL_PARTS} if found else {}


def median_parts(group: Group) -> dict[str, float]:
    """Seconds by part of a run's median step, mean over the group's runs; they add up to `median_step`. {} without any.

    Each part's own median would be of another step, and those don't add up to any step's time; of an even number of
    steps it is the mean of the two in the middle.
    """
    middle = [steps[(len(steps) - 1) // 2 : len(steps) // 2 + 1] for steps in _timed_runs(group)]
    return _mean_parts([_mean_parts([step_parts(data) for data in steps]) for steps in middle])


def median_step(group: Group) -> float | None:
    """The median step's seconds, mean over the group's runs; None without a timed step."""
    medians = [statistics.median(data[STEP] for data in steps) for steps in _timed_runs(group)]
    return statistics.fmean(medians) if medians else None


def shown_parts(groups: Sequence[Group]) -> tuple[dict[str, float], list[tuple[str, list[float]]]]:
    """Median step's seconds of the groups that have times, and by part the seconds of each, unless 0 in all."""
    steps = {group.name: seconds for group in groups if (seconds := median_step(group)) is not None}
    medians = [median_parts(group) for group in groups if group.name in steps]
    parts = [(part, [found[part] for found in medians]) for part in ALL_PARTS]
    return steps, [(part, seconds) for part, seconds in parts if any(seconds)]
