"""verl's folders of checkpoints: ``global_step_N`` of every saved step, and the tracker file of the last."""

from __future__ import annotations

import os
import re

TRACKER = "latest_checkpointed_iteration.txt"
BUFFER = "prompt_replay"
"""Where the replay buffer is in ``global_step_N``."""


def step_of(folder: str | os.PathLike[str]) -> int | None:
    """N of a folder ``global_step_N``; None for another name."""
    found = re.fullmatch(r"global_step_(0|[1-9][0-9]{0,17})", os.path.basename(os.path.normpath(folder)))
    return int(found[1]) if found else None


def folder_of(root: str, step: int) -> str:
    """``global_step_N`` of a run."""
    return os.path.join(root, f"global_step_{step}")


def steps_in(root: str | os.PathLike[str]) -> list[int]:
    """Steps of the checkpoint folders of a run, ascending."""
    if not os.path.isdir(root):
        return []
    with os.scandir(root) as entries:
        steps = [step_of(entry.name) for entry in entries if entry.is_dir()]
    return sorted(step for step in steps if step is not None)


def tracker_text(root: str | os.PathLike[str]) -> bytes | None:
    """What verl's tracker file begins with; None if there is none."""
    path = os.path.join(root, TRACKER)
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read(100)


def tracked_step(root: str | os.PathLike[str]) -> int | None:
    """The step that verl's tracker file names; None without a tracker, and for one that is torn."""
    text = (tracker_text(root) or b"").strip()
    return int(text) if re.fullmatch(rb"[0-9]{1,18}", text) else None
