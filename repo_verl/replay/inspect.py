"""``repo-verl buffer inspect``: what a saved buffer holds, without loading it, and a few of its rows, as text."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from repo_verl.replay import checkpoint, checkpoint_meta
from repo_verl.replay.checkpoint_meta import META, BufferFilesError, BufferMeta, Shard, opened_file, refusal
from repo_verl.replay.state_checks import ROW_DTYPES, DamagedStateError, check_rows, need
from repo_verl.safe_text import printable
from repo_verl.step_folders import BUFFER, folder_of, step_of, steps_in, tracked_step

COLUMNS = ("prompt_key", "score", "step", "uses", "masked", "parts", "prompt_rows")
COMMON, TEXT, IDS = 5, 300, 32
"""How many values of the score, characters of a text and token ids are shown."""

Columns = dict[str, np.ndarray]
Decode = Callable[[list[int]], str]


def main(arguments: argparse.Namespace) -> int:
    """Print what a saved buffer holds; 1 and one sentence on stderr if it can't be read."""
    try:
        lines = inspect(arguments.folder, arguments.rows, arguments.tokenizer, arguments.verify)
    except (BufferFilesError, OSError) as error:
        said = str(error)
        if isinstance(error, OSError):
            said = f"{arguments.folder} can't be read ({error.strerror or error}): fix that disk or folder."
        print(f"error: {said}", file=sys.stderr)
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
        verify: check every byte, as loading does; otherwise ``meta.json``, sizes and the columns that are read.

    Raises:
        BufferFilesError: if there is no buffer, or it or the tokenizer that was asked for can't be read.
    """
    found = find_folder(path)
    folder = checkpoint.place_of(found)
    meta = checkpoint_meta.read(folder)
    columns = row_columns(folder, meta, verify)
    lines = describe(folder, meta, columns, verify)
    if not rows or not meta.rows:
        return lines
    decode, note = _decoder(found, tokenizer)
    return [*lines, "", f"the newest rows, {note}", *newest_rows(folder, meta, columns, rows, decode)]


def find_folder(path: Path) -> Path:
    """The saved buffer that a path means: itself, that of a ``global_step_N``, or that of a run's newest step."""
    places = {step: Path(folder_of(str(path), step)) / BUFFER for step in steps_in(path)}
    saved = [step for step, place in places.items() if checkpoint.has_buffer(place)]
    if saved:
        newest = tracked_step(path)
        return places[newest if newest in saved else saved[-1]]
    if checkpoint.has_buffer(path / BUFFER):
        return path / BUFFER
    if path.is_dir() and (path.name == BUFFER or (path / META).exists()):
        return path
    raise BufferFilesError(
        f"{path} has no saved replay buffer: name a run's checkpoint folder, a global_step_N or a {BUFFER} folder."
    )


def row_columns(folder: Path, meta: BufferMeta, verify: bool) -> Columns:
    """:data:`COLUMNS` and ``length`` (N,), response tokens, of all rows of a saved buffer."""
    shards = checkpoint.read_shards(folder, meta) if verify else (_unverified(folder, meta, s) for s in meta.shards)
    pieces = [
        {**{name: arrays[name] for name in COLUMNS}, "length": np.diff(arrays["row_offsets"])} for arrays in shards
    ]
    if not pieces:
        return {}
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    if len(np.unique(joined["prompt_key"], axis=0)) != len(joined["prompt_key"]):
        raise refusal(folder, "a prompt is in two shards")
    return joined


def _unverified(folder: Path, meta: BufferMeta, shard: Shard) -> Columns:
    """The columns of prompts and rows of a shard whose checksum nobody has looked at."""
    try:
        with opened_file(folder, shard.file, shard.bytes), safe_open(folder / shard.file, framework="np") as file:
            held = set(file.keys())
            for name, kind in ROW_DTYPES.items():
                right = name in held and checkpoint.DTYPES.get(file.get_slice(name).get_dtype()) == np.dtype(kind)
                need(right, f"column {name} is missing or of another type")
            arrays = {name: file.get_tensor(name) for name in ROW_DTYPES}
        check_rows(arrays, len(meta.part_names))
    except (SafetensorError, DamagedStateError) as error:
        raise refusal(folder, f"{shard.file} is damaged ({str(error).rstrip('.')})") from error
    if (arrays["prompt_rows"].size, arrays["score"].size) != (shard.prompts, shard.rows):
        raise refusal(folder, f"{shard.file} has other numbers of rows than {META} says")
    return arrays


def describe(folder: Path, meta: BufferMeta, columns: Columns, verified: bool) -> list[str]:
    """Lines about a saved buffer: counts, settings, ages, uses, scores."""
    size = meta.bytes + (folder / META).stat().st_size
    settings = ", ".join(f"{name}={value}" for name, value in meta.settings.items())
    lines = [
        f"folder      {folder}",
        f"held        {meta.prompts} prompts, {meta.rows} rows, {meta.tokens} response tokens",
        f"on disk     {size / 1e6:.1f} MB in {len(meta.shards)} shards, "
        + ("every checksum is right" if verified else "checksums of shards not checked (--verify does)"),
        f"settings    {printable(settings, 1000)}",
        f"extra       {printable(json.dumps(meta.extra), TEXT)}",
    ]
    if not meta.rows:
        return [*lines, "no rows"]
    steps, uses, counts = columns["step"], columns["uses"], columns["prompt_rows"]
    now = step_of(folder.parent)
    last = int(steps.max()) if now is None else now
    ages = last - steps
    full = np.mean(counts >= meta.settings["capacity"])
    return [
        *lines,
        f"steps       {steps.min()} to {steps.max()}; ages at step {last}: {ages.mean():.1f} on average, {ages.max()} "
        f"at most",
        f"uses        {uses.mean():.2f} on average, {uses.max()} at most; {np.mean(uses == 0):.1%} of rows never",
        f"per prompt  {counts.min()} to {counts.max()} rows, {counts.mean():.1f} on average; {full:.1%} are full",
        f"per row     {columns['length'].min()} to {columns['length'].max()} tokens, {columns['length'].mean():.1f} on "
        f"average; {columns['masked'].mean():.1%} of rows have a mask",
        f"score       {_values(columns['score'])}",
        *(f"  {printable(name, 40):<10}{_values(columns['parts'][:, number])}"
          for number, name in enumerate(meta.part_names)),
    ]  # fmt: skip


def _values(values: np.ndarray) -> str:
    """Mean, standard deviation and the commonest values of (n,) numbers, NaN where there is none."""
    values = values[~np.isnan(values)]
    if not values.size:
        return "in no row"
    found, counts = np.unique(values, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:COMMON]
    common = ", ".join(f"{found[i]:g} in {counts[i] / values.size:.1%}" for i in most)
    return f"mean {values.mean():.4g}, std {values.std():.4g}; commonest {common}"


def newest_rows(folder: Path, meta: BufferMeta, columns: Columns, count: int, decode: Decode | None) -> list[str]:
    """Lines about the ``count`` newest rows; token ids where there is no ``decode``."""
    lines = []
    firsts = np.cumsum([0, *(shard.rows for shard in meta.shards)])
    for row in np.argsort(-columns["step"], kind="stable")[:count].tolist():
        number = int(np.searchsorted(firsts, row, side="right")) - 1
        key, prompt, response = _tokens(folder, meta.shards[number].file, row - int(firsts[number]))
        lines += [
            f"row {row}: step {columns['step'][row]}, score {columns['score'][row]:g}, uses {columns['uses'][row]}, "
            f"{len(response)} tokens, prompt {key}",
            f"  prompt    {_text(prompt, decode)}",
            f"  response  {_text(response, decode)}",
        ]
    return lines


def _tokens(folder: Path, shard: str, row: int) -> tuple[str, list[int], list[int]]:
    """Key and token ids of the prompt, and token ids of the response, of a row of a shard."""
    try:
        with safe_open(folder / shard, framework="np") as file:
            prompt = int(np.searchsorted(np.cumsum(file.get_tensor("prompt_rows")), row, side="right"))
            key = file.get_slice("prompt_key")[prompt : prompt + 1].tobytes().hex()
            found = []
            for column, offsets, place in (
                ("prompt_ids", "prompt_offsets", prompt), ("response_ids", "row_offsets", row),
            ):  # fmt: skip
                start, stop = file.get_slice(offsets)[place : place + 2].tolist()
                found.append(file.get_slice(column)[start:stop].tolist())
    except SafetensorError as error:
        raise refusal(folder, f"{shard} is damaged ({error})") from error
    return key, found[0], found[1]


def _text(ids: list[int], decode: Decode | None) -> str:
    if decode is None:
        return " ".join(map(str, ids[:IDS])) + (f" ... ({len(ids) - IDS} more)" if len(ids) > IDS else "")
    return printable(decode(ids), TEXT)


def _decoder(folder: Path, tokenizer: Path | None) -> tuple[Decode | None, str]:
    """What turns token ids into text, if there is a tokenizer, and a note on it."""
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
