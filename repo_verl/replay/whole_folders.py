"""Files that are whole or not there: written beside their place, synced, then renamed onto it.

``FOLDER`` is written as ``.FOLDER.tmp``. One that is replaced is called ``.FOLDER.old`` between two renames and until
it is removed: :func:`find` looks there where ``FOLDER`` is missing, so a kill leaves the old or the new one at any
instant.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from repo_verl.atomic_files import sync_folder
from repo_verl.safe_text import printable

MOST_SHOWN = 300
"""Characters of a reason in a message."""


class BufferFilesError(RuntimeError):
    """Files of a buffer that can't be written or read; one sentence naming the folder, the reason and the remedy."""


def refusal(folder: Path, reason: str) -> BufferFilesError:
    """The error for files that can't be loaded; ``reason`` may quote them."""
    return BufferFilesError(
        f"the replay buffer in {folder} can't be loaded, since {printable(reason, MOST_SHOWN)}: resume from another "
        f"checkpoint, or delete that folder to start with an empty buffer."
    )


def beside(folder: Path, suffix: str) -> Path:
    """``.FOLDER.suffix``."""
    return folder.parent / f".{folder.name}.{suffix}"


def find(folder: Path) -> Path | None:
    """Where the complete files of ``folder`` are; None if there are none."""
    return next((place for place in (folder, beside(folder, "old")) if place.is_dir()), None)


def start(folder: Path) -> Path:
    """An empty folder to write to, ``.FOLDER.tmp``; what a kill has left behind is put right or removed."""
    make_folders(folder.parent)
    old, new = beside(folder, "old"), beside(folder, "tmp")
    if old.is_dir() and not folder.is_dir():
        os.rename(old, folder)
        sync_folder(folder.parent)
    remove(new)
    if old.is_dir():
        discard(old, new)
    os.mkdir(new)
    return new


def finish(folder: Path) -> None:
    """Put what :func:`start` gave, whose files are synced, in the place of ``folder``."""
    old, new = beside(folder, "old"), beside(folder, "tmp")
    sync_folder(new)
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
    discard(old, new)


def discard(old: Path, new: Path) -> None:
    """Remove ``.FOLDER.old``, first of all its name: half of it must not be found where ``FOLDER`` is deleted later."""
    os.rename(old, new)
    remove(new)


def remove(folder: Path) -> None:
    """Remove a folder, or a link to one; nothing if it is not there."""
    if folder.is_symlink():
        os.unlink(folder)
    elif folder.exists():
        shutil.rmtree(folder)


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, synced."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    os.mkdir(folder)
    sync_folder(folder.parent)


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


def read_file(path: Path, most: int, size: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: a link is not followed.
        most: the bytes it may have.
        size: the bytes it must have; None for any number.

    Raises:
        BufferFilesError: if it can't be read, is no file or has another size, in which case nothing is read.
    """
    try:
        with open(path, "rb", opener=_without_links) as file:
            return file.read(_size(path, os.fstat(file.fileno()), most, size))
    except OSError as error:
        raise _unreadable(path, error) from error


def check_file(path: Path, size: int) -> None:
    """Refuse what :func:`read_file` would refuse, without reading it.

    Raises:
        BufferFilesError: if it is missing, a link or no file, or has another size.
    """
    try:
        _size(path, os.lstat(path), size, size)
    except OSError as error:
        raise _unreadable(path, error) from error


def _size(path: Path, found: os.stat_result, most: int, size: int | None) -> int:
    if not stat.S_ISREG(found.st_mode):
        raise refusal(path.parent, f"{path.name} is no file")
    if found.st_size > most or found.st_size != (found.st_size if size is None else size):
        wanted = f"at most {most}" if size is None else str(size)
        raise refusal(path.parent, f"{path.name} has {found.st_size} bytes, not {wanted}")
    return found.st_size


def _unreadable(path: Path, error: OSError) -> BufferFilesError:
    reason = "is a link" if error.errno == errno.ELOOP else f"can't be read ({error.strerror})"
    return refusal(path.parent, f"{path.name} {reason}")


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
