"""The end of the page: what the runs and the report were made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from repo_verl.report.html_parts import table, text
from repo_verl.report.runs import Group


def settings_section(
    groups: Sequence[Group],
    settings: Sequence[tuple[str, list[str]]],
    missing: Sequence[str],
    surroundings: Mapping[str, Any],
) -> str:
    """The end of the page: folders, settings and versions.

    Args:
        groups: of runs.
        settings: keys, each with a value a group.
        missing: names of runs without settings.
        surroundings: of this report.

    Returns:
        HTML.
    """
    folders = [[run.name, group.name, run.log[-1][0], run.folder] for group in groups for run in group.runs]
    machine = surroundings["machine"]
    versions = [
        ["commit", surroundings["commit"] or "-"],
        ["seed", "-" if surroundings["seed"] is None else surroundings["seed"]],
        *surroundings["versions"].items(),
        ["machine", f"{machine['cores']} cores, {machine['processor']}, {machine['memory_gib']} GiB"],
    ]
    found = table(["key", *(group.name for group in groups)], [[key, *values] for key, values in settings], "text")
    lacking = (
        f'<p class="below">Settings not found beside the log: {text(", ".join(missing))}. Keep config.yaml,'
        " .hydra/config.yaml or verl's output as train.log in a run's folder.</p>"
    )
    return (
        '<section><h2>Settings and versions</h2><details class="box"><summary>Runs, settings, versions</summary>'
        f"<h3>Runs</h3>{table(['run', 'setting', 'last step', 'folder'], folders, 'text')}"
        f"<h3>Settings</h3>{found if settings else ''}{lacking if missing else ''}"
        f"<h3>Versions and machine that wrote this page</h3>{table(['what', 'value'], versions, 'text')}"
        "</details></section>"
    )
