"""Which of verl's checkpoints are finished: a marker in each, and mending verl's tracker file.

verl names the last checkpoint in ``latest_checkpointed_iteration.txt``, which it writes in place: a kill in that
instant leaves it empty, and verl could not resume. RePO keeps ``repo_checkpoint.json`` in every ``global_step_N``:
written without files before verl saves, and with the size of every file once verl is done.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import tempfile
from typing import Any

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

TRACKER = "latest_checkpointed_iteration.txt"
MARKER = "repo_checkpoint.json"
FORMAT = "repo-verl checkpoint"
VERSION = 1
UNCHECKED = ("huggingface", MARKER)
"""Names in a checkpoint that no resume reads."""


class CheckpointError(ValueError):
    """A checkpoint that can't be written or resumed from; one sentence naming the folder and the remedy."""


@dataclasses.dataclass(frozen=True)
class Marker:
    """What RePO notes of a checkpoint.

    Attributes:
        effective_steps: optimizer steps so far whose gradient was not zero.
        files: size in bytes of every file that a resume reads, by path in the folder; None until verl has saved them.
    """

    effective_steps: int
    files: dict[str, int] | None


def step_of(folder: str) -> int | None:
    """N of a folder ``global_step_N``; None for another name."""
    found = re.fullmatch(r"global_step_(\d{1,18})", os.path.basename(os.path.normpath(folder)))
    return int(found[1]) if found else None


def steps_in(root: str) -> list[int]:
    """Steps of the checkpoint folders of a run, ascending."""
    names = os.listdir(root) if os.path.isdir(root) else []
    return sorted(step for step in map(step_of, names) if step is not None)


def write_marker(folder: str, marker: Marker) -> None:
    """Write the marker of a checkpoint, at once or not at all; the folder is made if missing."""
    os.makedirs(folder, exist_ok=True)
    record = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(marker)}
    write_whole(os.path.join(folder, MARKER), json.dumps(record, indent=1))


def write_whole(path: str, text: str) -> None:
    """Write a small file beside its place, and rename it."""
    handle, beside = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def read_marker(folder: str) -> Marker | None:
    """The marker of a checkpoint; None where it has none.

    Raises:
        CheckpointError: if it is damaged.
    """
    path = os.path.join(folder, MARKER)
    try:
        with open(path, "rb") as file:
            found: Any = json.loads(file.read(1 << 24))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): resume from another checkpoint, or delete it.") from error
    good = isinstance(found, dict) and (found.get("format"), found.get("version")) == (FORMAT, VERSION)
    steps, files = (found.get("effective_steps"), found.get("files")) if good else (None, None)
    sizes = list(files.values()) if isinstance(files, dict) else [] if files is None else [None]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (steps, *sizes)):
        raise CheckpointError(
            f"{path} is damaged (no marker of version {VERSION}): resume from another checkpoint, or delete it."
        )
    return Marker(int(steps or 0), files)


def list_files(folder: str) -> dict[str, int]:
    """Size of every file that a resume reads, by path in the checkpoint folder."""
    sizes = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in UNCHECKED and not name.startswith(".")]
        for name in names:
            if name not in UNCHECKED and not name.startswith("."):
                path = os.path.join(place, name)
                sizes[os.path.relpath(path, folder)] = os.path.getsize(path)
    return dict(sorted(sizes.items()))


def fault_of(folder: str) -> str | None:
    """What is wrong with a finished checkpoint; None for a whole one and for one that has no list of its files."""
    if not os.path.isdir(folder):
        return "it does not exist"
    marker = read_marker(folder)
    if marker is None or marker.files is None:
        return None
    for name, size in marker.files.items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            return f"{name} is missing"
        if os.path.getsize(path) != size:
            return f"{name} has {os.path.getsize(path)} of {size} bytes"
    return None


def finished(folder: str) -> bool:
    """Whether a checkpoint is known to be finished and whole."""
    try:
        marker = read_marker(folder)
        return marker is not None and marker.files is not None and fault_of(folder) is None
    except CheckpointError:
        return False


def last_finished(root: str, but: int | None = None) -> str | None:
    """The newest checkpoint folder of a run that is known to be whole, other than that of step ``but``."""
    for step in reversed(steps_in(root)):
        folder = os.path.join(root, f"global_step_{step}")
        if step != but and finished(folder):
            return folder
    return None


def refuse_broken(folder: str) -> None:
    """Refuse a checkpoint that was cut short.

    Raises:
        CheckpointError: naming the file and the checkpoint to resume from instead.
    """
    fault = fault_of(folder)
    if fault is None:
        return
    other = last_finished(os.path.dirname(os.path.normpath(folder)), step_of(folder))
    remedy = (
        f"resume from the one before with trainer.resume_mode=resume_path trainer.resume_from_path={other}"
        if other
        else "restore it, or start anew with trainer.resume_mode=disable"
    )
    raise CheckpointError(f"checkpoint {folder} is not whole ({fault}): {remedy}.")


def named_by_tracker(root: str) -> str | None:
    """The checkpoint folder that verl's tracker file names; None if it names none that is there."""
    path = os.path.join(root, TRACKER)
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        text = file.read(64)
    folder = os.path.join(root, f"global_step_{int(text)}") if re.fullmatch(rb"\s*\d{1,18}\s*", text) else ""
    return folder if os.path.isdir(folder) else None


def unname(root: str, step: int) -> None:
    """Before a step's checkpoint is overwritten: have verl's tracker name another finished one, or none.

    A tracker that names another step, or a step that has no folder, is left alone.
    """
    folder = named_by_tracker(root)
    if folder is None or step_of(folder) != step:
        return
    other = last_finished(root, step)
    if other is None:
        os.unlink(os.path.join(root, TRACKER))
    else:
        write_whole(os.path.join(root, TRACKER), str(step_of(other)))
    logger.warning(
        "RePO: %s is written again; until that is finished, %s is the last checkpoint", folder, other or "none"
    )


def mend_tracker(root: str) -> None:
    """Make verl's tracker file name the last finished checkpoint where a kill left it empty.

    A tracker that names a step is left alone. Without any finished checkpoint it is removed: the run begins anew.
    """
    path = os.path.join(root, TRACKER)
    if not os.path.isfile(path) or named_by_tracker(root) is not None:
        return
    with open(path, "rb") as file:
        text = file.read(64)
    whole = last_finished(root)
    if whole is None:
        logger.warning("RePO: %s is torn (%r) and no checkpoint is finished, so the run begins anew", path, text)
        os.unlink(path)
        return
    write_whole(path, str(step_of(whole)))
    logger.warning("RePO: %s was torn (%r) and now names the last finished checkpoint, %s", path, text, whole)
