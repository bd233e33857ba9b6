"""``repo-verl buffer inspect``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_buffer(commands: Any) -> None:
    """Add the command ``buffer``.

    Args:
        commands: of argparse's ``add_subparsers``.
    """
    actions = commands.add_parser("buffer", help="saved replay buffers").add_subparsers(dest="action", required=True)
    parser = actions.add_parser("inspect", help="counts, settings, ages, scores and a few rows of a saved buffer")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run's checkpoints, global_step_N or prompt_replay")
    parser.add_argument("--rows", type=_count, default=3, metavar="N", help="newest rows to print (default: 3)")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="PATH", help="decodes rows (default: that of global_step_N/actor/huggingface)"
    )
    parser.add_argument("--verify", action="store_true", help="check every byte, as loading does")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows: give 0 or more.")
    return int(text)


def main(arguments: argparse.Namespace) -> int:
    """Print what a saved buffer holds; 1 and one sentence on stderr if it can't be read.

    Args:
        arguments: the parsed command line.
    """
    from repo_verl.replay.whole_folders import BufferFilesError

    try:
        lines = inspect(arguments.folder, arguments.rows, arguments.tokenizer, arguments.verify)
    except BufferFilesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: {arguments.folder} can't be read ({error.strerror or error}): fix that disk or folder.",
            file=sys.stderr,
        )
        return 1
    encoding = sys.stdout.encoding or "utf-8"
    print("\n".join(lines).encode(encoding, "backslashreplace").decode(encoding))
    return 0


def inspect(path: Path, rows: int, tokenizer: Path | None, verify: bool) -> list[str]:
    """Lines about a saved buffer and its newest rows.

    Args:
        path: a run's checkpoint folder, a ``global_step_N`` or a ``prompt_replay`` folder.
        rows: how many rows to show.
        tokenizer: folder of a tokenizer; None for the one that verl saved beside the buffer, if it did.
        verify: whether to check every byte.

    Raises:
        BufferFilesError: if there is no buffer, or it or the tokenizer that was asked for can't be read.
    """
    from repo_verl.replay.inspect import describe, find_folder, newest_rows, summarize

    folder = find_folder(path)
    summary = summarize(folder, verify)
    lines = describe(summary, verify)
    if not rows or not summary.meta.rows:
        return lines
    decode, note = _decoder(folder, tokenizer)
    return [*lines, "", f"the newest rows, {note}", *newest_rows(summary, rows, decode)]


def _decoder(folder: Path, tokenizer: Path | None) -> tuple[Callable[[list[int]], str] | None, str]:
    """What turns token ids into text, if there is a tokenizer, and a note on it."""
    from repo_verl.replay.whole_folders import BufferFilesError
    from repo_verl.safe_text import printable

    place = folder.absolute().parent / "actor" / "huggingface" if tokenizer is None else tokenizer
    if not place.is_dir():
        if tokenizer is not None:
            raise BufferFilesError(f"--tokenizer {tokenizer} is no folder: name one that holds a saved tokenizer.")
        return None, "as token ids: --tokenizer decodes them"
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of many kinds: whatever the files make the libraries raise; always told
        reason = printable(f"{type(error).__name__}: {error}", 200)
        if tokenizer is not None:
            raise BufferFilesError(
                f"--tokenizer {tokenizer} can't be loaded ({reason}): name a folder that holds a saved tokenizer."
            ) from error
        return None, f"as token ids, since {place} holds no tokenizer that can be loaded ({reason})"
    return loaded.decode, f"decoded by {place}"
