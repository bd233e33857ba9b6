"""Runs and their names; runs of one setting with different seeds are a group."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from repo_verl.report.run_log import Log, NoEntryYet, read_with_notes
from repo_verl.safe_text import printable

SEED = re.compile(r"[-_.]?(?<![A-Za-z])seed[-_=]?\d+", re.IGNORECASE)
RESERVED = {"commit", "versions", "seed", "machine"}
"""Keys that summary.json has beside the runs."""


@dataclass(frozen=True)
class Run:
    """One log."""

    name: str
    folder: Path
    log: Log
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """Runs of one setting."""

    name: str
    runs: list[Run]

    @property
    def replays(self) -> bool:
        """Whether any run has replayed a row so far."""
        return any(replayed(data) for run in self.runs for _, data in run.log)


def replayed(data: dict[str, float]) -> bool:
    """Whether a step replayed rows."""
    return data.get("repo/replayed_rows", data.get("repo/age_mean", 0)) > 0


def setting_name(folder: Path) -> str:
    """The name of an absolute folder without its seed: ``repo_seed1`` is ``repo``, and so is ``repo/seed1``."""
    for part in (folder.name, folder.parent.name):
        if name := SEED.sub("", part).strip("-_. "):
            return printable(name)
    return printable(folder.name)


def name_runs(folders: Sequence[Path]) -> list[str]:
    """A name per run: its folder's, with as many folders above it as tell it from the others.

    Args:
        folders: of the runs.

    Raises:
        ValueError: if one folder is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"{path} is given twice: name each run once.")
    sizes = [1] * len(paths)
    while True:
        names = ["/".join(path.parts[-size:]) for path, size in zip(paths, sizes, strict=True)]
        longer = [
            min(size + 1, len(path.parts)) if names.count(name) > 1 or name in RESERVED else size
            for name, path, size in zip(names, paths, sizes, strict=True)
        ]
        if longer == sizes:
            return [printable(name) for name in names]
        sizes = longer


def read_runs(folders: Sequence[Path], wait: bool = False) -> tuple[list[Run], list[str]]:
    """The runs that have a log entry, and a sentence for each that has none yet.

    Args:
        folders: of the runs.
        wait: whether a log that does not exist is one that will.

    Raises:
        ValueError: if a log is missing or broken, or if none has an entry.
    """
    runs, waiting = [], []
    for name, folder in zip(name_runs(folders), folders, strict=True):
        try:
            log, notes = read_with_notes(folder)
        except NoEntryYet as error:
            if not wait and not (folder / "metrics.jsonl").is_file():
                raise
            waiting.append(str(error))
        else:
            runs.append(Run(name, folder.resolve(), log, notes))
    if not runs:
        raise NoEntryYet(" ".join(waiting))
    return runs, waiting


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs of one `setting_name` together, in the order of their first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(setting_name(run.folder), []).append(run)
    return [Group(name, members) for name, members in groups.items()]


def shorten(name: str, most: int) -> str:
    """A name for a chart: its middle left out where it is long; Matplotlib hides names that begin with ``_``."""
    name = name.lstrip("_") or "run"
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - half]}…{name[-half:]}"


def with_short_names(groups: Sequence[Group], most: int) -> list[Group]:
    """The groups with different names of at most ``most`` characters, ignoring a number."""
    names = [shorten(group.name, most) for group in groups]
    numbers = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [
        replace(group, name=f"{name} ({number})" if number > 1 else name)
        for group, name, number in zip(groups, names, numbers, strict=True)
    ]
