"""verl's file log: parts of a resumed run, lines cut short, values that are not numbers."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Log = list[tuple[int, dict[str, float]]]
"""Steps in order, each with its metrics."""

LARGEST = 1e30
"""Values at least this large can't be drawn and count as not finite."""


class NoEntryYet(ValueError):
    """A log that has not begun: the run may still be starting."""


def read_log(folder: Path) -> Log:
    """Steps and values of ``metrics.jsonl`` (verl's logger ``file``), after what was logged before a resume.

    verl overwrites the file on a resume; run_qwen25_math.sh keeps the earlier parts as ``metrics.TIME.jsonl``. A later
    part replaces the steps that it repeats and all after its first; validation before its first step is added to the
    step it validates. In a part the last entry of a step counts. A last line cut short is left out, and so are values
    that are not finite numbers.

    Args:
        folder: of the run.

    Raises:
        ValueError: if the file is missing, empty or broken elsewhere, naming file and line.
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
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}): give the file to this user.") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    log: Log = []
    for number, line in lines:
        try:
            entry = json.loads(line)
            log.append((int(entry["step"]), _numbers(dict(entry["data"]), left_out)))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            if number == lines[-1][0]:
                break
            raise ValueError(f"{path}, line {number} is no log entry ({error}): delete the line.") from error
    return log


def _numbers(data: Mapping[str, Any], left_out: Counter[str]) -> dict[str, float]:
    """The values that are finite numbers (verl writes NaN and infinity as null); keys of the others are counted."""
    found = {key: value for key, value in data.items() if isinstance(value, int | float) and abs(value) < LARGEST}
    left_out.update(key for key in data if key not in found)
    return found
