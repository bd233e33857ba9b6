"""Any data set by its fields' names, and the sets that the documentation names, each in its own layout."""

import json
import re
import shlex
from pathlib import Path

import datasets
import pytest
from preparing import jsonl, prepare, refused, rows_of

from data_prep import cli, custom, hub
from data_prep.schema import RowError
from repo_verl.rewards import compute_score

PAGE = Path(__file__).parents[2] / "docs/howto/data.md"
DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n{}\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)
ASKS = "\nPlease reason step by step, and put your final answer within \\boxed{}."


def prepared(tmp_path, name, *flags):
    """Rows by the split, and the account."""
    account = prepare(tmp_path / "out", "custom", "--name", name, *flags)
    return rows_of(tmp_path / "out" / list(account["files"])[-1]), account


def pair(record, **fields):
    item = custom.read(record, **fields)
    return item.problem, item.answer


# --- from the command to the reward ----------------------------------------------------------------------------------


def test_a_set_of_any_name_is_graded_as_math(tmp_path):
    golds = ["\\frac{1}{2}", "1,234", "x+1", "Yes"]
    records = [{"Question": f"q{n}", "Gold": gold} for n, gold in enumerate(golds)]
    rows, account = prepared(tmp_path, "my-set", "--input", jsonl(tmp_path / "x.jsonl", *records))
    assert list(account["files"]) == ["my-set_train.parquet"] and account["flags"]["name"] == "my-set"
    assert [row["reward_model"]["ground_truth"] for row in rows] == golds
    for row in rows:
        gold, info = row["reward_model"]["ground_truth"], row["extra_info"]
        assert row["data_source"] == "my-set"
        for answer, score in ((gold, 1.0), ("17", 0.0)):
            assert compute_score("my-set", f"so \\boxed{{{answer}}}", gold, info)["score"] == score


def test_the_split_is_the_files_or_the_flags(tmp_path):
    source = jsonl(tmp_path / "my_test.jsonl", {"problem": "p", "answer": "1"})
    rows, account = prepared(tmp_path, "a", "--input", source)
    assert (rows[0]["extra_info"]["split"], list(account["files"])) == ("test", ["a_test.parquet"])
    plain = jsonl(tmp_path / "x.jsonl", {"problem": "p", "answer": "1"})
    for said, split in (("validation", "test"), ("math", "train"), ("train", "train")):
        rows, _ = prepared(tmp_path / said, "a", "--input", plain, "--split", said)
        assert rows[0]["extra_info"]["split"] == split


def test_two_splits_of_a_set_share_its_account(tmp_path):
    for split in ("train", "test"):
        source = jsonl(tmp_path / f"{split}.jsonl", {"problem": split, "answer": "1"})
        _, account = prepared(tmp_path, "a-b", "--input", source)
    assert sorted(account["files"]) == ["a-b_test.parquet", "a-b_train.parquet"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*account["files"], "a-b.json"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--name", "a/b", "--hub", "o/s"], "--name a/b: want up to 64 letters, digits, - and _"),
        (["--name", "../a", "--hub", "o/s"], "--name ../a: want up to 64"),
        (["--name", "", "--hub", "o/s"], "--name : want up to 64"),
        (["--name", "é", "--hub", "o/s"], "want up to 64"),
        (["--name", "gsm8k", "--hub", "o/s"], "--name gsm8k: is a known set; run `python -m data_prep gsm8k`"),
        (["--name", "benchmarks", "--hub", "o/s"], "--name benchmarks: is a known set"),
        (["--name", "a", "--hub", "set"], "--hub set: want OWNER/SET, as the hub names it; pass a file or a folder"),
    ],
)
def test_names_that_cannot_be_are_refused(tmp_path, capsys, flags, message):
    flags = [f"--name={flags[1]}", *flags[2:]]
    assert message in refused(capsys, tmp_path / "out", "custom", *flags)


@pytest.mark.parametrize("flags", [[], ["--input", "x", "--hub", "o/s"]])
def test_a_source_is_one_file_or_one_hub_set(tmp_path, capsys, flags):
    with pytest.raises(SystemExit):
        cli.main(["custom", "--name", "a", *flags, "--output", str(tmp_path)])
    assert "--input" in capsys.readouterr().err


# --- fields ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", ["problem", "Question", "QUERY", "prompt", "messages"])
@pytest.mark.parametrize(
    "answer",
    ["answer", "Final_Answer", "expected_answer", "gold", "GROUND_TRUTH", "Reward_Model.ground_truth", "solution"],
)
def test_fields_are_found_in_any_case(problem, answer):
    outer, _, inner = answer.partition(".")
    gold = "\\boxed{5}" if answer == "solution" else 5
    value = [{"role": "user", "content": "q"}] if problem == "messages" else "q"
    assert pair({"id": 1, problem: value, outer: {inner: gold} if inner else gold}) == ("q", "5")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"problem": "p", "Question": "q", "answer": "1"},
            "fields problem and Question, each of which could be the pr",
        ),
        ({"answer": "1", "Answer": "2", "query": "q"}, "fields answer and Answer, each of which could be the answer"),
        (
            {"query": "q", "gold": "1", "reward_model": {"ground_truth": "1"}},
            "fields gold and reward_model.ground_truth",
        ),
    ],
)
def test_two_fields_of_a_kind_are_asked_about_at_once(tmp_path, capsys, record, message):
    said = refused(
        capsys, tmp_path / "out", "custom", "--name", "a", "--input", jsonl(tmp_path / "x.jsonl", record, {"broken": 1})
    )
    assert message in said and "pass one of them with --" in said


def test_a_short_answer_comes_before_a_solution_and_text_before_a_chat():
    chat = [{"role": "user", "content": "other"}, {"role": "assistant", "content": "\\boxed{9}"}]
    record = {"messages": chat, "problem": "p", "solution": "so \\boxed{8}", "answer": "7"}
    assert pair(record) == ("p", "7")
    del record["answer"]
    assert pair(record) == ("p", "8")
    del record["solution"], record["problem"]
    assert pair(record) == ("other", "9")


def test_named_fields_rule_and_dots_go_inside():
    record = {"problem": "p", "question": "q", "answer": "1", "gold": "2", "info": {"text": "t", "deep": {"a": "3"}}}
    record["info.text"] = "dotted"
    assert pair(record, problem_field="question", answer_field="gold") == ("q", "2")
    assert pair(record, problem_field="problem", answer_field="info.deep.a") == ("p", "3")
    assert pair(record, problem_field="info.text", answer_field="answer") == ("dotted", "1")
    for path in ("info.none", "problem.text", "none"):
        with pytest.raises(RowError, match=rf"field {path} is missing \(there are: problem, question"):
            pair(record, problem_field=path, answer_field="answer")


def test_a_file_in_verls_schema_is_read_as_such_unless_a_field_is_named():
    record = {
        "prompt": [{"role": "user", "content": "q"}],
        "solution": "2",
        "reward_model": {"ground_truth": "3"},
        "extra_info": {"id": "i", "tolerance": 0.5},
    }
    item = custom.read(record)
    assert (item.problem, item.answer, item.id, item.tolerance) == ("q", "3", "i", 0.5)
    assert pair(record, answer_field="solution") == ("q", "2")


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("so it is \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("so \\boxed{x = \\boxed{5}}", "5"),
        ("\\boxed{5}\n#### 5", "5"),
        ("#### \\fbox{5}", "5"),
        ("2+2\n#### 4", "4"),
        ("$5$", "$5$"),
        ("x" * 512, "x" * 512),
    ],
)
def test_of_a_long_answer_the_end_counts(text, gold):
    assert pair({"problem": "p", "answer": text})[1] == gold
    assert pair({"problem": "p", "solution": text}, answer_field="solution")[1] == gold


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{1} or \\boxed{2}",
        "\\fbox{1}, \\boxed{2}",
        "#### 1\n#### 2",
        "#### 1 is \\boxed{1}\n#### 2",
        "\\boxed{1}\n#### 2",
    ],
)
def test_an_answer_with_two_answers_is_dropped_and_counted(tmp_path, text):
    records = [{"problem": "p", "answer": text}, {"problem": "q", "answer": "3"}, verl("r", text)]
    for field, record in (("answer", records[0]), ("reward_model.ground_truth", records[2])):
        with pytest.raises(
            RowError, match="want one box or one ####; the last box counts in a field whose name"
        ) as caught:
            custom.read(record)
        assert caught.value.reason == f"{field} has several answers"
    rows, account = prepared(tmp_path, "a", "--input", jsonl(tmp_path / "x.jsonl", *records[:2]))
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["3"]
    assert account["files"]["a_train.parquet"]["dropped"] == {
        "answer has several answers": {"count": 1, "records": "0"}
    }


@pytest.mark.parametrize("field", ["solution", "Solution", "r1_solution_1", "info.solution"])
def test_of_a_solutions_boxes_the_last_counts(field):
    text = "first \\boxed{1}, #### no, \\boxed{2}"
    outer, _, inner = field.partition(".")
    record = {"problem": "p", outer: {inner: text} if inner else text}
    assert pair(record, answer_field=field)[1] == "2"
    if field.lower() == "solution":
        assert pair(record)[1] == "2"
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]
    assert pair({"messages": chat}) == ("q", "2")


@pytest.mark.parametrize(
    ("others", "fields", "flag"),
    [
        ({"answer": "4"}, "answer and reward_model.ground_truth", "--answer-field"),
        ({"Gold": 4}, "Gold and reward_model.ground_truth", "--answer-field"),
        ({"problem": "another"}, "prompt and problem", "--problem-field"),
    ],
)
def test_another_value_beside_verls_is_asked_about(tmp_path, capsys, others, fields, flag):
    said = refused(
        capsys,
        tmp_path / "out",
        "custom",
        "--name",
        "a",
        "--input",
        jsonl(tmp_path / "x.jsonl", verl("q", "3") | others),
    )
    assert f"the records have the fields {fields}, each of which could be the" in said
    assert f"pass one of them with {flag}" in said


@pytest.mark.parametrize(
    "others",
    [{"answer": 3.0}, {"gold": '["3"]'}, {"problem": "q"}, {"answer": None, "problem": ""}, {"solution": "\\boxed{4}"}],
)
def test_the_same_value_or_none_beside_verls_changes_nothing(others):
    item = custom.read(verl(f"q{SKYWORK}", "3", id="i", tolerance=0.5) | others)
    assert (item.problem, item.answer, item.id, item.tolerance) == ("q", "3", "i", 0.5)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"problem": "p", "answer": "\\boxed{\\text{N/A}}"}, "answer says that there is none"),
        ({"problem": "p", "answer": "Why?\n#### unknown"}, "answer says that there is none"),
        ({"problem": "p", "solution": "so \\boxed{proof}"}, "solution says that there is none"),
        ({"problem": "p", "solution": "It is 5."}, "no answer in a box in solution"),
        ({"problem": "p", "answer": "x" * 513}, "answer too long"),
        ({"problem": "p", "answer": "NA"}, "answer says that there is none"),
        ({"problem": "p"}, f"{' or '.join([*custom.ANSWERS[0], *custom.ANSWERS[1]])} missing"),
        ({"answer": "1"}, "problem or question or query or prompt or messages missing"),
        ({"messages": [{"from": "human", "value": "q"}] * 2, "answer": "1"}, "messages no single question"),
    ],
)
def test_records_that_give_no_pair_say_why(record, reason):
    with pytest.raises(RowError) as caught:
        custom.read(record)
    assert caught.value.reason == reason


# --- the documented sets ---------------------------------------------------------------------------------------------


def verl(prompt, gold, **extra):
    return {
        "data_source": "theirs",
        "prompt": [{"content": prompt, "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": gold, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": "1-2-3", **extra},
    }


def numina(problem, answer):
    solution = f"Count: \\boxed{{{answer}}}."
    chat = [{"role": "user", "content": problem}, {"role": "assistant", "content": solution}]
    return {"problem": problem, "solution": solution, "answer": answer, "problem_type": "Algebra", "messages": chat}


def orz(problem, gold):
    return [{"from": "human", "value": problem}, {"from": "assistant", "ground_truth": {"value": gold}}]


SKYWORK = " Let's think step by step and output the final answer within \\boxed{}."
WITHOUT = {"count": 2, "records": "1,3"}
SETS = {  # source's name: records, pairs that are left, why others are dropped
    "BytedTsinghua-SIA/DAPO-Math-17k": (
        [verl(DAPO.format(f"Half of ${n}$?"), gold) for n, gold in ((10, "5"), (8, "4"), (10, "5"))],
        [("Half of $10$?", "5"), ("Half of $8$?", "4")],
        {"repeats an earlier problem": {"count": 1, "records": "2"}},
    ),
    "Skywork/Skywork-OR1-RL-Data": (
        [
            verl(f"Sum?{SKYWORK}", '["1,234"]'),
            verl(f"Half?{SKYWORK}", '["\\\\frac{1}{2}"]'),
            verl(f"Roots?{SKYWORK}", '["1", "2"]'),
        ],
        [("Sum?", "1,234"), ("Half?", "\\frac{1}{2}")],
        {"reward_model.ground_truth no text": {"count": 1, "records": "2"}},
    ),
    "open-r1/OpenR1-Math-220k": (
        [numina("1+1?", "2"), numina("Why?", "NA"), numina("2+2?", "4"), numina("Show it.", "proof")],
        [("1+1?", "2"), ("2+2?", "4")],
        {"answer says that there is none": WITHOUT},
    ),
    "AI-MO/NuminaMath-1.5": (
        [numina("1+1?", "2"), numina("Prove.", "proof"), numina("2+2?", "4"), numina("What?", "notfound")],
        [("1+1?", "2"), ("2+2?", "4")],
        {"answer says that there is none": WITHOUT},
    ),
    "orz_math_57k_collected.json": (
        [orz("1+1?", "2"), orz("No gold", ""), orz("Half?", "\\frac{1}{2}")],
        [("1+1?", "2"), ("Half?", "\\frac{1}{2}")],
        {"ground_truth empty": {"count": 1, "records": "1"}},
    ),
}
COMMANDS = re.findall(r"\| `(python -m data_prep custom [^`]+)` \|", PAGE.read_text())


def test_every_documented_set_has_a_fixture():
    assert [shlex.split(command)[7] for command in COMMANDS] == list(SETS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: shlex.split(command)[5])
def test_a_documented_command_prepares_its_set(tmp_path, monkeypatch, command):
    flags = shlex.split(command)[3:]
    records, pairs, dropped = SETS[flags[4]]
    asked = []

    def load(name, config, split, streaming):
        asked.append((name, config, split))
        return iter(records)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub, "reach", lambda address: None)
    if flags[3] == "--input":
        Path(flags[4]).write_text(json.dumps(records))
    assert cli.main([*flags, "--quiet"]) == 0
    expected = "math" if "--split" in flags else "train"
    assert asked == ([] if flags[3] == "--input" else [(flags[4], None, expected)])
    rows = rows_of(f"runs/data/{flags[2]}_train.parquet")
    assert [(row["prompt"][0]["content"], row["reward_model"]["ground_truth"]) for row in rows] == [
        (problem + ASKS, gold) for problem, gold in pairs
    ]
    assert (
        json.loads(Path(f"runs/data/{flags[2]}.json").read_text())["files"][f"{flags[2]}_train.parquet"]["dropped"]
        == dropped
    )
    for row, (_, gold) in zip(rows, pairs, strict=True):
        assert (
            compute_score(row["data_source"], f"\\boxed{{{gold}}}", row["reward_model"]["ground_truth"])["score"] == 1.0
        )
