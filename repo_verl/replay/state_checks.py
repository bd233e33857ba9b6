"""Checks of a saved state before anything is taken from it (:mod:`repo_verl.replay.state`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from repo_verl.replay.state import VERSION, Arrays, mask_offsets, masked_out

ROW_DTYPES = {
    "prompt_key": np.uint8, "prompt_offsets": np.int64, "prompt_rows": np.int64, "row_offsets": np.int64,
    "score": np.float64, "step": np.int32, "uses": np.int32, "masked": np.bool_, "parts": np.float32,
}  # fmt: skip
TOKEN_DTYPES = {"prompt_ids": np.int32, "response_ids": np.int32, "mask_bits": np.uint8}
LOG_PROB_DTYPES = {"float32": np.float32, "bfloat16": np.uint16}
MOST_TOKENS = 1 << 31  # a prompt or a row has fewer: lengths are int32
MOST_STEPS = (1 << 31) - (1 << 20)  # steps and uses are under it, so that those that a run adds fit into int32 too
RNG_BITS = {"state": 128, "inc": 128, "has_uint32": 1, "uinteger": 32}


class DamagedStateError(ValueError):
    """A saved state whose values can't be right; one sentence naming the value."""

    def __init__(self, found: str) -> None:
        super().__init__(f"buffer state is damaged: {found}")


def need(good: bool | np.bool_, found: str) -> None:
    """Raise DamagedStateError, which says what was found, unless all is good."""
    if not good:
        raise DamagedStateError(found)


def check(saved: Mapping[str, Any]) -> None:
    """Refuse what ``state_dict`` never gave: a DamagedStateError, or a ValueError for another version."""
    meta = saved["meta"]
    if meta.get("version") != VERSION:
        raise ValueError(
            f"buffer state has version {meta.get('version')!r}, this package reads version {VERSION}: resume with the "
            f"package that wrote it, or without the saved buffer."
        )
    check_meta(meta)
    check_columns(saved["arrays"], len(meta["part_names"]), meta["log_prob_dtype"])


def check_meta(meta: Mapping[str, Any]) -> None:
    """Refuse a ``log_prob_dtype``, ``part_names`` or ``rng`` that no buffer has written."""
    dtype, names = meta.get("log_prob_dtype"), meta.get("part_names")
    known = isinstance(dtype, str) and dtype in LOG_PROB_DTYPES
    need(known, f"log_prob_dtype={dtype!r} is none of {', '.join(LOG_PROB_DTYPES)}.")
    different = isinstance(names, list) and all(isinstance(name, str) for name in names) and len({*names}) == len(names)
    need(different, f"part_names={names!r} is no list of different names.")
    generator(meta.get("rng"))


def generator(rng_state: Any) -> np.random.Generator:
    """A generator in a saved state, that of numpy's PCG64, which ``default_rng`` makes."""
    held = dict(rng_state) if isinstance(rng_state, Mapping) else {}
    inner = held.get("state")
    numbers = {**held, **inner} if isinstance(inner, Mapping) else {}
    good = numbers.pop("bit_generator", None) == "PCG64" and set(numbers) == set(RNG_BITS)
    good = good and all(type(n) is int and 0 <= n < 1 << RNG_BITS[name] for name, n in numbers.items())
    need(good and numbers["inc"] % 2 == 1, "rng is no state of numpy's PCG64 generator.")
    made = np.random.default_rng(0)
    made.bit_generator.state = held
    return made


def check_columns(arrays: Arrays, parts: int, log_prob_dtype: str) -> None:
    """Refuse columns of a state or a shard of which one is missing, doesn't fit or holds what no row has.

    ``parts`` is how many parts of scores have names.
    """
    dtypes = {**ROW_DTYPES, **TOKEN_DTYPES, "log_probs": LOG_PROB_DTYPES[log_prob_dtype]}
    for name in arrays:
        need(name in dtypes, f"column {name!r} is none of this version.")
    check_rows(arrays, parts)
    _check_dtypes(arrays, dtypes)
    for name, offsets in {"prompt_ids": "prompt_offsets", "response_ids": "row_offsets"}.items():
        _check_shape(arrays, name, (int(arrays[offsets][-1]),))
        least = int(arrays[name].min(initial=0))
        need(least >= 0, f"{name} holds {least}, which is no token id.")
    _check_shape(arrays, "log_probs", arrays["response_ids"].shape)
    size = int(mask_offsets(arrays)[-1])
    need(arrays["mask_bits"].shape == (size,), f"mask_bits has {arrays['mask_bits'].size} bytes, not {size}.")
    _check_masks(arrays)


def check_rows(arrays: Arrays, parts: int) -> None:
    """:func:`check_columns` without the columns of tokens: :data:`ROW_DTYPES`."""
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
        offsets = arrays[name]
        rises = offsets[0] == 0 and (offsets[1:] >= offsets[:-1]).all() and (np.diff(offsets) < MOST_TOKENS).all()
        need(rises, f"{name} does not rise from 0 by less than 2**31.")
    counts = arrays["prompt_rows"]
    fit = (counts >= 0).all() and (counts <= rows).all() and int(counts.sum()) == rows
    need(fit, f"prompt_rows sums to {int(counts.sum())}, not {rows}, or has a number under 0.")
    need(len({row.tobytes() for row in arrays["prompt_key"]}) == prompts, "prompt_key has a key twice.")
    need(np.isfinite(arrays["score"]).all(), "score holds a value that is not finite.")
    for name in ("step", "uses"):
        outside = arrays[name][(arrays[name] < 0) | (arrays[name] >= MOST_STEPS)]
        if outside.size:
            raise DamagedStateError(f"{name} holds {outside[0]}.")
    need((arrays["masked"].view(np.uint8) <= 1).all(), "masked holds bytes other than 0 and 1.")


def _check_dtypes(arrays: Arrays, dtypes: Mapping[str, Any]) -> None:
    for name, kind in dtypes.items():
        need(name in arrays, f"column {name} is missing.")
        need(arrays[name].dtype == kind, f"{name} is {arrays[name].dtype}, not {np.dtype(kind)}.")


def _check_shape(arrays: Arrays, name: str, shape: tuple[int, ...]) -> None:
    need(arrays[name].shape == shape, f"{name} has shape {arrays[name].shape}, not {shape}.")


def _check_masks(arrays: Arrays) -> None:
    """Masked rows hide a token and have no bits beyond the last; log-probs of unmasked tokens are finite."""
    offsets, masked, bits = arrays["row_offsets"], arrays["masked"], mask_offsets(arrays)
    lengths = np.diff(offsets)
    last = (masked & (lengths > 0)).nonzero()[0]
    spare = arrays["mask_bits"][bits[last + 1] - 1] & ((1 << (-lengths[last] % 8)) - 1)
    need(not spare.any(), "mask_bits has bits beyond the tokens of a row.")
    need((masked_out(arrays)[masked] >= 1).all(), "masked names a row of which no token is masked out.")
    values = arrays["log_probs"]
    odd = ((values & 0x7F80) == 0x7F80 if values.dtype == np.uint16 else ~np.isfinite(values)).nonzero()[0]
    rows = np.searchsorted(offsets, odd, side="right") - 1
    hidden = masked[rows]
    at, first = odd[hidden] - offsets[rows[hidden]], bits[rows[hidden]]
    set_bits = arrays["mask_bits"][first + at // 8] >> (7 - at % 8) & 1
    need(hidden.all() and not set_bits.any(), "log_probs holds a value that is not finite where the mask is set.")
