"""Rows graded a second: this package, verl's math_verify path, plain Math-Verify in one process; same rows, same run.

Rows are the gold answers of GSM8K's test set and MATH-500 with a right answer, with the next problem's answer, and
hostile completions (a sample of the test set of 500). Each path and kind of rows runs in a process of its own, from 8
threads (plain Math-Verify: from the main thread, as it needs), with at most 8 GiB of address space a process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import write_result

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
THREADS = 8
HOSTILE = 40
ADDRESS_SPACE = 8 << 30
PATHS = ("repo_verl", "verl", "math_verify")
KINDS = ("right", "wrong", "hostile")

Row = tuple[str, str, bool]
"""Completion, gold answer, whether it is right."""


def rows(kind: str) -> list[Row]:
    """The rows of a kind."""
    if kind == "hostile":
        sys.path.insert(0, str(ROOT / "tests" / "helpers"))
        from grading_cases import hostile_completions

        cases = hostile_completions()
        return [(text, gold, False) for _, text, gold in cases[:: len(cases) // HOSTILE][:HOSTILE]]
    gsm8k = [
        json.loads(line)["answer"].split("#### ")[1] for line in _lines("gsm8k/openai__grade-school-math__test.jsonl")
    ]
    math500 = [json.loads(line)["answer"] for line in _lines("math500/hkust-nlp__simpleRL-reason__test.jsonl")]
    step = 1 if kind == "wrong" else 0
    made = []
    for golds in (gsm8k, math500):
        for number, gold in enumerate(golds):
            answer = golds[(number + step) % len(golds)]
            text = "First we look at what is given and add it up, step by step. " * 8
            made.append((f"{text}So the answer is $\\boxed{{{answer}}}$.", gold, answer == gold))
    return made


def _lines(name: str) -> list[str]:
    return (DATA / name).read_text(encoding="utf-8").splitlines()


def grader(path: str) -> Callable[[Row], float]:
    """One row's score by one of the paths."""
    if path == "repo_verl":
        from repo_verl.rewards import compute_score

        return lambda row: compute_score("benchmark", row[0], row[1])["score"]
    if path == "verl":
        from verl.utils.reward_score.math_verify import compute_score as verl_score

        return lambda row: verl_score(row[0], row[1])
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    def plain(row: Row) -> float:
        gold = parse(f"\\boxed{{{row[1]}}}", [LatexExtractionConfig()])
        return float(verify(gold, parse(row[0], [LatexExtractionConfig(), ExprExtractionConfig()])))

    return plain


def measure(path: str, kind: str) -> None:
    """In a process of its own: grade all rows of a kind, and print the figures as JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    score, todo = grader(path), rows(kind)
    score(("\\boxed{x+1}", "1+x", True))  # starts its processes
    begin = time.perf_counter()
    if path == "math_verify":
        scores = [score(row) for row in todo]
    else:
        with ThreadPoolExecutor(THREADS) as threads:
            scores = list(threads.map(score, todo))
    seconds = time.perf_counter() - begin
    agreed = sum((value == 1.0) == row[2] for value, row in zip(scores, todo, strict=True))
    print(json.dumps({"rows": len(todo), "seconds": round(seconds, 3), "verdicts_right": agreed}), flush=True)
    os.killpg(0, signal.SIGKILL)  # verl's pool would wait for its workers, which may never end


def main() -> None:
    """Measure all paths and kinds, three times the fast ones, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for one path and kind")
    arguments = parser.parse_args()
    values: dict[str, object] = {"threads": THREADS}
    for kind in KINDS:
        for path in PATHS:
            runs = [_child(path, kind, arguments.limit) for _ in range(1 if kind == "hostile" else 3)]
            best = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
            values[f"{kind}_{path}_rows_a_second"] = round(best["rows"] / best["seconds"], 1)
            values[f"{kind}_{path}_verdicts_right"] = f"{best['verdicts_right']} of {best['rows']}"
    write_result("grading", values)


def _child(path: str, kind: str, limit: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", path, kind]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return {"rows": 0, "seconds": limit, "verdicts_right": 0}
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1])) if lines else {"rows": 0, "seconds": limit, "verdicts_right": 0}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3])
    else:
        main()
