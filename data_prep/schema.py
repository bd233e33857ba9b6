"""verl's row: what ``verl.utils.dataset.RLHFDataset`` and verl's reward managers read. One chat, its data source, and
the gold answer.
"""

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import pyarrow as pa

from repo_verl.safe_text import shown

TEMPLATES = {
    "none": "{problem}",
    "boxed": "{problem}\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
    "think": (
        "{problem}\nFirst think about the problem inside <think> </think>, "
        "then put your final answer within \\boxed{{}}."
    ),
}
"""Prompt templates by name. ``none`` is the paper's: the bare question as one user message."""

_BLANK = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0\ufe0e\ufe0f")

_EXTRA = {"split": pa.string(), "index": pa.int64(), "id": pa.string(), "tolerance": pa.float64(), "unit": pa.string()}

SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "ability": pa.string(),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
        "extra_info": pa.struct(_EXTRA),
    }
)
"""The same for all data sets, so that verl can join their files."""


class ExtraInfo(TypedDict):
    """Where a row comes from, and how its answer is meant.

    ``index`` counts the records of the source before any is dropped; ``id`` is the source's own name of the record
    and "" if it has none; ``tolerance`` is how far a numeric answer may be off, None if nothing is said; ``unit`` is
    what the answer is measured in, "" if nothing.
    """

    split: str
    index: int
    id: str
    tolerance: float | None
    unit: str


class Row(TypedDict):
    """One row of a verl parquet file."""

    data_source: str
    prompt: list[dict[str, str]]
    ability: str
    reward_model: dict[str, str]
    extra_info: ExtraInfo


class RowError(ValueError):
    """A record that cannot become a row; ``reason`` is the short form that is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def is_blank(text: str) -> bool:
    """Whether there is nothing to see: blanks, control and zero-width characters, invisible letters, or nothing."""
    return all(unicodedata.category(c) in _BLANK or c in _BLANK_LETTERS for c in text)


def make_row(
    data_source: str,
    problem: str,
    answer: str,
    split: str,
    index: int,
    template: str,
    id: str = "",
    tolerance: float | None = None,
    unit: str = "",
) -> Row:
    """A row of a math data set, with the problem put into a template.

    Args:
        data_source: the name that metrics are grouped by.
        problem: the bare question.
        answer: the gold answer.
        split: ``train``, ``test`` or ``warmup``.
        index: number of the record in its source.
        template: a key of :data:`TEMPLATES`.
        id: the source's own name of the record.
        tolerance: how far a numeric answer may be off.
        unit: what the answer is measured in.

    Raises: ValueError if the template is unknown, naming the ones there are; RowError if the problem or the answer
        is blank, or a text cannot be written as UTF-8 (half of a surrogate pair, which JSON can spell).
    """
    if template not in TEMPLATES:
        raise ValueError(f"template={template!r} is unknown; use one of {', '.join(TEMPLATES)}")
    for name, text in (("problem", problem), ("answer", answer)):
        if is_blank(text):
            raise RowError(f"{name} empty", f"the {name} {shown(text)} is blank")
    for name, text in (("problem", problem), ("answer", answer), ("id", id), ("unit", unit)):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowError(f"{name} not UTF-8", f"the {name} {shown(text)} holds half of a surrogate pair") from error
    return Row(
        data_source=data_source,
        prompt=[{"role": "user", "content": TEMPLATES[template].format(problem=problem)}],
        ability="math",
        reward_model={"style": "rule", "ground_truth": answer},
        extra_info=ExtraInfo(split=split, index=index, id=id, tolerance=tolerance, unit=unit),
    )


def validate_row(row: Mapping[str, Any], file: str, number: int) -> None:
    """Checks that a row is one of verl's, as this package writes them.

    Raises: ValueError naming the file, the number of the row in it and the field of the first thing wrong.
    """
    for field, wanted, is_right in _RULES:
        value: Any = row
        for name in field.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if not is_right(value):
            raise ValueError(f"{file}: row {number}: field {field!r} is {shown(value)}, want {wanted}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not is_blank(value)


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    is_whole = isinstance(value, Mapping) and set(value) == {"role", "content"}
    return is_whole and value["role"] in ("system", "user", "assistant") and _is_text(value["content"])


_RULES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("data_source", "text", _is_text),
    ("ability", "text", _is_text),
    ("prompt", "a list of messages of role (system, user, assistant) and content", _is_chat),
    ("reward_model.style", "'rule'", lambda value: value == "rule"),
    ("reward_model.ground_truth", "text", _is_text),
    ("extra_info.index", "a number of 0 or more", lambda value: isinstance(value, int) and value >= 0),
    ("extra_info.split", "train, test or warmup", lambda value: value in ("train", "test", "warmup")),
    ("extra_info.id", "text", lambda value: isinstance(value, str)),
    ("extra_info.unit", "text", lambda value: isinstance(value, str)),
    (
        "extra_info.tolerance",
        "a number above 0 or null",
        lambda value: value is None or (isinstance(value, float) and value > 0),
    ),
)
