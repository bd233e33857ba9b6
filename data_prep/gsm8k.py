"""GSM8K: grade-school word problems, a training and a test split.

The answer is the number after ``####``; it keeps its thousands commas, which the grader reads. DeepSeek-Math's copy
holds only the number.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from data_prep.records import DataSet, Item, answer_field, read_item
from data_prep.schema import RowError

_NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?")


def read(record: Mapping[str, Any]) -> Item:
    """What a record says; RowError if the question is missing or empty, or the answer does not end in a number."""
    item = read_item(record)
    answer = item.answer.rpartition("####")[2].strip()
    if not _NUMBER.fullmatch(answer):
        raise RowError(
            "no number after ####",
            f"field {answer_field(record)!r} ends in {answer[-80:]!r}, want '#### ' and only a number",
        )
    return replace(item, answer=answer)


SET = DataSet(
    "gsm8k",
    read,
    "test",
    "openai/gsm8k",
    "main",
    hub_splits={"train": "train", "test": "test"},
    both_splits=True,
    test_rows=1319,
)
