"""AIME 2024: 30 problems. Answers that are text keep their leading zeros (``025``)."""

from __future__ import annotations

from data_prep.dataset import DataSet
from data_prep.shapes import read_item

SET = DataSet(
    "aime24",
    read_item,
    default_split="test",
    hub_name="HuggingFaceH4/aime_2024",
    hub_splits={"test": "train"},
    hub_default=("test",),
    test_rows=30,
)
to_row = SET.to_row
