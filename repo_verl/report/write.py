"""A report's files: the page from its template, the pictures and the summary, each written whole or not at all."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from repo_verl.atomic_files import write_atomically
from repo_verl.report.charts import CHARTS, OVERVIEW, Chart
from repo_verl.report.curves import FEWEST_FOR_INTERVAL, MOST_POINTS
from repo_verl.report.draw import DARK, LIGHT, overview, png, svg
from repo_verl.report.provenance import compare_settings, provenance
from repo_verl.report.runs import Group, group_runs, name_runs, read_runs, with_short_names
from repo_verl.report.summary import COLUMNS, Summary, summarize, table

NAME_LENGTH = 26
"""Characters of a setting's name in a chart."""
HEADING_LENGTH = 48
"""Characters from which on the settings' names are no part of the heading."""
NARROW = "\N{NARROW NO-BREAK SPACE}"


def write_report(folders: Sequence[Path], output: Path, seed: int | None = None, refresh: float | None = None) -> str:
    """Write ``report.html``, ``report.png``, ``charts/*.png`` and ``summary.json`` into ``output``; returns the table.

    Runs whose folders have one name, a part ``seed<digits>`` aside, are runs of one setting.

    With ``refresh`` a browser reads the page again after as many seconds; logs that have not begun then make a page
    that waits, and a sentence that explains it is returned. Raises ValueError, one sentence with the remedy, if a log
    is missing, empty or broken, if a folder is given twice, or if ``output`` can't be written.
    """
    name_runs(folders)
    try:
        runs, waiting = read_runs(folders, wait=refresh is not None)
    except ValueError as error:
        if refresh is None:
            raise
        _write(output / "report.html", _page(refresh, because=str(error), heading=": waiting", size=""))
        return str(error)
    groups = group_runs(runs)
    short = with_short_names(groups, NAME_LENGTH)
    summaries = {run.name: summarize(run.log) for run in runs}
    found = provenance(seed)
    drawings = [_drawing(chart, short) for chart in CHARTS]
    page = report_page(groups, summaries, drawings, waiting, found, refresh)
    shown = {drawing["chart"].name: drawing["chart"] for drawing in drawings if drawing["light"]}
    for chart in CHARTS:
        path = output / "charts" / f"{chart.name}.png"
        picture = png(chart, short) if chart.name in shown else None
        if picture is None:
            path.unlink(missing_ok=True)  # of an earlier report
        else:
            _write(path, picture)
    _write(output / "report.png", overview([shown[name] for name in OVERVIEW if name in shown], short))
    _write(output / "summary.json", json.dumps({**summaries, **found}, indent=2) + "\n")
    _write(output / "report.html", page)
    return table(summaries)


def _drawing(chart: Chart, groups: Sequence[Group]) -> dict[str, Any]:
    """A chart as the page has it: SVG for light and dark, None where the logs have nothing of it."""
    found = [_spaced(sentence) for sentence in chart.found(groups)]
    light, dark = (svg(chart, groups, palette) for palette in (LIGHT, DARK))
    return {"chart": chart, "found": found, "reading": _reading(chart, groups), "light": light, "dark": dark}


def _reading(chart: Chart, groups: Sequence[Group]) -> list[str]:
    """How to read what the chart makes of several runs and of many steps."""
    sizes = {len(group.runs) for group in groups}
    words = []
    if max(sizes) > 1 and chart.kind == "lines":
        words.append("Line: mean of the setting's runs.")
        if any(1 < size < FEWEST_FOR_INTERVAL for size in sizes):
            fewer = f" (fewer than {FEWEST_FOR_INTERVAL} runs)" if max(sizes) >= FEWEST_FOR_INTERVAL else ""
            words.append(f"Band: smallest to largest run{fewer}.")
        if max(sizes) >= FEWEST_FOR_INTERVAL:
            words.append(f"Band: 95 % t-interval of the mean ({FEWEST_FOR_INTERVAL} runs or more).")
    if max(len(run.log) for group in groups for run in group.runs) > MOST_POINTS and chart.kind != "bars":
        words.append("Points are means of consecutive steps, to be told apart.")
    return words


def report_page(
    groups: Sequence[Group],
    summaries: Mapping[str, Summary],
    drawings: Sequence[Mapping[str, Any]],
    waiting: Sequence[str],
    found: Mapping[str, Any],
    refresh: float | None = None,
) -> str:
    """The page: summaries by the run's name, drawings of `CHARTS`, a sentence per log not begun, provenance."""
    runs = [run for group in groups for run in group.runs]
    last_step = max(step for run in runs for step, _ in run.log)
    names = ", ".join(group.name for group in groups)
    settings, missing, mixed = compare_settings(groups)
    return _page(
        refresh,
        heading=f": {names}" if len(names) < HEADING_LENGTH else "",
        size=f"{len(groups)} setting{'s' * (len(groups) > 1)}, {len(runs)} run{'s' * (len(runs) > 1)}, "
        f"up to step {last_step}; ",
        notes=[*waiting, *(f"{run.name}: {note}" for run in runs for note in run.notes), *_uneven(groups), *mixed],
        columns=[title for _, title, _ in COLUMNS],
        summaries=[_summary_row(group, summaries) for group in groups],
        sections=itertools.groupby(drawings, key=lambda drawing: drawing["chart"].section),
        groups=groups,
        folders=[[run.name, group.name, run.log[-1][0], run.folder] for group in groups for run in group.runs],
        settings=settings,
        missing=missing,
        found=found,
    )


def _page(refresh: float | None, **content: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    return environment.get_template("page.html.jinja").render(written=written, refresh=refresh, **content)


def _uneven(groups: Sequence[Group]) -> list[str]:
    """What a mean over runs of different length means."""
    notes = []
    for group in groups:
        last = [run.log[-1][0] for run in group.runs]
        if min(last) < max(last):
            steps = ", ".join(map(str, last))
            notes.append(f"{group.name}: its runs are at steps {steps}; beyond {min(last)} a mean is over fewer runs")
    return notes


def _summary_row(group: Group, summaries: Mapping[str, Summary]) -> list[str]:
    """Name and runs of a group, then each of `COLUMNS`: the mean over the runs that have it ± standard deviation."""
    row = [group.name, str(len(group.runs))]
    for key, _, form in COLUMNS:
        form = form.replace(".0f", ",.0f")
        known = [value for run in group.runs if (value := summaries[run.name][key]) is not None]
        spread = statistics.stdev(known) if len(known) > 1 else 0.0
        more = f" ± {form.format(spread).removesuffix('%')}" if spread else ""
        row.append(_spaced(form.format(statistics.fmean(known))) + more if known else "-")
    return row


def _spaced(words: str) -> str:
    return words.replace("%", NARROW + "%")


def _write(path: Path, content: bytes | str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise ValueError(f"{path} can't be written ({error.strerror}): give another folder as --output.") from error
