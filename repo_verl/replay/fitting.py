"""Leaving out saved rows that are longer than a run takes (:mod:`repo_verl.replay.state` has the columns)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from repo_verl.replay.state import mask_offsets, offsets_of, spans

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RowLimits:
    """The most tokens that a run takes; None for no limit.

    Attributes:
        prompt: of a prompt.
        response: of a response.
        row: of a prompt and a response together.
    """

    prompt: int | None = None
    response: int | None = None
    row: int | None = None


def fitting(shards: Iterable[Arrays], limits: RowLimits, left_out: np.ndarray) -> Iterator[Arrays]:
    """Shards without the rows that are too long, and without prompts that are.

    Args:
        shards: columns of prompts, after their check.
        limits: what fits.
        left_out: (3,) int64, to which the rows left out are added: for their prompt, their response, and both together.
    """
    for arrays in shards:
        reasons = _too_long(arrays, limits)
        left_out += np.bincount(reasons, minlength=4)[:3]
        yield _kept(arrays, reasons == 3, ~_over(np.diff(arrays["prompt_offsets"]), limits.prompt))


def _over(lengths: np.ndarray, limit: int | None) -> np.ndarray:
    return np.zeros(lengths.size, dtype=bool) if limit is None else lengths > limit


def _too_long(arrays: Arrays, limits: RowLimits) -> np.ndarray:
    """(N,) the first limit that each row is over: 0 the prompt's, 1 the response's, 2 the row's, 3 none."""
    prompt = np.repeat(np.diff(arrays["prompt_offsets"]), arrays["prompt_rows"])
    response = np.diff(arrays["row_offsets"])
    over = [_over(prompt, limits.prompt), _over(response, limits.response), _over(prompt + response, limits.row)]
    return np.argmax([*over, np.ones(response.size, dtype=bool)], axis=0)


def _kept(arrays: Arrays, rows: np.ndarray, prompts: np.ndarray) -> Arrays:
    """The columns of the chosen prompts and rows, (P,) and (N,) bool; no row of another prompt is chosen."""
    if rows.all() and prompts.all():
        return arrays
    of = np.repeat(np.arange(prompts.size), arrays["prompt_rows"])
    prompt_offsets, prompt_ids = _pieces(arrays["prompt_offsets"], prompts)
    row_offsets, tokens = _pieces(arrays["row_offsets"], rows)
    return {
        "prompt_key": arrays["prompt_key"][prompts],
        "prompt_offsets": prompt_offsets,
        "prompt_ids": arrays["prompt_ids"][prompt_ids],
        "prompt_rows": np.bincount(of[rows], minlength=prompts.size)[prompts],
        "row_offsets": row_offsets,
        **{name: arrays[name][tokens] for name in ("response_ids", "log_probs")},
        **{name: arrays[name][rows] for name in ("score", "step", "uses", "masked", "parts")},
        "mask_bits": arrays["mask_bits"][_pieces(mask_offsets(arrays), rows)[1]],
    }


def _pieces(offsets: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of chosen pieces that lie one after the other, and where their values are now."""
    sizes = np.diff(offsets)[chosen]
    return offsets_of(sizes), spans(offsets[:-1][chosen], sizes)
