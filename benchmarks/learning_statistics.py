"""Paired differences over seeds: interval, test, correction for many, and how a table prints them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from repo_verl.report.curves import interval, two_sided


def p_value(values: list[float]) -> float:
    """Of the two-sided paired t-test, which is below 0.05 where the interval leaves 0 out."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return two_sided(statistics.fmean(values) / error, len(values) - 1) if error else float(not any(values))


def holm(found: dict[str, float], level: float = 0.05) -> list[str]:
    """Names that Holm's step-down procedure keeps: the least p-value first, against the level over what is left."""
    kept = []
    for place, (name, value) in enumerate(sorted(found.items(), key=lambda item: item[1])):
        if value > level / (len(found) - place):
            break
        kept.append(name)
    return kept


def difference(values: list[float]) -> str:
    """``+1.2 [-0.3, +2.7]``; in bold where the interval leaves 0 out."""
    if not values:
        return "too few pairs"
    mean, low, high = interval(values)
    text = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def spread(values: Iterable[float], form: str = "{:.1f}") -> str:
    """Mean and, with more than one, standard deviation."""
    held = list(values)
    mean = form.format(statistics.fmean(held))
    return f"{mean} ± {form.format(statistics.stdev(held))}" if len(held) > 1 else mean
