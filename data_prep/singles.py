"""Numbers of single and half precision, which Python would show with the digits of a double: 0.10000000149."""

from __future__ import annotations

import math
import struct
from typing import Any

import pyarrow as pa

_FORMATS = {pa.float32(): ("f", 9), pa.float16(): ("e", 5)}


def has_singles(kind: pa.DataType) -> bool:
    """Whether values of a type are, or hold, numbers of single or half precision.

    Args:
        kind: of a column; of the nested types, lists and structs are looked into.
    """
    return kind in _FORMATS or any(has_singles(kind.field(n).type) for n in range(_fields(kind)))


def shortened(value: Any, kind: pa.DataType) -> Any:
    """A value with each such number replaced by the double of its shortest spelling; whole numbers stay.

    Args:
        value: of a column, as ``to_pylist`` gives it.
        kind: the column's type.

    Example:
        >>> shortened([0.10000000149011612], pa.list_(pa.float32()))
        [0.1]
    """
    if value is None or not has_singles(kind):
        return value
    if kind in _FORMATS:
        return _shortest(value, *_FORMATS[kind])
    if pa.types.is_struct(kind):
        types = {kind.field(n).name: kind.field(n).type for n in range(_fields(kind))}
        return {name: shortened(part, types[name]) for name, part in value.items()}
    return [shortened(part, kind.value_type) for part in value]


def _fields(kind: pa.DataType) -> int:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return kind.num_fields if lists or pa.types.is_struct(kind) else 0


def _shortest(number: float, code: str, digits: int) -> float:
    if not math.isfinite(number) or number.is_integer():
        return number
    for precision in range(1, digits):
        short = float(f"{number:.{precision}g}")
        if struct.unpack(code, struct.pack(code, short))[0] == number:
            return short
    return number
