r"""MATH (Hendrycks et al.): competition problems, for training; on the command line ``math``.

The hub's records and Minerva's have no answer field: the gold answer is the last ``\boxed{}`` of ``solution``. rllm's
``math.json`` and the DeepScaleR subset of One-Shot-RLVR have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_prep.dataset import DataSet
from data_prep.shapes import Item, read_item


def read(record: Mapping[str, Any]) -> Item:
    """What a record says.

    Args:
        record: a record of the source.

    Raises: RowError if the problem or the answer is missing or empty, or the solution has no box.
    """
    return read_item(record, solution_field="solution")


SET = DataSet(
    "math",
    read,
    default_split="train",
    hub_name="DigitalLearningGmbH/MATH-lighteval",
    hub_splits={"train": "train", "test": "test"},
    hub_default=("train",),
)
to_row = SET.to_row
