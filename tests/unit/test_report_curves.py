"""Groups of seeds, means and bands, parts of a step's time."""

import math
from pathlib import Path

import pytest
from report_logs import write_log

from repo_verl.report.charts import CHARTS, time_ratios
from repo_verl.report.curves import (
    Curve,
    Line,
    band,
    line_curves,
    metric,
    of_replay,
    point_curves,
    t_quantile,
    thin,
    two_sided,
)
from repo_verl.report.draw import DARK, HATCHES, LIGHT, limits, mark_of
from repo_verl.report.runs import Group, Run, group_runs, name_runs, read_runs, setting_name
from repo_verl.report.summary import ALL_PARTS, median_parts, shown_parts

ACCURACY, CLIP, RATIO, BUFFER = (
    next(chart for chart in CHARTS if chart.name == name) for name in ("accuracy", "clip", "ratio", "buffer")
)


def group(name, *logs):
    return Group(name, [Run(f"{name}{i}", Path(name), log) for i, log in enumerate(logs)])


def log(key, values, **more):
    return [(step, {key: value, **more}) for step, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/runs/seed0/repo", "repo"), ("/runs/repo_seed12", "repo"), ("/runs/seed3-repo", "repo"),
        ("/runs/qwen_seed42_lr1", "qwen_lr1"), ("/runs/repo/seed0", "repo"), ("/runs/repo/SEED=7", "repo"),
        ("/runs/linseed3", "linseed3"), ("/seed1", "seed1"), ("/runs/a\nb", r"a\nb"),
    ],
)  # fmt: skip
def test_the_setting_is_the_folders_name_without_its_seed(folder, name):
    assert setting_name(Path(folder)) == name


def test_runs_are_named_by_as_many_folders_as_tell_them_apart():
    paths = ["/r/seed0/repo", "/r/seed1/repo", "/r/grpo", "/a/x/y/z", "/b/x/y/z", "/r/versions"]
    assert name_runs([Path(path) for path in paths]) == [
        "seed0/repo", "seed1/repo", "grpo", "a/x/y/z", "b/x/y/z", "r/versions",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"^/r/grpo is given twice: name each run once\.$"):
        name_runs([Path("/r/grpo"), Path("/r/x/../grpo")])


def test_a_log_that_has_not_begun_is_a_note_beside_others_and_an_error_alone(tmp_path):
    run, begun = write_log(tmp_path / "a", [(1, {"x": 1.0})]), write_log(tmp_path / "b", [])
    runs, waiting = read_runs([run, begun])
    assert [run.name for run in runs] == ["a"] and "b/metrics.jsonl has no entry yet" in waiting[0]
    with pytest.raises(ValueError, match="c/metrics.jsonl does not exist"):
        read_runs([run, tmp_path / "c"])
    assert len(read_runs([run, tmp_path / "c"], wait=True)[1]) == 1
    with pytest.raises(ValueError, match="b/metrics.jsonl has no entry yet"):
        read_runs([begun])
    assert [g.name for g in group_runs(runs)] == ["a"]


def test_the_mean_of_three_seeds_and_their_span():
    curves = line_curves([group("repo", log("m", [1, 4]), log("m", [2, 5]), log("m", [6]))], [Line("", metric("m"))])
    assert curves == [Curve("repo", 0, 0, [1, 2], [3, 4.5], [1, 4], [6, 5])]
    alone = line_curves([group("a", log("m", [1, 4]))], [Line("", metric("m"))])
    assert alone == [Curve("a", 0, 0, [1, 2], [1, 4], [], [])]


def test_five_seeds_have_the_t_interval_of_their_mean():
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    low, high = band(values, 5)
    assert (low, high) == pytest.approx((3 - 2.776 * 0.70711, 3 + 2.776 * 0.70711), rel=1e-2)
    assert band(values[:4], 4) == (1.0, 4.0) and band([2.0], 6) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("freedom", "table"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (29, 2.045)]
)
def test_quantiles_of_students_t(freedom, table):
    """Tables of the 97.5 % quantile, to their last digit."""
    assert t_quantile(freedom) == pytest.approx(table, abs=5.1e-4)


@pytest.mark.parametrize(("t", "freedom"), [(0.0, 4), (0.7, 1), (1.5, 2), (2.5, 3), (4.0, 4), (-3.0, 7), (6.0, 2)])
def test_probabilities_of_students_t(t, freedom):
    """Against the density, summed in small steps."""
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    steps = 20_000
    points = ((k + 0.5) * abs(t) / steps for k in range(steps))
    inside = 2 * scale * abs(t) / steps * sum((1 + x * x / freedom) ** (-(freedom + 1) / 2) for x in points)
    assert two_sided(t, freedom) == pytest.approx(1 - inside, abs=1e-7)


def test_a_long_run_is_drawn_by_means_of_consecutive_steps():
    curve = thin(Curve("", 0, 0, [*range(1000)], [0.0, 2.0] * 500), 120)
    assert len(curve.x) == 112 and curve.x[0] == 4 and curve.y[1] == pytest.approx(10 / 9) and curve.low == []
    assert thin(curve) is curve


def test_lines_of_replay_are_left_out_where_nothing_replays_and_points_of_other_steps_too():
    replaying = [(1, {"m": 0.0, "repo/age_mean": 0.0, "repo/replayed_rows": 0.0}),
                 (2, {"m": 0.7, "repo/age_mean": 5.0, "repo/replayed_rows": 8.0})]  # fmt: skip
    groups = [group("grpo", replaying[:1]), group("repo", replaying)]
    lines = [Line("fresh", metric("m")), Line("replayed", of_replay("m"), 1, True)]
    assert [(c.label, c.kind, c.x) for c in line_curves(groups, lines)] == [
        ("grpo", 0, [1]), ("repo, fresh", 0, [1, 2]), ("repo, replayed", 1, [2]),
    ]  # fmt: skip
    assert point_curves(groups, lines[1:], of_replay("repo/age_mean")) == [Curve("repo", 1, 0, [5.0], [0.7])]


def test_parts_of_a_step_and_what_no_timer_names():
    times = {"timing_s/gen": 2.0, "timing_s/update_actor": 1.5, "timing_s/adv": 0.25, "timing_s/repo_select": 0.25,
             "timing_s/repo_retrieve": 0.25, "timing_s/repo_insert": 0.5, "timing_s/repo_exposed": 1.0,
             "timing_s/repo_exposed_adv": 0.25, "timing_s/repo_exposed_update_actor": 0.5}  # fmt: skip
    repo = group("repo", log("timing_s/step", [90.0, 5.0, 5.0], **times, **{"repo/replayed_rows": 8}))
    parts = median_parts(repo)
    assert {part: seconds for part, seconds in parts.items() if seconds} == {
        "generate": 2.0, "update": 1.0, "replay": 1.0, "rest": 1.0,
    }  # fmt: skip
    grpo = group("grpo", log("timing_s/step", [50.0, 4.0]))
    assert time_ratios([grpo, repo]) == ["grpo: 4.00 s per step", "repo: 5.00 s per step, 1.25 times grpo's"]
    assert time_ratios([grpo, group("b", log("timing_s/step", [2.0])), repo])[2] == "repo: 5.00 s per step"
    steps, bars = shown_parts([grpo, group("none", [(1, {})]), repo])
    assert steps == {"grpo": 4.0, "repo": 5.0} and dict(bars)["rest"] == [4.0, 1.0] and dict(bars)["replay"] == [0, 1]
    assert shown_parts([group("none", [(1, {})])]) == ({}, [])


@pytest.mark.parametrize(
    ("chart", "low", "high"),
    [(ACCURACY, 0.5, 0.53), (ACCURACY, 0.0, 0.01), (ACCURACY, 1.0, 1.0), (ACCURACY, 0.0, 1.0), (CLIP, 0.0, 0.0),
     (CLIP, 0.0, 0.4), (RATIO, 1.0, 1.0), (RATIO, 0.2, 3.0), (BUFFER, 0.0, 0.0), (BUFFER, 5.0, 2048.0),
     (ACCURACY, -1.0, 0.5), (ACCURACY, 0.5, 1e29), (BUFFER, -3.0, 4.0)],
)  # fmt: skip
def test_an_axis_shows_all_values_at_least_its_span_and_not_far_outside_its_bounds(chart, low, high):
    bottom, top = limits(low, high, chart)
    assert bottom <= low and top >= high and top - bottom >= chart.span - 1e-9
    least, most = chart.bounds
    assert least is None or low < least or bottom >= least - 0.07 * (top - bottom)
    assert most is None or high > most or top <= most + 0.07 * (top - bottom)


def test_settings_are_told_apart_without_colour_and_stand_out_from_the_page():
    def luminance(color):
        parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for palette in (LIGHT, DARK):
        page = luminance(palette.background)
        ratios = [(max(page, x) + 0.05) / (min(page, x) + 0.05) for x in map(luminance, palette.groups[:5])]
        assert min(ratios) >= 2.9, "3 : 1 is asked of lines; the light purple has 2.98"
        assert len(palette.parts) == len(HATCHES) == len(ALL_PARTS)
    assert len({mark_of(group) for group in range(6)}) == 6
    assert len({(LIGHT.groups[group % 6], mark_of(group)) for group in range(36)}) == 36
