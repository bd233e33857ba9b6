"""What the logs say about a chart, in a sentence a group."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from repo_verl.report.curves import Values, metric
from repo_verl.report.logs import Log
from repo_verl.report.runs import Group

Statistic = Callable[[Sequence[float]], float]


def average(group: Group, values: Values, over: Statistic = statistics.fmean) -> float | None:
    """The mean over a group's runs of the mean over steps; None without values.

    Args:
        group: of runs.
        values: of a run.
        over: from the values of a run's steps to one; the smallest or largest is that of the group too.
    """
    each = [over(list(found.values())) for run in group.runs if (found := values(run.log))]
    across = over if over in (min, max) else statistics.fmean
    return across(each) if each else None


def sentences(
    form: str, *parts: tuple[Values, Statistic], plain: tuple[str, Values] | None = None
) -> Callable[[Sequence[Group]], list[str]]:
    """A finding: for each group that has all the values, its name and the form filled with them.

    Args:
        form: for ``str.format``.
        parts: values, and what makes one number of a run's.
        plain: form and values for groups that replay nothing.

    Returns:
        What makes the sentences.
    """

    def found(groups: Sequence[Group]) -> list[str]:
        lines = []
        for group in groups:
            told, wanted = form, parts
            if plain is not None and not group.replays:
                told, wanted = plain[0], ((plain[1], statistics.fmean),)
            numbers = [average(group, values, over) for values, over in wanted]
            lines += [] if None in numbers else [f"{group.name}: {told.format(*numbers)}"]
        return lines

    return found


def last(values: Sequence[float]) -> float:
    """Of a run's values."""
    return values[-1]


def first(values: Sequence[float]) -> float:
    """Of a run's values."""
    return values[0]


def held(key: str, scale: float = 1.0) -> Values:
    """A metric of the buffer, unless the run keeps no rows."""

    def values(log: Log) -> dict[int, float]:
        found = {step: scale * data[key] for step, data in log if key in data}
        return found if any(found.values()) else {}

    return values


def gained(groups: Sequence[Group]) -> list[str]:
    """A sentence a group: prompts that give a gradient from fresh rows alone, and with replay."""
    fresh, both = metric("repo/effective_prompts_fresh"), metric("repo/effective_prompts_all")
    found = []
    for group in groups:
        without, with_replay = average(group, fresh), average(group, both)
        if without is None or with_replay is None:
            continue
        gain = f", {with_replay:.1%} with replay: {100 * (with_replay - without):+.1f} points" if group.replays else ""
        found.append(f"{group.name}: {without:.1%} from fresh rows{gain}")
    return found
