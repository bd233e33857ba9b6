r"""The known data sets: how a record of each is read, where the hub has it, and how many problems the paper's test has.

Unless a function here says otherwise, a record is read by :func:`data_prep.records.read_item`. AIME's answers that are
text stay as they are written: with leading zeros (``025``), and in one copy as ``336^\circ``.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from data_prep.records import ANSWER_FIELDS, DataSet, Item, boxed, is_verl, present, read_item, tolerance_of, unit_of
from data_prep.schema import RowError

_NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?")
_WHOLE = re.compile(r"(-?\d+)\.0+")
_FORMULA = re.compile(r"\$([^$]+)\$")

_DEEPMATH_PROBLEMS = ("question", "prompt")
_R1_FIELD = "r1_solution_1"
_TRAIN = {"train": "train"}
_TEST = {"test": "test"}
_BOTH = _TRAIN | _TEST


def read_deepmath(record: Mapping[str, Any]) -> Item:
    """A problem of the hub's set (``question``, ``final_answer``) or ROLL's sample (``prompt``, ``ground_truth``)."""
    return read_item(record, _DEEPMATH_PROBLEMS, ("final_answer", "ground_truth"))


def read_deepmath_r1(record: Mapping[str, Any]) -> Item:
    r"""A problem with the last ``\boxed{}`` of the first R1 solution as gold, as the authors took it."""
    answer = boxed(record[present(record, (_R1_FIELD,))], _R1_FIELD)
    return replace(read_item({**record, _R1_FIELD: answer}, _DEEPMATH_PROBLEMS, (_R1_FIELD,)), answer=answer)


def read_gsm8k(record: Mapping[str, Any]) -> Item:
    """A word problem with the number after ``####``, or the only one (DeepSeek-Math's copy), thousands commas kept."""
    item = read_item(record)
    answer = item.answer.rpartition("####")[2].strip()
    if not _NUMBER.fullmatch(answer):
        field = "reward_model.ground_truth" if is_verl(record) else present(record, ANSWER_FIELDS)
        raise RowError(
            "no number after ####",
            f"field {field!r} ends in {answer[-80:]!r}, want '#### ' and only a number",
        )
    return replace(item, answer=answer)


def read_math(record: Mapping[str, Any]) -> Item:
    r"""A problem of MATH or Minerva; without an answer field, as on the hub, the last ``\boxed{}`` of ``solution``."""
    return read_item(record, solution_field="solution")


def read_amc(record: Mapping[str, Any]) -> Item:
    """A problem with a whole number, which the sources write as ``27.0``; here it is ``27``."""
    item = read_item(record)
    whole = _WHOLE.fullmatch(item.answer)
    return replace(item, answer=whole.group(1)) if whole else item


def read_olympiad(record: Mapping[str, Any]) -> Item:
    """A problem with ``error`` as tolerance and ``unit``; its answer is the one text in ``final_answer``.

    The prompt is ``question`` (the authors' script put the reference solution there). The answer loses its dollars if
    the whole is one formula; several answers stay joined by commas.
    """
    item = read_item(record, ("question", "prompt"), ("final_answer",))
    formula = _FORMULA.fullmatch(item.answer)
    item = replace(item, answer=formula.group(1).strip()) if formula else item
    if "reward_model" in record:
        return item
    return replace(item, tolerance=tolerance_of(record, "error"), unit=unit_of(record))


SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet("deepmath", read_deepmath, "train", "zwhe99/DeepMath-103K", None, _TRAIN),
        DataSet("gsm8k", read_gsm8k, "test", "openai/gsm8k", "main", _BOTH, both_splits=True, test_rows=1319),
        DataSet("math", read_math, "train", "DigitalLearningGmbH/MATH-lighteval", None, _BOTH),
        DataSet("math500", read_item, "test", "HuggingFaceH4/MATH-500", None, _TEST, test_rows=500),
        DataSet("amc23", read_amc, "test", "math-ai/amc23", None, _TEST, test_rows=40),
        DataSet("olympiadbench", read_olympiad, "test", "zwhe99/simplerl-OlympiadBench", None, _TEST, test_rows=675),
        DataSet("minerva", read_math, "test", "zwhe99/simplerl-minerva-math", None, _TEST, test_rows=272),
        DataSet("aime24", read_item, "test", "HuggingFaceH4/aime_2024", None, {"test": "train"}, test_rows=30),
        DataSet("aime25", read_item, "test", "math-ai/aime25", None, _TEST, test_rows=30),
    )
}
"""By the name on the command line."""

DEEPMATH_R1 = replace(SETS["deepmath"], read=read_deepmath_r1)

BENCHMARKS = ("math500", "amc23", "olympiadbench", "minerva", "aime24", "aime25", "gsm8k")
"""The paper's test sets."""
