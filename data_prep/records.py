r"""Data sets, and what one record of them says, in any of the shapes that math data sets are published in.

A record holds a problem (text, or a chat as in verl's and Open-Reasoner-Zero's files) and a gold answer (text, a
number, a list of one, such a list as JSON text, or the last ``\boxed{}`` of a worked solution).
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.prompts import bare, json_list, parsed_chat, user_message
from data_prep.schema import Row, RowError, is_blank, make_row
from repo_verl.rewards.extract import extract_boxed
from repo_verl.safe_text import shown

PROBLEM_FIELDS = ("problem", "question", "prompt")
ANSWER_FIELDS = ("answer", "final_answer", "ground_truth")
ID_FIELDS = ("unique_id", "id", "idx", "url")

_NO_ANSWERS = ("n/a", "n.a", "nan", "no answer", "not found", "notfound", "null", "proof", "unknown")
_WORDS = re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}")


@dataclass(frozen=True)
class Item:
    """What a record says, before any template; for the other fields see :class:`data_prep.schema.ExtraInfo`.

    ``instruction_removed`` is True if the source's prompt held an instruction or a system message, now gone.
    """

    problem: str
    answer: str
    id: str = ""
    tolerance: float | None = None
    unit: str = ""
    instruction_removed: bool = False

    def to_row(self, data_source: str, index: int, split: str, template: str) -> Row:
        """The record as verl's row; see :func:`data_prep.schema.make_row`."""
        return make_row(
            data_source, self.problem, self.answer, split, index, template, self.id, self.tolerance, self.unit
        )


@dataclass(frozen=True)
class DataSet:
    """A data set: a name, a place on the hub, and a way to read one record.

    Attributes:
        name: on the command line, in file names, and every row's ``data_source``.
        read: what a record says; pure, raises :class:`data_prep.schema.RowError`.
        default_split: the split of a local file if none is said.
        hub_name: ``owner/set`` on the hub, "" if it is not there.
        hub_config: the hub set's configuration; None for its only one.
        hub_splits: our split to the hub's.
        both_splits: whether both splits are read from the hub if none is said, and the name of a local file may say
            which one it is; else only the default split is.
        test_rows: records of the paper's test set; None if it is none.
    """

    name: str
    read: Callable[[Mapping[str, Any]], Item]
    default_split: str
    hub_name: str = ""
    hub_config: str | None = None
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    both_splits: bool = False
    test_rows: int | None = None


def read_item(
    record: Mapping[str, Any],
    problem_fields: Sequence[str] = PROBLEM_FIELDS,
    answer_fields: Sequence[str] = ANSWER_FIELDS,
    solution_field: str | None = None,
) -> Item:
    r"""What a record says, whichever of the known shapes it has; one with ``prompt`` and ``reward_model`` is verl's.

    Of the names of a field the first that is there counts, even if its value is empty. Where there is no answer field,
    the answer is the last ``\boxed{}`` of the solution field.

    Raises: RowError if the problem or the answer is missing, empty or of another type.
    """
    if is_verl(record):
        problem, removed = _problem(record, "prompt")
        answer = answer_text(record["reward_model"].get("ground_truth"), "reward_model.ground_truth")
        extra = extra_info(record)
        return Item(problem, answer, _id(extra), tolerance_of(extra, "tolerance"), unit_of(extra), removed)
    problem, removed = _problem(record, present(record, problem_fields))
    if solution_field is None or any(field in record for field in answer_fields):
        field = present(record, answer_fields)
        answer = answer_text(record[field], field)
    else:
        field = present(record, (*answer_fields, solution_field))
        answer = boxed(record[field], field)
    return Item(problem, answer, id=_id(record), instruction_removed=removed)


def is_verl(record: Mapping[str, Any]) -> bool:
    """Whether a record has verl's fields."""
    return "prompt" in record and isinstance(record.get("reward_model"), Mapping)


def extra_info(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ``extra_info`` of one of verl's records, empty if it is missing or null; RowError if it is no mapping."""
    extra = record.get("extra_info")
    if extra is not None and not isinstance(extra, Mapping):
        raise RowError("extra_info no mapping", f"field 'extra_info' is {shown(extra)}, want a mapping or null")
    return extra or {}


def present(record: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The first of some fields that a record has; RowError naming those that are there instead if it has none."""
    found = next((name for name in fields if name in record), None)
    if found is not None:
        return found
    names, there = " or ".join(fields), ", ".join([str(name)[:40] for name in record][:20])
    more = ", ..." if len(record) > 20 else ""
    raise RowError(f"{names} missing", f"field {names} is missing (there are: {there}{more})")


def answer_text(value: Any, field: str) -> str:
    """An answer as text without outer spaces; a whole number loses its ``.0``, a list of one its brackets.

    Raises: RowError naming the field if it is empty, null, a longer list, not finite, of another type or says that
        there is none.

    Example:
        >>> answer_text(27.0, "answer"), answer_text(["025 "], "answer"), answer_text('["5"]', "answer")
        ('27', '025', '5')
    """
    texts = json_list(value)  # as Skywork-OR1 writes its gold answers
    if texts is not None and all(isinstance(text, str) for text in texts):
        value = texts
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if _is_empty(value):
        raise RowError(f"{field} empty", f"field {field!r} is {shown(value)}, want an answer")
    if isinstance(value, str):
        return some_answer(value.strip(), field)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        return str(int(value)) if value == int(value) else repr(value)
    raise RowError(f"{field} no text", f"field {field!r} is {shown(value)}, want a text, a number or a list of one")


def some_answer(text: str, field: str) -> str:
    r"""An answer, unchanged; RowError if it says that there is none, as ``N/A`` and ``\text{Proof}.`` do.

    ``Na`` is sodium, and ``none`` the answer to some questions.
    """
    words = " ".join(_WORDS.sub(r"\1", text.replace("$", "")).split()).rstrip(" .")
    if words in ("na", "NA") or words.casefold() in _NO_ANSWERS:
        raise RowError(f"{field} says that there is none", f"field {field!r} is {shown(text)}, want an answer")
    return text


def boxed(value: Any, field: str) -> str:
    r"""The last ``\boxed{}`` of a solution; RowError if it is missing, open, empty or says that there is none."""
    solution = answer_text(value, field)
    answer = extract_boxed(solution, max_chars=len(solution))
    if not answer or is_blank(answer):
        raise RowError(f"no answer in a box in {field}", f"field {field!r} has no closed \\boxed{{}} with an answer")
    return some_answer(answer, field)


def tolerance_of(record: Mapping[str, Any], field: str) -> float | None:
    """How far a numeric answer may be off, None if that is missing, null or blank; RowError if no number above 0."""
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
    """The field ``unit`` as text, "" if it is missing or null."""
    return "" if record.get("unit") is None else str(record["unit"]).strip()


def _is_empty(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and is_blank(value))


def _problem(record: Mapping[str, Any], field: str) -> tuple[str, bool]:
    value, removed = parsed_chat(record[field]), False
    if isinstance(value, list) and value:
        value, removed = user_message(value, field)
    if _is_empty(value):
        raise RowError(f"{field} empty", f"field {field!r} is {shown(value)}, want a problem")
    if not isinstance(value, str):
        raise RowError(f"{field} no text", f"field {field!r} is {shown(value)}, want text or a chat")
    problem, shortened = bare(value)
    if is_blank(problem):
        raise RowError(f"{field} empty", f"field {field!r} holds only an instruction, want a problem")
    return problem, removed or shortened


def _id(record: Mapping[str, Any]) -> str:
    return next((str(record[field]) for field in ID_FIELDS if record.get(field) not in (None, "")), "")
