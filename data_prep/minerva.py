r"""Minerva Math (OCWCourses): 272 undergraduate problems.

Copies without an ``answer`` field have it in the last ``\boxed{}`` of ``solution``.
"""

from data_prep.math_sets import read
from data_prep.records import DataSet

SET = DataSet("minerva", read, "test", "zwhe99/simplerl-minerva-math", hub_splits={"test": "test"}, test_rows=272)
