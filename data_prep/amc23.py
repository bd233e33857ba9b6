"""AMC 2023: 40 problems with whole-number answers, which the sources write as ``27.0``; here they are ``27``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from data_prep.dataset import DataSet
from data_prep.shapes import Item, read_item

_WHOLE = re.compile(r"(-?\d+)\.0+")


def read(record: Mapping[str, Any]) -> Item:
    """What a record says.

    Args:
        record: a record of the source.

    Raises: RowError if the problem or the answer is missing or empty.
    """
    item = read_item(record)
    whole = _WHOLE.fullmatch(item.answer)
    return replace(item, answer=whole.group(1)) if whole else item


SET = DataSet(
    "amc23",
    read,
    default_split="test",
    hub_name="math-ai/amc23",
    hub_splits={"test": "test"},
    hub_default=("test",),
    test_rows=40,
)
to_row = SET.to_row
