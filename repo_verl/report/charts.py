"""The charts of a report: what each shows and what it found. How to read each is in the page's template."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from repo_verl.report.curves import Curve, Line, Values, held, line_curves, metric, of_replay, point_curves
from repo_verl.report.runs import Group
from repo_verl.report.summary import accuracies, median_step

Statistic = Callable[[Sequence[float]], float]
"""From the values of a run's steps to one."""
Finding = Callable[[Sequence[Group]], list[str]]
"""What the logs say about a chart, in a sentence per group."""


@dataclass(frozen=True)
class Chart:
    """One chart; ``kind`` is ``lines`` over steps, ``points`` over the rows' age, or ``bars`` of time."""

    name: str
    section: str
    title: str
    up: str
    found: Finding
    lines: tuple[Line, ...] = ()
    kind: str = "lines"
    percent: bool = False
    bounds: tuple[float | None, float | None] = (None, None)
    """The axis never shows less or more than that."""
    span: float = 0.0
    """The axis shows at least that much, so that noise looks small."""
    mark: float | None = None
    """A value with a thin line of its own."""

    def curves(self, groups: Sequence[Group]) -> list[Curve]:
        """What is drawn; empty if the logs have nothing of it."""
        if self.kind == "points":
            return point_curves(groups, self.lines, AGE)
        return line_curves(groups, self.lines)


def average(group: Group, values: Values, over: Statistic = statistics.fmean) -> float | None:
    """The mean over a group's runs of ``over`` a run's values (of a smallest the smallest); None without any."""
    each = [over(list(found.values())) for run in group.runs if (found := values(run.log))]
    across = over if over in (min, max) else statistics.fmean
    return across(each) if each else None


def sentences(form: str, *parts: tuple[Values, Statistic], plain: tuple[str, Values] | None = None) -> Finding:
    """For each group that has all the values: its name, and ``form`` filled with a number for each of ``parts``.

    ``plain`` are form and values for groups that replay nothing.
    """

    def found(groups: Sequence[Group]) -> list[str]:
        lines = []
        for group in groups:
            used, wanted = form, parts
            if plain is not None and not group.replays:
                used, wanted = plain[0], ((plain[1], mean),)
            numbers = [average(group, values, over) for values, over in wanted]
            lines += [] if None in numbers else [f"{group.name}: {used.format(*numbers)}"]
        return lines

    return found


def gained(groups: Sequence[Group]) -> list[str]:
    """Prompts that give a gradient from only fresh rows, and with replay."""
    found = []
    for group in groups:
        fresh, both = (average(group, metric(f"repo/effective_prompts_{rows}")) for rows in ("fresh", "all"))
        if fresh is not None and both is not None:
            gain = f", {both:.1%} with replay: {100 * (both - fresh):+.1f} points" if group.replays else ""
            found.append(f"{group.name}: {fresh:.1%} from fresh rows{gain}")
    return found


def time_ratios(groups: Sequence[Group]) -> list[str]:
    """Each group's median step, over that of the one group that replays nothing if there is just one."""
    steps = {group.name: median_step(group) for group in groups}
    plain = [group.name for group in groups if not group.replays]
    base = steps[plain[0]] if len(plain) == 1 else None
    found = []
    for group in groups:
        seconds = steps[group.name]
        if seconds is not None:
            over = f", {seconds / base:.2f} times {plain[0]}'s" if base and group.replays else ""
            found.append(f"{group.name}: {seconds:.2f} s per step{over}")
    return found


BRINGS, MOVED = "What replay brings", "How far the policy has moved from the replayed rows"
COST = "Steps, buffer and time"
mean, first, last = statistics.fmean, itemgetter(0), itemgetter(-1)
FRESH_SCORE, FRESH_ZEROS = "repo/score_fresh_mean", "repo/zero_advantage_share_fresh"
SCORE, ZEROS = of_replay("repo/score_replayed_mean"), of_replay("repo/zero_advantage_share_replayed")
RATIO, LARGEST = of_replay("repo/ratio_mean_replayed"), of_replay("repo/ratio_max_replayed")
LOW, HIGH = of_replay("repo/clip_low_replayed"), of_replay("repo/clip_high_replayed")
ESS, AGE, OLDEST = (of_replay(f"repo/{name}") for name in ("ess_replayed", "age_mean", "age_max"))
ROWS = held("repo/buffer_rows")
EFFECTIVE, SECONDS = metric("repo/effective_steps"), metric("timing_s/step")
CHARTS = (
    Chart(
        "accuracy", BRINGS, "Accuracy on the validation problems", "right answers",
        sentences("first {:.1%}, latest {:.1%}", (accuracies, first), (accuracies, last)),
        (Line("accuracy", accuracies),), percent=True, bounds=(0, 1), span=0.2,
    ),
    Chart(
        "scores", BRINGS, "Mean score of fresh and of replayed rows", "score",
        sentences("fresh {:.2f}, replayed {:.2f} in steps that replay", (of_replay(FRESH_SCORE), mean),
                  (SCORE, mean), plain=("fresh {:.2f}", metric(FRESH_SCORE))),
        (Line("fresh", metric(FRESH_SCORE)), Line("replayed", SCORE, 1, True)), span=0.2,
    ),
    Chart(
        "effective_prompts", BRINGS, "Prompts that give a gradient", "share of the step's prompts", gained,
        (Line("only fresh rows", metric("repo/effective_prompts_fresh"), 1),
         Line("with replay", metric("repo/effective_prompts_all"), 0, True)), percent=True, bounds=(0, 1), span=0.4,
    ),
    Chart(
        "zero_advantage", BRINGS, "Rows with advantage zero", "share of the rows",
        sentences("{:.1%} of fresh rows, {:.1%} of replayed rows in steps that replay", (of_replay(FRESH_ZEROS), mean),
                  (ZEROS, mean), plain=("{:.1%} of fresh rows", metric(FRESH_ZEROS))),
        (Line("fresh", metric(FRESH_ZEROS)), Line("replayed", ZEROS, 1, True)), percent=True, bounds=(0, 1), span=0.4,
    ),
    Chart(
        "ratio", MOVED, "Importance ratio of replayed tokens, by age", "now / when written",
        sentences("mean {:.3f}, largest {:,.1f}", (RATIO, mean), (LARGEST, max)),
        (Line("mean", RATIO), Line("largest", LARGEST, 1)), kind="points", mark=1.0,
    ),
    Chart(
        "clip", MOVED, "Replayed tokens cut by the clip, by age", "share of replayed tokens",
        sentences("{:.1%} low, {:.1%} high", (LOW, mean), (HIGH, mean)),
        (Line("low", LOW), Line("high", HIGH, 1)), kind="points", percent=True, bounds=(0, 1), span=0.02,
    ),
    Chart(
        "ess", MOVED, "Effective sample size (ESS) of replayed rows, by age", "ESS / replayed rows",
        sentences("{:.2f} on average, lowest {:.2f}", (ESS, mean), (ESS, min)),
        (Line("ESS", ESS),), kind="points", bounds=(0, 1), span=0.2,
    ),
    Chart(
        "age", MOVED, "Age of the replayed rows", "training steps",
        sentences("{:.1f} steps on average, at most {:.0f}", (AGE, mean), (OLDEST, max)),
        (Line("mean", AGE), Line("oldest", OLDEST, 1)), bounds=(0, None),
    ),
    Chart(
        "effective_steps", COST, "Optimizer steps that changed the model", "effective steps so far",
        sentences("{:,.0f} effective steps", (EFFECTIVE, last)),
        (Line("effective steps", EFFECTIVE),), bounds=(0, None),
    ),
    Chart(
        "buffer", COST, "Rows held in the buffer", "rows",
        sentences("{:,.0f} rows, {:,.0f} response tokens, {:,.2f} MiB", (ROWS, last),
                  (held("repo/buffer_tokens"), last), (held("repo/buffer_bytes", 1 / 2**20), last)),
        (Line("rows", ROWS),), bounds=(0, None),
    ),
    Chart("time_parts", COST, "Seconds of a training step, by part", "", time_ratios, kind="bars"),
    Chart(
        "time_steps", COST, "Seconds of each training step", "seconds",
        sentences("{:.2f} s at the fastest, {:.2f} s at the slowest", (SECONDS, min), (SECONDS, max)),
        (Line("step", SECONDS),), bounds=(0, None),
    ),
)  # fmt: skip

OVERVIEW = ("accuracy", "effective_prompts", "scores", "ess", "time_parts", "effective_steps")
"""report.png shows the first four of these that the logs have something of."""
