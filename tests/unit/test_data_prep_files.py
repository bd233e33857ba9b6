"""Reading sources of every kind and encoding, finding them in folders, and writing all or nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.files import ROW_GROUP, Staging, tables, write_parquet
from data_prep.reading import read_records
from data_prep.schema import SCHEMA, make_row

RECORDS = [{"a": "é" * 5, "b": [1, {"c": "]}"}]}, {"a": 'q"\\', "b": []}, {"a": "𝛼 ", "b": [2]}]


def row(number):
    return make_row("d", f"problem {number}", "1", "train", number, "none")


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path):
    return list(read_records([path]))


def test_json_is_read_however_it_is_laid_out(tmp_path):
    for text in (json.dumps(RECORDS, ensure_ascii=False), json.dumps(RECORDS, indent=3)):
        assert read(written(tmp_path / "x.json", " \n" + text + "\n ")) == RECORDS
        assert read(written(tmp_path / "x.json", b"\xef\xbb\xbf" + text.encode())) == RECORDS
    assert read(written(tmp_path / "x.json", " [ ] ")) == []


def test_the_records_of_a_json_list_come_one_by_one(tmp_path):
    path = written(tmp_path / "x.json", json.dumps([{"a": "x" * 50}] * 100)[:-1])
    records = read_records([path])
    assert [next(records) for _ in range(100)] == [{"a": "x" * 50}] * 100
    with pytest.raises(ValueError, match="x.json: row 99: broken JSON: want ',' or ']' after it"):
        next(records)


def test_a_broken_record_of_a_json_list_is_named(tmp_path):
    path = written(tmp_path / "x.json", '[{"a": 1}, {"a": "' + "x" * 100_000)
    with pytest.raises(ValueError, match="x.json: row 1: broken JSON: Unterminated string"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1} {"a": 2}]', "row 0: broken JSON: want ',' or ']' after it (line 1, column 11)"),
        ('[{"a": 1}, ]', "row 1: broken JSON: Expecting value"),
        ('[{"a": 1}, {"a": 2}', "row 1: broken JSON: want ',' or ']' after it"),
        ('[{"a": 1}, {"a": ', "row 1: broken JSON: Expecting value"),
        ('[{"a": 1}] x', "broken JSON: there is text after the list of 1 rows"),
        ('[{"a": 1}, 5]', "row 1: is a int, want an object"),
        ('{"a": 1}\n{"a": 2}\n', "holds no list of objects; if it has one object a line, name it .jsonl"),
        ("", "is empty"),
        (" ", "holds no list of objects"),
        (b'[{"a": 1}, {"a": "\xe9"}]', "row 1: not UTF-8"),
        (b'[{"a": 1}, {"a": \xe9}]', "row 1: not UTF-8"),
        (b'[{"a": 1}]\xe9', "row 1: not UTF-8"),
        ('[{"a": 1}]'.encode("utf-16"), "row 0: not UTF-8"),
    ],
)
def test_broken_json_files_are_named_with_the_row(tmp_path, text, message):
    with pytest.raises(ValueError) as caught:
        read(written(tmp_path / "x.json", text))
    assert str(caught.value).startswith(f"{tmp_path / 'x.json'}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n\n{"a": }\n', "row 1: broken JSON: Expecting value (line 3, column 7)"),
        (b'\n{"a": 1}\n{"a": "\xe9t"}\n', "row 1: not UTF-8 (invalid continuation byte, line 3, byte 8)"),
        ('{"a": 1}\n'.encode("utf-16"), "row 0: not UTF-8 (NUL bytes, as UTF-16 has them); save it as UTF-8"),
        ('{"a": 1}\n\n[1]\n', "row 1: is a list, want an object"),
    ],
)
def test_broken_jsonl_files_are_named_with_row_and_line(tmp_path, text, message):
    with pytest.raises(ValueError) as caught:
        read(written(tmp_path / "x.jsonl", text))
    assert str(caught.value) == f"{tmp_path / 'x.jsonl'}: {message}"


def test_jsonl_with_a_byte_order_mark_blank_lines_and_no_last_newline(tmp_path):
    lines = "\r\n\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS)
    assert read(written(tmp_path / "x.jsonl", b"\xef\xbb\xbf\n" + lines.encode())) == RECORDS
    assert read(written(tmp_path / "x.jsonl", b"\xef\xbb\xbf" + lines.encode() + b"\n \n")) == RECORDS


def test_broken_parquet_is_named(tmp_path):
    with pytest.raises(ValueError, match="x.parquet: row 0 or after: no readable parquet: Parquet magic bytes"):
        read(written(tmp_path / "x.parquet", b"PAR1 and no more"))


def test_parquet_has_equal_row_groups_and_no_notes_of_pandas_or_datasets(tmp_path):
    write_parquet(tables(map(row, range(2 * ROW_GROUP + 1))), tmp_path / "x.parquet")
    meta = pq.ParquetFile(tmp_path / "x.parquet").metadata
    assert [meta.row_group(n).num_rows for n in range(meta.num_row_groups)] == [ROW_GROUP, ROW_GROUP, 1]
    assert list(meta.metadata) == [b"ARROW:schema"]
    assert pq.read_schema(tmp_path / "x.parquet").equals(SCHEMA)
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [row(n) for n in range(2 * ROW_GROUP + 1)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_or_interrupt_leaves_nothing_new(tmp_path, error):
    (tmp_path / "a").write_text("old")
    with pytest.raises(error), Staging(tmp_path) as staging:
        staging.path("a").write_text("new")
        staging.path("b").write_text("new")
        staging.scratch("c").write_text("new")
        assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 4
        raise error
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_files_appear_when_the_block_ends(tmp_path):
    with Staging(tmp_path / "new") as staging:
        staging.write_json({"é": 1}, "a.json")
        staging.scratch("c").write_text("new")
        assert not (tmp_path / "new/a.json").exists()
    assert [(path.name, path.read_text()) for path in (tmp_path / "new").iterdir()] == [("a.json", '{\n  "é": 1\n}\n')]


def test_memory_does_not_grow_with_the_file(tmp_path):
    line = json.dumps({"question": "x" * 2000, "final_answer": "1"}) + "\n"
    peaks = []
    for rows in (5_000, 50_000):
        with (tmp_path / "x.jsonl").open("w") as out:
            out.writelines(line for _ in range(rows))
        code = (
            "import resource, sys; from data_prep.cli import main; "
            "failed = main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(failed)"
        )
        flags = ["deepmath", "--input", str(tmp_path / "x.jsonl"), "--output", str(tmp_path / "out"), "--quiet"]
        done = subprocess.run(
            [sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True,
            cwd=Path(__file__).parents[2], env=os.environ,
        )  # fmt: skip
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 60_000, f"kB at 5,000 and 50,000 rows: {peaks}"
