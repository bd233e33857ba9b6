"""Prompts without the instructions that sources add, chats, answers, and when two problems are the same."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.filters import exact_form, loose_form, read_benchmarks
from data_prep.prompts import bare
from data_prep.records import Item, answer_text, read_item
from data_prep.schema import SCHEMA, TEMPLATES, RowError, make_row

QWQ = "\nPlease reason step by step, and put your final answer within \\boxed{}."
SKYWORK = " Let's think step by step and output the final answer within \\boxed{}."


@pytest.mark.parametrize("instruction", [QWQ, SKYWORK, QWQ + "\n", SKYWORK + QWQ])
def test_known_instructions_go(instruction):
    assert bare(f"What is $1+1$?{instruction}") == ("What is $1+1$?", True)


OPENING = (
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: {0} (without quotes) where {0} is the answer to the problem.\n\n"
)
ENDING = '\n\nRemember to put your answer on its own line after "Answer:"'


@pytest.mark.parametrize(
    ("opening", "ending"),
    [
        (OPENING.format("$Answer"), f"{ENDING}."),
        (OPENING.format("$ANSWER"), f"{ENDING}, and you do not need to use a \\boxed command."),
        (OPENING.format("$Answer"), ""),
        ("", f"{ENDING}.\n"),
        (OPENING.format("$Answer"), f"{ENDING}.{QWQ}"),
    ],
)
def test_an_instruction_to_write_answer_goes(opening, ending):
    """DAPO's, and simple-evals' from which it comes; a template asks for one form alone then."""
    assert bare(f"{opening}What is $1+1$?{ending}") == ("What is $1+1$?", True)
    prompt = f"{opening}What is $1+1$?{ending}"
    record = {"prompt": [{"role": "user", "content": prompt}], "reward_model": {"ground_truth": "2"}}
    item = read_item(record)
    assert (
        make_row("d", item.problem, item.answer, "train", 0, "boxed")["prompt"][0]["content"] == f"What is $1+1$?{QWQ}"
    )


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_every_template_can_be_undone(template):
    prompt = make_row("d", "What is {x}?", "1", "train", 0, template)["prompt"][0]["content"]
    assert bare(prompt) == ("What is {x}?", template != "none")


@pytest.mark.parametrize(
    "problem",
    [
        "What? ",
        "Solve the following math problem step by step.\n\nWhat?",
        f"{QWQ.strip()} What?",
        "put it within \\boxed{}.",
        "Think step by step.",
    ],
)
def test_other_texts_stay_as_they_are(problem):
    assert bare(problem) == (problem, False)


def verl(content, gold="5", extra=None, role="user"):
    return {
        "data_source": "other",
        "prompt": [{"role": role, "content": content}],
        "reward_model": {"style": "rule", "ground_truth": gold},
        "extra_info": extra,
    }


def test_verl_rows_are_read_whatever_the_set():
    extra = {"index": 3, "unique_id": "", "id": 7, "tolerance": 0.5, "unit": "m"}
    assert read_item(verl("q" + SKYWORK, " 025 ", extra)) == Item("q", "025", "7", 0.5, "m", True)
    assert read_item(verl("q")) == Item("q", "5")


def test_a_chat_of_from_and_value_is_read():
    assert read_item({"prompt": [{"from": "user", "value": "q"}], "final_answer": "5"}) == Item("q", "5")


def test_a_system_message_is_an_instruction():
    chat = [{"role": "system", "content": "Think."}, {"role": "user", "content": "q"}]
    assert read_item({"prompt": chat, "answer": 5}) == Item("q", "5", instruction_removed=True)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"problem": "p", "answer": '["1", "2"]'}, "answer no text"),
        ({"problem": "p", "answer": '[""]'}, "answer empty"),
        ({"problem": "p", "answer": " []"}, "answer empty"),
        ({"problem": "p", "answer": ["NA "]}, "answer says that there is none"),
        (verl("q", '["proof"]'), "reward_model.ground_truth says that there is none"),
        (verl("q", ""), "reward_model.ground_truth empty"),
        (verl("q", None), "reward_model.ground_truth empty"),
        (verl(QWQ), "prompt empty"),
        (verl(None), "prompt empty"),
        (verl("q", role="assistant"), "prompt no single question"),
        ({"prompt": [{"role": "user", "content": "a"}] * 2, "answer": "1"}, "prompt no single question"),
        ({"prompt": ["q"], "answer": "1"}, "prompt no single question"),
        ({"prompt": [], "answer": "1"}, "prompt empty"),
        ({"problem": "p", "solution": "5"}, "answer or final_answer or ground_truth missing"),
    ],
)
def test_records_that_cannot_be_read_say_why(record, reason):
    with pytest.raises(RowError) as caught:
        read_item(record)
    assert caught.value.reason == reason


NO_ANSWERS = ["NA", "na", "N/A", "n/a", "N/A.", "n.a.", "null", "NULL", "NaN", "unknown", "Unknown", "Not found"]
NO_ANSWERS += [
    "notfound",
    "NotFound",
    "no answer",
    "PROOF",
    "proof.",
    "\\text{N/A}",
    "\\text{proof}",
    "$\\text{Proof}.$",
]
NO_ANSWERS += [" $NA$. ", "\\text{Not  found.}", "\\mathrm{NaN}", '["Null"]']


@pytest.mark.parametrize("value", NO_ANSWERS)
def test_an_answer_that_says_there_is_none_is_none(value):
    with pytest.raises(RowError) as caught:
        answer_text(value, "answer")
    assert caught.value.reason == "answer says that there is none"


@pytest.mark.parametrize(
    "value", ["Na", "\\text{Na}", "nA", "None", "none", "n", "nulls", "a proof", "\\text{unknown } x"]
)
def test_an_answer_that_looks_like_none_is_one(value):
    assert answer_text(value, "answer") == value


def test_a_box_that_says_there_is_no_answer_has_none():
    for text in ("N/A", "\\text{proof}", "Unknown."):
        with pytest.raises(RowError, match="want an answer"):
            read_item({"problem": "p", "solution": f"so \\boxed{{{text}}}"}, solution_field="solution")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('["1,234"]', "1,234"),
        (' [ "\\\\frac{1}{2}" ]', "\\frac{1}{2}"),
        ("[5]", "[5]"),
        ("[1, 2]", "[1, 2]"),
        ('["a]', '["a]'),
        ("Na", "Na"),
        ("None", "None"),
        ("025", "025"),
        (25, "25"),
        (27.0, "27"),
        (-0.5, "-0.5"),
        ([" a "], "a"),
        ([3.0], "3"),
        (0, "0"),
    ],
)
def test_answers_are_written_as_text(value, text):
    assert answer_text(value, "f") == text


@pytest.mark.parametrize(
    ("record", "id"),
    [
        ({"unique_id": "test/1.json", "id": 1}, "test/1.json"),
        ({"id": 0, "url": "u"}, "0"),
        ({"idx": 5}, "5"),
        ({"id": None, "url": "u"}, "u"),
        ({}, ""),
    ],
)
def test_the_id_is_the_sources_own(record, id):
    assert read_item({"problem": "p", "answer": "1", **record}).id == id


def test_forms_of_a_problem():
    assert exact_form(" a\n\tb  C$1$ ") == "a b C$1$"
    assert loose_form("Evaluate $\\log_8 2$.") == loose_form("Evaluate: \\( \\log_{82} \\)") == "evaluate82"
    assert loose_form("Find  $\\cos 45$") == "Find $\\cos 45$" != loose_form("Find $\\sin 45$")
    assert loose_form("12345678") == "12345678" and loose_form("1234567!") == "1234567!"


def bench(folder, *rows):
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), folder / "x.parquet")
    return folder


def test_benchmarks_are_compared_without_their_template(tmp_path):
    folder = bench(
        tmp_path / "b",
        make_row("math500", "What is one half?", "1", "test", 4, "think"),
        make_row("amc23", "what is ONE half", "1", "test", 9, "boxed"),
        make_row("deepmath", "What is one third?", "1", "train", 0, "none"),
    )
    found = read_benchmarks(folder)
    places = [{"data_source": "math500", "index": 4}, {"data_source": "amc23", "index": 9}]
    assert found.matches("What is $one$ half?") == places
    assert found.matches("What is one third?") == []
    assert list(found.files) == ["x.parquet"] and len(found.files["x.parquet"]["sha256"]) == 64
    assert (found.files["x.parquet"]["rows_used"], found.files["x.parquet"]["rows_skipped"]) == (2, 1)


def test_a_folder_without_benchmarks_is_refused(tmp_path):
    folder = bench(tmp_path / "b", make_row("deepmath", "What is one third?", "1", "train", 0, "none"))
    with pytest.raises(ValueError, match=r"x.parquet: no benchmark rows \(1 of the split train or warmup\); take it"):
        read_benchmarks(folder)
    (folder / "x.parquet").unlink()
    with pytest.raises(ValueError, match="b: no benchmark files .*; make them with `python -m data_prep benchmarks"):
        read_benchmarks(folder)
    pq.write_table(pa.Table.from_pylist([{"problem": "p", "answer": "1"}]), folder / "y.parquet")
    with pytest.raises(ValueError, match="y.parquet: row 0: field prompt is missing .*; want verl's columns"):
        read_benchmarks(folder)
