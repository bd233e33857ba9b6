"""``python -m data_prep SET --output DIR``: a data set as verl parquet files, with a JSON account beside them."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep import arithmetic, jobs
from data_prep.reading import SUFFIXES
from data_prep.schema import TEMPLATES
from repo_verl.rewards.pool import JudgeError

_FILES = f"a file ({', '.join(SUFFIXES)}; those of text also .gz), or a folder with one such file or the hub's shards"


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; its exit status: 0, or with one line on stderr 2 if the input or a setting is wrong, 130 or 143
    after Ctrl-C or SIGTERM.
    """
    arguments = _parser().parse_args(argv)
    try:
        account = jobs.run(arguments)
    except (ValueError, OSError, JudgeError) as error:
        return _failed(arguments.set, str(error), 2)
    except KeyboardInterrupt:
        return _failed(arguments.set, "interrupted; unfinished files were removed", 130)
    except Terminated:
        return _failed(arguments.set, "ended by SIGTERM; unfinished files were removed", 143)
    print(warning(account), end="", file=sys.stderr)
    try:
        print(table(account), flush=True)
    except BrokenPipeError:  # the reader has seen enough; without this Python complains at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def table(account: dict[str, Any]) -> str:
    """The closing table of an account: a line for every file, drop reason, benchmark file and benchmark match."""
    lines = [f"{'file':<32} {'in':>8} {'dropped':>8} {'out':>8}"]
    for name, counts in account["files"].items():
        gone = counts["records_in"] - counts["rows_out"]
        lines.append(f"{name:<32} {counts['records_in']:>8} {gone:>8} {counts['rows_out']:>8}")
        lines.extend(f"  {entry['count']:>8}  {reason}" for reason, entry in counts["dropped"].items())
        if counts["instruction_removed"]:
            lines.append(f"  {counts['instruction_removed']:>8}  prompts had an instruction, which was removed")
    if len(account["files"]) > 1:
        came, left = (sum(c[key] for c in account["files"].values()) for key in ("records_in", "rows_out"))
        lines.append(f"{'total':<32} {came:>8} {came - left:>8} {left:>8}")
    for name, counts in (account["decontaminate"] or {}).items():
        lines.append(f"compared with {name}: {counts['rows_used']} rows used, {counts['rows_skipped']} skipped")
    for name, counts in account["files"].items():
        for match in counts["benchmark_matches"]:
            lines.append(f"{name}: record {match['record']} matches {match['data_source']} {match['index']}")
    return "\n".join(lines)


def warning(account: dict[str, Any]) -> str:
    r"""A line on prompts that do not ask for the ``\boxed{}`` that the reward reads, "" if all do.

    Bare prompts are the paper's, so they are no error; problems made for models that are taught the box are left out.
    """
    rows, without = (sum(c[key] for c in account["files"].values()) for key in ("rows_out", "without_box"))
    if not without or account["set"] == "arithmetic":
        return ""
    share = f"{without} of {rows} prompts ({100 * without / rows:.3g}%)"
    return (
        f"data_prep {account['set']}: warning: {share} do not ask for the "
        "\\boxed{} that repo_verl.rewards reads; pass --template boxed, unless the model writes it unasked\n"
    )


def _failed(name: str, message: str, code: int) -> int:
    print(f"data_prep {name}: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep", description=__doc__)
    sets = parser.add_subparsers(dest="set", required=True, metavar="SET")
    for name, data_set in jobs.SETS.items():
        local = sets.add_parser(name, help=f"the hub's {data_set.hub_name}, or a file of it")
        local.add_argument("--input", type=Path, help=f"{_FILES}; default: the hub's set")
        named = "what its name says, or " if data_set.both_splits else ""
        local.add_argument("--split", choices=["train", "test"],
                           help=f"default for a file: {named}{data_set.default_split}")  # fmt: skip
        if name == "deepmath":
            local.add_argument("--gold", default="final", choices=["final", "r1"],
                               help="final: final_answer; r1: the last box of r1_solution_1")  # fmt: skip
        _common(local)
    own = sets.add_parser("custom", help="any data set of problems and answers")
    own.add_argument("--name", required=True, help="the rows' data_source, and the start of the file's name")
    place = own.add_mutually_exclusive_group(required=True)
    place.add_argument("--input", type=Path, help=_FILES)
    place.add_argument("--hub", metavar="OWNER/SET", help="a data set of the hub")
    own.add_argument("--split", metavar="S", help="train, test, or another of the hub's; default: what a file's name "
                     "says, or train")  # fmt: skip
    for what in ("problem", "answer"):
        own.add_argument(f"--{what}-field", metavar="F", help=f"the {what}'s field (A.B for a nested one) where its "
                         "name does not say it")  # fmt: skip
    _common(own)
    tests = sets.add_parser("benchmarks", help=f"the paper's test sets: {', '.join(jobs.BENCHMARKS)}")
    tests.add_argument("--input", action="append", metavar="DIR or SET=FILE",
                       help="may be given several times; default: the hub's sets")  # fmt: skip
    tests.add_argument("--any-count", action="store_true", help="take sets with more or fewer records than the paper's")
    _common(tests)
    made = sets.add_parser("arithmetic", help="synthetic problems for laptop runs")
    made.add_argument("--form", default="sums", choices=arithmetic.FORMS)
    made.add_argument("--digits", type=int, default=2, help="digits of each operand")
    made.add_argument("--train-size", type=int, default=1024)
    made.add_argument("--test-size", type=int, default=256)
    made.add_argument("--warmup-size", type=int, default=0, help="problems for repo_verl.cpu.tiny's warm-up")
    made.set_defaults(sample_size=None)
    _common(made, sampling=False)
    return parser


def _common(parser: argparse.ArgumentParser, sampling: bool = True) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--template", default="none", choices=sorted(TEMPLATES), help="none: the bare problem")
    parser.add_argument("--answers", choices=["yes-no"], help="keep only rows with such a gold answer")
    parser.add_argument("--max-prompt-chars", type=int, help="drop longer prompts")
    parser.add_argument("--max-prompt-tokens", type=int, help="drop longer prompts; needs --tokenizer, and it this")
    parser.add_argument("--tokenizer", help="folder or hub name of the tokenizer that counts")
    parser.add_argument("--filter-unverifiable", action="store_true",
                        help="drop rows whose gold answer the grader cannot read, or cannot judge within its limits of "
                        "time and memory")  # fmt: skip
    parser.add_argument("--deduplicate", action="store_true", help="keep the first of equal problems")
    parser.add_argument("--decontaminate", type=Path, metavar="BENCH_DIR",
                        help="drop problems that match one of these verl parquet files, and say which")  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="stop at the first record that cannot be a row")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    if sampling:
        parser.add_argument("--sample-size", type=int,
                            help="rows drawn at random of what the filters leave; default all")  # fmt: skip
