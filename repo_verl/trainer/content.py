"""What a path of verl's configuration names, known by its content: a file, a folder, or a package."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

PACKAGE, FILE = "pkg://", "file://"
WHOLE = 64 << 20
"""Bytes up to which a file is hashed whole; of a larger one, such as a model's weights, its size and some pieces."""
PIECES, PIECE = 64, 1 << 16


def content_of(path: str) -> str | None:
    """What a path names, as text that differs where it does.

    A package that pip installed is known by name and version; any other package, a module, a folder or a file by
    SHA-256 of its files. A module of another package that it imports is not looked at.

    Args:
        path: a file or folder, ``file://PATH``, or a module as ``pkg://a.b`` or ``pkg://a/b``, as verl reads them.

    Returns:
        None where nothing is there.
    """
    if path.startswith(PACKAGE):
        return _module(path.removeprefix(PACKAGE).replace("/", "."))
    place = Path(path.removeprefix(FILE))
    return _digest(place) if place.exists() else None


def _module(name: str) -> str | None:
    spec = _find(name)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or [])
    places = [Path(folder) for folder in folders] or [Path(spec.origin or "")]
    if not all(place.exists() for place in places):
        return None
    return _installed(spec.origin) or " ".join(_digest(place) for place in places)


def _find(name: str) -> ModuleSpec | None:
    """The spec of a module, without importing the packages above it."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        top = f"{top}.{part}"
        spec = PathFinder.find_spec(top, list(spec.submodule_search_locations))
    return spec


def _installed(origin: str | None) -> str | None:
    """Name and version of the distribution whose record has this file; None for one that lies elsewhere."""
    for found in importlib.metadata.distributions() if origin else ():
        relative = Path(os.path.relpath(str(origin), str(found.locate_file("")))).as_posix()
        if not relative.startswith("..") and f"\n{relative}," in "\n" + (found.read_text("RECORD") or ""):
            return f"{found.name} {found.version}"
    return None


def _digest(place: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder but hidden and compiled ones."""
    total = hashlib.sha256()
    for file in [place] if place.is_file() else sorted(_files(place)):
        if file != place:
            total.update(f"{file.relative_to(place).as_posix()}\0".encode())
        total.update(_file_digest(file))
    return f"sha256 {total.hexdigest()[:32]}"


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        yield from (Path(parent, name) for name in names if not name.startswith(".") and not name.endswith(".pyc"))


def _file_digest(file: Path) -> bytes:
    size = file.stat().st_size
    with open(file, "rb") as opened:
        if size <= WHOLE:
            return hashlib.file_digest(opened, "sha256").digest()
        total = hashlib.sha256(str(size).encode())
        for piece in range(PIECES):
            opened.seek(piece * (size - PIECE) // (PIECES - 1))
            total.update(opened.read(PIECE))
        return total.digest()
