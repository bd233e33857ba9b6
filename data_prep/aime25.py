r"""AIME 2025: 30 problems. Answers stay as they are written (one copy has ``336^\circ``)."""

from __future__ import annotations

from data_prep.dataset import DataSet
from data_prep.shapes import read_item

SET = DataSet(
    "aime25",
    read_item,
    default_split="test",
    hub_name="math-ai/aime25",
    hub_splits={"test": "test"},
    hub_default=("test",),
    test_rows=30,
)
to_row = SET.to_row
