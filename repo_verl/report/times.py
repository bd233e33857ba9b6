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
    "replay": ("repo_select", "repo_retrieve", "repo_insert"),
    "sync weights": ("update_weights",),
    "checkpoint": ("save_checkpoint",),
}
"""Parts of a step and verl's timers of them; picking and placing rows lies within the update's timer."""

REST = "rest"
ALL_PARTS = (*PARTS, REST)


def step_parts(data: dict[str, float]) -> dict[str, float]:
    """One step's seconds by part, as far as a timer names it.

    Args:
        data: of the step.

    Returns:
        Seconds, in the order of `PARTS`.
    """
    parts = {part: sum(data.get(f"timing_s/{name}", 0.0) for name in names) for part, names in PARTS.items()}
    nested = sum(data.get(f"timing_s/{name}", 0.0) for name in ("repo_select", "repo_retrieve"))
    parts["update"] = max(0.0, parts["update"] - nested)
    return parts


def timed_steps(log: Log) -> list[dict[str, float]]:
    """The training steps but the first, which also warms up; the first if it is the only one."""
    steps = [data for _, data in log if "timing_s/step" in data]
    return steps[1:] or steps


def median_parts(group: Group) -> dict[str, float]:
    """Each part's median over a run's steps, and of that the mean over the group's runs.

    Args:
        group: of runs.

    Returns:
        Seconds by part, `REST` being what they leave of the median step; empty if no run has a timed step.
    """
    medians = []
    for steps in filter(None, (timed_steps(run.log) for run in group.runs)):
        each = [step_parts(data) for data in steps]
        parts = {part: statistics.median(step[part] for step in each) for part in PARTS}
        parts[REST] = max(0.0, statistics.median(data["timing_s/step"] for data in steps) - sum(parts.values()))
        medians.append(parts)
    return {part: statistics.fmean(parts[part] for parts in medians) for part in ALL_PARTS} if medians else {}


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
