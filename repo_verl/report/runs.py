"""Runs: verl's file logs, which may be resumed or cut short, their names, and runs of one setting as a group."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from repo_verl.safe_text import printable

Log = list[tuple[int, dict[str, float]]]
"""Steps in order, each with its metrics."""

LARGEST = 1e30
"""Values at least this large can't be drawn and count as not finite."""
SEED = re.compile(r"[-_.]?(?<![A-Za-z])seed[-_=]?\d+", re.IGNORECASE)
RESERVED = {"commit", "versions", "seed", "machine"}
"""Keys that summary.json has beside the runs."""


class NoEntryYet(ValueError):
    """A log that has not begun: the run may still be starting."""


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


def read_log(folder: Path) -> Log:
    """Steps and values of ``metrics.jsonl`` (verl's logger ``file``), after what was logged before a resume.

    verl overwrites the file on a resume; run_qwen25_math.sh keeps the earlier parts as ``metrics.TIME.jsonl``. A later
    part replaces the steps that it repeats and all after its first; validation before its first step is added to the
    step it validates. In a part the last entry of a step counts. A last line cut short is left out, and so are values
    that are not finite numbers. Raises ValueError if the file is missing, empty or broken elsewhere, naming the line.
    """
    return read_with_notes(folder)[0]


def read_with_notes(folder: Path) -> tuple[Log, list[str]]:
    """`read_log`, and what was left out in sentences; raises what it does, `NoEntryYet` without file or entry."""
    path = folder / "metrics.jsonl"
    parts = [*sorted(folder.glob("metrics.*.jsonl"), key=_in_order), *([path] if path.is_file() else [])]
    if not parts:
        raise NoEntryYet(f"{path} does not exist: run with trainer.logger including file and VERL_FILE_LOGGER_PATH.")
    steps: dict[int, dict[str, float]] = {}
    left_out: Counter[str] = Counter()
    for part in parts:
        _join(steps, _read_part(part, left_out))
    if not steps:
        raise NoEntryYet(f"{path} has no entry yet: wait for the run's first step.")
    if not left_out:
        return sorted(steps.items()), []
    named = [f"{key} in {count} step{'s' * (count > 1)}" for key, count in left_out.most_common(3)]
    more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return sorted(steps.items()), [f"no finite number, left out: {', '.join(named)}{more}"]


def _in_order(part: Path) -> tuple[int, str]:
    """Parts by their number: 2 before 10; others by name, after them."""
    number = part.name.split(".")[1]
    return (int(number), "") if number.isascii() and number.isdigit() else (sys.maxsize, part.name)


def _join(steps: dict[int, dict[str, float]], part: Log) -> None:
    """Add a part: what an earlier one logged after this one's first step was undone by the resume."""
    for step in [step for step in steps if part and step > part[0][0]]:
        del steps[step]
    for step, data in part:
        trained = "timing_s/step" in data
        steps[step] = data if trained or step not in steps else {**steps[step], **data}


def _read_part(path: Path, left_out: Counter[str]) -> Log:
    """The entries of a file, with the values that are finite numbers; keys of the others are counted."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}): make it readable for this user.") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    log: Log = []
    for number, line in lines:
        try:
            entry = json.loads(line)
            step, data = int(entry["step"]), dict(entry["data"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            if number == lines[-1][0]:
                break
            raise ValueError(f"{path}, line {number} is no log entry ({error}): delete the line.") from error
        # verl writes NaN and infinity as null
        finite = {key: value for key, value in data.items() if isinstance(value, int | float) and abs(value) < LARGEST}
        left_out.update(key for key in data if key not in finite)
        log.append((step, finite))
    return log


def read_runs(folders: Sequence[Path], wait: bool = False) -> tuple[list[Run], list[str]]:
    """The runs that have a log entry, and a sentence for each that has none yet.

    With ``wait`` a log that does not exist is one that will. Raises ValueError if a log is missing or broken, or if
    none has an entry.
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


def name_runs(folders: Sequence[Path]) -> list[str]:
    """A name per run: its folder's, with as many folders above it as tell it from the others.

    Raises ValueError if one folder is given twice.
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


def setting_name(folder: Path) -> str:
    """The name of an absolute folder without its seed: ``repo_seed1`` is ``repo``, and so is ``repo/seed1``."""
    for part in (folder.name, folder.parent.name):
        if name := SEED.sub("", part).strip("-_. "):
            return printable(name)
    return printable(folder.name)


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
