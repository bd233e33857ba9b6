"""The report as one HTML page that loads nothing: charts are inline SVG, the style sheet is in the page."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repo_verl.report.charts import Chart
from repo_verl.report.css import CSS
from repo_verl.report.curves import FEWEST_FOR_INTERVAL, MOST_POINTS
from repo_verl.report.html_parts import table, text
from repo_verl.report.runs import Group
from repo_verl.report.summary import COLUMNS, Summary, show

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
TITLE = "RePO run report"
NARROW = "\N{NARROW NO-BREAK SPACE}"
LONG = 48
"""Characters from which on the settings' names are no part of the heading."""


@dataclass(frozen=True)
class Drawing:
    """A chart's findings, and its SVG for light and dark; None where the logs have nothing of it."""

    chart: Chart
    found: list[str]
    light: str | None
    dark: str | None


def report_page(
    groups: Sequence[Group],
    summaries: Mapping[str, Summary],
    drawings: Sequence[Drawing],
    background: str,
    notes: Sequence[str],
    written: str,
    refresh: float | None = None,
) -> str:
    """The page.

    Args:
        groups: of runs.
        summaries: by the run's name.
        drawings: of `CHARTS`.
        background: HTML below the charts.
        notes: sentences above the charts.
        written: when.
        refresh: seconds after which a browser reads it again.

    Returns:
        HTML.
    """
    runs = [run for group in groups for run in group.runs]
    steps = max(step for run in runs for step, _ in run.log)
    words = f"{_count(len(groups), 'setting')}, {_count(len(runs), 'run')}, up to step {steps}"
    names = ", ".join(group.name for group in groups)
    body = [
        f"<header><h1>{text(f'{TITLE}: {names}' if len(names) < LONG else TITLE)}</h1>",
        f'<p class="soft">{text(words)}; {_written(written, refresh)}</p></header>',
        _notes(notes),
        _summary_table(groups, summaries),
    ]
    for section, members in itertools.groupby(drawings, key=lambda drawing: drawing.chart.section):
        cards = "".join(_card(drawing, groups) for drawing in members)
        body.append(f'<section><h2>{text(section)}</h2><div class="charts">{cards}</div></section>')
    return _document("\n".join([*body, background]), refresh)


def waiting_page(sentence: str, written: str, refresh: float | None = None) -> str:
    """A page that says why there is no report yet.

    Args:
        sentence: why.
        written: when.
        refresh: seconds after which a browser reads it again.

    Returns:
        HTML.
    """
    return _document(
        f'<header><h1>{TITLE}: waiting</h1><p class="soft">{_written(written, refresh)}</p></header>'
        f'<p class="box notes">{text(sentence)}</p>',
        refresh,
    )


def _document(body: str, refresh: float | None) -> str:
    again = f'<meta http-equiv="refresh" content="{max(1, round(refresh))}">\n' if refresh else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n{again}'
        f'<title>{TITLE}</title>\n<link rel="icon" href="data:,">\n<style>{CSS}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _written(written: str, refresh: float | None) -> str:
    again = f"; reads itself again every {refresh:g} s" if refresh else ""
    return f'written <span class="whole">{text(written)}</span>{again}'


def _card(drawing: Drawing, groups: Sequence[Group]) -> str:
    chart = drawing.chart
    head = f'<figure class="box" id="{chart.name}"><h3>{text(chart.title)}</h3>'
    if drawing.light is None or drawing.dark is None:
        return f'{head}<p class="missing">{text(chart.missing)}</p></figure>'
    found = "".join(f"<li>{text(_spaced(sentence))}</li>" for sentence in drawing.found)
    return (
        f'{head}<ul class="found">{found}</ul><div><div class="light">{drawing.light}</div>'
        f'<div class="dark">{drawing.dark}</div></div>'
        f"<figcaption>{text(' '.join([chart.reading, *_reading_of_groups(chart, groups)]))}</figcaption></figure>"
    )


def _reading_of_groups(chart: Chart, groups: Sequence[Group]) -> list[str]:
    """How to read what the chart makes of several runs and of many steps."""
    sizes = {len(group.runs) for group in groups}
    words = []
    if max(sizes) > 1 and chart.kind == "lines":
        words.append("Line: mean of the setting's runs.")
        if any(1 < size < FEWEST_FOR_INTERVAL for size in sizes):
            words.append(f"Band: smallest to largest run{_fewer(max(sizes))}.")
        if max(sizes) >= FEWEST_FOR_INTERVAL:
            words.append(f"Band: 95 % t-interval of the mean ({FEWEST_FOR_INTERVAL} runs or more).")
    if max(len(run.log) for group in groups for run in group.runs) > MOST_POINTS and chart.kind != "bars":
        words.append("Points are means of consecutive steps, to be told apart.")
    return words


def _fewer(most: int) -> str:
    return "" if most < FEWEST_FOR_INTERVAL else f" (fewer than {FEWEST_FOR_INTERVAL} runs)"


def _summary_table(groups: Sequence[Group], summaries: Mapping[str, Summary]) -> str:
    rows = []
    columns = [(key, form.replace(".0f", ",.0f")) for key, _, form in COLUMNS]
    for group in groups:
        cells = [_cell([summaries[run.name][key] for run in group.runs], form) for key, form in columns]
        rows.append([group.name, str(len(group.runs)), *cells])
    spread = "; ± is the standard deviation over a setting's runs" if any(len(g.runs) > 1 for g in groups) else ""
    caption = f"Means over all training steps; accuracy before and after training; s / step is the median{spread}."
    head = ["setting", "runs", *(title for _, title, _ in COLUMNS)]
    return f'<div class="box">{table(head, rows)}<p class="below">{text(caption)}</p></div>'


def _cell(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = _spaced(show(statistics.fmean(known), form))
    spread = statistics.stdev(known) if len(known) > 1 else 0.0
    return f"{mean} ± {_spaced(show(spread, form)).removesuffix(NARROW + '%')}" if spread else mean


def _spaced(words: str) -> str:
    return words.replace("%", NARROW + "%")


def _notes(notes: Sequence[str]) -> str:
    return f'<ul class="box notes">{"".join(f"<li>{text(note)}</li>" for note in notes)}</ul>' if notes else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
