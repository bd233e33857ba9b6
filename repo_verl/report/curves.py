"""From the logs of a group to the points of a curve: mean over its runs, band, fewer points."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from repo_verl.report.logs import Log
from repo_verl.report.runs import Group, replayed
from repo_verl.report.students_t import interval
from repo_verl.report.summary import accuracies

MOST_POINTS = 120
"""Points of a drawn curve; a longer one is drawn by means of consecutive steps."""

FEWEST_FOR_INTERVAL = 5
"""Runs from which on a band is a 95 % interval of the mean; below, it spans the runs."""

Values = Callable[[Log], dict[int, float]]
"""A metric's values, by step."""


@dataclass(frozen=True)
class Line:
    """A metric that a chart shows, for each group."""

    label: str
    values: Values
    kind: int = 0
    """0 a solid line with filled marks, 1 dashed and hollow, 2 dotted and hollow."""
    replay: bool = False
    """Whether it says something only of groups that replay."""


@dataclass
class Curve:
    """Points to draw; ``low`` and ``high`` are empty without a band."""

    label: str
    group: int
    kind: int
    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


def metric(key: str) -> Values:
    """All values of a metric."""
    return lambda log: {step: data[key] for step, data in log if key in data}


def of_replay(key: str) -> Values:
    """A metric's values in the steps that replayed rows; in others verl logs a 0 that means nothing."""
    return lambda log: {step: data[key] for step, data in log if key in data and replayed(data)}


def accuracy(log: Log) -> dict[int, float]:
    """Held-out accuracies by step."""
    return dict(accuracies(log))


def line_curves(groups: Sequence[Group], lines: Sequence[Line]) -> list[Curve]:
    """A curve a group and line, over training steps: the mean of the group's runs.

    Args:
        groups: of runs.
        lines: those with ``replay`` are left out for groups that replay nothing.

    Returns:
        The curves that have a point.
    """
    curves = []
    for number, group in enumerate(groups):
        shown = [line for line in lines if group.replays or not line.replay]
        for line in shown:
            curve = Curve(*_labelled(group, number, line, len(shown)))
            by_run = [line.values(run.log) for run in group.runs]
            for step in sorted(set().union(*by_run)):
                values = [points[step] for points in by_run if step in points]
                low, high = band(values, len(group.runs))
                _append(curve, step, statistics.fmean(values), low, high)
            if len(group.runs) == 1:
                curve.low, curve.high = [], []
            if curve.x:
                curves.append(thin(curve))
    return curves


def point_curves(groups: Sequence[Group], lines: Sequence[Line], x_values: Values) -> list[Curve]:
    """A cloud of points a group and line: a point a step and run.

    Args:
        groups: of runs.
        lines: what stands up.
        x_values: what stands across.

    Returns:
        The clouds that have a point.
    """
    curves = []
    for number, group in enumerate(groups):
        for line in lines:
            cloud = Curve(*_labelled(group, number, line, len(lines)))
            for run in group.runs:
                across, up = x_values(run.log), line.values(run.log)
                steps = sorted(across.keys() & up.keys())
                points = Curve("", number, line.kind, [across[s] for s in steps], [up[s] for s in steps])
                points = thin(points, max(1, MOST_POINTS // len(group.runs)))
                cloud.x += points.x
                cloud.y += points.y
            if cloud.x:
                curves.append(cloud)
    return curves


def _labelled(group: Group, number: int, line: Line, lines: int) -> tuple[str, int, int]:
    return (f"{group.name}, {line.label}", number, line.kind) if lines > 1 else (group.name, number, 0)


def _append(curve: Curve, x: float, y: float, low: float, high: float) -> None:
    for values, value in ((curve.x, x), (curve.y, y), (curve.low, low), (curve.high, high)):
        values.append(value)


def band(values: Sequence[float], runs: int) -> tuple[float, float]:
    """Around the mean of one step's values: the values' span, or the mean's 95 % t-interval from five runs on.

    Args:
        values: one a run that has come this far.
        runs: of the group, which decide what the band is.

    Returns:
        Lower and upper end.
    """
    if runs < FEWEST_FOR_INTERVAL or len(values) < 2:
        return min(values), max(values)
    _, low, high = interval(values)
    return low, high


def thin(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """The curve with at most ``most`` points, each the mean of as many consecutive ones.

    Args:
        curve: of any length.
        most: points.

    Returns:
        The curve itself if it is short enough.
    """
    size = math.ceil(len(curve.x) / most)
    if size <= 1:
        return curve

    def means(values: list[float]) -> list[float]:
        return [statistics.fmean(values[i : i + size]) for i in range(0, len(values), size)]

    return Curve(
        curve.label, curve.group, curve.kind, means(curve.x), means(curve.y), means(curve.low), means(curve.high)
    )
