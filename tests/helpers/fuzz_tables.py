"""Parquet files for `fuzzing`: sound files with bytes changed, and sound files of other columns than a reader wants."""

import decimal
import io

import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import hostile_value, mutate_bytes, mutate_tree


def parquet_bytes(table, rng, **options):
    """The table as a file, in one of several ways to store it."""
    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression=rng.choice(("none", "snappy", "zstd", "gzip")),
        use_dictionary=rng.random() < 0.5, data_page_version=rng.choice(("1.0", "2.0")),
        row_group_size=rng.choice((2, 1000)), **options,
    )  # fmt: skip
    return sink.getvalue()


def _invalid_text(count):
    """Text columns whose bytes are no UTF-8, as Arrow lets a writer store them."""
    return pa.array([b"\xff\xfe\x80"] * count, pa.binary()).view(pa.string())


def _columns(count):
    """Columns of types that a reader may not wait for."""
    return (
        lambda: pa.nulls(count),
        lambda: pa.array([None] * count, pa.string()),
        lambda: pa.array(range(count), pa.int64()),
        lambda: pa.array([2**64 - 1] * count, pa.uint64()),
        lambda: pa.array([float("nan")] * count),
        lambda: pa.array([float("inf")] * count, pa.float32()),
        lambda: pa.array(["a"] * count),
        lambda: pa.array(["../../x"] * count),
        lambda: pa.array([b"\xff\0"] * count),
        lambda: _invalid_text(count),
        lambda: pa.array([True] * count),
        lambda: pa.array([[]] * count, pa.list_(pa.string())),
        lambda: pa.array([[{"role": "user"}]] * count),
        lambda: pa.array([[None]] * count, pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        lambda: pa.array([{"index": None}] * count),
        lambda: pa.array([{"ground_truth": 5, "index": -1, "tolerance": "x"}] * count),
        lambda: pa.array([10**18] * count, pa.timestamp("ns")),
        lambda: pa.array([2**50] * count, pa.timestamp("s")),
        lambda: pa.array([decimal.Decimal("1.5")] * count),
        lambda: pa.array(["x"] * count).dictionary_encode(),
        lambda: pa.array([[(str(n), n) for n in range(2)]] * count, pa.map_(pa.string(), pa.int64())),
        lambda: pa.array(["y" * 20_000] * count),
        lambda: pa.array([2**31 - 1] * count, pa.int32()).view(pa.date32()),
    )


def other_table(table, rng):
    """The table with one to three columns replaced, dropped, doubled or renamed, or with no rows."""
    for _ in range(rng.randint(1, 3)):
        number, kind = rng.randrange(max(1, table.num_columns)), rng.random()
        if not table.num_columns:
            break
        name = table.schema.names[number]
        if kind < 0.6:
            table = table.set_column(number, name, rng.choice(_columns(len(table)))())
        elif kind < 0.75:
            table = table.remove_column(number)
        elif kind < 0.85:
            table = table.append_column(name, table.column(number))
        elif kind < 0.92:
            table = table.rename_columns([f"{n}x" if n == name else n for n in table.schema.names])
        else:
            table = table.slice(0, rng.choice((0, 1)))
    return table


def mutated_rows(rows, rng):
    """A table of the rows with some changed; the sound one where Arrow finds no type for them."""
    changed = [mutate_tree(row, rng) if rng.random() < 0.4 else row for row in rows]
    if rng.random() < 0.3 and changed:
        key = rng.choice(list(rows[0]))
        changed = [{**row, key: hostile_value(rng)} for row in rows]
    try:
        return pa.Table.from_pylist([row for row in changed if isinstance(row, dict)] or rows)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, AttributeError, TypeError):
        return pa.Table.from_pylist(rows)


def mutate_parquet(rows, rng):
    """Bytes of a parquet file: other columns, other values, or changed bytes."""
    table, kind = pa.Table.from_pylist(rows), rng.random()
    if kind < 0.4:
        return mutate_bytes(parquet_bytes(table, rng), rng, 3)
    changed = other_table(table, rng) if kind < 0.75 else mutated_rows(rows, rng)
    try:
        return parquet_bytes(changed, rng)
    except pa.ArrowNotImplementedError:  # a struct without fields
        return parquet_bytes(table, rng)[: rng.randrange(200)]
