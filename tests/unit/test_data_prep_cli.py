"""The command: what it writes, what it counts, what it says when it cannot."""

import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from preparing import jsonl, prepare, refused, rows_of

from data_prep import cli, filters
from data_prep.account import as_ranges
from data_prep.schema import SCHEMA, validate_row
from repo_verl import rewards

DEEPMATH = Path(__file__).parents[2].parent / "shared/data/train/alibaba__ROLL__math_deepmath_deal.jsonl"


@pytest.fixture
def source(tmp_path):
    def write(*records):
        return str(jsonl(tmp_path / "source.jsonl", *records))

    return write


@pytest.mark.shared_data
def test_deepmath_whole(tmp_path):
    account = prepare(tmp_path, "deepmath", "--input", str(DEEPMATH))
    rows = rows_of(tmp_path / "deepmath_train.parquet")
    assert len(rows) == 4994 and account["files"]["deepmath_train.parquet"] == {
        "records_in": 4994,
        "rows_out": 4994,
        "without_box": 4943,
        "instruction_removed": 0,
        "dropped": {},
        "benchmark_matches": [],
    }
    for number, row in enumerate(rows):
        validate_row(row, "deepmath_train.parquet", number)
    assert [row["extra_info"]["index"] for row in rows] == list(range(4994))
    assert pq.read_schema(tmp_path / "deepmath_train.parquet").names == SCHEMA.names
    assert account["source"]["sha256"].startswith("6c8500132b82cafcd82287c46d2804")


@pytest.mark.shared_data
def test_deepmath_truth_questions_are_counted(tmp_path):
    flags = ["deepmath", "--input", str(DEEPMATH), "--answers", "yes-no", "--max-prompt-chars", "100", "--sample-size"]
    counts = prepare(tmp_path, *flags, "16")["files"]["deepmath_train.parquet"]
    rows = rows_of(tmp_path / "deepmath_train.parquet")
    assert len(rows) == counts["rows_out"] == 16
    assert counts["records_in"] == 4994 == 16 + sum(entry["count"] for entry in counts["dropped"].values())
    assert counts["dropped"]["answer is not yes, no, true or false"]["count"] == 4994 - 881
    assert {row["reward_model"]["ground_truth"].lower() for row in rows} <= {"yes", "no", "true", "false"}
    assert max(len(row["prompt"][0]["content"]) for row in rows) <= 100


@pytest.mark.shared_data
def test_the_sample_is_the_authors_draw(tmp_path):
    prepare(tmp_path, "deepmath", "--input", str(DEEPMATH), "--sample-size", "20")
    drawn = [row["extra_info"]["index"] for row in rows_of(tmp_path / "deepmath_train.parquet")]
    shuffled = datasets.Dataset.from_dict({"n": list(range(4994))}).shuffle(seed=42).select(range(20))
    assert drawn == list(shuffled["n"]) == np.random.default_rng(42).permutation(4994)[:20].tolist()
    assert drawn[:3] == [2114, 3039, 90]


@pytest.mark.shared_data
def test_a_sample_is_drawn_from_what_the_filters_leave_and_leaves_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    flags = ["deepmath", "--input", str(DEEPMATH), "--answers", "yes-no"]
    prepare(tmp_path / "all", *flags)
    counts = prepare(tmp_path / "some", *flags, "--sample-size", "500", "--seed", "7")["files"]
    every = rows_of(tmp_path / "all/deepmath_train.parquet")
    expected = datasets.Dataset.from_list(every).shuffle(seed=7).select(range(500)).to_list()
    assert rows_of(tmp_path / "some/deepmath_train.parquet") == expected
    not_drawn = {row["extra_info"]["index"] for row in every} - {row["extra_info"]["index"] for row in expected}
    assert counts["deepmath_train.parquet"]["dropped"]["not drawn"] == {
        "count": 881 - 500,
        "records": as_ranges(sorted(not_drawn)),
    }
    written = pq.ParquetFile(tmp_path / "some/deepmath_train.parquet")
    assert list(written.metadata.metadata) == [b"ARROW:schema"] and written.schema_arrow.equals(SCHEMA)
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == ["deepmath.json", "deepmath_train.parquet"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["deepmath", "--input", str(DEEPMATH), "--sample-size", "64", "--template", "boxed"],
        ["arithmetic", "--train-size", "64", "--test-size", "16", "--warmup-size", "32"],
    ],
)
@pytest.mark.shared_data
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
        "without_box": 2,
        "instruction_removed": 0,
        "dropped": {
            "final_answer or ground_truth missing": {"count": 1, "records": "3"},
            "ground_truth empty": {"count": 2, "records": "1,4"},
        },
        "benchmark_matches": [],
    }


def test_broken_json_names_file_and_row(capsys, tmp_path, source):
    path = source({"prompt": "p", "ground_truth": "1"}, "{")
    message = refused(capsys, tmp_path / "out", "deepmath", "--input", path)
    assert "source.jsonl: row 1: broken JSON" in message


def test_a_file_without_the_column_names_row_and_field(capsys, tmp_path, source):
    message = refused(capsys, tmp_path / "out", "deepmath", "--input", source({"problem": "p", "answer": "1"}))
    assert "source.jsonl: row 0: field question or prompt is missing (there are: problem, answer)" in message


def test_no_rows_left_names_the_file_and_the_commonest_reason(capsys, tmp_path, source):
    rows = [{"prompt": "p", "ground_truth": "1"}, {"prompt": "p"}, {"prompt": "p", "ground_truth": "2"}]
    message = refused(capsys, tmp_path / "out", "deepmath", "--input", source(*rows), "--answers", "yes-no")
    assert "source.jsonl: no rows are left of 3, most (2, first row 0) for the reason" in message
    assert "'answer is not yes, no, true or false'" in message


def test_an_empty_file_is_refused(capsys, tmp_path, source):
    assert "source.jsonl: is empty" in refused(capsys, tmp_path / "out", "deepmath", "--input", source())
    assert "source.jsonl: has no records" in refused(capsys, tmp_path / "out", "deepmath", "--input", source(" "))


def test_a_missing_file_is_named(capsys, tmp_path):
    message = refused(capsys, tmp_path / "out", "math", "--input", f"{tmp_path}/none.json")
    assert "/none.json: there is no such file" in message


def test_strict_stops_at_the_first_bad_record(capsys, tmp_path, source):
    path = source({"prompt": "p", "ground_truth": "1"}, {"prompt": "p", "ground_truth": None})
    message = refused(capsys, tmp_path / "out", "deepmath", "--input", path, "--strict")
    assert "source.jsonl: row 1: field 'ground_truth' is None, want an answer" in message


def test_a_sample_larger_than_the_rows_is_refused(capsys, tmp_path, source):
    flags = ["--input", source({"prompt": "p", "ground_truth": "1"}), "--sample-size", "2"]
    assert "sample_size=2 must be from 1 to the 1 rows" in refused(capsys, tmp_path / "out", "deepmath", *flags)


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json"])
def test_unreadable_sources_are_named(capsys, tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe")
    assert name in refused(capsys, tmp_path / "out", "deepmath", "--input", str(tmp_path / name))


def test_json_and_parquet_sources_give_the_same_rows(tmp_path):
    records = [{"prompt": "1+1?", "ground_truth": "2"}, {"prompt": "1+2?", "ground_truth": "3"}]
    (tmp_path / "s.json").write_text(json.dumps(records))
    datasets.Dataset.from_list(records).to_parquet(str(tmp_path / "s.parquet"))
    for name in ("s.json", "s.parquet"):
        prepare(tmp_path / name[2:], "deepmath", "--input", str(tmp_path / name))
    assert rows_of(tmp_path / "json/deepmath_train.parquet") == rows_of(tmp_path / "parquet/deepmath_train.parquet")


def test_tokens_need_a_tokenizer(capsys, tmp_path):
    assert "pass --tokenizer" in refused(capsys, tmp_path / "out", "arithmetic", "--max-prompt-tokens", "9")


def test_gold_r1_drops_and_counts_what_has_no_box(tmp_path, source):
    path = source(
        {"question": "p", "final_answer": "1", "r1_solution_1": "\\boxed{2}"},
        {"question": "p", "final_answer": "1", "r1_solution_1": "two"},
    )
    account = prepare(tmp_path / "out", "deepmath", "--input", path, "--gold", "r1")
    assert [row["reward_model"]["ground_truth"] for row in rows_of(tmp_path / "out/deepmath_train.parquet")] == ["2"]
    dropped = account["files"]["deepmath_train.parquet"]["dropped"]
    assert dropped == {"no answer in a box in r1_solution_1": {"count": 1, "records": "1"}}
    assert account["flags"]["gold"] == "r1"


def test_unverifiable_gold_answers_are_dropped_and_counted(tmp_path, source, monkeypatch):
    monkeypatch.setattr(rewards, "gold_is_verifiable", lambda gold: gold != "??")
    path = source({"prompt": "p", "ground_truth": "1"}, {"prompt": "p", "ground_truth": "??"})
    for flags, left in (([], 2), (["--filter-unverifiable"], 1)):
        account = prepare(tmp_path / str(left), "deepmath", "--input", path, *flags)["files"]["deepmath_train.parquet"]
        assert account["rows_out"] == left
    assert account["dropped"] == {"the grader cannot read the gold answer": {"count": 1, "records": "1"}}


def test_long_prompts_are_dropped_by_the_tokenizers_count(tmp_path, source, monkeypatch):
    def counter(path):
        assert path == "some/tokenizer"
        return lambda row: len(row["prompt"][0]["content"].split())

    monkeypatch.setattr(filters, "prompt_counter", counter)
    path = source({"prompt": "one two", "ground_truth": "1"}, {"prompt": "one two three", "ground_truth": "1"})
    flags = ["--input", path, "--max-prompt-tokens", "2", "--tokenizer", "some/tokenizer"]
    account = prepare(tmp_path / "out", "deepmath", *flags)["files"]["deepmath_train.parquet"]
    assert account["dropped"] == {"prompt longer than 2 tokens": {"count": 1, "records": "1"}}


def test_a_failure_leaves_the_older_files_as_they_were(tmp_path, source, capsys):
    output = tmp_path / "out"
    good = {"prompt": "p", "ground_truth": "1"}
    prepare(output, "deepmath", "--input", source(good))
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert cli.main(["deepmath", "--input", source(*[good] * 9000, "{"), "--output", str(output), "--quiet"]) == 2
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert "row 9000: broken JSON" in capsys.readouterr().err


def test_the_table_and_the_progress_bar(tmp_path, source, capsys):
    path = source({"prompt": "p", "ground_truth": "1"}, {"prompt": "p"})
    assert cli.main(["deepmath", "--input", path, "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1:] == [
        "deepmath_train.parquet                  2        1        1",
        "         1  final_answer or ground_truth missing",
    ]
    assert "deepmath_train: 2 records" in shown.err


def test_ranges():
    assert as_ranges([0, 2, 3, 4, 9]) == "0,2-4,9"
    assert as_ranges([]) == ""
