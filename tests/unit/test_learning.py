"""The learning experiment: what it plans, its arithmetic on made-up results, and what its page says."""

import importlib
import json
import math
import statistics
import sys
from pathlib import Path

import pytest

from repo_verl.report.curves import interval

ROOT = Path(__file__).resolve().parents[2]
SCALE = 100


@pytest.fixture(scope="module")
def plan_and_report():
    """The benchmark's modules, which lie in no package."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("learning_plan"), importlib.import_module("learning_report")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def result(after, before=0.4, middle=None):
    return {"accuracy": [[0, before], [16, middle or after], [32, after]], "seconds": [2.0] * 32}


def test_plan_has_the_seeds_that_are_promised(plan_and_report):
    plan, _ = plan_and_report
    counts = {}
    for run in plan.planned(["sums", "chains"]):
        counts.setdefault(run.task, {}).setdefault(run.arm, set()).add(run.seed)
    five, three = set(range(5)), set(range(3))
    assert counts["sums"] == {
        **dict.fromkeys(("grpo", "recency", "reward"), five),
        **dict.fromkeys(("full", "variance", "random", "mixed", "rows"), three),
    }
    assert counts["chains"] == {"grpo": five, "recency": five}


def test_arms_differ_from_recency_in_one_setting(plan_and_report):
    plan, _ = plan_and_report
    base = set(plan.overrides(plan.Run("sums", "recency", 0)))
    for arm in plan.ARMS:
        mine = set(plan.overrides(plan.Run("sums", arm, 0)))
        assert len(mine - base) == (arm != "recency") and len(base - mine) <= 1, arm


def test_seeds_reach_data_buffer_and_generation(plan_and_report):
    plan, _ = plan_and_report
    mine = plan.overrides(plan.Run("sums", "grpo", 3))
    assert {"algorithm.repo.seed=3", "data.seed=3", "actor_rollout_ref.rollout.seed=3"} <= set(mine)


def test_paired_difference_by_hand(plan_and_report):
    _, report = plan_and_report
    ours = {0: result(0.50), 1: result(0.54), 2: result(0.58), 7: result(0.99)}
    theirs = {0: result(0.49), 1: result(0.52), 2: result(0.55), 8: result(0.01)}
    numbers = importlib.import_module("learning_statistics")
    found = report.differences(ours, theirs, report.last)
    assert found == pytest.approx([1, 2, 3])
    mean, low, high = interval(found)
    half = 4.302653 * 1.0 / math.sqrt(3)  # differences 1, 2 and 3: deviation 1, t of 2 degrees of freedom
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - half, 2.0 + half), abs=1e-5)
    assert numbers.difference(found) == "+2.0 [-0.5, +4.5]"
    assert numbers.difference([1.5, 2.0, 2.5]) == "**+2.0 [+0.8, +3.2]**"  # half of it: 4.302653 * 0.5 / sqrt(3)
    assert numbers.difference([-1.5, -2.0, -2.5]) == "**-2.0 [-3.2, -0.8]**"
    assert report.differences({0: result(0.5), 1: result(0.5)}, theirs, report.last) == []
    assert numbers.difference([]) == "too few pairs"


def test_p_values_and_holms_correction_by_hand(plan_and_report):
    """t is 2 / (0.5 / sqrt 3): with 2 degrees of freedom the probability is 1 - t / sqrt(2 + t^2)."""
    numbers = importlib.import_module("learning_statistics")
    t = 2 / (0.5 / math.sqrt(3))
    assert numbers.p_value([1.5, 2.0, 2.5]) == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert numbers.p_value([-1.5, -2.0, -2.5]) == pytest.approx(numbers.p_value([1.5, 2.0, 2.5]))
    assert (numbers.p_value([1.0, 1.0, 1.0]), numbers.p_value([0.0, 0.0, 0.0])) == (0.0, 1.0)
    # 0.05 over 4, 3, 2: 0.0125, 0.0167, 0.025; the third is above, so the fourth is not looked at
    assert numbers.holm({"a": 0.016, "b": 0.012, "c": 0.026, "d": 0.04}) == ["b", "a"]
    assert numbers.holm({"a": 0.013, "b": 0.2, "c": 0.3, "d": 0.4}) == []


def test_arms_are_compared_on_the_seeds_that_all_have(plan_and_report):
    _, report = plan_and_report
    arms = {
        "grpo": {seed: result(0.5, 0.3 + seed / 10) for seed in range(5)},
        "recency": {seed: result(0.5 + seed / 100, 0.3 + seed / 10) for seed in range(5)},
        "full": {seed: result(0.6, 0.3 + seed / 10) for seed in (2, 1, 0)},
    }
    assert {arm: list(results) for arm, results in report.common(arms).items()} == dict.fromkeys(arms, [0, 1, 2])
    lines = report.outcome_table(arms)
    assert lines[0].startswith("| arm | before, seeds 0, 1, 2 | after, seeds 0, 1, 2 | pairs |")
    assert lines[2].startswith("| grpo | 40.0 ± 10.0 | 50.0 ± 0.0 | 5 |  |  |  |")
    # 0 to 4 points over five seeds: mean 2, deviation sqrt 2.5, t of 4 degrees of freedom 2.776
    assert lines[3].startswith("| recency | 40.0 ± 10.0 | 51.0 ± 1.0 | 5 | **+2.0 [+0.0, +4.0]** |  |")
    assert lines[4].startswith(
        "| full | 40.0 ± 10.0 | 60.0 ± 0.0 | 3 | **+10.0 [+10.0, +10.0]** | **+9.0 [+6.5, +11.5]** |"
    )
    assert "of the 5 differences" in report.corrected({"sums": arms})
    assert report.corrected({"sums": {"grpo": {0: result(0.5)}}}) == "No pair of arms has three seeds yet."


def test_no_two_arms_look_alike(plan_and_report):
    plan, report = plan_and_report
    looks = [report.look(arm) for arm in plan.ARMS]
    assert len(set(looks)) == len(looks) == 8


def test_along_leaves_the_base_model_out(plan_and_report):
    _, report = plan_and_report
    assert report.along(result(0.6, before=0.0, middle=0.5)) == pytest.approx(55.0)


def test_curve_adds_up_what_lies_across(plan_and_report):
    _, report = plan_and_report
    x, mean, low, high = report.curve({0: result(0.5), 1: result(0.7)}, report.AXES["minutes of steps"])
    assert x == pytest.approx([0.0, 16 * 2 / 60, 32 * 2 / 60])
    assert mean == pytest.approx([0, 20, 20]) and low == pytest.approx([0, 10, 10])
    assert high == pytest.approx([0, 30, 30])


def test_page_says_what_the_files_say(plan_and_report):
    _, report = plan_and_report
    page = (ROOT / "docs" / "learning.md").read_text()
    inside = page.split(report.BEGIN)[1].split(report.END)[0]
    results = ROOT / "benchmarks/results/learning"
    assert inside.strip() == report.generated(report.read_results(results), report.read_pilots(results)).strip()


def test_pilots_choose_the_rate(plan_and_report):
    """All that were tried are there, and the one that all arms have was the best."""
    plan, report = plan_and_report
    found = report.read_pilots(ROOT / "benchmarks/results/learning")
    if found:
        assert tuple(found) == plan.PILOT_RATES
        assert max(found, key=lambda rate: report.along(found[rate])) == plan.LEARNING_RATE


def test_results_are_of_the_plan(plan_and_report):
    plan, report = plan_and_report
    allowed = {run.name for run in [*plan.planned(list(plan.TASKS)), *plan.pilots()]}
    for path in (ROOT / "benchmarks/results/learning").glob("*.json"):
        one = json.loads(path.read_text())
        assert path.stem in allowed and path.stem == f"{one['task']}_{one['arm']}_seed{one['seed']}"
        assert len(one["seconds"]) == plan.STEPS and one["accuracy"][-1][0] == plan.STEPS
        assert not one["commit"].endswith("-dirty")
        if not one["arm"].startswith("pilot"):
            assert one["settings"] == plan.overrides(plan.Run(one["task"], one["arm"], one["seed"]))
            assert bool(sum(one["replayed_rows"])) == (one["arm"] != "grpo")
            assert statistics.fmean(one["effective_prompts_all"]) * SCALE >= 1
