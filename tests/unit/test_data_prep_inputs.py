"""Which files an --input stands for, and how many records benchmarks must have."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import jsonl, prepare, refused

from data_prep import jobs
from data_prep.reading import read_records
from data_prep.records import DataSet
from data_prep.sources import benchmark_files, data_files, source_files

DATA = Path(__file__).parents[2].parent / "shared/data"
PLAIN = DataSet("plain", dict, "train")
GSM8K = {"question": "1+1?", "answer": "#### 2"}


def shard(folder, name, number):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{"n": number}]), folder / name)


def test_shards_are_read_in_order_of_their_names(tmp_path):
    for number in (2, 0, 1):
        shard(tmp_path, f"train-0000{number}-of-00003.parquet", number)
    shard(tmp_path, "test-00000-of-00001.parquet", 9)
    (tmp_path / "README.md").write_text("x")
    assert [r["n"] for r in read_records(source_files(tmp_path, PLAIN, "train"))] == [0, 1, 2]
    assert [r["n"] for r in read_records(source_files(tmp_path, PLAIN, "test"))] == [9]
    assert source_files(tmp_path / "README.md", PLAIN, "test") == [tmp_path / "README.md"]


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the folder has no .jsonl, .json, .csv, .parquet, .arrow file of the split"):
        source_files(tmp_path, PLAIN, "train")


@pytest.mark.parametrize("below", ["data", "main"])
def test_shards_of_a_hub_download_are_found_one_level_down(tmp_path, below):
    shard(tmp_path / below, "test-00000-of-00001.parquet", 1)
    shard(tmp_path / below, "train-00000-of-00001.parquet", 2)
    shard(tmp_path / "socratic", "test-00000-of-00001.parquet", 3)
    (tmp_path / "dataset_infos.json").write_text("{}")
    found = source_files(tmp_path, jobs.SETS["gsm8k"], "test")
    assert found == [tmp_path / below / "test-00000-of-00001.parquet"]


def test_missing_and_mixed_shards_are_refused(tmp_path):
    shard(tmp_path, "train-00001-of-00002.parquet", 1)
    with pytest.raises(ValueError, match=r"the shards \(train-00001-of-00002.parquet\) are not each of one set once"):
        source_files(tmp_path, PLAIN, "train")
    shard(tmp_path, "train-00000-of-00002.parquet", 0)
    assert len(source_files(tmp_path, PLAIN, "train")) == 2
    shard(tmp_path, "extra.parquet", 5)
    with pytest.raises(ValueError, match="extra.parquet, train-00000-of-00002.parquet, train-00001"):
        source_files(tmp_path, PLAIN, "train")


@pytest.mark.shared_data
def test_several_files_are_not_joined(tmp_path, capsys):
    message = refused(capsys, tmp_path / "out", "gsm8k", "--input", DATA / "gsm8k")
    for name in ("deepseek-ai__DeepSeek-Math__test.jsonl", "openai__grade-school-math__train.jsonl"):
        assert name in message
    assert "pass the file with --input" in message and not (tmp_path / "out").exists()


def test_a_folder_that_this_tool_wrote_is_a_source(tmp_path):
    train, test = jsonl(tmp_path / "train.jsonl", GSM8K), jsonl(tmp_path / "test.jsonl", GSM8K, GSM8K)
    prepare(tmp_path / "one", "gsm8k", "--input", str(train))
    assert "gsm8k_train.parquet" in prepare(tmp_path / "one again", "gsm8k", "--input", str(tmp_path / "one"))["files"]
    prepare(tmp_path / "one", "gsm8k", "--input", str(test))
    for split, rows in (("train", 1), ("test", 2)):
        account = prepare(tmp_path / split, "gsm8k", "--input", str(tmp_path / "one"), "--split", split)
        assert account["files"][f"gsm8k_{split}.parquet"]["rows_out"] == rows
        assert account["source"]["file"] == f"gsm8k_{split}.parquet"


@pytest.fixture
def folder(tmp_path):
    for name in (
        "a.json",
        "e_test.parquet",
        "b/one.parquet",
        "b/notes.txt",
        "c/x__test.jsonl",
        "c/y.jsonl",
        "d/x_test.jsonl",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def sets(*names):
    return {name: DataSet(name, dict, "test") for name in names}


def test_benchmark_files_are_found_by_name_alone_or_as_test(folder):
    found = benchmark_files([str(folder), f"d={folder}/z"], sets("d", "a", "b", "c", "e"))
    assert list(found.items()) == [
        ("d", folder / "z"),
        ("a", folder / "a.json"),
        ("b", folder / "b/one.parquet"),
        ("c", folder / "c/x__test.jsonl"),
        ("e", folder / "e_test.parquet"),
    ]


def test_benchmark_files_that_are_unclear_or_missing_are_asked_for(folder):
    (folder / "d/y_test.json").write_text("")
    with pytest.raises(
        ValueError, match=r"several files could be d \(x_test.jsonl, y_test.json\); pass --input d=FILE"
    ):
        benchmark_files([str(folder)], sets("a", "d"))
    with pytest.raises(ValueError, match="no file for f; pass --input f=FILE"):
        benchmark_files([str(folder)], sets("a", "f"))
    with pytest.raises(ValueError, match="--input q=x is neither a folder nor SET=FILE with SET one of a, b"):
        benchmark_files(["q=x"], sets("a", "b"))


def test_a_benchmark_given_twice_is_refused():
    with pytest.raises(ValueError, match=r"--input a=y: a was given before \(x\); pass one file for a set"):
        benchmark_files(["a=x", "a=y"], sets("a"))


def test_training_files_and_accounts_are_no_benchmarks(tmp_path):
    jsonl(tmp_path / "a/a_train.jsonl", GSM8K)
    with pytest.raises(ValueError, match="no file for a .*a_train.jsonl is named as training data.; pass --input a="):
        benchmark_files([str(tmp_path)], sets("a"))
    shard(tmp_path / "aime24/data", "train-00000-of-00001.parquet", 0)
    found = benchmark_files([str(tmp_path)], {"aime24": jobs.SETS["aime24"]})
    assert found == {"aime24": tmp_path / "aime24/data/train-00000-of-00001.parquet"}
    prepare(tmp_path / "out", "gsm8k", "--input", str(jsonl(tmp_path / "test.jsonl", GSM8K)))
    assert [path.name for path in data_files(tmp_path / "out")] == ["gsm8k_test.parquet"]


def benchmark_flags(**files):
    real = {
        "minerva": DATA / "minerva/QwenLM__Qwen2.5-Math__test.jsonl",
        "gsm8k": DATA / "gsm8k/openai__grade-school-math__test.jsonl",
        **files,
    }
    return ["benchmarks", "--input", str(DATA), *(f"--input={name}={path}" for name, path in real.items())]


@pytest.mark.shared_data
def test_benchmarks_have_the_papers_counts(tmp_path, capsys):
    amc = DATA / "amc23/PRIME-RL__PRIME__aimo-validation-amc.jsonl"
    message = refused(capsys, tmp_path, *benchmark_flags(amc23=amc))
    assert (
        "amc.jsonl: has 83 records, but amc23 has 40; pass its file with --input amc23=FILE, or --any-count" in message
    )
    assert not list(tmp_path.iterdir())
    account = prepare(tmp_path, *benchmark_flags(amc23=amc), "--any-count")
    assert account["files"]["amc23_test.parquet"]["rows_out"] == 83


@pytest.mark.shared_data
def test_a_training_file_given_as_a_benchmark_is_refused(tmp_path, capsys):
    train = DATA / "gsm8k/openai__grade-school-math__train.jsonl"
    message = refused(capsys, tmp_path, *benchmark_flags(gsm8k=train), "--any-count")
    assert "the name says train" in message and "pass another with --input gsm8k=FILE" in message


@pytest.mark.shared_data
def test_a_sample_larger_than_a_benchmark_names_the_set(tmp_path, capsys):
    message = refused(capsys, tmp_path, *benchmark_flags(), "--sample-size", "100")
    assert "amc23_test: sample_size=100 must be from 1 to the 40 rows left" in message
