r"""Cases of the answer grader, from ``tests/data``.

``hostile.json``: completions meant to hang, crash, exhaust or mislead a grader, and honest rows to grade beside them.
Names read family/case. No hostile completion is right. Nothing in it does harm: what pretends to run code touches
``MARKER``, so that a test sees whether anything was run. A long completion is stored in parts, see :func:`completion`.

``equivalence.json`` and ``equivalence_kinds.json``: pairs of a gold and an answer with the verdict that a mathematician
would give, by kind, equal spellings and near misses. Pairs that only a convention could decide are left out: a doubled
element of a set, x>3 against (3,\infty), a column vector against a tuple, 500 cm against 5 m, a tolerance on lists. The
first file was written without a look at the grader, the second with its rules in view, from what outside cases found.
"""

import json
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).resolve().parents[1] / "data"
MARKER = Path("/tmp/repo_verl_pwned")


class Pair(NamedTuple):
    r"""A gold as a data set stores it, an answer as it stands inside ``\boxed{}``, and whether they are equal."""

    kind: str
    equal: bool
    gold: str
    answer: str
    tolerance: float | None = None


def pairs(name):
    """The pairs of ``tests/data/{name}.json``."""
    kinds = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return [Pair(kind, *row) for kind, rows in kinds.items() for row in rows]


def completion(parts):
    """Parts, joined: a text, ``[text, times]``, or ``[text, times, [[start, step], ...]]``, a number for each ``#``."""
    made = ""
    for part in parts:
        text, times, *series = [part, 1] if isinstance(part, str) else part
        if series:
            template = text.replace("{", "{{").replace("}", "}}").replace("#", "{}")
            made += "".join(template.format(*(a + n * step for a, step in series[0])) for n in range(times))
        else:
            made += text * times
    return made


def hostile_completions():
    """Triples (name, completion, gold)."""
    return [(name, completion(parts), gold) for name, gold, *parts in _grading_file()["hostile"]]


def honest_rows():
    """Triples (completion, gold, right), half of them right, that need algebra rather than a comparison of text."""
    return [tuple(row) for row in _grading_file()["honest"]]


def _grading_file():
    return json.loads((DATA / "hostile.json").read_text(encoding="utf-8"))
