"""The command: what it writes, what it counts, what it says when it cannot."""

import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from data_prep import cli
from data_prep.prepare import as_ranges
from data_prep.schema import SCHEMA, validate_row

DEEPMATH = Path(__file__).parents[2].parent / "shared/data/train/alibaba__ROLL__math_deepmath_deal.jsonl"


def prepare(output, *flags):
    assert cli.main([*flags, "--output", str(output), "--quiet"]) == 0
    return json.loads((output / f"{flags[0]}.json").read_text())


def rows_of(path):
    return pq.read_table(path).to_pylist()


def refused(capsys, tmp_path, *flags):
    assert cli.main([*flags, "--output", str(tmp_path / "out"), "--quiet"]) == 2
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


@pytest.fixture
def source(tmp_path):
    def write(*records):
        path = tmp_path / "source.jsonl"
        path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
        return str(path)

    return write


def test_deepmath_whole(tmp_path):
    account = prepare(tmp_path, "deepmath", "--input", str(DEEPMATH))
    rows = rows_of(tmp_path / "deepmath_train.parquet")
    assert len(rows) == 4994 and account["files"]["deepmath_train.parquet"] == {
        "records_in": 4994,
        "rows_out": 4994,
        "dropped": {},
    }
    for number, row in enumerate(rows):
        validate_row(row, "deepmath_train.parquet", number)
    assert [row["extra_info"]["index"] for row in rows] == list(range(4994))
    assert pq.read_schema(tmp_path / "deepmath_train.parquet").names == SCHEMA.names
    assert account["source"]["sha256"].startswith("6c8500132b82cafcd82287c46d2804")


def test_deepmath_truth_questions_are_counted(tmp_path):
    flags = ["deepmath", "--input", str(DEEPMATH), "--answers", "yes-no", "--max-prompt-chars", "100", "--sample-size"]
    counts = prepare(tmp_path, *flags, "16")["files"]["deepmath_train.parquet"]
    rows = rows_of(tmp_path / "deepmath_train.parquet")
    assert len(rows) == counts["rows_out"] == 16
    assert counts["records_in"] == 4994 == 16 + sum(entry["count"] for entry in counts["dropped"].values())
    assert counts["dropped"]["answer is not yes, no, true or false"]["count"] == 4994 - 881
    assert {row["reward_model"]["ground_truth"].lower() for row in rows} <= {"yes", "no", "true", "false"}
    assert max(len(row["prompt"][0]["content"]) for row in rows) <= 100


def test_the_sample_is_the_authors_draw(tmp_path):
    prepare(tmp_path, "deepmath", "--input", str(DEEPMATH), "--sample-size", "20")
    drawn = [row["extra_info"]["index"] for row in rows_of(tmp_path / "deepmath_train.parquet")]
    shuffled = datasets.Dataset.from_dict({"n": list(range(4994))}).shuffle(seed=42).select(range(20))
    assert drawn == list(shuffled["n"])


@pytest.mark.parametrize(
    "flags",
    [
        ["deepmath", "--input", str(DEEPMATH), "--sample-size", "64", "--template", "boxed"],
        ["arithmetic", "--train-size", "64", "--test-size", "16", "--warmup-size", "32"],
    ],
)
def test_the_same_flags_give_the_same_bytes(tmp_path, flags):
    for folder in ("a", "b"):
        prepare(tmp_path / folder, *flags)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert f"{flags[0]}_train.parquet" in names and f"{flags[0]}.json" in names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_another_seed_gives_another_sample(tmp_path):
    for seed in ("1", "2"):
        prepare(tmp_path / seed, "arithmetic", "--seed", seed, "--train-size", "64")
    assert rows_of(tmp_path / "1/arithmetic_train.parquet") != rows_of(tmp_path / "2/arithmetic_train.parquet")


def test_arithmetic_splits_share_no_problem(tmp_path):
    prepare(tmp_path, "arithmetic", "--form", "a*b", "--digits", "1", "--train-size", "40", "--test-size", "21",
            "--warmup-size", "20")  # fmt: skip
    splits = [
        {row["prompt"][0]["content"] for row in rows_of(tmp_path / f"arithmetic_{split}.parquet")}
        for split in ("train", "test", "warmup")
    ]
    assert [len(split) for split in splits] == [40, 21, 20]
    assert len(set.union(*splits)) == 81


def test_bad_records_are_dropped_and_named(tmp_path, source):
    good = {"prompt": "1+1?", "ground_truth": "2"}
    path = source(good, {**good, "ground_truth": ""}, good, {"prompt": "x"}, {**good, "ground_truth": None})
    counts = prepare(tmp_path / "out", "deepmath", "--input", path)["files"]["deepmath_train.parquet"]
    assert counts == {
        "records_in": 5,
        "rows_out": 2,
        "dropped": {
            "final_answer or ground_truth missing": {"count": 1, "records": "3"},
            "ground_truth empty": {"count": 2, "records": "1,4"},
        },
    }


def test_broken_json_names_file_and_row(capsys, tmp_path, source):
    message = refused(capsys, tmp_path, "deepmath", "--input", source({"prompt": "p", "ground_truth": "1"}, "{"))
    assert "source.jsonl: row 1: broken JSON" in message


def test_a_file_without_the_column_names_row_and_field(capsys, tmp_path, source):
    message = refused(capsys, tmp_path, "deepmath", "--input", source({"problem": "p", "answer": "1"}))
    assert "source.jsonl: row 0: field question or prompt is missing (there are: problem, answer)" in message


def test_no_rows_left_is_refused(capsys, tmp_path, source):
    flags = ["--input", source({"prompt": "p", "ground_truth": "1"}), "--answers", "yes-no"]
    assert "no rows are left" in refused(capsys, tmp_path, "deepmath", *flags)


def test_a_sample_larger_than_the_rows_is_refused(capsys, tmp_path, source):
    flags = ["--input", source({"prompt": "p", "ground_truth": "1"}), "--sample-size", "2"]
    assert "sample_size=2 must be from 1 to the 1 rows" in refused(capsys, tmp_path, "deepmath", *flags)


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json"])
def test_unreadable_sources_are_named(capsys, tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe")
    assert name in refused(capsys, tmp_path, "deepmath", "--input", str(tmp_path / name))


def test_json_and_parquet_sources_give_the_same_rows(tmp_path):
    records = [{"prompt": "1+1?", "ground_truth": "2"}, {"prompt": "1+2?", "ground_truth": "3"}]
    (tmp_path / "s.json").write_text(json.dumps(records))
    datasets.Dataset.from_list(records).to_parquet(str(tmp_path / "s.parquet"))
    for name in ("s.json", "s.parquet"):
        prepare(tmp_path / name[2:], "deepmath", "--input", str(tmp_path / name))
    assert rows_of(tmp_path / "json/deepmath_train.parquet") == rows_of(tmp_path / "parquet/deepmath_train.parquet")


def test_without_hub_and_input_one_sentence_says_what_to_do(capsys, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    message = refused(capsys, tmp_path, "deepmath")
    assert "zwhe99/DeepMath-103K" in message and "--input" in message


def test_tokens_need_a_tokenizer(capsys, tmp_path):
    assert "pass --tokenizer" in refused(capsys, tmp_path, "arithmetic", "--max-prompt-tokens", "9")


def test_ranges():
    assert as_ranges([0, 2, 3, 4, 9]) == "0,2-4,9"
    assert as_ranges([]) == ""
