"""All 20 real files, the seven benchmarks, and what is known of them (shared/data/MANIFEST.md)."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from preparing import prepare, rows_of

from data_prep import cli, jobs
from data_prep.prompts import INSTRUCTIONS, OPENINGS

pytestmark = pytest.mark.shared_data

DATA = Path(__file__).parents[2].parent / "shared/data"
QWEN, SKYWORK = "QwenLM__Qwen2.5-Math__test.jsonl", "SkyworkAI__Skywork-OR1__"

# set, split, file, records, rows, prompts that lost an instruction
FILES = [
    ("math500", "test", "math500/hkust-nlp__simpleRL-reason__test.jsonl", 500, 500, 0),
    ("math500", "test", "math500/Open-Reasoner-Zero__math500.json", 500, 500, 0),
    ("math500", "test", "math500/ypwang61__One-Shot-RLVR__math500.parquet", 500, 500, 0),
    ("amc23", "test", f"amc23/{QWEN}", 40, 40, 0),
    ("amc23", "test", "amc23/PRIME-RL__PRIME__aimo-validation-amc.jsonl", 83, 83, 0),
    ("olympiadbench", "test", f"olympiadbench/{QWEN}", 675, 675, 0),
    ("minerva", "test", f"minerva/{QWEN}", 272, 272, 0),
    ("minerva", "test", "minerva/deepseek-ai__DeepSeek-Math__ocw_test.jsonl", 272, 272, 0),
    ("aime24", "test", f"aime24/{QWEN}", 30, 30, 0),
    ("aime24", "test", "aime24/QwenLM__QwQ__aime24.jsonl", 30, 30, 30),
    ("aime24", "test", f"aime24/{SKYWORK}aime24.parquet", 30, 30, 30),
    ("aime25", "test", "aime25/ypwang61__One-Shot-RLVR__test.jsonl", 30, 30, 0),
    ("aime25", "test", "aime25/QwenLM__QwQ__aime25.jsonl", 30, 30, 30),
    ("aime25", "test", f"aime25/{SKYWORK}aime25.parquet", 30, 30, 0),
    ("gsm8k", "test", "gsm8k/openai__grade-school-math__test.jsonl", 1319, 1319, 0),
    ("gsm8k", "train", "gsm8k/openai__grade-school-math__train.jsonl", 7473, 7473, 0),
    ("gsm8k", "test", "gsm8k/deepseek-ai__DeepSeek-Math__test.jsonl", 1319, 1319, 0),
    ("deepmath", "train", "train/alibaba__ROLL__math_deepmath_deal.jsonl", 4994, 4994, 0),
    ("math", "train", "train/agentica-project__rllm__math.json", 7474, 7470, 0),
    ("math", "train", "train/ypwang61__One-Shot-RLVR__dsr_sub.parquet", 1209, 1208, 1208),
]
BENCHMARKS = [
    "benchmarks", "--input", str(DATA), "--input", f"minerva={DATA}/minerva/{QWEN}",
    "--input", f"gsm8k={DATA}/gsm8k/openai__grade-school-math__test.jsonl",
]  # fmt: skip


def pairs(rows):
    return [(row["prompt"][0]["content"], row["reward_model"]["ground_truth"]) for row in rows]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Rows of every file, prepared by one command each."""
    made = {}

    def rows(file):
        if file not in made:
            name, split = next((name, split) for name, split, found, *_ in FILES if found == file)
            folder = tmp_path_factory.mktemp("out")
            account = prepare(folder, name, "--split", split, "--input", str(DATA / file))
            made[file] = account["files"][f"{name}_{split}.parquet"], rows_of(folder / f"{name}_{split}.parquet")
        return made[file]

    return rows


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    return folder, prepare(folder, *BENCHMARKS)


def test_all_files_of_the_folder_are_listed():
    kinds = (".json", ".jsonl", ".parquet")
    there = {str(path.relative_to(DATA)) for path in DATA.rglob("*") if path.suffix in kinds}
    there = {name for name in there if not name.startswith("grading/")}  # pairs for the grader, no data set
    assert there == {file for _, _, file, *_ in FILES} and len(FILES) == 20


@pytest.mark.parametrize(("name", "split", "file", "records", "rows", "removed"), FILES, ids=[f[2] for f in FILES])
def test_a_real_file_is_prepared_with_the_manifests_count(prepared, name, split, file, records, rows, removed):
    account, made = prepared(file)
    assert (account["records_in"], account["rows_out"], len(made)) == (records, rows, rows)
    assert account["instruction_removed"] == removed
    assert sum(entry["count"] for entry in account["dropped"].values()) == records - rows
    assert {(row["data_source"], row["extra_info"]["split"], len(row["prompt"])) for row in made} == {(name, split, 1)}
    prompts = [row["prompt"][0]["content"] for row in made]
    assert not any(instruction in prompt for prompt in prompts for instruction in (*INSTRUCTIONS, *OPENINGS))


def test_the_dropped_rows_are_those_without_an_answer(prepared):
    assert prepared("train/agentica-project__rllm__math.json")[0]["dropped"] == {
        "answer empty": {"count": 4, "records": "886,1009,5328,5330"}
    }
    assert prepared("train/ypwang61__One-Shot-RLVR__dsr_sub.parquet")[0]["dropped"] == {
        "reward_model.ground_truth empty": {"count": 1, "records": "265"}
    }


def test_three_copies_of_math500_give_the_same_rows(prepared):
    copies = [pairs(prepared(file)[1]) for name, _, file, *_ in FILES if name == "math500"]
    squeezed = [[(" ".join(p.split()), "".join(a.split())) for p, a in copy] for copy in copies]
    assert len(squeezed) == 3 and squeezed[0] == squeezed[1] == squeezed[2]
    ids = [row["extra_info"]["id"] for row in prepared(FILES[0][2])[1]]
    assert ids[0] == "test/precalculus/807.json" and len(set(ids)) == 500
    assert ids == [row["extra_info"]["id"] for row in prepared(FILES[2][2])[1]]


def test_two_copies_of_gsm8k_give_the_same_rows(prepared):
    openai, deepseek = (pairs(prepared(file)[1]) for file in (FILES[14][2], FILES[16][2]))
    assert openai == deepseek
    odd = [answer for _, answer in openai if not answer.isdigit()]
    assert len(odd) == 16 and {"2,125", "1,450,000", "-10", "-3"} <= set(odd)


def test_two_copies_of_minerva_have_the_same_answers(prepared):
    qwen, deepseek = (pairs(prepared(file)[1]) for file in (FILES[6][2], FILES[7][2]))
    assert [a for _, a in qwen] == [a for _, a in deepseek]
    assert sum(p != q for (p, _), (q, _) in zip(qwen, deepseek, strict=True)) == 203


def test_aime_answers_agree_and_keep_their_zeros(prepared):
    golds = {file: [answer for _, answer in pairs(prepared(file)[1])] for name, _, file, *_ in FILES if "aime" in name}
    qwen, qwq, skywork = (golds[FILES[n][2]] for n in (8, 9, 10))
    assert sorted(g for g in qwen if g.startswith("0")) == ["023", "025", "033", "045", "055", "073", "080"]
    assert sorted(map(int, qwen)) == sorted(map(int, qwq)) == sorted(map(int, skywork))
    one_shot, qwq, skywork = (golds[FILES[n][2]] for n in (11, 12, 13))
    assert one_shot == skywork and one_shot.count("336^\\circ") == 1
    assert [gold.removesuffix("^\\circ") for gold in one_shot] == qwq


def test_amc_answers_are_whole_numbers(prepared):
    (_, small), (_, large) = (prepared(FILES[n][2]) for n in (3, 4))
    assert small[0]["reward_model"]["ground_truth"] == "27"
    assert all(gold.removeprefix("-").isdigit() for _, gold in pairs(large)) and set(pairs(small)) <= set(pairs(large))


def test_olympiadbench_shows_the_question_with_unit_and_tolerance(prepared):
    source = [json.loads(line) for line in (DATA / FILES[5][2]).read_text().splitlines()]
    rows = prepared(FILES[5][2])[1]
    assert [row["prompt"][0]["content"] for row in rows] == [record["question"] for record in source]
    assert sum(row["reward_model"]["ground_truth"].startswith("$") for row in rows) == 21
    assert [row["extra_info"]["id"] for row in rows if row["extra_info"]["tolerance"] is not None] == ["2592"]
    extra = next(row["extra_info"] for row in rows if row["extra_info"]["id"] == "2592")
    assert (extra["tolerance"], extra["unit"]) == (0.1, "%")
    assert sum(row["extra_info"]["unit"] != "" for row in rows) == 8


def test_benchmarks_are_seven_files_of_2866_rows(benchmarks):
    folder, account = benchmarks
    counts = {path.name: pq.ParquetFile(path).metadata.num_rows for path in folder.glob("*.parquet")}
    assert counts == {
        "math500_test.parquet": 500, "amc23_test.parquet": 40, "olympiadbench_test.parquet": 675,
        "minerva_test.parquet": 272, "aime24_test.parquet": 30, "aime25_test.parquet": 30,
        "gsm8k_test.parquet": 1319,
    }  # fmt: skip
    assert sum(counts.values()) == 2866
    assert list(account["files"]) == [f"{name}_test.parquet" for name in jobs.BENCHMARKS]
    assert all(entry["records_in"] == entry["rows_out"] for entry in account["files"].values())
    assert account["source"]["minerva_test.parquet"]["sha256"].startswith("0e656b430d3a0a1d")
    assert account["source"]["aime25_test.parquet"]["file"] == "ypwang61__One-Shot-RLVR__test.jsonl"


def test_benchmarks_give_the_same_bytes_again(benchmarks, tmp_path):
    folder, _ = benchmarks
    prepare(tmp_path, *BENCHMARKS)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_unclear_benchmarks_are_asked_for(tmp_path, capsys):
    assert cli.main(["benchmarks", "--input", str(DATA), "--output", str(tmp_path), "--quiet"]) == 2
    message = capsys.readouterr().err
    assert "several files could be minerva" in message and "pass --input minerva=FILE" in message
    assert message.count("\n") == 1 and not list(tmp_path.iterdir())


def test_deepmaths_sample_has_4_repeats_and_no_benchmark_problem(benchmarks, tmp_path):
    flags = ["deepmath", "--input", str(DATA / FILES[17][2]), "--deduplicate", "--decontaminate", str(benchmarks[0])]
    account = prepare(tmp_path, *flags)
    assert account["files"]["deepmath_train.parquet"]["dropped"] == {
        "repeats an earlier problem": {"count": 4, "records": "1637,2152,2154,4444"}
    }
    hashes, rows = benchmarks[1]["sha256"], benchmarks[1]["files"]
    assert account["decontaminate"] == {
        name: {"sha256": hashes[name], "rows_used": rows[name]["rows_out"], "rows_skipped": 0} for name in hashes
    }


def test_problems_that_differ_in_blanks_alone_are_repeats_and_others_are_not(tmp_path):
    account = prepare(tmp_path, "math", "--input", str(DATA / FILES[18][2]), "--deduplicate")
    dropped = account["files"]["math_train.parquet"]["dropped"]
    assert dropped["repeats an earlier problem"] == {"count": 1, "records": "957"}
    account = prepare(tmp_path, "math", "--input", str(DATA / FILES[19][2]), "--deduplicate")
    dropped = account["files"]["math_train.parquet"]["dropped"]
    assert dropped["repeats an earlier problem"] == {"count": 2, "records": "780,899"}


def test_rllms_math_repeats_three_benchmark_problems(benchmarks, tmp_path, capsys):
    flags = ["math", "--input", str(DATA / FILES[18][2]), "--template", "think", "--decontaminate", str(benchmarks[0])]
    counts = prepare(tmp_path, *flags)["files"]["math_train.parquet"]
    matches = [
        {"record": 4520, "data_source": "olympiadbench", "index": 522},
        {"record": 6844, "data_source": "olympiadbench", "index": 346},
        {"record": 6991, "data_source": "math500", "index": 53},
    ]
    assert counts["benchmark_matches"] == matches
    assert counts["dropped"]["matches a benchmark problem"] == {"count": 3, "records": "4520,6844,6991"}
    assert counts["rows_out"] == 7474 - 4 - 3
    assert capsys.readouterr().out.splitlines()[-3:] == [
        f"math_train.parquet: record {m['record']} matches {m['data_source']} {m['index']}" for m in matches
    ]


def test_an_own_file_can_be_prepared_again(benchmarks, tmp_path):
    source = benchmarks[0] / "olympiadbench_test.parquet"
    prepare(tmp_path, "olympiadbench", "--input", str(source), "--template", "boxed")
    again = prepare(tmp_path / "again", "olympiadbench", "--input", str(tmp_path / "olympiadbench_test.parquet"))
    assert again["files"]["olympiadbench_test.parquet"]["instruction_removed"] == 675
    assert (tmp_path / "again/olympiadbench_test.parquet").read_bytes() == source.read_bytes()
