"""Drawing charts with Matplotlib, as SVG for the page and as PNG; told apart in light and dark, and without colour."""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from repo_verl.report.charts import Chart
from repo_verl.report.curves import Curve
from repo_verl.report.runs import Group, shorten
from repo_verl.report.summary import ALL_PARTS, shown_parts

FONT_POINTS = 9.0
INCH = 72
"""Points; an SVG's pixel is a point."""
WIDTH = 4.6
"""Inches of a chart: a phone of 390 px shows it about 1 : 1."""
AXES_HEIGHT, TITLE_HEIGHT, LEGEND_HEIGHT = 2.45, 0.25, 1.45 * FONT_POINTS / INCH
"""Inches of a chart without title and legend, of its title, and of a row of its legend."""
LEGEND_POINTS, CHARACTER_POINTS = 34, 5.6
"""Width of a legend's entry: line and gaps, and a character."""
LOG_FROM = 20
"""Ratios that span more than this factor are drawn on a logarithmic axis."""
TICKS = (1, 2, 5, 10)
MARKS_SHOWN = 8
MARKS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
HATCHES = ("", "xx", "//", "++", "||", "\\\\", "..", "--", "oo", "")
"""Of the parts of a step's time, with the colours in `Palette.parts`."""

Legend = list[tuple[Any, str]]
"""What stands for a curve or a part, and its name; empty if there is nothing to draw."""


@dataclass(frozen=True)
class Palette:
    """Colours of a mode; groups and parts are Okabe and Ito's, those that stand out from the background first."""

    name: str
    background: str
    text: str
    soft: str
    grid: str
    groups: tuple[str, ...]
    parts: tuple[str, ...]


LIGHT = Palette(
    "light", "#ffffff", "#1f2328", "#57606a", "#d8dee4",
    ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#4d4d4d", "#E69F00"),
    ("#0072B2", "#F0E442", "#56B4E9", "#4d4d4d", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#777777", "#bbbbbb"),
)  # fmt: skip
DARK = Palette(
    "dark", "#1b1f24", "#e6edf3", "#9da7b3", "#343b44",
    ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#d0d0d0", "#F0E442"),
    ("#56B4E9", "#F0E442", "#0072B2", "#e0e0e0", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#999999", "#666666"),
)  # fmt: skip


def settings(palette: Palette) -> dict[str, object]:
    """A mode's settings for ``matplotlib.rc_context``."""
    sizes = ("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
    return {
        **dict.fromkeys(sizes, FONT_POINTS),
        **dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), palette.soft),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), palette.grid),
        **dict.fromkeys(("axes.facecolor", "figure.facecolor"), palette.background),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
        "font.family": "DejaVu Sans", "axes.titlesize": FONT_POINTS + 1.5, "text.color": palette.text,
        "grid.linewidth": 0.6, "axes.grid": True, "axes.axisbelow": True, "lines.linewidth": 1.5,
        "lines.markersize": 4, "svg.fonttype": "none", "hatch.linewidth": 0.5,
    }  # fmt: skip


def mark_of(group: int) -> str:
    """The mark of a group: another one where colours come round again."""
    return MARKS[(group + group // len(LIGHT.groups)) % len(MARKS)]


def svg(chart: Chart, groups: Sequence[Group], palette: Palette) -> str | None:
    """A chart without its title as an ``<svg>`` element whose ids are no other chart's; None if the logs have none."""
    drawn = _picture(chart, groups, palette, False, format="svg", transparent=True, metadata={"Date": None})
    if drawn is None:
        return None
    text = drawn.decode()
    text = text[text.index("<svg") :]  # an element of a page: no prolog, metadata, comments, style or unused ids
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|<defs>\s*</defs>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    label = html.escape(chart.title, quote=True)
    text = re.sub(r'^<svg[^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{label}">', text)
    return re.sub(r"\n\s*", "\n", text).strip()


def png(chart: Chart, groups: Sequence[Group]) -> bytes | None:
    """A chart with its title, 1,104 pixels wide, light; None if the logs have nothing of it."""
    return _picture(chart, groups, LIGHT, True, format="png", dpi=240)


def overview(charts: Sequence[Chart], groups: Sequence[Group]) -> bytes:
    """Up to four charts that the logs have something of as one PNG of 1,980 pixels' width, light."""
    stream = io.BytesIO()
    with _figure(LIGHT) as figure:
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.05)
        parts: Any = figure.subfigures(2, 2, wspace=0.02, hspace=0.06)
        rows = [
            _draw(part, chart, groups, LIGHT, 1.2 * WIDTH, True)
            for part, chart in zip(parts.flat, charts[:4], strict=False)
        ]
        height = 1.2 * AXES_HEIGHT + TITLE_HEIGHT + max(rows, default=0) * LEGEND_HEIGHT
        figure.set_size_inches(2.4 * WIDTH, 2 * height)
        figure.savefig(stream, format="png", dpi=180)
    return stream.getvalue()


def _picture(chart: Chart, groups: Sequence[Group], palette: Palette, title: bool, **how: Any) -> bytes | None:
    stream = io.BytesIO()
    with _figure(palette, **{"svg.hashsalt": f"{chart.name}-{palette.name}"}) as figure:
        if not (rows := _draw(figure, chart, groups, palette, WIDTH, title)):
            return None
        figure.set_size_inches(WIDTH, AXES_HEIGHT + title * TITLE_HEIGHT + rows * LEGEND_HEIGHT)
        figure.savefig(stream, **how)
    return stream.getvalue()


@contextmanager
def _figure(palette: Palette, **more: object) -> Iterator[Figure]:
    with matplotlib.rc_context({**settings(palette), **more}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # of names in other scripts
        yield Figure(layout="constrained")


def _draw(container: Any, chart: Chart, groups: Sequence[Group], palette: Palette, width: float, title: bool) -> int:
    """Draw into a figure or a part of one, ``width`` inches wide; the rows of the legend, 0 if there is nothing."""
    axis = container.subplots()
    drawn = _bars(axis, groups, palette) if chart.kind == "bars" else _curves(axis, chart, groups, palette)
    if not drawn:
        return 0
    if title:
        container.suptitle(chart.title, x=0.012, ha="left", weight="bold", size=FONT_POINTS + 1.5)
    widest = LEGEND_POINTS + CHARACTER_POINTS * max(len(label) for _, label in drawn)
    columns = max(1, min(len(drawn), int(width * INCH / widest)))
    container.legend(
        *zip(*drawn, strict=True), loc="outside lower left", ncols=columns, borderpad=0.2, columnspacing=1,
        handlelength=2.2, handletextpad=0.6, labelspacing=0.35,
    )  # fmt: skip
    return math.ceil(len(drawn) / columns)


def _curves(axis: Any, chart: Chart, groups: Sequence[Group], palette: Palette) -> Legend:
    curves = chart.curves(groups)
    legend: Legend = []
    for curve in curves:
        color = palette.groups[curve.group % len(palette.groups)]
        face = palette.background if curve.kind else color
        look: dict[str, Any] = {"color": color, "marker": mark_of(curve.group), "markerfacecolor": face}
        if chart.kind == "points":
            look["linestyle"] = ""
            axis.plot(curve.x, curve.y, alpha=0.75, clip_on=False, **look)
        else:
            look["linestyle"] = DASHES[curve.kind]
            every = max(1, len(curve.x) // MARKS_SHOWN)
            start = min(curve.group * every // 2 % every, len(curve.x) - 1)  # so that marks of equal lines are seen
            axis.plot(curve.x, curve.y, markevery=(start, every), clip_on=False, **look)
        if curve.low:
            axis.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)
        legend.append((Line2D([], [], **look), curve.label))
    if curves:
        _scale(axis, chart, curves)
        if chart.mark is not None:
            axis.axhline(chart.mark, color=palette.soft, linewidth=0.8, linestyle=DASHES[2], zorder=1)
    return legend


def _scale(axis: Any, chart: Chart, curves: Sequence[Curve]) -> None:
    low = min(min(curve.low or curve.y) for curve in curves)
    high = max(max(curve.high or curve.y) for curve in curves)
    low, high = (low, high) if chart.mark is None else (min(low, chart.mark), max(high, chart.mark))
    points = chart.kind == "points"
    axis.set(xlabel="mean age of the step's replayed rows (steps)" if points else "training step", ylabel=chart.up)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1, steps=TICKS))
    axis.xaxis.set_major_formatter(lambda value, _: _number(value, 0))
    if chart.mark is not None and 0 < LOG_FROM * low < high:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(numticks=6))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter("{x:g}")
        return
    axis.set_ylim(*limits(low, high, chart))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=TICKS))
    scale, unit = (100, " %") if chart.percent else (1, "")
    ticks = axis.get_yticks()
    digits = max(0, -math.floor(math.log10(scale * (ticks[1] - ticks[0])) + 1e-9))
    axis.yaxis.set_major_formatter(lambda value, _: _number(scale * value, digits) + unit)


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if abs(value) < 1e7 and digits < 9 else f"{value:.3g}"


def limits(low: float, high: float, chart: Chart) -> tuple[float, float]:
    """Bottom and top of an axis for values from ``low`` to ``high``: a margin, and at least the chart's span.

    They lie inside the chart's bounds if the values do; with only a lower bound the axis begins there.
    """
    least, most = chart.bounds
    least = None if least is None or low < least else least
    most = None if most is None or high > most else most
    if least is not None and chart.bounds[1] is None:
        return least, max(high, least + 1e-9) * 1.08
    missing = max(0.0, (chart.span or abs(high) * 0.1 or 1.0) - (high - low))
    bottom, top = low - missing / 2, high + missing / 2
    if least is not None and bottom < least:
        bottom, top = least, max(high, least + (top - bottom))
    if most is not None and top > most:
        bottom, top = min(low, most - (top - bottom)), most
    margin = 0.06 * (top - bottom)
    return (bottom if bottom == least else bottom - margin), top + margin


def _bars(axis: Any, groups: Sequence[Group], palette: Palette) -> Legend:
    steps, parts = shown_parts(groups)
    starts = [0.0] * len(steps)
    places = range(len(steps))
    legend: Legend = []
    for part, seconds in parts:
        number = ALL_PARTS.index(part)
        colors = {"facecolor": palette.parts[number], "edgecolor": palette.background}
        look: dict[str, Any] = {**colors, "hatch": HATCHES[number], "linewidth": 0.6}
        axis.barh(places, seconds, left=starts, height=0.62, **look)
        starts = [start + value for start, value in zip(starts, seconds, strict=True)]
        legend.append((Patch(**look), part))
    if not legend:
        return []
    for place, end, step in zip(places, starts, steps.values(), strict=True):
        axis.text(end + 0.015 * max(starts), place, f"{_number(step, 2)} s", va="center")
    axis.set(xlabel="seconds (median step)", xlim=(0, 1.2 * max(starts)), ylim=(max(len(steps), 2) - 0.5, -0.5))
    axis.set_yticks(places, [shorten(name, 16) for name in steps])
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=TICKS))
    axis.xaxis.set_major_formatter("{x:.3g}")
    axis.grid(visible=False, axis="y")
    return legend
