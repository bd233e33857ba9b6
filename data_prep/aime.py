r"""AIME 2024 and 2025: 30 problems each.

Answers that are text keep their leading zeros (``025``), and stay as they are written (one copy has ``336^\circ``).
"""

from data_prep.records import DataSet, read_item

AIME24 = DataSet("aime24", read_item, "test", "HuggingFaceH4/aime_2024", hub_splits={"test": "train"}, test_rows=30)
AIME25 = DataSet("aime25", read_item, "test", "math-ai/aime25", hub_splits={"test": "test"}, test_rows=30)
