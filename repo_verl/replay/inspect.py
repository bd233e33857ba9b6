"""What a saved buffer holds, without loading it: counts, distributions and a few rows, as text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from repo_verl.replay import checkpoint
from repo_verl.replay.checkpoint_meta import BufferMeta, Shard
from repo_verl.replay.state_checks import ROW_DTYPES, DamagedStateError, check_rows
from repo_verl.replay.whole_folders import BufferFilesError, check_file, refusal
from repo_verl.safe_text import printable
from repo_verl.step_folders import BUFFER, folder_of, step_of, steps_in, tracked_step

COLUMNS = ("prompt_key", "score", "step", "uses", "masked", "parts", "prompt_rows")
COMMON, TEXT, IDS = 5, 300, 32
"""How many values of the score, characters of a text and token ids are shown."""

Decode = Callable[[list[int]], str]


@dataclasses.dataclass(frozen=True)
class Summary:
    """Columns of all rows of a saved buffer, without their tokens.

    Attributes:
        folder, meta: where they are from.
        columns: ``score``, ``step``, ``uses``, ``masked`` (N,), ``length`` (N,) response tokens, ``parts`` (N, K) and
            ``prompt_rows`` (P,).
    """

    folder: Path
    meta: BufferMeta
    columns: dict[str, np.ndarray]


def find_folder(path: Path) -> Path:
    """The saved buffer that a path means: itself, that of a ``global_step_N``, or that of a run's newest step.

    Raises:
        BufferFilesError: if there is none.
    """
    places = {step: Path(folder_of(str(path), step)) / BUFFER for step in steps_in(path)}
    saved = [step for step, place in places.items() if checkpoint.has_buffer(place)]
    if saved:
        newest = tracked_step(path)
        return places[newest if newest in saved else saved[-1]]
    if checkpoint.has_buffer(path / BUFFER):
        return path / BUFFER
    if path.is_dir() and (path.name == BUFFER or (path / "meta.json").exists()):
        return path
    raise BufferFilesError(
        f"{path} has no saved replay buffer: name a run's checkpoint folder, a global_step_N or a {BUFFER} folder."
    )


def summarize(folder: Path, verify: bool) -> Summary:
    """Read what a saved buffer knows of its rows.

    Args:
        folder: of :func:`find_folder`.
        verify: check every byte, as loading does; otherwise ``meta.json``, sizes and the columns that are read.

    Raises:
        BufferFilesError: if something is missing or damaged.
    """
    place = checkpoint.place_of(folder)
    meta = checkpoint.read_meta(folder)
    shards = (
        checkpoint.read_shards(place, meta) if verify else (_row_columns(place, meta, shard) for shard in meta.shards)
    )
    pieces = [
        {**{name: arrays[name] for name in COLUMNS}, "length": np.diff(arrays["row_offsets"])} for arrays in shards
    ]
    empty = {**dict.fromkeys((*COLUMNS, "length"), np.empty(0)), "parts": np.empty((0, len(meta.part_names)))}
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in empty} if pieces else empty
    if len(np.unique(joined["prompt_key"], axis=0)) != len(joined["prompt_key"]):
        raise refusal(place, "a prompt is in two shards")
    return Summary(place, meta, joined)


def _row_columns(folder: Path, meta: BufferMeta, shard: Shard) -> dict[str, np.ndarray]:
    """The columns of prompts and rows of a shard whose checksum nobody has looked at."""
    check_file(folder / shard.file, shard.bytes)
    try:
        with safe_open(folder / shard.file, framework="np") as file:
            held = set(file.keys())
            for name, kind in ROW_DTYPES.items():
                if name not in held or checkpoint.DTYPES.get(file.get_slice(name).get_dtype()) != np.dtype(kind):
                    raise DamagedStateError(f"column {name} is missing or of another type")
            arrays = {name: file.get_tensor(name) for name in ROW_DTYPES}
        check_rows(arrays, len(meta.part_names))
    except (SafetensorError, DamagedStateError) as error:
        raise refusal(folder, f"{shard.file} is damaged ({str(error).rstrip('.')})") from error
    if (arrays["prompt_rows"].size, arrays["score"].size) != (shard.prompts, shard.rows):
        raise refusal(folder, f"{shard.file} has other numbers of rows than meta.json says")
    return arrays


def describe(summary: Summary, verified: bool) -> list[str]:
    """Lines about a saved buffer: counts, settings, ages, uses, scores."""
    meta, columns = summary.meta, summary.columns
    size = meta.bytes + (summary.folder / "meta.json").stat().st_size
    settings = ", ".join(f"{name}={value}" for name, value in meta.settings.items())
    lines = [
        f"folder      {summary.folder}",
        f"held        {meta.prompts} prompts, {meta.rows} rows, {meta.tokens} response tokens",
        f"on disk     {size / 1e6:.1f} MB in {len(meta.shards)} shards, "
        + ("every checksum is right" if verified else "checksums of shards not checked (--verify does)"),
        f"settings    {printable(settings, 1000)}",
        f"extra       {printable(json.dumps(meta.extra), TEXT)}",
    ]
    if not meta.rows:
        return [*lines, "no rows"]
    steps, uses, counts = columns["step"], columns["uses"], columns["prompt_rows"]
    now = step_of(summary.folder.parent)
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
        *(f"  {printable(name, 40):<10}{_values(_given(columns['parts'][:, number]))}"
          for number, name in enumerate(meta.part_names)),
    ]  # fmt: skip


def _given(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _values(values: np.ndarray) -> str:
    """Mean, standard deviation and the commonest values of (n,) numbers."""
    if not values.size:
        return "in no row"
    found, counts = np.unique(values, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:COMMON]
    common = ", ".join(f"{found[i]:g} in {counts[i] / values.size:.1%}" for i in most)
    return f"mean {values.mean():.4g}, std {values.std():.4g}; commonest {common}"


def newest_rows(summary: Summary, count: int, decode: Decode | None) -> list[str]:
    """Lines about the ``count`` newest rows; token ids where there is no ``decode``.

    Raises:
        BufferFilesError: if the tokens of one are not where the shard says.
    """
    columns, lines = summary.columns, []
    firsts = np.cumsum([0, *(shard.rows for shard in summary.meta.shards)])
    for row in np.argsort(-columns["step"], kind="stable")[:count].tolist():
        shard = int(np.searchsorted(firsts, row, side="right")) - 1
        key, prompt, response = _tokens(summary, shard, row - int(firsts[shard]))
        lines += [
            f"row {row}: step {columns['step'][row]}, score {columns['score'][row]:g}, uses {columns['uses'][row]}, "
            f"{len(response)} tokens, prompt {key}",
            f"  prompt    {_text(prompt, decode)}",
            f"  response  {_text(response, decode)}",
        ]
    return lines


def _tokens(summary: Summary, number: int, row: int) -> tuple[str, list[int], list[int]]:
    """Key and token ids of the prompt, and token ids of the response, of a row of a shard."""
    shard = summary.meta.shards[number]
    try:
        with safe_open(summary.folder / shard.file, framework="np") as file:
            prompt = int(np.searchsorted(np.cumsum(file.get_tensor("prompt_rows")), row, side="right"))
            key = file.get_slice("prompt_key")[prompt : prompt + 1].tobytes().hex()
            found = []
            for column, offsets, place in (
                ("prompt_ids", "prompt_offsets", prompt), ("response_ids", "row_offsets", row),
            ):  # fmt: skip
                start, stop = file.get_slice(offsets)[place : place + 2].tolist()
                found.append(file.get_slice(column)[start:stop].tolist())
    except SafetensorError as error:
        raise refusal(summary.folder, f"{shard.file} is damaged ({error})") from error
    return key, found[0], found[1]


def _text(ids: list[int], decode: Decode | None) -> str:
    if decode is None:
        return " ".join(map(str, ids[:IDS])) + (f" ... ({len(ids) - IDS} more)" if len(ids) > IDS else "")
    return printable(decode(ids), TEXT)
