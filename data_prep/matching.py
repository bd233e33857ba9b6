r"""When two problems count as the same, and which benchmark problems there are.

Repeats inside a set are compared with their blanks made equal and nothing else: the loose form takes
"Compute $\sin 225^\circ$." and "Compute $\tan 225^\circ$." for one problem (of the 19 loose repeats in DeepMath's
sample, 4 are exact). Against benchmarks the loose form is right, where dropping one problem too many costs less than
training on a test problem.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.reading import read_records, sha256
from data_prep.schema import RowError
from data_prep.shapes import extra_info, read_item

MIN_LOOSE = 8
"""Shorter loose forms say too little ("find" is all that is left of some problems)."""

_COMMAND = re.compile(r"\\[A-Za-z]+")


def exact_form(problem: str) -> str:
    """The problem with every run of blanks made one space, none at its ends.

    Args:
        problem: a bare problem.
    """
    return " ".join(problem.split())


def loose_form(problem: str) -> str:
    r"""Letters and digits of any script only, their case and width aside, after deleting TeX commands; the exact form
    if that leaves fewer than 8.

    Args:
        problem: a bare problem.

    Example:
        >>> loose_form(r"What is $\frac{1}{2}$ of 10?"), loose_form(r"Find $\sec 120^\circ.$")
        ('whatis12of10', 'Find $\\sec 120^\\circ.$')
    """
    folded = unicodedata.normalize("NFKC", _COMMAND.sub("", problem)).casefold()
    loose = "".join(filter(str.isalnum, folded))
    return loose if len(loose) >= MIN_LOOSE else exact_form(problem)


def digest(form: str) -> bytes:
    """16 bytes that stand for a form; they keep a million problems in 100 MB.

    Args:
        form: of a problem.
    """
    return hashlib.blake2b(form.encode("utf-8"), digest_size=16).digest()


@dataclass(frozen=True)
class Benchmarks:
    """The problems of a folder of verl parquet files.

    Attributes:
        problems: loose form to the rows that have it, each by ``data_source`` and ``index``.
        files: by file name its SHA-256, and how many rows count and how many do not.
    """

    problems: dict[str, list[dict[str, Any]]]
    files: dict[str, dict[str, Any]]

    def matches(self, problem: str) -> list[dict[str, Any]]:
        """The benchmark rows that a problem repeats.

        Args:
            problem: a bare problem.
        """
        return self.problems.get(loose_form(problem), [])


def read_benchmarks(folder: Path) -> Benchmarks:
    """The problems of all verl parquet files in a folder; rows whose split is ``train`` or ``warmup`` do not count.

    Args:
        folder: as ``python -m data_prep benchmarks`` writes it.

    Raises: ValueError naming the folder if it has no parquet file, a file without a row that counts, or file and row
        of one that is not verl's.
    """
    problems: dict[str, list[dict[str, Any]]] = {}
    files = {}
    for path in sorted(folder.glob("*.parquet")):
        used = skipped = 0
        for number, record in enumerate(read_records([path])):
            try:
                extra = extra_info(record)
                if extra.get("split") in ("train", "warmup"):
                    skipped += 1
                    continue
                item = read_item(record, ("prompt",), ("reward_model",))
            except RowError as error:
                raise ValueError(f"{path}: row {number}: {error}; want verl's columns") from error
            place = {"data_source": record.get("data_source", path.stem), "index": extra.get("index", number)}
            problems.setdefault(loose_form(item.problem), []).append(place)
            used += 1
        if not used:
            raise ValueError(
                f"{path}: no benchmark rows ({skipped} of the split train or warmup); take it out of the folder of "
                "--decontaminate, or prepare it as test"
            )
        files[path.name] = {"sha256": sha256(path), "rows_used": used, "rows_skipped": skipped}
    if not files:
        raise ValueError(
            f"{folder}: no benchmark files (*.parquet); make them with `python -m data_prep benchmarks --output DIR`"
        )
    return Benchmarks(problems, files)
