"""Odd records: chats as text, nothing to see, single precision, and what is compared with benchmarks."""

import json
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import jsonl, prepare, refused, row_of

from data_prep import sets
from data_prep.filters import loose_form, read_benchmarks
from data_prep.prompts import bare
from data_prep.reading import read_records, shortened
from data_prep.records import Item, read_item
from data_prep.schema import SCHEMA, RowError, is_blank, make_row
from repo_verl.safe_text import shown

GOOD = {"prompt": "p", "ground_truth": "1"}
DEEP = "[" * 100_000 + "]" * 100_000


def bench(folder, name, *splits):
    folder.mkdir(exist_ok=True)
    rows = [make_row("math500", f"What is {n} plus one?", "1", split, n, "none") for n, split in enumerate(splits)]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / name)
    return folder


def test_rows_that_were_compared_are_counted_and_printed(tmp_path, capsys):
    folder = bench(tmp_path / "b", "x.parquet", "test", "train", "warmup", "test")
    account = prepare(
        tmp_path / "out", "deepmath", "--input", jsonl(tmp_path / "s.jsonl", GOOD), "--decontaminate", folder
    )
    counts = account["decontaminate"]["x.parquet"]
    assert (counts["rows_used"], counts["rows_skipped"]) == (2, 2)
    assert "compared with x.parquet: 2 rows used, 2 skipped" in capsys.readouterr().out


def test_a_benchmark_file_that_gives_no_row_is_an_error(tmp_path, capsys):
    folder = bench(bench(tmp_path / "b", "x.parquet", "test"), "y.parquet", "train", "train")
    flags = ["deepmath", "--input", jsonl(tmp_path / "s.jsonl", GOOD), "--decontaminate"]
    message = refused(capsys, tmp_path / "out", *flags, folder)
    assert "y.parquet: no benchmark rows (2 of the split train or warmup); take it out" in message
    for path in (tmp_path / "none", folder / "x.parquet"):
        assert f"--decontaminate {path}: is no folder" in refused(capsys, tmp_path / "out", *flags, path)


def test_problems_in_other_scripts_differ():
    assert loose_form("求方程的所有实数解之和为多少") == "求方程的所有实数解之和为多少"
    assert loose_form("Найдите сумму корней 12") != loose_form("Найдите разность корней 12")
    assert loose_form("Wie lang ist die STRASSE?") == loose_form("Wie lang ist die Straße")
    assert loose_form("ＦＩＮＤ the value of x²") == loose_form("Find the VALUE of x2") == "findthevalueofx2"


def test_a_chat_spelled_as_json_is_a_chat():
    chat = [{"role": "system", "content": "Think."}, {"role": "user", "content": "q"}]
    assert read_item({"prompt": json.dumps(chat), "answer": "1"}) == Item("q", "1", instruction_removed=True)
    for text in ("[asy] draw(); [/asy] What?", "[1, 2]", "[]", '["q"]', '[{"role": "user"}]', DEEP):
        assert read_item({"prompt": text, "answer": "1"}).problem == text


def test_verls_gsm8k_instruction_goes():
    prompt = 'How many? Let\'s think step by step and output the final answer after "####".'
    assert bare(prompt) == ("How many?", True)


@pytest.mark.parametrize("blank", ["\u200b", "\ufeff \u2060", "\u00a0\u3000", "\u3164", "\x00\n", "\u200d\ufe0f"])
def test_text_with_nothing_to_see_is_empty(blank):
    assert is_blank(blank) and not is_blank(f"{blank}x")
    for record, reason in (
        ({"prompt": blank, "answer": "1"}, "prompt empty"),
        ({"prompt": "q", "answer": blank}, "answer empty"),
        ({"prompt": [{"role": "user", "content": blank}], "answer": "1"}, "prompt empty"),
    ):
        with pytest.raises(RowError) as caught:
            read_item(record)
        assert caught.value.reason == reason


def test_an_answer_that_is_an_empty_formula_is_counted():
    with pytest.raises(RowError) as caught:
        row_of(sets.SETS["olympiadbench"], {"question": "q", "final_answer": ["$ $"]}, 0, "test", "none")
    assert caught.value.reason == "answer empty"


def test_numbers_of_single_precision_are_written_short(tmp_path):
    columns = {
        "prompt": ["q"] * 4,
        "answer": pa.array([0.1, 3.0, 1 / 3, 16777216.0], pa.float32()),
        "error": pa.array([[0.1], None, [], [2.5]], pa.list_(pa.float32())),
        "extra": pa.array([{"t": 0.1}] * 4, pa.struct([("t", pa.float16())])),
        "double": [0.1] * 4,
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    read = list(read_records([tmp_path / "x.parquet"]))
    assert [read_item(record).answer for record in read] == ["0.1", "3", "0.33333334", "16777216"]
    assert [record["error"] for record in read] == [[0.1], None, [], [2.5]]
    assert (read[0]["extra"], read[0]["double"]) == ({"t": 0.1}, 0.1)


@pytest.mark.parametrize("number", [0.1, 3.4028234e38, 1e-45, -7.25, float("inf"), 123456792.0])
def test_a_short_number_is_the_same_number(number):
    single = struct.unpack("f", struct.pack("f", number))[0]
    short = shortened(single, pa.float32())
    assert struct.pack("f", short) == struct.pack("f", single) and len(repr(short)) <= len(repr(single))
    assert shortened(65504.0, pa.float16()) == 65504.0 and shortened(123456792.0, pa.float32()) == 123456792.0


def test_extra_info_that_is_no_mapping_is_counted(tmp_path):
    record = {"prompt": "q", "reward_model": {"ground_truth": "1"}}
    source = jsonl(tmp_path / "s.jsonl", {**record, "extra_info": "x"}, {**record, "extra_info": None}, record)
    counts = prepare(tmp_path / "out", "deepmath", "--input", source)["files"]["deepmath_train.parquet"]
    assert counts["dropped"] == {"extra_info no mapping": {"count": 1, "records": "0"}} and counts["rows_out"] == 2
    (tmp_path / "b").mkdir()
    table = pa.table({"prompt": ["q"], "reward_model": [{"ground_truth": "1"}], "extra_info": ["x"]})
    pq.write_table(table, tmp_path / "b/x.parquet")
    with pytest.raises(ValueError, match="x.parquet: row 0: field 'extra_info' is 'x', want a mapping or null; want"):
        read_benchmarks(tmp_path / "b")


def test_a_gsm8k_answer_with_a_unit_names_the_field():
    with pytest.raises(RowError, match="field 'answer' ends in '72 apples', want '#### ' and only a number"):
        sets.read_gsm8k({"question": "q", "answer": "so\n#### 72 apples"})
    with pytest.raises(RowError, match="field 'reward_model.ground_truth' ends in"):
        sets.read_gsm8k({"prompt": "q", "reward_model": {"ground_truth": "72 apples"}})


def test_long_values_are_short_in_messages():
    assert len(shown("x" * 10_000)) < 120 and len(shown([["x" * 10_000] * 100] * 100)) < 10_000
    for record in ({"prompt": ["x" * 10_000] * 9, "answer": "1"}, {"prompt": "q", "answer": ["y" * 10_000] * 9},
                   {"z" * 10_000: 1, **{str(n): n for n in range(999)}}):  # fmt: skip
        with pytest.raises(RowError) as caught:
            read_item(record)
        assert len(str(caught.value)) < 1500
