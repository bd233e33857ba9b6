"""Seconds and memory to grade 2,866 problems x 8 distinct completions, half of them wrong, with a cold cache.

Usage: evaluate_grading.py BENCHMARKS, the folder that ``python -m data_prep benchmarks`` wrote.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from common import write_result

from repo_verl.evaluate.benchmarks import read_benchmarks

SAMPLES = 8


def completions(folder: Path) -> list[dict[str, object]]:
    """For every problem 4 texts with its gold answer and 4 with others of its benchmark, no two alike."""
    made = []
    for name, problems in read_benchmarks(folder).problems.items():
        for number, problem in enumerate(problems):
            for sample in range(SAMPLES):
                step = 0 if sample % 2 == 0 else sample
                gold = problems[(number + step) % len(problems)].gold
                # the answer itself is spelt differently in every sample, so that no cached verdict can serve
                answer = gold if not sample else f"{gold} \\text{{}}" if sample == 2 else f"{{{gold}}}" + "\\ " * sample
                text = f"Attempt {sample}. " + "We add what is given, step by step. " * 20 + f"\\boxed{{{answer}}}"
                made.append({"benchmark": name, "problem": problem.id, "sample": sample, "completion": text})
    return made


def peak_pss(process: psutil.Popen, found: list[int]) -> None:
    """The largest summed PSS of the process and its descendants, until it ends."""
    while process.poll() is None:
        total = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                total += one.memory_full_info().pss
            except psutil.Error:
                continue
        found.append(total)
        time.sleep(0.1)


def main() -> None:
    """Measure and write the result."""
    benchmarks = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "completions.jsonl"
        rows = completions(benchmarks)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        command = [sys.executable, "-m", "repo_verl.cli", "evaluate", "--completions", str(file)]
        begin, found = time.perf_counter(), [0]
        process = psutil.Popen([*command, "--benchmarks", str(benchmarks), "--output", folder])
        watcher = threading.Thread(target=peak_pss, args=(process, found))
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - begin
        watcher.join()
        if code:
            raise SystemExit(f"the evaluation ended with {code}")
        content = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))
    right = {name: round(values[f"avg@{SAMPLES}"]["value"], 4) for name, values in content["benchmarks"].items()}
    values = {
        "completions": len(rows),
        "seconds": round(seconds, 1),
        "peak_mib": round(max(found) / 2**20),
        **{f"avg@{SAMPLES}_{name}": value for name, value in right.items()},
    }
    write_result("evaluate_grading", values)


if __name__ == "__main__":
    main()
