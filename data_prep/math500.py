"""MATH-500: OpenAI's 500 test problems of MATH. Gold is ``answer``."""

from __future__ import annotations

from data_prep.dataset import DataSet
from data_prep.shapes import read_item

SET = DataSet(
    "math500",
    read_item,
    default_split="test",
    hub_name="HuggingFaceH4/MATH-500",
    hub_splits={"test": "test"},
    hub_default=("test",),
    test_rows=500,
)
to_row = SET.to_row
