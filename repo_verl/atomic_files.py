"""Files that are whole or not there: written beside their place, synced, then renamed onto it."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file so that a kill at any instant leaves the old or the new one, never a part.

    It is on the disk, with its name, when this returns. ``.NAME.PID.tmp`` in the same folder is the file until then.

    Args:
        path: the file; one that is there is replaced. Its folder must exist.
        content: all of it; text is written as UTF-8, line ends as they are.

    Raises:
        OSError: if it can't be written; what was there before is still there.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Wait until the names in a folder are on the disk; where the file system can't sync folders nothing is done."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(opened)
