"""Of which split a source is; what is not written over; the account of two runs in one folder."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import jsonl, prepare, refused

from data_prep.schema import SCHEMA, make_row
from data_prep.sources import split_in_name

GSM8K = {"question": "1+1?", "answer": "#### 2"}


def verl(path, *splits):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [make_row("gsm8k", f"{n}+1?", "2", split, n, "none") for n, split in enumerate(splits)]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    return path


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("a__train.jsonl", "train"), ("train-00000-of-00001.parquet", "train"), ("x-Test.json", "test"),
        ("trainer.json", None), ("train_test.json", None), ("contest.json", None), ("gsm8k.json", None),
    ],
)  # fmt: skip
def test_the_split_in_a_name(name, split):
    assert split_in_name(Path("test") / name) == split


@pytest.mark.parametrize(("name", "split"), [("a__train", "train"), ("a-test", "test"), ("gsm8k", "test")])
def test_gsm8ks_split_is_what_the_name_says(tmp_path, name, split):
    jsonl(tmp_path / f"{name}.jsonl", GSM8K)
    account = prepare(tmp_path / "out", "gsm8k", "--input", str(tmp_path / f"{name}.jsonl"))
    assert list(account["files"]) == [f"gsm8k_{split}.parquet"]


def test_a_name_of_the_other_split_is_refused(tmp_path, capsys):
    train, test = (
        jsonl(tmp_path / "a_train.jsonl", GSM8K),
        jsonl(tmp_path / "a_test.jsonl", {"problem": "p", "answer": "1"}),
    )
    message = refused(capsys, tmp_path / "out", "gsm8k", "--split", "test", "--input", train)
    assert "a_train.jsonl: the name says train, but the file is to be prepared as test; pass --split train" in message
    assert "a_test.jsonl: the name says test" in refused(capsys, tmp_path / "out", "math", "--input", test)
    prepare(tmp_path / "out", "math", "--input", str(test), "--split", "test")


def test_aime24s_test_problems_are_the_hubs_train(tmp_path):
    source = jsonl(tmp_path / "x/data/train-00000-of-00001.jsonl", {"problem": "p", "answer": "1"})
    for path in (source, tmp_path / "x"):
        assert list(prepare(tmp_path / "out", "aime24", "--input", str(path))["files"]) == ["aime24_test.parquet"]


def test_rows_of_the_other_split_are_refused(tmp_path, capsys):
    source = verl(tmp_path / "x.parquet", "test", "train")
    message = refused(capsys, tmp_path / "out", "gsm8k", "--input", source)
    assert "x.parquet: row 1: field 'extra_info.split' is 'train', but the file is to be prepared as test; " in message
    assert "pass --split train" in message
    prepare(tmp_path / "out", "gsm8k", "--input", str(verl(tmp_path / "w.parquet", "warmup")))


@pytest.mark.parametrize("link", ["", "symlink_to", "hardlink_to"])
def test_sources_are_not_written_over(tmp_path, capsys, link):
    source = verl(tmp_path / "gsm8k_test.parquet", "test")
    if link:
        getattr(tmp_path / "other.parquet", link)(source)
    before = source.read_bytes()
    flags = ["gsm8k", "--input", tmp_path / "other.parquet" if link else source]
    message = refused(capsys, tmp_path, *flags)
    assert "is read, and would be written over by" in message and "pass another --output" in message
    assert source.read_bytes() == before


def test_benchmark_files_are_not_written_over(tmp_path, capsys):
    verl(tmp_path / "gsm8k_test.parquet", "test")
    flags = ["gsm8k", "--input", jsonl(tmp_path / "x/test.jsonl", GSM8K), "--decontaminate", tmp_path]
    assert "gsm8k_test.parquet: is read, and would be" in refused(capsys, tmp_path, *flags)


def test_a_second_split_joins_the_account(tmp_path, capsys):
    train, test = jsonl(tmp_path / "train.jsonl", GSM8K), jsonl(tmp_path / "test.jsonl", GSM8K, {"question": "q"})
    out = tmp_path / "out"
    first = prepare(out, "gsm8k", "--input", str(train), "--template", "boxed")
    assert "earlier" not in first
    capsys.readouterr()
    both = prepare(out, "gsm8k", "--input", str(test))
    assert "gsm8k_train" not in capsys.readouterr().out
    assert both["files"]["gsm8k_train.parquet"] == first["files"]["gsm8k_train.parquet"]
    assert both["files"]["gsm8k_test.parquet"]["records_in"] == 2
    assert both["source"]["gsm8k_train.parquet"] == first["source"]
    assert both["source"]["gsm8k_test.parquet"]["file"] == "test.jsonl"
    assert sorted(both["sha256"]) == ["gsm8k_test.parquet", "gsm8k_train.parquet"]
    assert both["flags"]["template"] == "none"
    assert both["earlier"]["gsm8k_train.parquet"]["flags"]["template"] == "boxed"
    again = prepare(out, "gsm8k", "--input", str(test))
    assert again == both
    (out / "gsm8k_train.parquet").write_text("changed")
    assert list(prepare(out, "gsm8k", "--input", str(test))["files"]) == ["gsm8k_test.parquet"]


def test_an_account_that_is_none_is_replaced(tmp_path):
    source = jsonl(tmp_path / "train.jsonl", GSM8K)
    for text in ("{", "[]", '{"set": "gsm8k", "files": 5}', '{"set": "math"}'):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out/gsm8k.json").write_text(text)
        assert "earlier" not in prepare(tmp_path / "out", "gsm8k", "--input", str(source))
