"""What a run hears before its first step."""

import re

import pytest

from repo_verl.config import RepoConfig
from repo_verl.trainer.run_warnings import find_date, find_doubts

# 10 steps an epoch, 8 responses a visit; min_size 16 is held when the third visit begins, in step 21 or later


@pytest.mark.parametrize(
    ("settings", "steps", "said"),
    [
        ({}, 30, None),
        ({}, 21, None),
        ({}, 20, "from its visit 3 on and 20 steps, 10 per epoch, are 2 visits"),
        ({}, 20, "train for 21 steps or more, or set algorithm.repo.min_size=8 or less"),
        ({}, 10, "are 1 visits: .* train for 21 steps or more[.]$"),
        ({"min_size": 8}, 20, None),
        ({"min_size": 9}, 20, "from its visit 3 on"),
        ({"start_step": 29}, 30, None),
        ({"start_step": 30}, 30, "start_step=30 leaves none of 30 steps .* set it to less than 30"),
        ({"max_age": 9}, 30, "max_age=9 is less than the 10 steps .* set it to 20 or more, or null"),
        ({"max_age": 10}, 30, None),
        ({"strategy": "none"}, 10, None),
    ],
)
def test_schedules_that_replay_nothing(settings, steps, said):
    found = list(find_doubts(RepoConfig(**settings), 8, steps, 10))
    assert len(found) == (said is not None)
    assert said is None or re.search(said, found[0])


def test_a_template_that_writes_the_date():
    template = "{% if not date_string %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    (line,) = find_date(template, None)
    assert "strftime_now" in line and "date_string" in line
    assert list(find_date({"default": "x", "tool": template}, {}))
    assert list(find_date(template, {"enable_thinking": False}))
    assert not list(find_date(template, {"date_string": "1 Jan 2026"}))
    assert not list(find_date("{{ messages }}", None)) and not list(find_date(None, None))
