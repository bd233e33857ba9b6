r"""Reading one record in any of the shapes that math data sets are published in.

A record holds a problem (text, or a chat as in verl's and Open-Reasoner-Zero's files) and a gold answer (text, a
number, a list of one, such a list as JSON text, or the last ``\boxed{}`` of a worked solution).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.chats import parsed_chat, user_message
from data_prep.instructions import bare
from data_prep.schema import RowError, is_blank, says_none
from repo_verl.rewards.extract import extract_boxed
from repo_verl.safe_text import shown

PROBLEM_FIELDS = ("problem", "question", "prompt")
ANSWER_FIELDS = ("answer", "final_answer", "ground_truth")
ID_FIELDS = ("unique_id", "id", "idx", "url")


@dataclass(frozen=True)
class Item:
    """What a record says, before any template.

    Attributes:
        problem: the bare question.
        answer: the gold answer.
        id: the source's own name of the record, "" if it has none.
        tolerance: how far a numeric answer may be off; None if nothing is said.
        unit: what the answer is measured in; "" if nothing.
        instruction_removed: whether the source's prompt held an instruction or a system message, now gone.
    """

    problem: str
    answer: str
    id: str = ""
    tolerance: float | None = None
    unit: str = ""
    instruction_removed: bool = False


def read_item(
    record: Mapping[str, Any],
    problem_fields: Sequence[str] = PROBLEM_FIELDS,
    answer_fields: Sequence[str] = ANSWER_FIELDS,
    solution_field: str | None = None,
) -> Item:
    r"""What a record says, whichever of the known shapes it has.

    Args:
        record: a record of the source; one with ``prompt`` and ``reward_model`` is read as verl's.
        problem_fields: names of the problem's field; the first that is there counts.
        answer_fields: names of the answer's field; the first that is there counts, even if it is empty.
        solution_field: a worked solution whose last ``\boxed{}`` is the answer if there is no answer field.

    Raises: RowError if the problem or the answer is missing, empty or of another type.
    """
    if is_verl(record):
        return _verl_item(record)
    problem, removed = _problem(record, present(record, problem_fields))
    if solution_field is None or any(field in record for field in answer_fields):
        field = present(record, answer_fields)
        answer = answer_text(record[field], field)
    else:
        answer = boxed(record, present(record, (*answer_fields, solution_field)))
    return Item(problem, answer, id=_id(record), instruction_removed=removed)


def is_verl(record: Mapping[str, Any]) -> bool:
    """Whether a record has verl's fields.

    Args:
        record: a record of the source.
    """
    return "prompt" in record and isinstance(record.get("reward_model"), Mapping)


def _verl_item(record: Mapping[str, Any]) -> Item:
    problem, removed = _problem(record, "prompt")
    answer = answer_text(record["reward_model"].get("ground_truth"), "reward_model.ground_truth")
    extra = extra_info(record)
    return Item(problem, answer, _id(extra), tolerance_of(extra, "tolerance"), unit_of(extra), removed)


def extra_info(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ``extra_info`` of one of verl's records; empty if it is missing or null.

    Args:
        record: a record of the source.

    Raises: RowError if it is no mapping.
    """
    extra = record.get("extra_info")
    if extra is not None and not isinstance(extra, Mapping):
        raise RowError("extra_info no mapping", f"field 'extra_info' is {shown(extra)}, want a mapping or null")
    return extra or {}


def answer_field(record: Mapping[str, Any]) -> str:
    """The name of the field that :func:`read_item` takes the answer from, for messages.

    Args:
        record: a record that has one.
    """
    if is_verl(record):
        return "reward_model.ground_truth"
    return present(record, ANSWER_FIELDS)


def present(record: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The first of some fields that a record has.

    Args:
        record: a record of the source.
        fields: names, the preferred one first.

    Raises: RowError naming the fields, and those that are there instead.
    """
    for field in fields:
        if field in record:
            return field
    names = " or ".join(fields)
    raise RowError(f"{names} missing", f"field {names} is missing (there are: {_listed(record)})")


def answer_text(value: Any, field: str) -> str:
    """An answer as text without outer spaces; a whole number loses its ``.0``, a list of one its brackets.

    Args:
        value: text, a number, a list that holds one of these, or a list of texts as JSON.
        field: its name, for messages.

    Raises: RowError if it is empty, null, a longer list, not finite, of another type or says that there is none.

    Example:
        >>> answer_text(27.0, "answer"), answer_text(["025 "], "answer"), answer_text('["5"]', "answer")
        ('27', '025', '5')
    """
    value = _parsed_texts(value)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or value == [] or (isinstance(value, str) and is_blank(value)):
        raise RowError(f"{field} empty", f"field {field!r} is {shown(value)}, want an answer")
    if isinstance(value, str):
        return some_answer(value.strip(), field)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        return str(int(value)) if value == int(value) else repr(value)
    raise RowError(f"{field} no text", f"field {field!r} is {shown(value)}, want a text, a number or a list of one")


def some_answer(text: str, field: str) -> str:
    """An answer, unchanged.

    Args:
        text: the answer.
        field: where it was found, for messages.

    Raises: RowError if it says that there is none, as ``N/A`` does.
    """
    if says_none(text):
        raise RowError(f"{field} says that there is none", f"field {field!r} is {shown(text)}, want an answer")
    return text


def _parsed_texts(value: Any) -> Any:
    """The list of texts that a text spells as JSON, as Skywork-OR1's gold answers do; anything else unchanged."""
    if not (isinstance(value, str) and value.lstrip().startswith("[")):
        return value
    try:
        texts = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return texts if all(isinstance(text, str) for text in texts) else value


def boxed(record: Mapping[str, Any], field: str) -> str:
    r"""The last ``\boxed{}`` of a worked solution.

    Args:
        record: a record of the source.
        field: the solution's name.

    Raises: RowError if the solution is missing or empty or its last box is missing, open, empty or says
        that there is no answer.
    """
    solution = answer_text(record[present(record, (field,))], field)
    answer = extract_boxed(solution, max_chars=len(solution))
    if not answer or is_blank(answer):
        raise RowError(f"no answer in a box in {field}", f"field {field!r} has no closed \\boxed{{}} with an answer")
    return some_answer(answer, field)


def tolerance_of(record: Mapping[str, Any], field: str) -> float | None:
    """How far a numeric answer may be off; None if the field is missing, null or blank.

    Args:
        record: a record of the source.
        field: a number, or text that is one (``1e-1``).

    Raises: RowError if it is no number above 0.
    """
    value = record.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        tolerance = float(value)
    except (TypeError, ValueError, OverflowError):
        tolerance = math.nan
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise RowError(f"{field} no number", f"field {field!r} is {shown(value)}, want a number above 0 or null")
    return tolerance


def unit_of(record: Mapping[str, Any]) -> str:
    """The field ``unit`` as text, "" if it is missing or null.

    Args:
        record: a record of the source.
    """
    value = record.get("unit")
    return "" if value is None else str(value).strip()


def _problem(record: Mapping[str, Any], field: str) -> tuple[str, bool]:
    value, removed = parsed_chat(record[field]), False
    if isinstance(value, list) and value:
        value, removed = user_message(value, field)
    if value is None or value == [] or (isinstance(value, str) and is_blank(value)):
        raise RowError(f"{field} empty", f"field {field!r} is {shown(value)}, want a problem")
    if not isinstance(value, str):
        raise RowError(f"{field} no text", f"field {field!r} is {shown(value)}, want text or a chat")
    problem, shortened = bare(value)
    if is_blank(problem):
        raise RowError(f"{field} empty", f"field {field!r} holds an instruction alone, want a problem")
    return problem, removed or shortened


def _id(record: Mapping[str, Any]) -> str:
    return next((str(record[field]) for field in ID_FIELDS if record.get(field) not in (None, "")), "")


def _listed(record: Mapping[str, Any]) -> str:
    names = [str(name)[:40] for name in record]
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
