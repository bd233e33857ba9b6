"""Verdicts on what outside cases found, kind by kind: spellings that are right, and what is near them."""

import pytest
from grading_cases import pairs

from repo_verl.rewards import compute_score

KINDS = pairs("equivalence_kinds")


@pytest.mark.parametrize("kind", sorted({pair.kind for pair in KINDS}))
def test_spellings_of_a_kind_are_right_and_near_misses_wrong(kind):
    wrong = []
    for pair in KINDS:
        if pair.kind == kind:
            result = compute_score("any", f"So \\boxed{{{pair.answer}}}", pair.gold)
            if result["acc"] != float(pair.equal) or (pair.equal and result["status"] != "ok"):
                wrong.append((pair, result["status"]))
    assert wrong == []


def test_near_misses_are_as_many_as_spellings():
    assert 0.4 <= sum(not pair.equal for pair in KINDS) / len(KINDS) <= 0.6
