r"""DeepMath-103K: problems with a verifiable answer, the paper's training set.

Two shapes are read besides verl's: the hub's (``question``, ``final_answer``, ``r1_solution_1`` to ``_3``) and ROLL's
sample of it (``prompt``, ``ground_truth``). The gold answer is ``final_answer``; the authors took it from the first
R1 solution, which :data:`R1_SET` does.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from data_prep.records import DataSet, Item, boxed, present, read_item

_PROBLEM_FIELDS = ("question", "prompt")
_R1_FIELD = "r1_solution_1"


def read(record: Mapping[str, Any]) -> Item:
    """What a record says, with ``final_answer`` as gold; RowError if problem or answer is missing or empty."""
    return read_item(record, _PROBLEM_FIELDS, ("final_answer", "ground_truth"))


def read_r1(record: Mapping[str, Any]) -> Item:
    r"""What a record says, with the last ``\boxed{}`` of the first R1 solution as gold; RowError without a box."""
    answer = boxed(record, present(record, (_R1_FIELD,)))
    return replace(read_item({**record, _R1_FIELD: answer}, _PROBLEM_FIELDS, (_R1_FIELD,)), answer=answer)


SET = DataSet("deepmath", read, "train", "zwhe99/DeepMath-103K", hub_splits={"train": "train"})
R1_SET = replace(SET, read=read_r1)
