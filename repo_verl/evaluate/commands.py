"""``repo-verl evaluate`` and ``repo-verl compare``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repo_verl.atomic_files import write_atomically
from repo_verl.evaluate import MANY_SAMPLES, Protocol
from repo_verl.safe_text import printable


def add_evaluate(commands: Any) -> None:
    """Add the sub-command ``evaluate`` to what argparse's ``add_subparsers`` made."""
    default = Protocol()
    parser = commands.add_parser("evaluate", help="scores of a model, or of completions, on math benchmarks")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="hub id, folder, or checkpoint of verl's FSDP engine")
    source.add_argument("--completions", type=Path, help="jsonl or parquet to grade: benchmark, problem, completion")
    made = "folder that `python -m data_prep benchmarks` wrote"
    parser.add_argument("--benchmarks", type=Path, required=True, help=made)
    parser.add_argument("--output", type=Path, required=True, help="folder; a stopped evaluation goes on where it was")
    parser.add_argument("--only", nargs="+", metavar="BENCHMARK", help="these benchmarks (default: all in the folder)")
    parser.add_argument("--limit", type=int, help="the first N problems of each benchmark")
    parser.add_argument("--temperature", type=float, default=default.temperature)
    parser.add_argument("--top-p", type=float, default=default.top_p)
    parser.add_argument("--top-k", type=int, default=default.top_k)
    parser.add_argument("--max-tokens", type=int, default=default.max_tokens)
    many = " ".join(f"{name}={count}" for name, count in MANY_SAMPLES.items())
    parser.add_argument(
        "--samples", nargs="+", default=[], metavar="N or BENCHMARK=N", help=f"samples per problem (default: 1 {many})"
    )
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--template", default=default.template, choices=["boxed", "think"], help="where the answer is")
    parser.add_argument("--dtype", default=default.dtype)
    parser.add_argument("--max-model-len", type=int, help="longest prompt and response (default: the model's)")
    parser.add_argument("--max-num-seqs", type=int, default=default.max_num_seqs, help="1: repeatable to the byte")
    parser.add_argument("--engine", default="{}", metavar="JSON", help="further arguments of vllm.LLM")


def add_compare(commands: Any) -> None:
    """Add the sub-command ``compare`` to what argparse's ``add_subparsers`` made."""
    parser = commands.add_parser("compare", help="paired differences between evaluations of the same problems")
    seeds = "folders of `evaluate`, or NAME=DIR,DIR,... for several seeds; the first is the baseline"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=seeds)
    parser.add_argument("--output", type=Path, help="also write the differences as JSON")


def main(arguments: argparse.Namespace) -> int:
    """Run the parsed command; 0 if all went well, 1 with one line on stderr if the input or a setting is wrong."""
    try:
        print(_evaluate(arguments) if arguments.command == "evaluate" else _compare(arguments))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"repo-verl {arguments.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _evaluate(arguments: argparse.Namespace) -> str:
    from repo_verl.evaluate import results, run
    from repo_verl.evaluate.benchmarks import read_benchmarks

    samples, default = parse_samples(arguments.samples)
    plain = "temperature top_p top_k max_tokens seed template dtype max_model_len max_num_seqs".split()
    settings = {name: getattr(arguments, name) for name in plain}
    protocol = Protocol(samples=samples, default_samples=default, **settings)
    benchmarks = read_benchmarks(arguments.benchmarks, arguments.only, arguments.limit)
    if arguments.completions is not None:
        skip = arguments.only is not None
        content = run.grade_file(arguments.completions, benchmarks, arguments.output, protocol.template, skip)
    else:
        content = run.evaluate(arguments.model, benchmarks, arguments.output, protocol, _engine(arguments.engine))
    return results.table(content)


def parse_samples(texts: Sequence[str]) -> tuple[dict[str, int], int]:
    """Samples per problem by benchmark, and for all others; the paper's, where no text gives a number for all.

    Args:
        texts: ``N`` for all benchmarks, ``BENCHMARK=N`` for one.

    Raises: ValueError naming a text that is neither.
    """
    samples, default = dict(MANY_SAMPLES), 1
    plain = [text for text in texts if "=" not in text]
    if plain:
        samples, default = {}, _count(plain[-1])
    for name, _, count in (text.partition("=") for text in texts if "=" in text):
        samples[name] = _count(count)
    return samples, default


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 100 or int(text) < 1:
        raise ValueError(f"--samples {printable(text, 100)}: want a number of 1 or more, or BENCHMARK=N.")
    return int(text)


def _engine(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:  # the text itself, which may hold a token, is not shown
        raise ValueError(
            f'--engine of {len(text)} characters: want a JSON object, as {{"gpu_memory_utilization": 0.8}} ({error}).'
        ) from error


def _compare(arguments: argparse.Namespace) -> str:
    from repo_verl.evaluate import differences
    from repo_verl.evaluate.results import read_values

    groups: dict[str, list[Path]] = {}
    for text in arguments.runs:
        name, sign, listed = text.partition("=")  # DIR is called by its last part
        folders = [Path(folder) for folder in listed.split(",") if folder] if sign else [Path(text)]
        name = name if sign else folders[0].resolve().name
        if name in groups:
            raise ValueError(f"two settings are called {name!r}: give them different names with NAME=DIR.")
        groups[name] = folders
    if len(groups) < 2:
        raise ValueError("nothing to compare: name two evaluations or more, the baseline first.")
    (baseline, folders), *others = groups.items()
    first = [read_values(folder) for folder in folders]
    tables, content = [], {}
    for name, folders in others:
        found = differences.compare_groups(first, [read_values(folder) for folder in folders])
        tables.append(differences.table(found, baseline, name))
        content[name] = {key: {**row._asdict(), "difference": row.difference._asdict()} for key, row in found.items()}
    if arguments.output is not None:
        written = json.dumps({"baseline": baseline, "differences": content}, indent=2)
        write_atomically(arguments.output, written + "\n")
    return "\n\n".join(tables)
