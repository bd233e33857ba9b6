r"""MATH (Hendrycks et al.): competition problems, for training (``math``), and OpenAI's 500 test problems of it.

The hub's records of MATH and Minerva's have no answer field: the gold answer is the last ``\boxed{}`` of ``solution``.
rllm's ``math.json``, the DeepScaleR subset of One-Shot-RLVR and MATH-500 have one.
"""

from collections.abc import Mapping
from typing import Any

from data_prep.records import DataSet, Item, read_item


def read(record: Mapping[str, Any]) -> Item:
    """What a record says; RowError if problem or answer is missing or empty, or the solution has no box."""
    return read_item(record, solution_field="solution")


MATH = DataSet(
    "math", read, "train", "DigitalLearningGmbH/MATH-lighteval", hub_splits={"train": "train", "test": "test"}
)
MATH500 = DataSet("math500", read_item, "test", "HuggingFaceH4/MATH-500", hub_splits={"test": "test"}, test_rows=500)
