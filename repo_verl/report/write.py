"""Writing a report's files: each whole or not at all, so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from repo_verl.report.background import settings_section
from repo_verl.report.charts import CHARTS, OVERVIEW
from repo_verl.report.draw import overview, png, svg
from repo_verl.report.page import Drawing, report_page, waiting_page
from repo_verl.report.runs import Group, group_runs, name_runs, read_runs, with_short_names
from repo_verl.report.settings import compare_settings
from repo_verl.report.style import DARK, LIGHT
from repo_verl.report.summary import summarize, table
from repo_verl.report.surroundings import surroundings

NAME_LENGTH = 26
"""Characters of a setting's name in a chart."""


def write_report(folders: Sequence[Path], output: Path, seed: int | None = None, refresh: float | None = None) -> str:
    """Write ``report.html``, ``report.png``, ``charts/*.png`` and ``summary.json`` into ``output``; returns the table.

    A run is named by its folder, with the folders above it where that is needed to tell it from another. Runs whose
    folders have one name, a part ``seed<digits>`` aside, are runs of one setting.

    Args:
        folders: run folders, each with a ``metrics.jsonl``.
        output: made if missing.
        seed: noted in the summary.
        refresh: seconds after which a browser reads the page again; a log that has not begun then makes a page that
            waits, and the sentence that says so is returned.

    Returns:
        The summaries as text, a row a run.

    Raises:
        ValueError: if a log is missing, empty or broken, if a folder is given twice, or if ``output`` can't be
            written, in one sentence with the remedy.
    """
    name_runs(folders)
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    try:
        runs, waiting = read_runs(folders, wait=refresh is not None)
    except ValueError as error:
        if refresh is None:
            raise
        _write(output / "report.html", waiting_page(str(error), written, refresh).encode())
        return str(error)
    groups = group_runs(runs)
    summaries = {run.name: summarize(run.log) for run in runs}
    found = surroundings(seed)
    settings, missing, mixed = compare_settings(groups)
    notes = [*waiting, *(f"{run.name}: {note}" for run in runs for note in run.notes), *_uneven(groups), *mixed]
    short = with_short_names(groups, NAME_LENGTH)
    drawings = [
        Drawing(chart, chart.found(short), svg(chart, short, LIGHT), svg(chart, short, DARK)) for chart in CHARTS
    ]
    background = settings_section(groups, settings, missing, found)
    page = report_page(groups, summaries, drawings, background, notes, written, refresh)
    _write_pictures(drawings, short, output)
    _write(output / "summary.json", (json.dumps({**summaries, **found}, indent=2) + "\n").encode())
    _write(output / "report.html", page.encode())
    return table(summaries)


def _uneven(groups: Sequence[Group]) -> list[str]:
    """What a mean over runs of different length means."""
    notes = []
    for group in groups:
        last = [run.log[-1][0] for run in group.runs]
        if min(last) < max(last):
            steps = ", ".join(map(str, last))
            notes.append(f"{group.name}: its runs are at steps {steps}; beyond {min(last)} a mean is over fewer runs")
    return notes


def _write_pictures(drawings: Sequence[Drawing], groups: Sequence[Group], output: Path) -> None:
    shown = [drawing.chart for drawing in drawings if drawing.light is not None]
    for chart in CHARTS:
        path = output / "charts" / f"{chart.name}.png"
        picture = png(chart, groups) if chart in shown else None
        if picture is not None:
            _write(path, picture)
        else:
            path.unlink(missing_ok=True)  # of an earlier report
    by_name = {chart.name: chart for chart in shown}
    _write(output / "report.png", overview([by_name[name] for name in OVERVIEW if name in by_name], groups))


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(content)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"{path} can't be written ({error.strerror}): give another folder as --output.") from error
