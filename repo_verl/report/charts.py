"""The charts of a report: what each shows, how to read it, what it found."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from repo_verl.report.curves import Curve, Line, accuracy, line_curves, metric, of_replay, point_curves
from repo_verl.report.findings import first, gained, held, last, sentences
from repo_verl.report.runs import Group
from repo_verl.report.times import time_ratios

NO_REPLAY = "Nothing to show yet: no run has replayed a row. A prompt replays once its buffer holds min_size rows."
NOT_LOGGED = "Nothing to show: the logs lack {}, which repo-verl's trainer logs in every step."


@dataclass(frozen=True)
class Chart:
    """One chart; ``kind`` is ``lines`` over steps, ``points`` over the rows' age, or ``bars`` of time."""

    name: str
    section: str
    title: str
    up: str
    reading: str
    missing: str
    lines: tuple[Line, ...] = ()
    kind: str = "lines"
    percent: bool = False
    bounds: tuple[float | None, float | None] = (None, None)
    """The axis never shows less or more than that."""
    span: float = 0.0
    """The axis shows at least that much, so that noise looks small."""
    mark: float | None = None
    """A value with a thin line of its own."""
    found: Callable[[Sequence[Group]], list[str]] = lambda groups: []

    def curves(self, groups: Sequence[Group]) -> list[Curve]:
        """What is drawn; empty if the logs have nothing of it."""
        if self.kind == "points":
            return point_curves(groups, self.lines, of_replay("repo/age_mean"))
        return line_curves(groups, self.lines)


BRINGS, MOVED, COST = (
    "What replay brings", "How far the policy has moved from the replayed rows", "Steps, buffer and time"
)  # fmt: skip
mean = statistics.fmean
CHARTS = (
    Chart(
        "accuracy", BRINGS, "Accuracy on the validation problems", "right answers",
        "Higher is better; the axis need not start at 0. Held out, if data.val_files are not data.train_files. With n"
        " problems the standard error is up to 50/√n points (512: 2), so a gap of a few points needs several seeds.",
        "Nothing to show: the logs hold no validation accuracy (val-core/…/acc/mean@N); set trainer.test_freq above 0.",
        (Line("accuracy", accuracy),), percent=True, bounds=(0, 1), span=0.2,
        found=sentences("first {:.1%}, latest {:.1%}", (accuracy, first), (accuracy, last)),
    ),
    Chart(
        "scores", BRINGS, "Mean score of fresh and of replayed rows", "score",
        "Replayed rows are an earlier policy's: while a run improves, their line follows the fresh one from below.",
        NOT_LOGGED.format("repo/score_fresh_mean"),
        (Line("fresh", metric("repo/score_fresh_mean"), 0),
         Line("replayed", of_replay("repo/score_replayed_mean"), 1, True)), span=0.2,
        found=sentences("fresh {:.2f}, replayed {:.2f} in steps that replay",
                        (of_replay("repo/score_fresh_mean"), mean), (of_replay("repo/score_replayed_mean"), mean),
                        plain=("fresh {:.2f}", metric("repo/score_fresh_mean"))),
    ),
    Chart(
        "effective_prompts", BRINGS, "Prompts that give a gradient", "share of the step's prompts",
        "The gap between a run's two lines is what replayed rows add; fresh rows alone is what GRPO would have had.",
        NOT_LOGGED.format("repo/effective_prompts_fresh"),
        (Line("fresh rows alone", metric("repo/effective_prompts_fresh"), 1),
         Line("with replay", metric("repo/effective_prompts_all"), 0, True)),
        percent=True, bounds=(0, 1), span=0.4, found=gained,
    ),
    Chart(
        "zero_advantage", BRINGS, "Rows with advantage zero", "share of the rows",
        "Lower is better: such a row costs time and teaches nothing, as its prompt's rows all have one score.",
        NOT_LOGGED.format("repo/zero_advantage_share_fresh"),
        (Line("fresh", metric("repo/zero_advantage_share_fresh"), 0),
         Line("replayed", of_replay("repo/zero_advantage_share_replayed"), 1, True)),
        percent=True, bounds=(0, 1), span=0.4,
        found=sentences("{:.1%} of fresh rows, {:.1%} of replayed rows in steps that replay",
                        (of_replay("repo/zero_advantage_share_fresh"), mean),
                        (of_replay("repo/zero_advantage_share_replayed"), mean),
                        plain=("{:.1%} of fresh rows", metric("repo/zero_advantage_share_fresh"))),
    ),
    Chart(
        "ratio", MOVED, "Probability ratio of replayed tokens, by age", "now / when written",
        "A point is one step: mean or largest of its replayed tokens. 1, dotted: the policy has not moved. Means that"
        " leave 1 as rows age call for a smaller max_age.",
        NO_REPLAY,
        (Line("mean", of_replay("repo/ratio_mean_replayed"), 0),
         Line("largest", of_replay("repo/ratio_max_replayed"), 1)),
        kind="points", mark=1.0,
        found=sentences("mean {:.3f}, largest {:,.1f}", (of_replay("repo/ratio_mean_replayed"), mean),
                        (of_replay("repo/ratio_max_replayed"), max)),
    ),
    Chart(
        "clip", MOVED, "Replayed tokens cut by the clip, by age", "share of replayed tokens",
        "A point is one step's mean. Clipped tokens give no gradient (low: A < 0, ratio < 1 − ε; high: A > 0,"
        " ratio > 1 + ε): the larger their share, the less replay adds.",
        NO_REPLAY,
        (Line("low", of_replay("repo/clip_low_replayed"), 0), Line("high", of_replay("repo/clip_high_replayed"), 1)),
        kind="points", percent=True, bounds=(0, 1), span=0.02,
        found=sentences("{:.1%} low, {:.1%} high", (of_replay("repo/clip_low_replayed"), mean),
                        (of_replay("repo/clip_high_replayed"), mean)),
    ),
    Chart(
        "ess", MOVED, "What a replayed row is worth (ESS), by age", "ESS / replayed rows",
        "A point is one step: effective sample size over replayed rows. 1: as good as fresh rows; 0.5: half of them"
        " would have done.",
        NO_REPLAY, (Line("ESS", of_replay("repo/ess_replayed")),), kind="points", bounds=(0, 1), span=0.2,
        found=sentences("{:.2f} on average, lowest {:.2f}", (of_replay("repo/ess_replayed"), mean),
                        (of_replay("repo/ess_replayed"), min)),
    ),
    Chart(
        "age", MOVED, "Age of the replayed rows", "training steps",
        "Steps since a replayed row was written; with one visit an epoch, the mean is about an epoch's length.",
        NO_REPLAY,
        (Line("mean", of_replay("repo/age_mean"), 0), Line("oldest", of_replay("repo/age_max"), 1)), bounds=(0, None),
        found=sentences("{:.1f} steps on average, at most {:.0f}", (of_replay("repo/age_mean"), mean),
                        (of_replay("repo/age_max"), max)),
    ),
    Chart(
        "effective_steps", COST, "Optimizer steps that changed the model", "effective steps so far",
        "A line that rises evenly has wasted none; a flat piece is generation without learning.",
        NOT_LOGGED.format("repo/effective_steps"),
        (Line("effective steps", metric("repo/effective_steps")),), bounds=(0, None),
        found=sentences("{:,.0f} effective steps", (metric("repo/effective_steps"), last)),
    ),
    Chart(
        "buffer", COST, "Rows held in the buffer", "rows",
        "Grows until every prompt holds its capacity, then stays; it lies in the host memory of the trainer's process.",
        "Nothing to show: no run keeps rows (strategy=none), or the logs lack repo/buffer_rows.",
        (Line("rows", held("repo/buffer_rows")),), bounds=(0, None),
        found=sentences("{:,.0f} rows, {:,.0f} response tokens, {:,.2f} MiB", (held("repo/buffer_rows"), last),
                        (held("repo/buffer_tokens"), last), (held("repo/buffer_bytes", 1 / 2**20), last)),
    ),
    Chart(
        "time_parts", COST, "Seconds of a training step, by part", "",
        "Medians over all steps but the first, without validation. Times compare only between runs that had the"
        " machine to themselves.",
        "Nothing to show: the logs lack timing_s/step.", kind="bars", found=time_ratios,
    ),
    Chart(
        "time_steps", COST, "Seconds of each training step", "seconds",
        "A level line is a steady run; jumps are a checkpoint or other work on the machine.",
        "Nothing to show: the logs lack timing_s/step.", (Line("step", metric("timing_s/step")),), bounds=(0, None),
        found=sentences("{:.2f} s at the fastest, {:.2f} s at the slowest", (metric("timing_s/step"), min),
                        (metric("timing_s/step"), max)),
    ),
)  # fmt: skip

OVERVIEW = ("accuracy", "effective_prompts", "scores", "ess", "time_parts", "effective_steps")
"""report.png shows the first four of these that the logs have something of."""
