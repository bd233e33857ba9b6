"""OlympiadBench: 675 open-ended olympiad problems in English, text only.

The prompt is ``question`` (the authors' script put the reference solution there). The gold answer is the one text in
``final_answer``: without its dollars if the whole is one formula; several answers stay joined by commas.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from data_prep.records import DataSet, Item, read_item, tolerance_of, unit_of

_FORMULA = re.compile(r"\$([^$]+)\$")


def read(record: Mapping[str, Any]) -> Item:
    """What a record says, ``error`` as tolerance and ``unit`` with it.

    Raises: RowError if the question or the answer is missing or empty, ``final_answer`` has more than one text, or
        ``error`` is no number.
    """
    item = read_item(record, ("question", "prompt"), ("final_answer",))
    formula = _FORMULA.fullmatch(item.answer)
    answer = formula.group(1).strip() if formula else item.answer
    if "reward_model" in record:
        return replace(item, answer=answer)
    return replace(item, answer=answer, tolerance=tolerance_of(record, "error"), unit=unit_of(record))


SET = DataSet(
    "olympiadbench", read, "test", "zwhe99/simplerl-OlympiadBench", hub_splits={"test": "test"}, test_rows=675
)
