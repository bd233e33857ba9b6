"""Whether a source is of the split that it is prepared as: its file's name and its rows may say otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_WORD = re.compile(r"(?<![a-z])(train|test)(?![a-z])")


def split_in_name(path: Path) -> str | None:
    """The one split, train or test, that a file's name has as a word; None if it has neither or both.

    Args:
        path: the file; its folder does not count.

    Example:
        >>> split_in_name(Path("gsm8k__train.jsonl")), split_in_name(Path("train-test.json"))
        ('train', None)
    """
    words = set(_WORD.findall(path.stem.lower()))
    return words.pop() if len(words) == 1 else None


def check_names(paths: Iterable[Path], split: str, hub_split: str, remedy: str) -> None:
    """Refuses files whose names say another split.

    Args:
        paths: the source.
        split: what it is prepared as.
        hub_split: the hub's name of that split; AIME 2024's test problems are the hub's ``train``.
        remedy: what to do instead, with ``{split}`` where the name's split goes.

    Raises: ValueError naming the file.
    """
    for path in paths:
        said = split_in_name(path)
        if said not in (None, split, hub_split):
            raise ValueError(
                f"{path}: the name says {said}, but the file is to be prepared as {split}; {remedy.format(split=said)}"
            )


def checked(records: Iterable[Mapping[str, Any]], split: str, label: str, remedy: str) -> Iterator[Mapping[str, Any]]:
    """The records, as long as none says that it is of the other split; splits besides train and test say nothing.

    Args:
        records: of the source.
        split: what they are prepared as.
        label: file or folder, for the message.
        remedy: see :func:`check_names`.

    Raises: ValueError naming source, row and field of the first that does.
    """
    for number, record in enumerate(records):
        extra = record.get("extra_info")
        said = extra.get("split") if isinstance(extra, Mapping) else None
        if said in ("train", "test") and said != split:
            raise ValueError(
                f"{label}: row {number}: field 'extra_info.split' is {said!r}, but the file is to be prepared as "
                f"{split}; {remedy.format(split=said)}"
            )
        yield record
