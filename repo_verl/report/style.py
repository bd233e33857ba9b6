"""Colours, marks and fonts: distinct for colour-blind people, in light and dark, and without colour."""

from __future__ import annotations

from dataclasses import dataclass

MARKS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
HATCHES = ("", "xx", "//", "++", "||", "\\\\", "..", "--", "oo", "")
"""Of the parts of a step's time, with the colours in `Palette.parts`."""
FONT_POINTS = 9.0
INCH = 72
"""Points; an SVG's pixel is a point."""
WIDTH = 4.6
"""Inches of a chart: a phone of 390 px shows it about 1 : 1."""


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
    soft = ("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
    grid = ("axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    return {
        **dict.fromkeys(sizes, FONT_POINTS),
        **dict.fromkeys(soft, palette.soft),
        **dict.fromkeys(grid, palette.grid),
        **dict.fromkeys(("axes.facecolor", "figure.facecolor"), palette.background),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
        "font.family": "DejaVu Sans",
        "axes.titlesize": FONT_POINTS + 1.5,
        "text.color": palette.text,
        "grid.linewidth": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
        "lines.linewidth": 1.5,
        "lines.markersize": 4,
        "svg.fonttype": "none",
        "hatch.linewidth": 0.5,
    }


def mark_of(group: int) -> str:
    """The mark of a group: another one where colours come round again."""
    return MARKS[(group + group // len(LIGHT.groups)) % len(MARKS)]
