"""342 pairs that outside issues and a line-by-line review gave, each with the verdict that it should have."""

import json

import pytest
from fuzzing import ROOT

from repo_verl.rewards import compute_score

PAIRS = ROOT.parent / "shared" / "data" / "grading" / "pairs.jsonl"
CONVENTIONS = {
    ("3,5,7", "7"): "an answer that lists one of three values is not all of them",
    ("4", "as"): "the text behind a mention of a box is no answer: test_a_mention_behind_the_box_is_no_box",
    ("4", ""): "an empty box is no answer: test_a_mention_behind_the_box_is_no_box",
    (r"1 \text{ m}", r"100 \text{ cm}"): "units are not converted",
    (r"2\text{ hours}", r"120\text{ minutes}"): "units are not converted",
    (r"0.003^{\prime\prime}", "0.003"): "double primes are seconds, inches or a second derivative",
}
"""(gold, answer) -> why ours differs from what is expected."""


def rows():
    return [json.loads(line) for line in PAIRS.read_text().splitlines()]


def paid(row):
    return compute_score("any", rf"\boxed{{{row['answer']}}}", row["gold"])["acc"]


@pytest.mark.shared_data
def test_every_pair_has_the_expected_verdict_or_is_a_listed_convention():
    pairs = rows()
    assert len(pairs) == 342
    differ = {(row["gold"], row["answer"]) for row in pairs if paid(row) != row["expected"]}
    assert differ == set(CONVENTIONS) and len(CONVENTIONS) <= 15


@pytest.mark.shared_data
def test_no_pair_that_should_be_wrong_is_paid():
    assert not [(row["gold"], row["answer"]) for row in rows() if row["expected"] == 0 and paid(row)]
