"""Checks of a saved state before anything is taken from it (:mod:`repo_verl.replay.state`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from repo_verl.replay.state import VERSION, mask_offsets, masked_out

Arrays = Mapping[str, np.ndarray]

ROW_DTYPES = {
    "prompt_key": np.uint8, "prompt_offsets": np.int64, "prompt_rows": np.int64, "row_offsets": np.int64,
    "score": np.float64, "step": np.int32, "uses": np.int32, "masked": np.bool_, "parts": np.float32,
}  # fmt: skip
TOKEN_DTYPES = {"prompt_ids": np.int32, "response_ids": np.int32, "mask_bits": np.uint8}
LOG_PROB_DTYPES = {"float32": np.float32, "bfloat16": np.uint16}
MOST_TOKENS = 1 << 31
"""Tokens that a prompt or a row has fewer of: lengths are int32."""

MOST_STEPS = (1 << 31) - (1 << 20)
"""Steps and uses are under it, so that those that a run adds fit into int32 too."""

RNG_BITS = {"state": 128, "inc": 128, "has_uint32": 1, "uinteger": 32}


class DamagedStateError(ValueError):
    """A saved state whose values can't be right; one sentence naming the value."""

    def __init__(self, found: str) -> None:
        super().__init__(f"buffer state is damaged: {found}")


def check(saved: Mapping[str, Any]) -> None:
    """Check what ``state_dict`` gave.

    Raises:
        ValueError: if the version is another one.
        DamagedStateError: if columns are missing, don't fit together or hold what no row has.
    """
    meta = saved["meta"]
    if meta.get("version") != VERSION:
        raise ValueError(
            f"buffer state has version {meta.get('version')!r}, this package reads version {VERSION}: resume with the "
            f"package that wrote it, or without the saved buffer."
        )
    check_meta(meta)
    check_columns(saved["arrays"], len(meta["part_names"]), meta["log_prob_dtype"])


def check_meta(meta: Mapping[str, Any]) -> None:
    """Check ``log_prob_dtype``, ``part_names`` and ``rng``.

    Raises:
        DamagedStateError: naming the first that no buffer has written.
    """
    dtype, names = meta.get("log_prob_dtype"), meta.get("part_names")
    if not isinstance(dtype, str) or dtype not in LOG_PROB_DTYPES:
        raise DamagedStateError(f"log_prob_dtype={dtype!r} is none of {', '.join(LOG_PROB_DTYPES)}.")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
        raise DamagedStateError(f"part_names={names!r} is no list of different names.")
    generator(meta.get("rng"))


def generator(rng_state: Any) -> np.random.Generator:
    """A generator in a saved state.

    Args:
        rng_state: ``bit_generator.state`` of numpy's PCG64, which ``default_rng`` makes.

    Raises:
        DamagedStateError: if it is none.
    """
    held = dict(rng_state) if isinstance(rng_state, Mapping) else {}
    inner = held.get("state")
    numbers = {**held, **inner} if isinstance(inner, Mapping) else {}
    good = numbers.pop("bit_generator", None) == "PCG64" and set(numbers) == set(RNG_BITS)
    if not good or not all(_fits(numbers[name], bits) for name, bits in RNG_BITS.items()) or numbers["inc"] % 2 == 0:
        raise DamagedStateError("rng is no state of numpy's PCG64 generator.")
    made = np.random.default_rng(0)
    made.bit_generator.state = held
    return made


def _fits(value: Any, bits: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << bits


def check_columns(arrays: Arrays, parts: int, log_prob_dtype: str) -> None:
    """Check the columns of a state or of a shard.

    Args:
        arrays: all columns of :mod:`repo_verl.replay.state`.
        parts: how many parts of scores have names.
        log_prob_dtype: ``float32`` or ``bfloat16``.

    Raises:
        DamagedStateError: naming the first column that is missing, doesn't fit or holds what no row has.
    """
    dtypes = {**ROW_DTYPES, **TOKEN_DTYPES, "log_probs": LOG_PROB_DTYPES[log_prob_dtype]}
    for name in arrays:
        if name not in dtypes:
            raise DamagedStateError(f"column {name!r} is none of this version.")
    check_rows(arrays, parts)
    _check_dtypes(arrays, dtypes)
    for name, offsets in {"prompt_ids": "prompt_offsets", "response_ids": "row_offsets"}.items():
        _check_shape(arrays, name, (int(arrays[offsets][-1]),))
        if arrays[name].size and int(arrays[name].min()) < 0:
            raise DamagedStateError(f"{name} holds {int(arrays[name].min())}, which is no token id.")
    _check_shape(arrays, "log_probs", arrays["response_ids"].shape)
    size = int(mask_offsets(arrays)[-1])
    if arrays["mask_bits"].shape != (size,):
        raise DamagedStateError(f"mask_bits has {arrays['mask_bits'].size} bytes, not {size}.")
    _check_masks(arrays)


def check_rows(arrays: Arrays, parts: int) -> None:
    """Check the columns of prompts and rows, :data:`ROW_DTYPES`, without those of tokens.

    Raises:
        DamagedStateError: as :func:`check_columns`.
    """
    _check_dtypes(arrays, ROW_DTYPES)
    prompts, rows = arrays["prompt_rows"].size, arrays["score"].size
    shapes: dict[str, tuple[int, ...]] = {
        "prompt_key": (prompts, 16),
        "prompt_offsets": (prompts + 1,),
        "prompt_rows": (prompts,),
        "row_offsets": (rows + 1,),
        **dict.fromkeys(("score", "step", "uses", "masked"), (rows,)),
        "parts": (rows, parts),
    }
    for name, shape in shapes.items():
        _check_shape(arrays, name, shape)
    for name in ("prompt_offsets", "row_offsets"):
        sizes = np.diff(arrays[name])
        if arrays[name][0] != 0 or (arrays[name][1:] < arrays[name][:-1]).any() or (sizes >= MOST_TOKENS).any():
            raise DamagedStateError(f"{name} does not rise from 0 by less than 2**31.")
    counts = arrays["prompt_rows"]
    if (counts < 0).any() or (counts > rows).any() or int(counts.sum()) != rows:
        raise DamagedStateError(f"prompt_rows sums to {int(counts.sum())}, not {rows}, or has a number under 0.")
    if len({row.tobytes() for row in arrays["prompt_key"]}) != prompts:
        raise DamagedStateError("prompt_key has a key twice.")
    if not np.isfinite(arrays["score"]).all():
        raise DamagedStateError("score holds a value that is not finite.")
    for name in ("step", "uses"):
        if rows and not 0 <= int(arrays[name].min()) <= int(arrays[name].max()) < MOST_STEPS:
            raise DamagedStateError(f"{name} holds {int(arrays[name].min())} or {int(arrays[name].max())}.")
    if (arrays["masked"].view(np.uint8) > 1).any():
        raise DamagedStateError("masked holds bytes other than 0 and 1.")


def _check_dtypes(arrays: Arrays, dtypes: Mapping[str, Any]) -> None:
    for name, kind in dtypes.items():
        if name not in arrays:
            raise DamagedStateError(f"column {name} is missing.")
        if arrays[name].dtype != kind:
            raise DamagedStateError(f"{name} is {arrays[name].dtype}, not {np.dtype(kind)}.")


def _check_shape(arrays: Arrays, name: str, shape: tuple[int, ...]) -> None:
    if arrays[name].shape != shape:
        raise DamagedStateError(f"{name} has shape {arrays[name].shape}, not {shape}.")


def _check_masks(arrays: Arrays) -> None:
    """Masked rows hide a token and have no bits beyond the last; log-probs of unmasked tokens are finite."""
    offsets, masked, bits = arrays["row_offsets"], arrays["masked"], mask_offsets(arrays)
    lengths = np.diff(offsets)
    last = (masked & (lengths > 0)).nonzero()[0]
    if (arrays["mask_bits"][bits[last + 1] - 1] & ((1 << (-lengths[last] % 8)) - 1)).any():
        raise DamagedStateError("mask_bits has bits beyond the tokens of a row.")
    if (masked_out(arrays)[masked] < 1).any():
        raise DamagedStateError("masked names a row of which no token is masked out.")
    values = arrays["log_probs"]
    odd = ((values & 0x7F80) == 0x7F80 if values.dtype == np.uint16 else ~np.isfinite(values)).nonzero()[0]
    rows = np.searchsorted(offsets, odd, side="right") - 1
    hidden = masked[rows]
    at, first = odd[hidden] - offsets[rows[hidden]], bits[rows[hidden]]
    if not hidden.all() or (arrays["mask_bits"][first + at // 8] >> (7 - at % 8) & 1).any():
        raise DamagedStateError("log_probs holds a value that is not finite where the mask is set.")


def refuse_twice(keys: np.ndarray, seen: set[bytes]) -> None:
    """Note (P, 16) uint8 prompt keys, which may have been evicted since they were noted.

    Raises:
        DamagedStateError: if one was noted before.
    """
    for key in map(bytes, keys):
        if key in seen:
            raise DamagedStateError(f"prompt key {key.hex()} is there twice.")
        seen.add(key)
