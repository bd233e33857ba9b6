"""The table and the figure of the learning experiment, from its results: paired differences over seeds."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from learning_plan import ARMS, PILOT_SEED, TASKS, VISIT, pilots, planned
from learning_statistics import difference, holm, p_value, spread

from repo_verl.report.draw import DASHES, LIGHT, mark_of, settings

Result = dict[str, Any]
Arms = dict[str, dict[int, Result]]
"""Results by arm and seed."""

BEGIN, END = "<!-- begin: learning.py report -->", "<!-- end: learning.py report -->"
FIGURE = """![Held-out accuracy against steps, generated tokens and minutes](learning.png)

Held-out accuracy less that of the seed's base model: means over the seeds that all arms of the task have; bands: the
span of GRPO's and of recency's seeds."""
AXES: dict[str, Callable[[Result], list[float]]] = {
    "training steps": lambda result: [1.0] * len(result["seconds"]),
    "thousand generated tokens": lambda result: [tokens / 1000 for tokens in result["generated_tokens"]],
    "minutes of steps": lambda result: [seconds / 60 for seconds in result["seconds"]],
}
"""What a figure's panel has across: a name and what each step adds."""


def read_results(folder: Path) -> dict[str, Arms]:
    """All results by task, arm and seed; pilots stay out, and tasks without a seed that all their arms have."""
    tasks: dict[str, Arms] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if not result["arm"].startswith("pilot"):
            tasks.setdefault(result["task"], {}).setdefault(result["arm"], {})[result["seed"]] = result
    found = {
        name: {arm: tasks[name][arm] for arm, _ in task.arms if arm in tasks[name]}
        for name, task in TASKS.items()
        if name in tasks
    }
    return {task: arms for task, arms in found.items() if any(common(arms).values())}


def read_pilots(folder: Path) -> dict[str, Result]:
    """Results of the pilot by learning rate, the lowest first."""
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*_pilot-*.json")}
    return {run.rate: found[run.name] for run in pilots() if run.name in found}


def last(result: Result) -> float:
    """Held-out accuracy after training, points."""
    return 100 * result["accuracy"][-1][1]


def along(result: Result) -> float:
    """Mean held-out accuracy over the evaluations after the first, points: who learns sooner has more."""
    return 100 * statistics.fmean(value for step, value in result["accuracy"] if step)


COMPARED: dict[str, tuple[str, Callable[[Result], float]]] = {
    "after − GRPO's": ("grpo", last),
    "after − recency's": ("recency", last),
    "along − GRPO's": ("grpo", along),
}
"""Columns of differences: to which arm, and of what."""


def common(arms: Arms) -> Arms:
    """Results of the seeds that all arms have, so that means of arms can be compared."""
    seeds = set.intersection(*(set(results) for results in arms.values()))
    return {arm: {seed: results[seed] for seed in sorted(seeds)} for arm, results in arms.items()}


def differences(ours: dict[int, Result], theirs: dict[int, Result], value: Callable[[Result], float]) -> list[float]:
    """Of the seeds that both have; none with fewer than three."""
    found = [value(ours[seed]) - value(theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    return found if len(found) >= 3 else []


def compared(arms: Arms) -> dict[tuple[str, str], list[float]]:
    """Paired differences by arm and column of `COMPARED`."""
    return {
        (arm, column): differences(results, arms.get(other, {}), value)
        for arm, results in arms.items()
        for column, (other, value) in COMPARED.items()
        if arm != other and (arm, other) != ("grpo", "recency")
    }


def outcome_table(arms: Arms) -> list[str]:
    """Accuracy and its paired differences, a line per arm."""
    shared, found = common(arms), compared(arms)
    seeds = ", ".join(map(str, next(iter(shared.values()))))
    names = ["arm", f"before, seeds {seeds}", f"after, seeds {seeds}", "pairs", *COMPARED]
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for arm, results in arms.items():
        cells = [arm, spread(100 * result["accuracy"][0][1] for result in shared[arm].values())]
        cells += [spread(last(result) for result in shared[arm].values()), str(len(results))]
        cells += [difference(found[arm, column]) if (arm, column) in found else "" for column in COMPARED]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def corrected(tasks: dict[str, Arms]) -> str:
    """What is left of all tables' differences after Holm's correction."""
    values = {
        f"{task}, {arm}: {column}": p_value(found)
        for task, arms in tasks.items()
        for (arm, column), found in compared(arms).items()
        if found
    }
    if not values:
        return "No pair of arms has three seeds yet."
    kept = holm(values)
    text = "; ".join(f"{name} (p = {values[name]:.4f})" for name in kept) or "none"
    return f"After Holm's correction of the {len(values)} differences (paired t-tests, 5 % in all) remain: {text}."


def mean(results: Iterable[Result], value: Callable[[Result], float]) -> float:
    """Of a value over results."""
    return statistics.fmean(value(result) for result in results)


def share(key: str) -> Callable[[Result], float]:
    """Mean over steps of a share, per cent."""
    return lambda result: 100 * statistics.fmean(result[key])


def visit(steps: slice) -> Callable[[Result], float]:
    """Mean score of some steps' fresh rows, per cent: sampled answers to training prompts."""
    return lambda result: 100 * statistics.fmean(result["score_fresh_mean"][steps])


def thousands(key: str) -> Callable[[Result], float]:
    """Sum over steps, thousands."""
    return lambda result: sum(result[key]) / 1000


def others_share(result: Result) -> float:
    """What the machine did beside the run, per cent of all that it did."""
    return 100 * result["others_seconds"] / (result["others_seconds"] + result["processor_seconds"])


def cost_table(arms: Arms) -> list[str]:
    """What replay did and what a run took, means over seeds, a line per arm."""
    names = (
        "arm", "training score, first and last visit", "effective prompts, fresh", "all", "effective steps",
        "replayed rows", "ESS", "thousand tokens generated", "trained", "processor seconds", "minutes of steps",
        "others' processor share",
    )  # fmt: skip
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for arm, by_seed in common(arms).items():
        results = list(by_seed.values())
        replayed = mean(results, lambda result: sum(result["replayed_rows"]))
        ess = f"{mean(results, lambda r: statistics.fmean(filter(None, r['ess_replayed']))):.2f}" if replayed else ""
        cells = [
            arm, f"{mean(results, visit(slice(VISIT))):.1f} and {mean(results, visit(slice(-VISIT, None))):.1f} %",
            f"{mean(results, share('effective_prompts_fresh')):.1f} %",
            f"{mean(results, share('effective_prompts_all')):.1f} %",
            f"{mean(results, lambda r: r['effective_steps'][-1]):.1f} of {len(results[0]['seconds'])}",
            f"{replayed:.0f}", ess, f"{mean(results, thousands('generated_tokens')):.1f}",
            f"{mean(results, thousands('update_tokens')):.1f}",
            spread((r["processor_seconds"] for r in results), "{:.0f}"),
            spread(sum(r["seconds"]) / 60 for r in results), f"{mean(results, others_share):.0f} %",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def run_time(tasks: dict[str, Arms]) -> str:
    """Runs and hours in all, commits."""
    results = [result for arms in tasks.values() for seeds in arms.values() for result in seeds.values()]
    hours = sum(result["wall_seconds"] for result in results) / 3600
    commits = ", ".join(sorted({result["commit"] for result in results}))
    machines = "; ".join(sorted({f"{r['machine']['cores']} cores of {r['machine']['processor']}" for r in results}))
    ways = sorted({(result["at_once"], result["threads"]) for result in results})
    how = " and ".join(f"{runs} at a time with {threads} thread{'s' * (threads > 1)} each" for runs, threads in ways)
    whole = len(planned(list(TASKS)))
    missing = f"**Not finished: {len(results)} of {whole} runs.** " if len(results) < whole else ""
    return f"{missing}{len(results)} runs, {hours:.1f} hours of runs in all, {how}, on {machines}; commit {commits}."


def pilot_line(found: dict[str, Result]) -> str:
    """GRPO's accuracy with every learning rate that was tried."""
    rates = ", ".join(f"{along(result):.1f} and {last(result):.1f} with {rate}" for rate, result in found.items())
    return f"Pilot, GRPO's accuracy in per cent on seed {PILOT_SEED}, *along* and *after*: {rates}."


def generated(tasks: dict[str, Arms], pilot: dict[str, Result]) -> str:
    """What stands between the marks of docs/learning.md."""
    if not tasks:
        return "No run is done yet."
    parts = [run_time(tasks), pilot_line(pilot)]
    for task, arms in tasks.items():
        parts += [f"### Task `{task}`: accuracy", "\n".join(outcome_table(arms))]
        parts += [f"### Task `{task}`: what replay did, and cost", "\n".join(cost_table(arms))]
    parts += [corrected(tasks), FIGURE]
    return "\n\n".join(parts)


def curve(results: dict[int, Result], axis: Callable[[Result], list[float]]) -> tuple[list[float], ...]:
    """Means over seeds of what lies across and of points above the base model, and their least and most."""
    across, up = [], []
    for result in results.values():
        sums = [0.0, *itertools.accumulate(axis(result))]
        across.append([sums[step] for step, _ in result["accuracy"]])
        up.append([100 * (value - result["accuracy"][0][1]) for _, value in result["accuracy"]])
    columns = list(zip(*up, strict=True))
    means = [statistics.fmean(column) for column in zip(*across, strict=True)]
    return means, [statistics.fmean(c) for c in columns], [min(c) for c in columns], [max(c) for c in columns]


def look(arm: str) -> tuple[str, str, Any]:
    """Colour, mark and dashes of an arm's lines: no other arm's."""
    number = list(ARMS).index(arm)
    return LIGHT.groups[number % len(LIGHT.groups)], mark_of(number), DASHES[number // len(LIGHT.groups)]


def draw(tasks: dict[str, Arms], path: Path) -> None:
    """A row of panels per task; only GRPO and recency have bands, so that lines stay legible."""
    with plt.rc_context(settings(LIGHT)):
        figure, panels = plt.subplots(
            len(tasks), len(AXES), figsize=(12, 3.4 * len(tasks) + 0.3), squeeze=False, layout="constrained"
        )
        for line, (task, arms) in zip(panels, tasks.items(), strict=True):
            shared = common(arms)
            for panel, (name, axis) in zip(line, AXES.items(), strict=True):
                for arm, results in shared.items():
                    x, mean, low, high = curve(results, axis)
                    colour, mark, dash = look(arm)
                    panel.plot(
                        x, mean, color=colour, marker=mark, markersize=3.5, linestyle=dash, linewidth=1.3, label=arm
                    )
                    if arm in ("grpo", "recency"):
                        panel.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
                panel.set_xlabel(name)
                panel.set_title(f"{task}: points above the base model")
                panel.grid(color=LIGHT.grid, linewidth=0.6)
        handles, labels = max((line[0].get_legend_handles_labels() for line in panels), key=lambda one: len(one[1]))
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        figure.savefig(path, dpi=110, metadata={"Software": None})
        plt.close(figure)


def report(results: Path, docs: Path) -> None:
    """Write the generated part of ``docs/learning.md`` and ``docs/learning.png``."""
    tasks = read_results(results)
    page = docs / "learning.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{generated(tasks, read_pilots(results))}\n\n{END}{rest.split(END)[1]}")
    if tasks:
        draw(tasks, docs / "learning.png")
