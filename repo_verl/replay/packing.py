"""Records into columns and blobs, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from repo_verl.replay.blob import Visit, encode, from_bfloat16, to_bfloat16
from repo_verl.replay.index import PART, UNMASKED, Evicted, Index
from repo_verl.replay.record import Record
from repo_verl.replay.store import BlobStore, HostStore

Visits = dict[str, tuple[np.ndarray, list[Record]]]


def by_key(items: Iterable[tuple[str, np.ndarray, Sequence[Record]]]) -> Visits:
    """Token ids (L,) int32 and rows of each key; the rows of a key that comes twice become one visit.

    Raises:
        ValueError: if a key comes with different token ids.
    """
    visits: Visits = {}
    for key, prompt_ids, rows in items:
        ids = np.ascontiguousarray(prompt_ids, dtype=np.int32)
        held, visit = visits.setdefault(key, (ids, []))
        if not np.array_equal(held, ids):
            raise ValueError(f"prompt key {key!r} comes with two lists of token ids: keys come from prompt_key.")
        visit.extend(rows)
    return visits


def insert(
    items: Iterable[tuple[str, np.ndarray, Sequence[Record]]], index: Index, store: BlobStore, narrow: bool
) -> list[str]:
    """Put rows of prompts into an index and a store, each by one call; the oldest beyond ``capacity`` go.

    Args:
        items: key, token ids and rows of each prompt.
        index: prompts and rows.
        store: their tokens.
        narrow: whether log-probs are kept in bfloat16.

    Returns:
        the keys.

    Raises:
        ValueError: if a key is held, or comes twice, with other token ids; nothing is added then.
    """
    merged = by_key(items)
    new = [key for key, (ids, _) in merged.items() if not index.check(key, ids)]
    visits = {key: rows[-index.capacity :] for key, (_, rows) in merged.items() if rows}
    blobs = [merged[key][0].view(np.uint8) for key in new]
    blobs += [blob_of(rows, narrow) for rows in visits.values()]
    values = columns_of(list(visits.values())) if visits else {}
    handles = store.put(blobs) if blobs else []
    index.register(new, [merged[key][0] for key in new], handles[: len(new)])
    if visits:
        counts = np.array([len(rows) for rows in visits.values()], dtype=np.int64)
        values["handle"] = np.repeat(np.array(handles[len(new) :], dtype=np.int64), counts)
        release(store, index.insert(index.slots_of(visits), counts, values), narrow)
    return list(merged)


def blob_of(rows: Sequence[Record], narrow: bool) -> np.ndarray:
    """The blob of a visit, (n,) uint8; ``narrow`` for log-probs in bfloat16."""
    log_probs = [row.log_probs for row in rows]
    if narrow:
        log_probs = [to_bfloat16(np.concatenate(log_probs))]
    return encode([row.response_ids for row in rows], log_probs, _bits(rows) if _masked(rows) else None)


def _masked(rows: Sequence[Record]) -> bool:
    return any(row.mask_bits is not None for row in rows)


def _bits(rows: Sequence[Record]) -> np.ndarray:
    return np.concatenate([row.mask for row in rows])


def columns_of(visits: Sequence[Sequence[Record]]) -> dict[str, np.ndarray]:
    """The row columns of visits of at least one row, all but ``handle``; parts beyond float32 become infinities."""
    rows = [row for visit in visits for row in visit]
    sizes = np.array([len(visit) for visit in visits])
    lengths = np.array([row.response_ids.size for row in rows], dtype=np.int64)
    values: dict[str, np.ndarray] = {
        "score": np.array([row.score for row in rows], dtype=np.float64),
        "step": np.array([row.step for row in rows], dtype=np.int32),
        "uses": np.array([row.uses for row in rows], dtype=np.int32),
        "length": lengths,
        "start": starts_within(lengths, np.cumsum(sizes) - sizes, sizes),
    }
    if _masked(rows):
        values["hidden"] = np.array(
            [_hidden(row, mask) for visit in visits for mask in [_masked(visit)] for row in visit]
        )
    with np.errstate(over="ignore"):
        for name in {name for row in rows for name in row.parts}:
            values[PART + name] = np.array([row.parts.get(name, np.nan) for row in rows]).astype(np.float32)
    return values


def _hidden(row: Record, masked_visit: bool) -> int:
    if row.mask_bits is None:
        return 0 if masked_visit else UNMASKED
    return row.response_ids.size - int(np.bitwise_count(row.mask_bits).sum())


def starts_within(lengths: np.ndarray, firsts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Number of the first token of every row in its visit.

    Args:
        lengths: (N,) tokens of rows.
        firsts: (V,) the first row of every visit.
        sizes: (V,) rows of every visit; they sum to N.
    """
    before = np.cumsum(lengths) - lengths
    return before - np.repeat(before[firsts], sizes)


def release(store: BlobStore, evicted: Evicted, narrow: bool) -> None:
    """Drop the blobs without a row; in this process, cut the oldest rows off the others."""
    if evicted.handles:
        store.drop(evicted.handles)
    if isinstance(store, HostStore):
        for handle, start in evicted.cut:
            rest = Visit.of(store.get([handle])[0], narrow).without(start)
            if rest is not None:
                store.rewrite(handle, rest)


def read_records(index: Index, store: BlobStore, places: np.ndarray, narrow: bool) -> list[Record]:
    """The rows at ``places`` of the row columns, (N,) int, in order; the store is asked once."""
    if not places.size:
        return []
    rows = index.rows
    handles = rows["handle"][places].tolist()
    wanted = list(dict.fromkeys(handles))
    blobs = store.get(wanted)
    visits = {handle: Visit.of(blob, narrow) for handle, blob in zip(wanted, blobs, strict=True)}
    names = index.part_names
    parts = zip(*(rows[PART + name][places].tolist() for name in names), strict=True) if names else [()] * len(handles)
    columns = [rows[name][places].tolist() for name in ("start", "length", "score", "step", "uses")]
    hidden = rows["hidden"][places].tolist() if "hidden" in rows else [UNMASKED] * len(handles)
    records = []
    for handle, masked, values, start, length, score, step, uses in zip(handles, hidden, parts, *columns, strict=True):
        visit = visits[handle]
        span = slice(start - visit.base, start - visit.base + length)
        log_probs = visit.log_probs[span]
        records.append(
            Record(
                response_ids=visit.ids[span],
                log_probs=from_bfloat16(log_probs) if narrow else log_probs,
                score=score,
                step=step,
                parts={name: value for name, value in zip(names, values, strict=True) if value == value},
                mask_bits=np.packbits(visit.mask(start, length)) if masked > 0 else None,
                uses=uses,
            )
        )
    return records
