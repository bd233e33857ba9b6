"""Which of verl's checkpoints are finished, the repair of verl's tracker file, and the last one that stays.

Works around ``verl/trainer/ppo/v1/trainer_base.py:1024`` and ``verl/utils/checkpoint/checkpoint_manager.py:245``: verl
writes ``latest_checkpointed_iteration.txt`` in place, so that a kill in that instant leaves it empty and verl can't
resume; and it does not notice a checkpoint that was cut short. RePO keeps ``repo_checkpoint.json`` in every
``global_step_N``: written without files before verl saves, and with the size of every file once verl is done. Delete
it once verl writes its tracker atomically and checks what it resumes from.

:func:`two_kept` works around ``verl/utils/checkpoint/checkpoint_manager.py:191``: where one checkpoint is to be kept,
verl removes it as soon as the actor of the next one is written, before the rest and the tracker file: a kill between
them leaves none. Delete it once verl removes old checkpoints behind its tracker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repo_verl.atomic_files import write_atomically
from repo_verl.step_folders import TRACKER, folder_of, step_of, steps_in, tracked_step, tracker_text

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

MARKER = "repo_checkpoint.json"
FORMAT = {"format": "repo-verl checkpoint", "version": 1}
UNCHECKED = ("huggingface", MARKER)  # names in a checkpoint that no resume reads


class CheckpointError(ValueError):
    """A checkpoint that can't be written or resumed from; one sentence naming the folder and the remedy."""


@dataclasses.dataclass(frozen=True)
class Marker:
    """What RePO notes of a checkpoint."""

    effective_steps: int  # so far
    files: dict[str, int] | None = None  # bytes of every file that a resume reads, by path; None until verl saved them
    number: int = 0  # of this saving; each has a larger one than those that were in the folder
    parent: int | None = None  # step of the checkpoint that the run saved or resumed from before, in the same folder
    sampling: dict[str, Any] | None = None  # of responses in flight, where verl's queue is saved


def write_marker(folder: str, marker: Marker) -> None:
    """Write the marker of a checkpoint, at once or not at all; the folder is made if missing."""
    os.makedirs(folder, exist_ok=True)
    write_atomically(os.path.join(folder, MARKER), json.dumps({**FORMAT, **dataclasses.asdict(marker)}, indent=1))


def read_marker(folder: str) -> Marker | None:
    """The marker of a checkpoint; None where it has none, :class:`CheckpointError` if it is damaged."""
    path = os.path.join(folder, MARKER)
    try:
        with open(path, "rb") as file:
            return _parse(json.loads(file.read(1 << 24)))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): resume from another checkpoint, or delete it.") from error


def _parse(found: Any) -> Marker:
    known = isinstance(found, dict) and FORMAT.items() <= found.items()
    marker = Marker(*(found.get(field.name) for field in dataclasses.fields(Marker))) if known else Marker(-1)
    counts = [marker.effective_steps, marker.number, 0 if marker.parent is None else marker.parent]
    if isinstance(marker.files, dict):
        counts += marker.files.values()
    good = isinstance(marker.files, dict | None) and isinstance(marker.sampling, dict | None)
    if not good or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts):
        raise ValueError(f"no marker of version {FORMAT['version']}")
    return marker


def list_files(folder: str) -> dict[str, int]:
    """Size of every file that a resume reads, by path in the checkpoint folder; hidden files are left out."""
    sizes = {}
    for path in Path(folder).rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part in UNCHECKED or part.startswith(".") for part in parts):
            sizes[os.path.join(*parts)] = path.stat().st_size
    return dict(sorted(sizes.items()))


def find_damage(folder: str, but: str | None = None) -> str | None:
    """What is wrong with a checkpoint that is to be resumed from; None for a whole one.

    One without a marker is for verl to judge. One that was begun and not finished is whole if verl's tracker names it,
    since the marker follows the tracker. Files below ``but`` are not looked at.
    """
    if not os.path.isdir(folder):
        return "it does not exist"
    marker = read_marker(folder)
    if marker is not None and marker.files is None:
        named = named_by_tracker(os.path.dirname(os.path.normpath(folder)))
        return None if named == os.path.normpath(folder) else "it was never finished"
    files = marker.files if marker is not None else None
    for name, size in (files or {}).items():
        path = os.path.join(folder, name)
        if but is None or not name.startswith(f"{but}/"):
            if not os.path.isfile(path):
                return f"{name} is missing"
            if os.path.getsize(path) != size:
                return f"{name} has {os.path.getsize(path)} of {size} bytes"
    return None


def finished(folder: str) -> bool:
    """Whether a checkpoint is known to be finished and whole."""
    try:
        marker = read_marker(folder)
        return marker is not None and marker.files is not None and find_damage(folder) is None
    except (CheckpointError, OSError):
        return False


def saved_steps(root: str) -> list[tuple[int, Marker]]:
    """Step and marker of every checkpoint that has a readable marker, by the order in which they were saved."""
    found = []
    for step in steps_in(root):
        with contextlib.suppress(CheckpointError, OSError):
            if (marker := read_marker(folder_of(root, step))) is not None:
                found.append((step, marker))
    return sorted(found, key=lambda one: one[1].number)


def next_number(root: str) -> int:
    """The number of the next saving."""
    return max((marker.number + 1 for _, marker in saved_steps(root)), default=0)


def last_finished(root: str, but: int | None = None) -> str | None:
    """The checkpoint folder of a run that was finished last and is whole, other than that of step ``but``."""
    folders = [folder_of(root, step) for step, _ in reversed(saved_steps(root)) if step != but]
    return next((folder for folder in folders if finished(folder)), None)


def refuse_broken(folder: str, but: str | None = None) -> None:
    """Refuse a checkpoint that was cut short, as :func:`find_damage` finds, and name the one to resume from instead."""
    fault = find_damage(folder, but)
    if fault is None:
        return
    remedy = "restore it, or start from scratch with trainer.resume_mode=disable"
    if other := last_finished(os.path.dirname(os.path.normpath(folder)), step_of(folder)):
        remedy = f"resume from the one before with trainer.resume_mode=resume_path trainer.resume_from_path={other}"
    raise CheckpointError(f"checkpoint {folder} is incomplete ({fault}): {remedy}.")


def named_by_tracker(root: str) -> str | None:
    """The checkpoint folder that verl's tracker file names; None if it names none that is there."""
    step = tracked_step(root)
    return folder_of(root, step) if step is not None and os.path.isdir(folder_of(root, step)) else None


def point_tracker_at_parent(root: str, step: int, parent: int | None) -> None:
    """Before a step's checkpoint is overwritten: a tracker that names it names the run's one before, or goes."""
    folder = named_by_tracker(root)
    if folder is None or step_of(folder) != step:
        return
    if parent is None or parent == step:
        os.unlink(os.path.join(root, TRACKER))
    else:
        write_atomically(os.path.join(root, TRACKER), str(parent))
    logger.warning(
        "RePO: %s is being overwritten; until it is finished, a restart resumes from step %s", folder, parent
    )


def repair_latest(root: str) -> None:
    """Make verl's tracker file name the last finished checkpoint where a kill left it empty.

    The last one is that of the last saving if that was finished, else the one that it followed. A tracker that names a
    step is left as it is. It is removed, so that the run begins from scratch, if no checkpoint was ever finished.

    Raises:
        CheckpointError: if there are checkpoints, but none is known to be the last finished one.
    """
    path, text = os.path.join(root, TRACKER), tracker_text(root)
    if text is None or named_by_tracker(root) is not None:
        return
    if tracked_step(root) is None and (known := saved_steps(root)):
        last, marker = known[-1]
        for step in (last, marker.parent):
            if step is not None and finished(folder_of(root, step)):
                write_atomically(path, str(step))
                said = "RePO: %s was torn (%r) and now names the last finished checkpoint, step %d"
                logger.warning(said, path, text, step)
                return
        if marker.parent is None and steps_in(root) == [last]:
            logger.warning(
                "RePO: %s is torn (%r) and no checkpoint is finished, so the run begins from scratch", path, text
            )
            os.unlink(path)
            return
    raise CheckpointError(
        f"{path} is {text!r}, which names no existing checkpoint: write the step to resume from into it, or "
        f"start from scratch with trainer.resume_mode=disable."
    )


@contextlib.contextmanager
def two_kept(actor: Any) -> Iterator[None]:
    """Have verl's worker group ``actor`` keep two checkpoints in the block, whatever it is asked to keep."""
    stock = actor.save_checkpoint

    def save_checkpoint(*args: Any, **kwargs: Any) -> Any:
        return stock(*args, **{**kwargs, "max_ckpt_to_keep": 2})

    actor.save_checkpoint = save_checkpoint
    try:
        yield
    finally:
        actor.save_checkpoint = stock
