"""GSM8K: grade-school word problems, a training and a test split.

The answer is the number after ``####``; it keeps its thousands commas, which the grader reads. DeepSeek-Math's copy
holds the number alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from data_prep.dataset import DataSet
from data_prep.schema import RowError
from data_prep.shapes import Item, answer_field, read_item

_NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?")


def read(record: Mapping[str, Any]) -> Item:
    """What a record says.

    Args:
        record: a record of the source.

    Raises: RowError if the question or the answer is missing or empty, or the answer does not end in a number.
    """
    item = read_item(record)
    answer = item.answer.rpartition("####")[2].strip()
    if not _NUMBER.fullmatch(answer):
        raise RowError(
            "no number after ####",
            f"field {answer_field(record)!r} ends in {answer[-80:]!r}, want '#### ' and a number alone",
        )
    return replace(item, answer=answer)


SET = DataSet(
    "gsm8k",
    read,
    default_split="test",
    hub_name="openai/gsm8k",
    hub_config="main",
    hub_splits={"train": "train", "test": "test"},
    hub_default=("train", "test"),
    test_rows=1319,
)
to_row = SET.to_row
