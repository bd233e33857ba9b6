"""How many gold answers each convention of the grader concerns: golds of the seven test sets and of DeepMath's sample.

A convention is what the grader asks though a reader might not: a decimal as the six-place rounding, no decimal comma,
no conversion of units, prose by its letters. It costs a right answer in the other form, or refuses the gold answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from repo_verl.rewards.compare import engine_texts
from repo_verl.rewards.normalize import clean
from repo_verl.rewards.quantities import split_unit

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
QWEN = "QwenLM__Qwen2.5-Math__test.jsonl"
FILES: dict[str, Callable[[dict], object]] = {
    "math500/hkust-nlp__simpleRL-reason__test.jsonl": lambda row: row["answer"],
    f"amc23/{QWEN}": lambda row: f"{row['answer']:.0f}",
    f"olympiadbench/{QWEN}": lambda row: row["final_answer"][0],
    "minerva/deepseek-ai__DeepSeek-Math__ocw_test.jsonl": lambda row: row["answer"],
    f"aime24/{QWEN}": lambda row: row["answer"],
    "aime25/ypwang61__One-Shot-RLVR__test.jsonl": lambda row: row["answer"],
    "gsm8k/openai__grade-school-math__test.jsonl": lambda row: row["answer"].split("#### ")[1],
    "train/alibaba__ROLL__math_deepmath_deal.jsonl": lambda row: row["ground_truth"],
}
CONVENTIONS: dict[str, Callable[[str], bool]] = {
    "decimal of one to five places": lambda gold: bool(re.fullmatch(r"-?[0-9]*\.[0-9]{1,5}", gold)),
    "comma between digits": lambda gold: "(" not in gold and bool(re.search(r"(?<![0-9,])\d+,\d{1,2}(?![0-9,])", gold)),
    "unit": lambda gold: split_unit(gold)[1] not in ("", "degree"),
    "prose of more than four words": lambda gold: engine_texts(gold) is None,
    "seconds of arc": lambda gold: bool(re.search(r"[0-9]''", gold)),
}


def main() -> None:
    """Print the counts, a convention a line."""
    found: dict[str, list[str]] = {name: [] for name in CONVENTIONS}
    total = 0
    for name, gold_of in FILES.items():
        for line in (DATA / name).read_text(encoding="utf-8").splitlines():
            gold = clean(str(gold_of(json.loads(line))))
            total += 1
            for convention, concerns in CONVENTIONS.items():
                if concerns(gold):
                    found[convention].append(gold)
    for convention, golds in found.items():
        print(f"{convention}: {len(golds)} of {total}, such as {' | '.join(golds[:3])}")


if __name__ == "__main__":
    main()
