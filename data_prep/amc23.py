"""AMC 2023: 40 problems with whole-number answers, which the sources write as ``27.0``; here they are ``27``."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from data_prep.records import DataSet, Item, read_item

_WHOLE = re.compile(r"(-?\d+)\.0+")


def read(record: Mapping[str, Any]) -> Item:
    """What a record says; RowError if the problem or the answer is missing or empty."""
    item = read_item(record)
    whole = _WHOLE.fullmatch(item.answer)
    return replace(item, answer=whole.group(1)) if whole else item


SET = DataSet("amc23", read, "test", "math-ai/amc23", hub_splits={"test": "test"}, test_rows=40)
