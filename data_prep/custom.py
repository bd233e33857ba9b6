r"""Any data set: ``custom --name NAME`` finds the problem and the gold answer by the names of their fields.

A field of short answers comes before ``solution``, which counts by its last box, and a field of text before
``messages``; two fields of the same kind are asked about, in verl's layout if their values differ. The assistant's
message at the end of a chat is no part of the problem: it holds the answer where no field does.
"""

import argparse
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from data_prep.prompts import without_reply
from data_prep.records import ID_FIELDS, DataSet, Item, is_verl, present, read_item, some_answer
from data_prep.schema import RowError
from repo_verl.rewards.extract import MAX_ANSWER_CHARS, extract_boxed
from repo_verl.safe_text import shown

PROBLEMS = (("problem", "question", "query", "prompt"), ("messages",))
ANSWERS = (
    ("answer", "final_answer", "expected_answer", "gold", "ground_truth", "reward_model.ground_truth"),
    ("solution",),
)
"""Names in small letters, the preferred kind first."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_BOXES = re.compile(r"(?=\\(?:boxed|fbox)(?![A-Za-z]))")
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_TEST_SPLITS = ("test", "validation", "valid", "val", "dev", "eval")


def data_set(arguments: argparse.Namespace, taken: Collection[str]) -> DataSet:
    """The set that the flags of ``custom`` describe; ValueError naming a flag that cannot be, or a name taken."""
    name, hub = arguments.name, arguments.hub or ""
    if not _NAME.fullmatch(name):
        raise ValueError(f"--name {name}: want up to 64 letters, digits, - and _, as it names the files too")
    if name in taken:
        raise ValueError(f"--name {name}: is a known set; run `python -m data_prep {name}`, or pass another name")
    if hub and not _HUB.fullmatch(hub):
        raise ValueError(f"--hub {hub}: want OWNER/SET, as the hub names it; pass a file or a folder with --input")
    named = partial(read, problem_field=arguments.problem_field, answer_field=arguments.answer_field)
    hub_splits = {split_of(arguments) or "train": arguments.split or "train"}
    return DataSet(name, named, "train", hub, None, hub_splits, both_splits=True)


def split_of(arguments: argparse.Namespace) -> str | None:
    """Our split of the one that is asked for: ``test`` for names of test sets, else ``train``; None if none is.

    Without ``--split`` the hub's ``train`` is read, and a file's name counts.
    """
    if arguments.split is None:
        return "train" if arguments.hub else None
    return "test" if arguments.split.lower() in _TEST_SPLITS else "train"


def read(record: Mapping[str, Any], problem_field: str | None = None, answer_field: str | None = None) -> Item:
    """What a record says, in the fields that are named (a nested one by its path with dots) or found by their names.

    Raises: RowError if the problem or the answer is missing, empty or of another type; ValueError if two fields of
        the record could be one of them; in verl's layout, which is read as such, only if their values differ.
    """
    if problem_field is None and answer_field is None and is_verl(record):
        item = read_item(record)
        item = replace(item, answer=_final(item.answer, "reward_model.ground_truth", is_worked=False))
        _require_no_other(record, item)
        return item
    problem = problem_field or _found(record, PROBLEMS, "problem")
    chat, reply = without_reply(_at(record, problem))
    if answer_field is None and not _candidates(record, ANSWERS):
        record = {**record, **_columns(reply)}
    answer = answer_field or _found(record, ANSWERS, "answer")
    ids = {field: record[field] for field in ID_FIELDS if field in record}
    item = read_item({**ids, problem: chat, answer: _at(record, answer)}, (problem,), (answer,))
    is_worked = answer_field is None and answer.lower() in ANSWERS[1]
    return replace(item, answer=_final(item.answer, answer, is_worked))


def _require_no_other(record: Mapping[str, Any], item: Item) -> None:
    """ValueError if a record in verl's layout has another problem or answer beside verl's, with another value."""
    for kinds, what in ((PROBLEMS, "problem"), (ANSWERS, "answer")):
        found = _candidates(record, kinds)
        if len(found) > 1 and any(_differs(record, path, what, item) for path in found):
            raise ValueError(_ask(found, what))


def _differs(record: Mapping[str, Any], path: str, what: str, item: Item) -> bool:
    """Whether a field has a problem or an answer, and another than the item; one that cannot be read has none."""
    fields = {"problem_field": "prompt", "answer_field": "reward_model.ground_truth", f"{what}_field": path}
    try:
        other = read(record, **fields)
    except RowError:
        return False
    return (other.problem, other.answer) != (item.problem, item.answer)


def _candidates(record: Mapping[str, Any], kinds: Sequence[Sequence[str]]) -> list[str]:
    """The fields of the first kind of which there are any."""
    paths = [str(name) for name in record]
    for name in [name for name in paths if isinstance(record.get(name), Mapping)]:
        paths += [f"{name}.{inner}" for inner in record[name]]
    return next(filter(None, ([path for path in paths if path.lower() in kind] for kind in kinds)), [])


def _found(record: Mapping[str, Any], kinds: Sequence[Sequence[str]], what: str) -> str:
    found = _candidates(record, kinds)
    if len(found) > 1:
        raise ValueError(_ask(found, what))
    return found[0] if found else present(record, [name for kind in kinds for name in kind])


def _ask(found: Sequence[str], what: str) -> str:
    return (
        f"the records have the fields {' and '.join(found)}, each of which could be the {what}; pass one of them "
        f"with --{what}-field"
    )


def _at(record: Mapping[str, Any], path: str) -> Any:
    """The value of a field, or of a nested one."""
    if path in record:
        return record[path]
    value: Any = record
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return present(record, [path])
        value = value[name]
    return value


def _columns(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The assistant's message as fields: Open-Reasoner-Zero's has the gold answer, others a worked solution."""
    truth = reply.get("ground_truth")
    if truth is not None:
        return {"ground_truth": truth.get("value") if isinstance(truth, Mapping) else truth}
    return {"solution": reply.get("content", reply.get("value"))} if reply else {}


def _final(text: str, field: str, is_worked: bool) -> str:
    r"""The answer in a text: what is in its box, or behind ``####``; without these the text, if it is short.

    Of a solution's boxes the last counts, by the name of its field; any other field with two answers has none.
    """
    answer = extract_boxed(text, max_chars=len(text))
    if "solution" not in field.lower().rpartition(".")[2] and _has_several(text, answer):
        raise RowError(
            f"{field} has several answers",
            f"field {field!r} is {shown(text)}, want one box or one ####; the last box counts in a field whose name "
            "has 'solution' in it",
        )
    if answer is None:
        answer = text.rpartition("####")[2].strip()
        if is_worked and "####" not in text:
            raise RowError(
                f"no answer in a box in {field}",
                f"field {field!r} has no closed \\boxed{{}} with an answer; --answer-field {field} takes it whole",
            )
    if len(answer) > MAX_ANSWER_CHARS:
        raise RowError(f"{field} too long", f"field {field!r} has over {MAX_ANSWER_CHARS} characters, want the answer")
    return some_answer(answer, field)


def _has_several(text: str, answer: str | None) -> bool:
    """Whether a text has two boxes or ``####``, or one of each that differ; a box inside a box is the same one."""
    boxes = [box for box in _BOXES.split(text) if _BOXES.match(box) and extract_boxed(box, max_chars=len(box))]
    _, mark, behind = text.rpartition("####")
    is_other = bool(boxes and mark) and not _BOXES.search(behind) and behind.strip() != answer
    return len(boxes) > 1 or text.count("####") > 1 or is_other
