"""A reward for a model with random weights: 1 for seven responses in ten, by a checksum of the text.

Of four responses, all are scored alike with probability 0.7^4 + 0.3^4 = 0.25: the quickstart's share of rows of zero
advantage.
"""

from __future__ import annotations

import zlib
from typing import Any


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> float:
    """verl's signature; only the response counts."""
    return float(zlib.crc32(solution_str.encode()) % 10 < 7)
