r"""Minerva Math (OCWCourses): 272 undergraduate problems.

Copies without an ``answer`` field have it in the last ``\boxed{}`` of ``solution``.
"""

from __future__ import annotations

from data_prep.dataset import DataSet
from data_prep.math_train import read

SET = DataSet(
    "minerva",
    read,
    default_split="test",
    hub_name="zwhe99/simplerl-minerva-math",
    hub_splits={"test": "test"},
    hub_default=("test",),
    test_rows=272,
)
to_row = SET.to_row
