"""From the logs of a group to the points of a curve: mean over its runs, band, fewer points."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from repo_verl.report.runs import Group, Log, replayed

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


def held(key: str, scale: float = 1.0) -> Values:
    """A metric of the buffer times ``scale``, unless the run keeps no rows."""

    def values(log: Log) -> dict[int, float]:
        found = {step: scale * value for step, value in metric(key)(log).items()}
        return found if any(found.values()) else {}

    return values


def line_curves(groups: Sequence[Group], lines: Sequence[Line]) -> list[Curve]:
    """A curve per group and line that has values, over training steps: the mean of the group's runs, with their band.

    Lines with ``replay`` are left out for groups that replay nothing.
    """
    curves = []
    for number, group in enumerate(groups):
        shown = [line for line in lines if group.replays or not line.replay]
        for line in shown:
            by_run = [line.values(run.log) for run in group.runs]
            steps = sorted(set().union(*by_run))
            values = [[points[step] for points in by_run if step in points] for step in steps]
            curve = _curve(group, number, line, len(shown))
            curve.x, curve.y = list(steps), [statistics.fmean(found) for found in values]
            if len(group.runs) > 1:
                bands = [band(found, len(group.runs)) for found in values]
                curve.low, curve.high = [low for low, _ in bands], [high for _, high in bands]
            curves += [thin(curve)] if steps else []
    return curves


def point_curves(groups: Sequence[Group], lines: Sequence[Line], x_values: Values) -> list[Curve]:
    """A cloud of points per group and line that has values: a point per step and run, over ``x_values``."""
    curves = []
    for number, group in enumerate(groups):
        for line in lines:
            cloud = _curve(group, number, line, len(lines))
            for run in group.runs:
                across, up = x_values(run.log), line.values(run.log)
                steps = sorted(across.keys() & up.keys())
                points = replace(cloud, x=[across[s] for s in steps], y=[up[s] for s in steps])
                points = thin(points, max(1, MOST_POINTS // len(group.runs)))
                cloud.x, cloud.y = cloud.x + points.x, cloud.y + points.y
            curves += [cloud] if cloud.x else []
    return curves


def _curve(group: Group, number: int, line: Line, lines: int) -> Curve:
    """Without points; a chart's only line has the group's name and look."""
    return Curve(f"{group.name}, {line.label}", number, line.kind) if lines > 1 else Curve(group.name, number, 0)


def band(values: Sequence[float], runs: int) -> tuple[float, float]:
    """Span of one step's values in a group of ``runs`` runs; from five runs on the 95 % t-interval of their mean."""
    if runs < FEWEST_FOR_INTERVAL or len(values) < 2:
        return min(values), max(values)
    return interval(values)[1:]


def thin(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """The curve with at most ``most`` points, each the mean of as many consecutive ones; itself if short enough."""
    size = math.ceil(len(curve.x) / most)
    if size <= 1:
        return curve

    def means(values: list[float]) -> list[float]:
        return [statistics.fmean(values[i : i + size]) for i in range(0, len(values), size)]

    return replace(curve, x=means(curve.x), y=means(curve.y), low=means(curve.low), high=means(curve.high))


def two_sided(t: float, freedom: int) -> float:
    """The p-value of Student's t with ``freedom`` >= 1: the finite sums of Abramowitz and Stegun 26.7.3-4."""
    angle = math.atan(t / math.sqrt(freedom))
    square, odd = math.cos(angle) ** 2, freedom % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for k in range(freedom // 2):
        total += term
        term *= square * ((2 * k + 2) / (2 * k + 3) if odd else (2 * k + 1) / (2 * k + 2))
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return 1 - abs(inside)


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with ``freedom`` >= 1, to 1e-9, by bisection."""
    low, high = 1.0, 16.0  # 1.96 for a normal distribution, 12.7 for 1 degree of freedom
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom) > 0.05 else (low, middle)
    return (low + high) / 2


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of two or more values, and lower and upper end of its 95 % t-interval."""
    mean = statistics.fmean(values)
    half = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half
