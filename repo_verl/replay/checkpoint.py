"""The buffer on disk: shards of rows and ``meta.json``; ``docs/buffer_format.md`` describes them.

``FOLDER/rows-00000.safetensors``, ... hold the columns of :mod:`repo_verl.replay.state` for ranges of prompts.
``meta.json`` names their sizes and checksums, and has one itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from repo_verl import atomic_files
from repo_verl.replay import checkpoint_meta
from repo_verl.replay.buffer import PromptReplayBuffer
from repo_verl.replay.checkpoint_meta import META, BufferFilesError, BufferMeta, Shard, opened_file, refusal
from repo_verl.replay.state import NO_LIMITS, Arrays, RowLimits
from repo_verl.replay.state_checks import DamagedStateError, check_columns

SHARD_BYTES = 32 << 20
WRITERS = 2
"""Threads that write a shard each while the next is packed: one waits for the disk as the other hashes."""

DTYPES = {"U8": "u1", "BOOL": "?", "U16": "<u2", "I32": "<i4", "I64": "<i8", "F32": "<f4", "F64": "<f8"}


@dataclasses.dataclass(frozen=True)
class LoadedBuffer:
    """What :func:`load_buffer` found: what was saved, the rows that the buffer now holds, and what is left out.

    ``too_long`` are rows over the limits: for their prompt, their response, and both together; ``evicted`` is for
    ``max_tokens``.
    """

    meta: BufferMeta
    rows: int
    too_long: tuple[int, ...]
    evicted_prompts: int
    evicted_rows: int

    @property
    def over_capacity(self) -> int:
        """Rows left out for ``capacity``."""
        return self.meta.rows - self.rows - sum(self.too_long) - self.evicted_rows


def save_buffer(
    folder: str | os.PathLike[str],
    buffer: PromptReplayBuffer,
    extra: Mapping[str, Any],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> BufferMeta:
    """Write a buffer into a folder of its own; a kill at any instant leaves the former or the new one complete.

    Memory: five to eight shards beside the buffer. No one else may change it meanwhile.

    Args:
        folder: ``global_step_N/prompt_replay``; made if missing, replaced if there.
        buffer: unchanged.
        extra: JSON-ready values kept with it.
        shard_bytes: what prompts are put into a file of; one prompt may take more.

    Raises:
        BufferFilesError: if there is too little room or the folder can't be written; what was there is left whole.
        ValueError, TypeError: if ``extra`` is not JSON-ready, or for a prompt key that is not 32 hexadecimal digits.
    """
    folder = Path(os.path.abspath(folder))
    size, shards = buffer.shards(shard_bytes)
    state = buffer.meta()
    meta = BufferMeta((), state["part_names"], state["log_prob_dtype"], state["rng"], buffer.settings, -1, dict(extra))
    checkpoint_meta.encode(meta)
    try:
        with atomic_files.written_folder(folder) as new:
            _check_room(folder, size)
            entries, most = _write_shards(new, shards)
            meta = dataclasses.replace(meta, shards=tuple(entries), max_token_id=most)
            atomic_files.write_file(new / META, checkpoint_meta.encode(meta))
    except OSError as error:
        raise BufferFilesError(
            f"the replay buffer could not be saved in {folder} ({error.strerror or error}): fix that disk or folder, "
            f"or set trainer.default_local_dir to another one."
        ) from error
    return meta


def _check_room(folder: Path, size: int) -> None:
    wanted, free = size + (size >> 8) + (1 << 20), shutil.disk_usage(folder.parent).free
    if free < wanted:
        raise BufferFilesError(
            f"the replay buffer needs {wanted / 1e6:.0f} MB in {folder}, where {free / 1e6:.0f} MB are free: make room "
            f"there, or set trainer.default_local_dir to a larger disk."
        )


def _write_shards(folder: Path, shards: Iterator[dict[str, np.ndarray]]) -> tuple[list[Shard], int]:
    """Write shards in threads while the next is packed; entries of ``meta.json`` and the largest token id."""
    waiting: deque[Future[tuple[Shard, int]]] = deque()
    written: list[tuple[Shard, int]] = []
    with ThreadPoolExecutor(WRITERS, "buffer-writer") as writer:
        for number, arrays in enumerate(shards):
            if len(waiting) == WRITERS:
                written.append(waiting.popleft().result())
            waiting.append(writer.submit(_write_shard, folder / checkpoint_meta.shard_name(number), arrays))
            del arrays
        written += [future.result() for future in waiting]
    return [shard for shard, _ in written], max((most for _, most in written), default=-1)


def _write_shard(path: Path, arrays: Arrays) -> tuple[Shard, int]:
    content = save(dict(arrays))
    atomic_files.write_file(path, content)
    digest = hashlib.sha256(content).hexdigest()
    return Shard(path.name, len(content), digest, *_counts(arrays)), _max_token_id(arrays)


def _counts(arrays: Arrays) -> tuple[int, int, int]:
    """Prompts, rows and response tokens."""
    return arrays["prompt_rows"].size, arrays["score"].size, arrays["response_ids"].size


def _max_token_id(arrays: Arrays) -> int:
    """The largest token id in a shard, -1 without tokens."""
    return max(int(arrays[name].max(initial=-1)) for name in ("prompt_ids", "response_ids"))


def has_buffer(folder: str | os.PathLike[str]) -> bool:
    """Whether :func:`save_buffer` has ever finished writing this folder, even if a later save was killed."""
    return atomic_files.find_folder(Path(folder)) is not None


def remove_buffer(folder: str | os.PathLike[str]) -> None:
    """Remove a saved buffer and what kills have left of others in its place; nothing if there is none."""
    folder = Path(folder)
    for place in (folder, *(atomic_files.folder_beside(folder, suffix) for suffix in ("old", "tmp"))):
        atomic_files.remove_folder(place)


def read_meta(folder: str | os.PathLike[str]) -> BufferMeta:
    """The checked metadata of a saved buffer; no row is read. BufferFilesError as of :func:`load_buffer`."""
    return checkpoint_meta.read(place_of(folder))


def place_of(folder: str | os.PathLike[str]) -> Path:
    """Where the complete files of a saved buffer are; BufferFilesError if there are none."""
    place = atomic_files.find_folder(Path(folder))
    if place is None:
        raise BufferFilesError(f"{folder} holds no replay buffer: name a checkpoint that has one.")
    return place


def load_buffer(
    folder: str | os.PathLike[str], buffer: PromptReplayBuffer, limits: RowLimits = NO_LIMITS
) -> LoadedBuffer:
    """Replace the rows and the generator of a buffer by saved ones, shard by shard; its settings stay.

    Rows over ``limits`` are left out first; of the others a smaller ``capacity`` keeps the newest, and a smaller
    ``max_tokens`` the prompts visited last. Log-probs are converted. Memory: what the buffer held before stays until
    all is loaded, and about three shards.

    Raises:
        BufferFilesError: if a file is missing, damaged or of another version; the buffer is unchanged then.
    """
    place = place_of(folder)
    meta = checkpoint_meta.read(place)
    kept = {"part_names": meta.part_names, "rng": meta.rng}
    try:
        too_long, prompts, rows = buffer.replace(read_shards(place, meta), kept, limits, meta.in_order)
    except DamagedStateError as error:
        raise refusal(place, str(error).rstrip(".")) from error
    return LoadedBuffer(meta, len(buffer), tuple(too_long), prompts, rows)


def read_shards(folder: Path, meta: BufferMeta) -> Iterator[dict[str, np.ndarray]]:
    """The columns of one shard after the other, each checked whole before it is given; BufferFilesError if damaged."""
    most = -1
    for shard in meta.shards:
        with opened_file(folder, shard.file, shard.bytes) as file:
            content = file.read(shard.bytes)
        digest = hashlib.sha256(content).hexdigest()
        if digest != shard.sha256:
            raise refusal(folder, f"{shard.file} has the checksum {digest[:12]}..., not {shard.sha256[:12]}...")
        try:
            arrays = _parse(content)
            del content
            check_columns(arrays, len(meta.part_names), meta.log_prob_dtype)
        except (SafetensorError, DamagedStateError) as error:
            raise refusal(folder, f"{shard.file} is damaged ({str(error).rstrip('.')})") from error
        if (shard.prompts, shard.rows, shard.tokens) != _counts(arrays):
            raise refusal(folder, f"{shard.file} has other numbers of rows than {META} says")
        most = max(most, _max_token_id(arrays))
        yield arrays
        del arrays
    if most != meta.max_token_id:
        raise refusal(folder, f"the largest token id is {most}, where {META} says {meta.max_token_id}")


def _parse(content: bytes) -> dict[str, np.ndarray]:
    """Columns, copied from the content of a file: (shape) arrays of the types in :data:`DTYPES`."""
    arrays = {}
    for name, tensor in deserialize(content):
        if tensor["dtype"] not in DTYPES:
            raise DamagedStateError(f"column {name!r} is {tensor['dtype']}")
        arrays[name] = np.frombuffer(tensor["data"], dtype=DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    return arrays
