"""Files and folders that are whole or not there: written beside their place, synced, then renamed onto it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file so that a kill at any instant leaves the old or the new one, never a part.

    It is on the disk, with its name, when this returns. ``.NAME.PID.tmp`` in the same folder is the file until then.
    Text is written as UTF-8, line ends as they are. OSError leaves what was there before.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.unlink(missing_ok=True)  # what a killed process of this number left
    try:
        write_file(beside, content.encode("utf-8") if isinstance(content, str) else content)
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


@contextlib.contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for files of :func:`write_file`; it replaces ``folder`` when the block ends, unless that fails.

    It is ``.FOLDER.tmp`` until then, and a folder that is replaced is ``.FOLDER.old`` between two renames and until it
    is removed: :func:`find_folder` looks there too, so a kill at any instant leaves the old or the new one. What a kill
    has left behind is put right or removed first. OSError leaves what was there before.
    """
    for above in reversed(folder.parents):
        if not above.is_dir():
            os.mkdir(above)
            sync_folder(above.parent)
    old, new = folder_beside(folder, "old"), folder_beside(folder, "tmp")
    if old.is_dir() and not folder.is_dir():
        os.rename(old, folder)
        sync_folder(folder.parent)
    remove_folder(new)
    if old.is_dir():
        _discard(old, new)
    os.mkdir(new)
    try:
        yield new
        sync_folder(new)
        _rename_onto(folder, old, new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # what is left of it, the next call removes
        raise


def _rename_onto(folder: Path, old: Path, new: Path) -> None:
    if not folder.is_dir():
        os.rename(new, folder)
        sync_folder(folder.parent)
        return
    os.rename(folder, old)
    try:
        os.rename(new, folder)
    except OSError:
        os.rename(old, folder)
        raise
    sync_folder(folder.parent)
    _discard(old, new)


def _discard(old: Path, new: Path) -> None:
    """Remove ``.FOLDER.old``, first of all its name: half of it must not be found where ``FOLDER`` is deleted later."""
    os.rename(old, new)
    remove_folder(new)


def folder_beside(folder: Path, suffix: str) -> Path:
    """``.FOLDER.suffix``."""
    return folder.parent / f".{folder.name}.{suffix}"


def find_folder(folder: Path) -> Path | None:
    """Where the complete files of a :func:`written_folder` are; None if there are none."""
    return next((place for place in (folder, folder_beside(folder, "old")) if place.is_dir()), None)


def remove_folder(folder: Path) -> None:
    """Remove a folder, or a link to one; nothing if it is not there."""
    if folder.is_symlink():
        os.unlink(folder)
    elif folder.exists():
        shutil.rmtree(folder)


def write_file(path: Path, content: bytes) -> None:
    """Write and sync a file that is not there yet."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(opened, left) :]
        os.fsync(opened)
    finally:
        os.close(opened)
