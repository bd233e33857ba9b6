"""Csv, arrow and compressed sources, files that are none, and what is said of prompts without a box."""

import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import cli
from data_prep.reading import SUFFIXES, read_records
from data_prep.records import DataSet
from data_prep.sources import source_files

RECORDS = [{"problem": f"p{n}, or\n'q'", "answer": f"0{n}"} for n in range(600)]
CSV = "problem,answer\r\n" + "".join(f'"{r["problem"]}",{r["answer"]}\r\n' for r in RECORDS)
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


def read(path):
    return list(read_records([path]))


def written(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def complaint(path):
    with pytest.raises(ValueError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def arrow_file(path):
    table = pa.Table.from_pylist(RECORDS)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def test_every_kind_of_file_gives_the_same_records(tmp_path):
    datasets.Dataset.from_list(RECORDS).save_to_disk(tmp_path / "disk")
    arrow_file(tmp_path / "file.arrow")
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "x.parquet")
    texts = {"x.jsonl": "".join(json.dumps(r) + "\n" for r in RECORDS), "x.json": json.dumps(RECORDS), "x.csv": CSV}
    for name, text in texts.items():
        written(tmp_path / name, text)
        written(tmp_path / f"{name}.gz", gzip.compress(text.encode()))
    files = [path for path in tmp_path.rglob("*.*") if path.suffix != ".json" or path.parent == tmp_path]
    assert len(files) == 9
    for path in files:
        assert read(path) == RECORDS, path


def test_csv_cells_stay_text_and_a_byte_order_mark_goes(tmp_path):
    text = '﻿problem,answer\n"a ""b"", c",025\n\nq,1.0\nx,true\n'
    assert read(written(tmp_path / "x.csv", text)) == [
        {"problem": 'a "b", c', "answer": "025"},
        {"problem": "q", "answer": "1.0"},
        {"problem": "x", "answer": "true"},
    ]
    long = "y" * 200_000
    assert read(written(tmp_path / "x.csv", f"problem,answer\n{long},1\n"))[0]["problem"] == long


def test_single_precision_is_written_short_in_arrow_too(tmp_path):
    table = pa.table({"answer": pa.array([0.1], pa.float32())})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert read(tmp_path / "x.arrow") == [{"answer": 0.1}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.csv",
            "a,b\n1,2\n3\n",
            "row 1: has 1 cells, but the header has 2 (line 3); quote the cells that hold commas",
        ),
        ("x.csv", 'a,b\n1,"2\n', "row 0: broken csv: unexpected end of data (line 2)"),
        ("x.csv", b"a,b\n1,\xe9\n", "row 0 or after: not UTF-8 (invalid continuation byte)"),
        ("x.csv", "a,b\n".encode("utf-16-le"), "row 0: not UTF-8 (NUL bytes, as UTF-16 has them)"),
        ("x.arrow", "no arrow at all", "row 0 or after: no readable arrow: "),
        (
            "x.jsonl.gz",
            gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9],
            "no readable gzip file: Compressed file ended before",
        ),
        ("x.json.gz", "[]", "no readable gzip file: Not a gzipped file"),
        (
            "x.parquet.gz",
            gzip.compress(b"x", mtime=0),
            "its suffix is not one of .jsonl, .json, .csv, .parquet, .arrow, or .gz",
        ),
        ("x.txt", "x", "its suffix is not one of .jsonl"),
    ],
)
def test_files_that_are_broken_say_how(tmp_path, name, content, message):
    assert complaint(written(tmp_path / name, content)).startswith(message)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".jsonl.gz"])
def test_a_git_lfs_pointer_is_called_one(tmp_path, suffix):
    message = complaint(written(tmp_path / f"x{suffix}", LFS))
    assert message.startswith("is a Git LFS pointer, not the data; run `git lfs pull`")


@pytest.mark.parametrize(
    "record",
    [
        '{"answer": "1", "problem": "q", "answer": "2"}',
        '{"problem": "q", "info": [{"answer": 1, "a": 0, "answer": 1}]}',
    ],
)
def test_two_fields_of_one_name_are_refused(tmp_path, record):
    said = "row 1: has two fields named 'answer'; rename or remove one of them"
    content = f'{{"problem": "answer", "answer": "answer"}}\n{record}\n'
    assert complaint(written(tmp_path / "x.jsonl", content)) == f"{said} (line 2, column 1)"
    content = f"[{content.strip().replace(chr(10), ', ')}]"
    assert complaint(written(tmp_path / "x.json", content)) == f"{said} (line 1, column 45)"


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.table([["q"], ["1"], ["2"]], names=["problem", "answer", "answer"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    written(tmp_path / "x.csv", "problem,answer,answer\nq,1,2\n")
    for name in ("x.parquet", "x.arrow", "x.csv"):
        message = complaint(tmp_path / name)
        assert message == "has two columns named 'answer'; rename or remove one of them"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"data": [{"a": 1}]}',
            "is one object with a list in its field 'data'; save only that list, as a file of its",
        ),
        (
            '{"version": 1, "rows":\n [{"a": 1}]}\n',
            "is one object with a list in its field 'rows'; save only that list",
        ),
        ('{"data": [1]}\n{"data": [2]}\n', "holds no list of objects; if it has one object a line, name it .jsonl"),
        ('{"data": [{"a": 1}', "holds no list of objects"),
    ],
)
def test_a_list_inside_an_object_is_named(tmp_path, text, message):
    assert complaint(written(tmp_path / "x.json", text)).startswith(message)


def test_a_record_that_is_a_conversation_is_its_messages(tmp_path):
    chat = [{"from": "human", "value": "q"}, {"from": "assistant", "ground_truth": {"value": "1"}}]
    assert read(written(tmp_path / "x.json", json.dumps([chat, {"a": 1}]))) == [{"messages": chat}, {"a": 1}]
    assert complaint(written(tmp_path / "x.json", '[[{"a": 1}]]')) == "row 0: is a list, want an object"
    assert complaint(written(tmp_path / "x.json", "[[]]")) == "row 0: is a list, want an object"


def test_compressed_files_and_shards_of_datasets_are_found_in_folders(tmp_path):
    plain = DataSet("plain", dict, "train")
    (tmp_path / "a").mkdir()
    found = written(tmp_path / "a" / "plain_train.jsonl.gz", gzip.compress(b"{}"))
    written(tmp_path / "a" / "plain_test.csv", "x")
    assert source_files(tmp_path / "a", plain, "train") == [found]
    (tmp_path / "b").mkdir()
    shards = [
        written(tmp_path / "b" / f"train-0000{n}-of-00002.jsonl.gz", gzip.compress(b'{"n": %d}' % n)) for n in (0, 1)
    ]
    assert source_files(tmp_path / "b", plain, "train") == shards
    datasets.Dataset.from_list(RECORDS).save_to_disk(tmp_path / "disk", num_shards=2)
    assert list(read_records(source_files(tmp_path / "disk", plain, "train"))) == RECORDS


# --- prompts that ask for no box -------------------------------------------------------------------------------------


def run(tmp_path, capsys, *flags, name="custom"):
    account = "a.json" if name == "custom" else f"{name}.json"
    assert cli.main([name, *map(str, flags), "--output", str(tmp_path / "out"), "--quiet"]) == 0
    files = json.loads((tmp_path / "out" / account).read_text())["files"]
    return capsys.readouterr().err, sum(counts["without_box"] for counts in files.values())


def test_prompts_without_a_box_are_counted_in_a_warning(tmp_path, capsys):
    problems = ["1+1?", "1+2? Put it into \\boxed{}, please.", "1+3?", "1+4?"]
    records = [{"problem": p, "answer": str(n)} for n, p in enumerate(problems)]
    source = written(tmp_path / "x.json", json.dumps(records))
    flags = ["--name", "a", "--input", source]
    message, count = run(tmp_path, capsys, *flags)
    assert count == 3 and message == (
        "data_prep custom: warning: 3 of 4 prompts (75%) do not ask for the \\boxed{} that repo_verl.rewards reads; "
        "pass --template boxed, unless the model writes it unasked\n"
    )
    for template in ("boxed", "think"):
        assert run(tmp_path, capsys, *flags, "--template", template) == ("", 0)
    written(tmp_path / "x.json", json.dumps(records[1:2]))
    assert run(tmp_path, capsys, *flags) == ("", 0)


def test_the_share_is_of_the_rows_that_are_written(tmp_path, capsys):
    records = [{"problem": f"{n}? \\boxed{{}}" if n < 50 else f"{n}?", "answer": "1"} for n in range(100)]
    source = written(tmp_path / "x.json", json.dumps(records))
    message, count = run(tmp_path, capsys, "--name", "a", "--input", source, "--sample-size", "8")
    prompts = [row["prompt"][0]["content"] for row in pq.read_table(tmp_path / "out/a_train.parquet").to_pylist()]
    assert len(prompts) == 8 and count == sum("boxed" not in prompt for prompt in prompts)
    assert f"warning: {count} of 8 prompts" in message


def test_made_problems_are_for_models_that_are_taught_the_box(tmp_path, capsys):
    assert run(tmp_path, capsys, "--train-size", "9", "--test-size", "3", name="arithmetic") == ("", 12)
