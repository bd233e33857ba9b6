"""DeepMath-103K: problems with a verifiable answer, the paper's training set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_prep.schema import Row, RowError, make_row, text_field

HUB_NAME = "zwhe99/DeepMath-103K"
DATA_SOURCE = "deepmath"

_PROBLEM_FIELDS = ("question", "prompt")
_ANSWER_FIELDS = ("final_answer", "ground_truth")


def to_row(record: Mapping[str, Any], index: int, split: str, template: str) -> Row:
    """One record as verl's row.

    Two shapes are read: the hub's (``question``, ``final_answer``) and ROLL's sample of it (``prompt``,
    ``ground_truth``).

    Args:
        record: a record of the source.
        index: its number there, from 0.
        split: ``train`` or ``test``.
        template: a key of ``data_prep.schema.TEMPLATES``.

    Returns: the row. The gold answer is ``final_answer``; the authors took it from the first R1 solution.

    Raises: RowError if the problem or the answer is missing or empty.
    """
    problem = text_field(record, _present(record, _PROBLEM_FIELDS))
    answer = text_field(record, _present(record, _ANSWER_FIELDS))
    return make_row(DATA_SOURCE, problem, answer.strip(), split, index, template)


def _present(record: Mapping[str, Any], fields: tuple[str, ...]) -> str:
    for field in fields:
        if field in record:
            return field
    names = " or ".join(fields)
    raise RowError(f"{names} missing", f"field {names} is missing (there are: {', '.join(record)})")
