"""A reward whose right value is known beforehand and that needs a judge process for every response."""

from __future__ import annotations

from zlib import crc32

from repo_verl import rewards


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """1.0 or 0.0 by the text of the response; a verdict that is not the true one has the status "error"."""
    number = crc32(f"{ground_truth} {solution_str}".encode())
    answer = f"{number}+x^2" if number % 2 else f"x^2+{number}+1"
    result = rewards.compute_score(data_source, rf"\boxed{{{answer}}}", f"x^2+{number}", clock_seconds=60.0)
    if result["status"] == "ok" and result["acc"] != number % 2:
        result["status"] = "error"
    return result
