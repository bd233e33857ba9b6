"""The buffer's state as columns: numpy arrays and JSON-ready values, no pickle.

Columns (N rows of P prompts, T response tokens, L prompt tokens in all):

    prompt_key (P, 16) uint8 · prompt_offsets (P + 1,) int64 · prompt_ids (L,) int32 · prompt_rows (P,) int64
    row_offsets (N + 1,) int64 · response_ids (T,) int32 · log_probs (T,) float32
    score (N,) float64 · step (N,) int64 · uses (N,) int64
    masked (N,) bool · mask_bits (M,) uint8, the packed masks of masked rows, one after the other
    parts (N, K) float64, NaN where a row lacks the part named in meta["part_names"]

Rows lie prompt by prompt, the oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from repo_verl.replay.record import Record

VERSION = 1

Prompts = list[tuple[str, np.ndarray, list[Record]]]


def pack(prompts: Iterable[tuple[str, np.ndarray, Iterable[Record]]], rng_state: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of all rows.

    Args:
        prompts: key, token ids and rows of every prompt.
        rng_state: ``bit_generator.state`` of the buffer's generator.

    Returns:
        ``{"meta": JSON-ready dict, "arrays": {column: array}}``; the arrays are copies.
    """
    held_prompts: Prompts = [(key, ids, list(rows)) for key, ids, rows in prompts]
    rows = [row for _, _, held in held_prompts for row in held]
    names = sorted({name for row in rows for name in row.parts})
    masked = [row.mask_bits for row in rows if row.mask_bits is not None]
    keys = b"".join(bytes.fromhex(key) for key, _, _ in held_prompts)
    arrays = {
        "prompt_key": np.frombuffer(keys, dtype=np.uint8).reshape(-1, 16).copy(),
        "prompt_offsets": _offsets(ids.size for _, ids, _ in held_prompts),
        "prompt_ids": _concatenate([ids for _, ids, _ in held_prompts], np.int32),
        "prompt_rows": np.array([len(held) for _, _, held in held_prompts], dtype=np.int64),
        "row_offsets": _offsets(row.response_ids.size for row in rows),
        "response_ids": _concatenate([row.response_ids for row in rows], np.int32),
        "log_probs": _concatenate([row.log_probs for row in rows], np.float32),
        "score": np.array([row.score for row in rows], dtype=np.float64),
        "step": np.array([row.step for row in rows], dtype=np.int64),
        "uses": np.array([row.uses for row in rows], dtype=np.int64),
        "masked": np.array([row.mask_bits is not None for row in rows], dtype=bool),
        "mask_bits": _concatenate(masked, np.uint8),
        "parts": np.array([[row.parts.get(name, np.nan) for name in names] for row in rows], dtype=np.float64).reshape(
            len(rows), len(names)
        ),
    }
    return {"meta": {"version": VERSION, "part_names": names, "rng": dict(rng_state)}, "arrays": arrays}


def unpack(saved: Mapping[str, Any]) -> tuple[Prompts, dict[str, Any]]:
    """The inverse of :func:`pack`; every array is copied.

    Raises:
        ValueError: if the version is another one or columns don't fit together.
    """
    meta, arrays = saved["meta"], saved["arrays"]
    if meta.get("version") != VERSION:
        raise ValueError(f"buffer state has version {meta.get('version')!r}, this package reads version {VERSION}.")
    _check_columns(arrays, len(meta["part_names"]))
    masks = _split_masks(arrays)
    prompts: Prompts = []
    row = 0
    for index, count in enumerate(arrays["prompt_rows"].tolist()):
        start, stop = arrays["prompt_offsets"][index : index + 2]
        held = [_record(arrays, meta["part_names"], masks, i) for i in range(row, row + count)]
        prompts.append((arrays["prompt_key"][index].tobytes().hex(), arrays["prompt_ids"][start:stop].copy(), held))
        row += count
    return prompts, dict(meta["rng"])


def _record(arrays: Mapping[str, np.ndarray], names: list[str], masks: list[np.ndarray | None], i: int) -> Record:
    start, stop = arrays["row_offsets"][i : i + 2]
    parts = {name: float(value) for name, value in zip(names, arrays["parts"][i], strict=True) if not np.isnan(value)}
    return Record(
        response_ids=arrays["response_ids"][start:stop].copy(),
        log_probs=arrays["log_probs"][start:stop].copy(),
        score=float(arrays["score"][i]),
        step=int(arrays["step"][i]),
        parts=parts,
        mask_bits=masks[i],
        uses=int(arrays["uses"][i]),
    )


def _split_masks(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray | None]:
    masks: list[np.ndarray | None] = []
    position = 0
    for masked, tokens in zip(arrays["masked"], np.diff(arrays["row_offsets"]), strict=True):
        size = (int(tokens) + 7) // 8 if masked else 0
        masks.append(arrays["mask_bits"][position : position + size].copy() if masked else None)
        position += size
    if position != arrays["mask_bits"].size:
        raise ValueError(f"buffer state is damaged: mask_bits has {arrays['mask_bits'].size} bytes, not {position}.")
    return masks


def _check_columns(arrays: Mapping[str, np.ndarray], parts: int) -> None:
    prompts, rows = len(arrays["prompt_rows"]), len(arrays["score"])
    shapes = {
        "prompt_key": (prompts, 16),
        "prompt_offsets": (prompts + 1,),
        "prompt_ids": (int(arrays["prompt_offsets"][-1]),),
        "row_offsets": (rows + 1,),
        "response_ids": (int(arrays["row_offsets"][-1]),),
        "log_probs": (int(arrays["row_offsets"][-1]),),
        "step": (rows,),
        "uses": (rows,),
        "masked": (rows,),
        "parts": (rows, parts),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"buffer state is damaged: {name} has shape {arrays[name].shape}, not {shape}.")
    if int(arrays["prompt_rows"].sum()) != rows:
        raise ValueError(
            f"buffer state is damaged: prompt_rows sums to {int(arrays['prompt_rows'].sum())}, not {rows}."
        )
    for name in ("prompt_offsets", "row_offsets"):
        if arrays[name][0] != 0 or (np.diff(arrays[name]) < 0).any():
            raise ValueError(f"buffer state is damaged: {name} does not rise from 0.")


def _offsets(sizes: Iterable[int]) -> np.ndarray:
    return np.cumsum([0, *sizes], dtype=np.int64)


def _concatenate(arrays: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype) if arrays else np.empty(0, dtype=dtype)
