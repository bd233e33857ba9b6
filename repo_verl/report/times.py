"""The parts of a step's time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from repo_verl.report.logs import Log
from repo_verl.report.runs import Group

PARTS = {
    "generate": ("gen",),
    "reward": ("reward",),
    "old log-probs": ("old_log_prob",),
    "reference, critic": ("ref", "values", "update_critic"),
    "advantages": ("adv",),
    "update": ("update_actor",),
    "replay": ("repo_exposed",),
    "sync weights": ("update_weights",),
    "checkpoint": ("save_checkpoint",),
}
"""Parts of a step and their timers. verl's run one after the other. RePO's own count work beside verl's (retrieval
beside generation or old log-probs, insertion beside the update), all but `repo_exposed`: what nothing ran beside."""

WITHIN = {"advantages": "repo_exposed_adv", "update": "repo_exposed_update_actor"}
"""Parts whose timers hold some of `repo_exposed`, and how much; logs of older versions don't say."""

REST = "rest"
ALL_PARTS = (*PARTS, REST)


def step_parts(data: dict[str, float]) -> dict[str, float]:
    """One step's seconds by part: no second is in two parts, and together they are the step.

    Args:
        data: of the step.

    Returns:
        Seconds, in the order of `ALL_PARTS`. In a log that does not say which timers hold RePO's exposed work, it is in
        the others' parts and "replay" is 0.
    """
    seconds = {name.removeprefix("timing_s/"): value for name, value in data.items() if name.startswith("timing_s/")}
    parts = {part: sum(seconds.get(name, 0.0) for name in names) for part, names in PARTS.items()}
    if not all(name in seconds for name in WITHIN.values()):
        parts["replay"] = 0.0
    else:
        for part, name in WITHIN.items():
            parts[part] = max(0.0, parts[part] - seconds[name])
    parts[REST] = max(0.0, seconds["step"] - sum(parts.values()))
    return parts


def timed_steps(log: Log) -> list[dict[str, float]]:
    """The training steps but the first, which also warms up; the first if it is the only one."""
    steps = [data for _, data in log if "timing_s/step" in data]
    return steps[1:] or steps


def middle_parts(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """The parts of a run's median step; the mean of the two in the middle where their number is even.

    Each part's own median would be of another step, and those don't add up to any step's time.

    Args:
        steps: at least one.
    """
    ordered = sorted(steps, key=lambda data: data["timing_s/step"])
    middle = [step_parts(data) for data in ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]]
    return {part: statistics.fmean(parts[part] for parts in middle) for part in ALL_PARTS}


def median_parts(group: Group) -> dict[str, float]:
    """The parts of a run's median step, and of those the mean over the group's runs; they add up to `median_step`.

    Args:
        group: of runs.

    Returns:
        Seconds by part; empty if no run has a timed step.
    """
    found = [middle_parts(steps) for run in group.runs if (steps := timed_steps(run.log))]
    return {part: statistics.fmean(parts[part] for parts in found) for part in ALL_PARTS} if found else {}


def median_step(group: Group) -> float | None:
    """The median step's seconds, mean over the group's runs; None without a timed step."""
    medians = [
        statistics.median(data["timing_s/step"] for data in steps)
        for run in group.runs
        if (steps := timed_steps(run.log))
    ]
    return statistics.fmean(medians) if medians else None


def shown_parts(groups: Sequence[Group]) -> tuple[dict[str, float], list[tuple[str, list[float]]]]:
    """The bars of a chart.

    Args:
        groups: of runs.

    Returns:
        The groups that have times, with their median step's seconds; and by part the seconds of each, without parts
        that are 0 in all.
    """
    steps = {group.name: seconds for group in groups if (seconds := median_step(group)) is not None}
    medians = [median_parts(group) for group in groups if group.name in steps]
    parts = [(part, [found[part] for found in medians]) for part in ALL_PARTS]
    return steps, [(part, seconds) for part, seconds in parts if any(seconds)]


def time_ratios(groups: Sequence[Group]) -> list[str]:
    """Sentences: each group's median step, over that of the one group that replays nothing.

    Args:
        groups: of runs.

    Returns:
        A sentence a group with times; without a ratio unless just one group replays nothing and another one replays.
    """
    steps = {group.name: median_step(group) for group in groups}
    plain = [group.name for group in groups if not group.replays]
    base = steps[plain[0]] if len(plain) == 1 and len(groups) > 1 else None
    sentences = []
    for group in groups:
        seconds = steps[group.name]
        if seconds is None:
            continue
        over = f", {seconds / base:.2f} times {plain[0]}'s" if base and group.replays else ""
        sentences.append(f"{group.name}: {seconds:.2f} s a step{over}")
    return sentences
