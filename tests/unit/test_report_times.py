"""The parts of a step's time are disjoint and make up the step: by hand, and in recorded logs of both trainer modes."""

import itertools
import json
from pathlib import Path

import pytest

from repo_verl.report.runs import Group, Run
from repo_verl.report.summary import ALL_PARTS, median_parts, median_step, step_parts

RECORDED = Path(__file__).resolve().parents[1] / "data" / "step_times"
MODES = ("sync", "colocate_async")

VERL = ("gen", "reward", "old_log_prob", "ref", "values", "update_critic", "adv", "update_actor", "update_weights",
        "save_checkpoint")  # fmt: skip
"""verl's timers of a step, which run one after the other."""


def recorded(mode):
    """Steps of a run of verl's trainer with recorded rollouts on a CPU, as its file logger writes them."""
    lines = map(json.loads, (RECORDED / f"{mode}.jsonl").read_text().splitlines())
    return [(line["step"], line["data"]) for line in lines]


def seconds(data, *names):
    return sum(data.get(f"timing_s/{name}", 0.0) for name in names)


@pytest.mark.parametrize("mode", MODES)
def test_parts_of_recorded_steps_are_disjoint_and_make_up_the_step(mode):
    steps = [data for _, data in recorded(mode)]
    assert len(steps) >= 4 and any("timing_s/save_checkpoint" in data for data in steps)
    for data in steps:
        parts, step = step_parts(data), data["timing_s/step"]
        assert list(parts) == list(ALL_PARTS) and all(value >= 0 for value in parts.values())
        assert sum(parts.values()) == pytest.approx(step, rel=1e-9)
        exposed, in_adv, in_update = (seconds(data, f"repo_exposed{end}") for end in ("", "_adv", "_update_actor"))
        assert parts["generate"] == seconds(data, "gen") and parts["old log-probs"] == seconds(data, "old_log_prob")
        assert parts["advantages"] == pytest.approx(seconds(data, "adv") - in_adv)
        assert parts["update"] == pytest.approx(seconds(data, "update_actor") - in_update)
        assert parts["replay"] == exposed > in_adv + in_update > 0
        left = step - seconds(data, *VERL) - (exposed - in_adv - in_update)
        assert left > 0 and parts["rest"] == pytest.approx(left), "what no timer covers, as the log has it"


@pytest.mark.parametrize("mode", MODES)
def test_retrieval_runs_beside_generation_or_beside_the_old_log_probs(mode):
    """So it is in neither's way: no second of it is taken off a part of verl's."""
    replaying = [data for _, data in recorded(mode) if data["repo/replayed_rows"]]
    assert len(replaying) >= 2
    for data in replaying:
        own = seconds(data, "repo_select", "repo_retrieve")
        assert own > 0 and data["repo/late_rows"] == (0 if mode == "sync" else data["repo/replayed_rows"])
        if mode == "sync":
            assert own < seconds(data, "gen")
        else:  # retrieved by the thread that plans the update
            assert own < seconds(data, "repo_place") < seconds(data, "old_log_prob", "repo_exposed_adv")
        assert seconds(data, "repo_insert") < seconds(data, "update_actor")


def test_a_step_by_hand():
    times = {"gen": 2.0, "repo_select": 0.25, "repo_retrieve": 0.5, "old_log_prob": 0.5, "repo_place": 0.25,
             "adv": 0.5, "repo_exposed_adv": 0.125, "update_actor": 1.5, "repo_insert": 0.5,
             "repo_exposed_update_actor": 0.25, "repo_exposed": 0.5, "update_weights": 0.25, "step": 5.0}  # fmt: skip
    parts = step_parts({f"timing_s/{name}": value for name, value in times.items()})
    assert {part: value for part, value in parts.items() if value} == {
        "generate": 2.0, "old log-probs": 0.5, "advantages": 0.375, "update": 1.25, "replay": 0.5,
        "sync weights": 0.25, "rest": 0.125,
    }  # fmt: skip


def test_a_log_of_an_older_version_leaves_replay_in_verls_timers():
    times = {"gen": 2.0, "adv": 0.5, "update_actor": 1.5, "repo_retrieve": 0.5, "repo_exposed": 0.5, "step": 5.0}
    parts = step_parts({f"timing_s/{name}": value for name, value in times.items()})
    assert {part: value for part, value in parts.items() if value} == {
        "generate": 2.0, "advantages": 0.5, "update": 1.5, "rest": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_parts_of_the_median_step_make_up_the_median_step(count):
    """Every part is longest in another step, so that the parts' own medians would make up another time."""
    steps = [
        {"timing_s/gen": 1.0 + number, "timing_s/update_actor": 5.0 - number, "timing_s/step": 7.0 + 0.5 * (number % 3)}
        for number in range(count + 1)
    ]
    logs = [list(enumerate(order, start=1)) for order in itertools.islice(itertools.permutations(steps), 0, 20, 7)]
    group = Group("a", [Run(f"a{number}", Path("a"), log) for number, log in enumerate(logs)])
    parts = median_parts(group)
    assert sum(parts.values()) == pytest.approx(median_step(group)) and min(parts.values()) >= 0


def test_a_checkpoint_in_the_longest_step_is_no_part_of_the_median_one():
    log = [(step, {"timing_s/gen": 2.0, "timing_s/step": 3.0}) for step in (1, 2, 3, 4)]
    log.append((5, {"timing_s/gen": 2.0, "timing_s/save_checkpoint": 9.0, "timing_s/step": 12.0}))
    parts = median_parts(Group("a", [Run("a", Path("a"), log)]))
    assert parts["checkpoint"] == 0 and parts["generate"] == 2.0 and parts["rest"] == 1.0
