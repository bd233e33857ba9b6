"""``python -m data_prep SET --output DIR``: one data set as verl parquet files, with a JSON account beside them."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from tqdm import tqdm

import repo_verl
from data_prep import arithmetic, deepmath, files
from data_prep.prepare import Account, Filters, convert, sample
from data_prep.schema import TEMPLATES
from data_prep.tokens import prompt_counter

LOCAL_SETS = {"deepmath": deepmath}
"""Data sets with a source file or a hub name, by the name on the command line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; 0 if all went well, 2 with one line on stderr if the input or a setting is wrong.

    Args:
        argv: the arguments, ``sys.argv[1:]`` if None.
    """
    arguments = _parser().parse_args(argv)
    try:
        account = prepare_arithmetic(arguments) if arguments.set == "arithmetic" else prepare_source(arguments)
    except (ValueError, OSError) as error:
        print(f"data_prep {arguments.set}: {error}", file=sys.stderr)
        return 2
    print(table(account))
    return 0


def prepare_source(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepares a data set that is read from a file or from the hub, and writes it.

    Args:
        arguments: the parsed command line.

    Returns: the content of the JSON file.
    """
    data_set = LOCAL_SETS[arguments.set]
    filters = _filters(arguments)
    name = f"{arguments.set}_train.parquet"
    source: dict[str, Any]
    if arguments.input is None:
        source = {"hub": data_set.HUB_NAME}
        records: Iterable[Any] = hub_records(data_set.HUB_NAME)
    else:
        source = {"file": arguments.input.name, "sha256": files.sha256(arguments.input)}
        records = files.read_records(arguments.input)
    label = str(arguments.input or data_set.HUB_NAME)
    progress = tqdm(records, desc=arguments.set, unit=" records", disable=arguments.quiet)
    rows, account = convert(progress, data_set.to_row, "train", arguments.template, filters, label)
    if arguments.sample_size is not None:
        rows = sample(rows, arguments.sample_size, arguments.seed, account)
    files.write_rows(rows, arguments.output / name)
    return _write_account(arguments, {name: account}, source)


def prepare_arithmetic(arguments: argparse.Namespace) -> dict[str, Any]:
    """Makes the synthetic arithmetic splits, disjoint from one another, and writes them.

    Args:
        arguments: the parsed command line.

    Returns: the content of the JSON file.
    """
    sizes = {"train": arguments.train_size, "test": arguments.test_size, "warmup": arguments.warmup_size}
    filters = _filters(arguments)
    split_records: dict[str, list[dict[str, str]]] = {split: [] for split in sizes}
    made = arithmetic.records(arguments.form, arguments.digits, sizes, arguments.seed)
    for split, record in tqdm(made, desc="arithmetic", total=sum(sizes.values()), disable=arguments.quiet):
        split_records[split].append(record)
    accounts = {}
    for split, records in split_records.items():
        if not records:
            continue
        name = f"arithmetic_{split}.parquet"
        rows, accounts[name] = convert(records, arithmetic.to_row, split, arguments.template, filters, name)
        files.write_rows(rows, arguments.output / name)
    return _write_account(arguments, accounts, {"made": "data_prep.arithmetic"})


def hub_records(name: str) -> list[Any] | Iterable[Any]:
    """The records of a public hub set.

    Args:
        name: ``owner/set``.

    Raises: OSError saying how to get the file when the hub cannot be reached.
    """
    import datasets

    try:
        return datasets.load_dataset(name, split="train")
    except Exception as error:
        raise OSError(
            f"the hub set {name} could not be loaded ({type(error).__name__}); on a machine with network run "
            f"`huggingface-cli download {name} --repo-type dataset --local-dir DIR` and pass the file with --input"
        ) from error


def table(account: dict[str, Any]) -> str:
    """The closing table: one line a file, one a reason for which rows were dropped.

    Args:
        account: the content of the JSON file.
    """
    lines = [f"{'file':<32} {'in':>8} {'dropped':>8} {'out':>8}"]
    for name, counts in account["files"].items():
        gone = counts["records_in"] - counts["rows_out"]
        lines.append(f"{name:<32} {counts['records_in']:>8} {gone:>8} {counts['rows_out']:>8}")
        lines.extend(f"  {entry['count']:>8}  {reason}" for reason, entry in counts["dropped"].items())
    return "\n".join(lines)


def _write_account(
    arguments: argparse.Namespace, accounts: dict[str, Account], source: dict[str, Any]
) -> dict[str, Any]:
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items()}
    for left_out in ("output", "input", "quiet"):
        settings.pop(left_out, None)
    content = {
        "set": arguments.set,
        "files": {name: account.as_json() for name, account in accounts.items()},
        "source": source,
        "flags": settings,
        "sha256": {name: files.sha256(arguments.output / name) for name in accounts},
        "versions": {
            "repo_verl": repo_verl.__version__,
            "pyarrow": pyarrow.__version__,
            "python": platform.python_version(),
        },
    }
    files.write_json(content, arguments.output / f"{arguments.set}.json")
    return json.loads(json.dumps(content))


def _filters(arguments: argparse.Namespace) -> Filters:
    counter = prompt_counter(arguments.tokenizer) if arguments.tokenizer else None
    return Filters(arguments.answers, arguments.max_prompt_chars, arguments.max_prompt_tokens, counter)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep", description=__doc__)
    sets = parser.add_subparsers(dest="set", required=True, metavar="SET")
    for name in LOCAL_SETS:
        local = sets.add_parser(name, help=f"the hub's {LOCAL_SETS[name].HUB_NAME}, or a file of it")
        local.add_argument("--input", type=Path, help="a jsonl, json or parquet file; default: the hub's set")
        local.add_argument("--sample-size", type=int, help="rows drawn at random; default all")
        _common(local)
    made = sets.add_parser("arithmetic", help="synthetic problems for laptop runs")
    made.add_argument("--form", default="sums", choices=arithmetic.FORMS)
    made.add_argument("--digits", type=int, default=2, help="digits of each operand")
    made.add_argument("--train-size", type=int, default=1024)
    made.add_argument("--test-size", type=int, default=256)
    made.add_argument("--warmup-size", type=int, default=0, help="problems for repo_verl.cpu.tiny's warm-up")
    _common(made)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--template", default="none", choices=sorted(TEMPLATES), help="none: the bare problem")
    parser.add_argument("--answers", choices=["yes-no"], help="keep only rows with such a gold answer")
    parser.add_argument("--max-prompt-chars", type=int, help="drop longer prompts")
    parser.add_argument("--max-prompt-tokens", type=int, help="drop longer prompts; needs --tokenizer")
    parser.add_argument("--tokenizer", help="folder or hub name of the tokenizer that counts")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
