"""Rows of the data sets, arithmetic's problems, and verl's schema."""

import pytest
from preparing import row_of

from data_prep import arithmetic, sets
from data_prep.schema import RowError, make_row, validate_row

DEEPMATH, OLYMPIADBENCH = sets.SETS["deepmath"], sets.SETS["olympiadbench"]
EXTRA = {"split": "train", "index": 0, "id": "", "tolerance": None, "unit": ""}
ROLL = {"prompt": "Is 2 even?", "ground_truth": " Yes ", "id": "1"}


def row(**changes):
    made = make_row("deepmath", "Is 2 even?", "Yes", "train", 3, "none")
    return {**made, **changes}


def test_deepmath_row_of_rolls_sample():
    assert row_of(DEEPMATH, ROLL, 3, "train", "none") == {
        "data_source": "deepmath",
        "prompt": [{"role": "user", "content": "Is 2 even?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "Yes"},
        "extra_info": {"split": "train", "index": 3, "id": "1", "tolerance": None, "unit": ""},
    }


def test_deepmath_row_of_the_hubs_shape_is_the_same():
    hub = {"question": "Is 2 even?", "final_answer": "Yes", "r1_solution_1": "hm", "difficulty": 1.0, "id": 1}
    assert row_of(DEEPMATH, hub, 3, "train", "none") == row_of(DEEPMATH, ROLL, 3, "train", "none")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "p"}, "final_answer or ground_truth missing"),
        ({"ground_truth": "1"}, "question or prompt missing"),
        ({"prompt": "p", "ground_truth": ""}, "ground_truth empty"),
        ({"prompt": "p", "ground_truth": None}, "ground_truth empty"),
        ({"prompt": " ", "ground_truth": "1"}, "prompt empty"),
        ({"prompt": "p", "ground_truth": True}, "ground_truth no text"),
        ({"prompt": "p", "ground_truth": ["1", "2"]}, "ground_truth no text"),
        ({"prompt": "p", "ground_truth": float("nan")}, "ground_truth no text"),
        ({"prompt": "p", "ground_truth": []}, "ground_truth empty"),
        ({"prompt": 7, "ground_truth": "1"}, "prompt no text"),
        ({"prompt": "half \ud835", "ground_truth": "1"}, "problem not UTF-8"),
        ({"prompt": "p", "ground_truth": "\udc00"}, "answer not UTF-8"),
    ],
)
def test_records_that_cannot_be_rows_say_which_field(record, reason):
    with pytest.raises(RowError) as caught:
        row_of(DEEPMATH, record, 0, "train", "none")
    assert caught.value.reason == reason


R1 = {
    "question": "q",
    "final_answer": "1",
    "r1_solution_1": "<think>\\boxed{9}</think> so \\boxed{\\frac{1}{2}}.",
}


def test_deepmath_gold_of_the_first_r1_solution():
    assert row_of(DEEPMATH, R1, 0, "train", "none")["reward_model"]["ground_truth"] == "1"
    assert row_of(sets.DEEPMATH_R1, R1, 0, "train", "none")["reward_model"]["ground_truth"] == "\\frac{1}{2}"


def test_a_long_r1_answer_is_whole():
    answer = "x+" * 400 + "1"
    assert sets.read_deepmath_r1({"question": "q", "r1_solution_1": f"\\boxed{{{answer}}}"}).answer == answer


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"r1_solution_1": "the answer is 1"}, "no answer in a box in r1_solution_1"),
        ({"r1_solution_1": "\\boxed{1"}, "no answer in a box in r1_solution_1"),
        ({"r1_solution_1": "\\boxed{ }"}, "no answer in a box in r1_solution_1"),
        ({"r1_solution_1": None}, "r1_solution_1 empty"),
    ],
)
def test_an_r1_solution_without_a_box_is_no_gold(changes, reason):
    with pytest.raises(RowError) as caught:
        sets.read_deepmath_r1({**R1, **changes})
    assert caught.value.reason == reason


def test_without_the_r1_field_the_row_is_refused():
    with pytest.raises(RowError, match="field r1_solution_1 is missing .there are: prompt, ground_truth, id"):
        sets.read_deepmath_r1(ROLL)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("a\n5 * 2\n#### 10", "10"), ("#### 1,450,000", "1,450,000"), ("-10", "-10"), ("18", "18"), ("x #### 2.5", "2.5")],
)
def test_gsm8k_gold_is_the_number_after_the_hashes(answer, gold):
    assert sets.read_gsm8k({"question": "q", "answer": answer}).answer == gold


@pytest.mark.parametrize("answer", ["so 5 it is", "#### five", "5 ####"])
def test_gsm8k_without_a_number_is_no_row(answer):
    with pytest.raises(RowError) as caught:
        sets.read_gsm8k({"question": "q", "answer": answer})
    assert caught.value.reason == "no number after ####"


@pytest.mark.parametrize(
    ("answer", "gold"), [(27.0, "27"), (-1.0, "-1"), ("27.0", "27"), ("27", "27"), (2.5, "2.5"), (1e22, "1" + "0" * 22)]
)
def test_amc_answers_lose_their_decimal_zero(answer, gold):
    assert sets.read_amc({"question": "q", "answer": answer}).answer == gold


def test_math_takes_the_last_box_only_where_there_is_no_answer_field():
    solution = "\\boxed{1}, no: \\boxed{2}"
    assert sets.read_math({"problem": "p", "solution": solution}).answer == "2"
    assert sets.SETS["minerva"].read({"problem": "p", "solution": solution, "answer": "3"}).answer == "3"
    with pytest.raises(RowError) as caught:
        sets.read_math({"problem": "p", "solution": solution, "answer": ""})
    assert caught.value.reason == "answer empty"
    with pytest.raises(RowError, match="answer or final_answer or ground_truth or solution is missing"):
        sets.read_math({"problem": "p"})


OLYMPIAD = {"id": 2592, "question": "How much?", "solution": ["It is 4.2."], "final_answer": ["4.2"], "unit": "%"}


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("$2n-2$", "2n-2"),
        ("$69$,$84$", "$69$,$84$"),
        ("$(1,8,19), (2,7,13)$", "(1,8,19), (2,7,13)"),
        ("$(0, 1)$.", "$(0, 1)$."),
        ("1,3,5", "1,3,5"),
        ("$$", "$$"),
    ],
)
def test_olympiadbench_gold_loses_the_dollars_around_the_whole(answer, gold):
    assert sets.read_olympiad({**OLYMPIAD, "final_answer": [answer]}).answer == gold


def test_olympiadbench_row_has_the_question_the_tolerance_and_the_unit():
    made = row_of(OLYMPIADBENCH, {**OLYMPIAD, "error": "1e-1"}, 5, "test", "none")
    assert made["prompt"] == [{"role": "user", "content": "How much?"}]
    assert made["extra_info"] == {"split": "test", "index": 5, "id": "2592", "tolerance": 0.1, "unit": "%"}
    none = row_of(OLYMPIADBENCH, {**OLYMPIAD, "unit": None, "error": None}, 5, "test", "none")["extra_info"]
    assert (none["tolerance"], none["unit"]) == (None, "")


@pytest.mark.parametrize("error", ["about", "-1", "nan", "1e-1,1e-2", 0])
def test_an_error_that_is_no_number_is_refused(error):
    with pytest.raises(RowError) as caught:
        sets.read_olympiad({**OLYMPIAD, "error": error})
    assert caught.value.reason == "error no number"


def test_templates_keep_braces_of_the_problem():
    content = make_row("d", r"\frac{1}{2}", "1", "train", 0, "boxed")["prompt"][0]["content"]
    assert content == "\\frac{1}{2}\nPlease reason step by step, and put your final answer within \\boxed{}."
    assert make_row("d", "{x}", "1", "train", 0, "none")["prompt"][0]["content"] == "{x}"
    assert "<think>" in make_row("d", "{x}", "1", "train", 0, "think")["prompt"][0]["content"]
    with pytest.raises(ValueError, match="template='cot' is unknown; use one of none, boxed, think"):
        make_row("d", "x", "1", "train", 0, "cot")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"data_source": ""}, "data_source"),
        ({"ability": None}, "ability"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "text"}, "prompt"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, "prompt"),
        ({"prompt": [{"role": "user", "content": " "}]}, "prompt"),
        ({"reward_model": {"style": "model", "ground_truth": "1"}}, "reward_model.style"),
        ({"reward_model": {"style": "rule", "ground_truth": ""}}, "reward_model.ground_truth"),
        ({"extra_info": {"split": "train", "index": -1}}, "extra_info.index"),
        ({"extra_info": {"split": "dev", "index": 0}}, "extra_info.split"),
        ({"extra_info": {**EXTRA, "id": None}}, "extra_info.id"),
        ({"extra_info": {**EXTRA, "unit": 5}}, "extra_info.unit"),
        ({"extra_info": {**EXTRA, "tolerance": 0.0}}, "extra_info.tolerance"),
        ({"extra_info": {**EXTRA, "tolerance": "1e-1"}}, "extra_info.tolerance"),
    ],
)
def test_a_bad_row_is_refused_with_file_row_and_field(changes, field):
    with pytest.raises(ValueError, match=rf"some.parquet: row 7: field '{field}' is"):
        validate_row(row(**changes), "some.parquet", 7)


def test_a_good_row_passes():
    validate_row(row(), "some.parquet", 0)


@pytest.mark.parametrize(
    ("problem", "value"),
    [("17+26-8=?", 35), ("9-2*3=?", 3), ("2*3*4=?", 24), ("5-7=?", -2), ("12*11+10=?", 142), ("10-3-4=?", 3)],
)
def test_problems_are_solved_products_first(problem, value):
    assert arithmetic.solve(problem) == value


def test_problems_are_distinct_seeded_and_of_the_form():
    drawn = arithmetic.problems("a+b-c", 2, 500, seed=1)
    assert len(set(drawn)) == 500
    assert drawn == arithmetic.problems("a+b-c", 2, 500, seed=1)
    assert drawn != arithmetic.problems("a+b-c", 2, 500, seed=2)
    assert drawn[:100] == arithmetic.problems("a+b-c", 2, 100, seed=1)
    assert all(len(p) == len("17+26-18=?") and p[2] == "+" and p[5] == "-" for p in drawn)


def test_all_problems_of_a_form_can_be_drawn_and_no_more():
    assert sorted(arithmetic.problems("a*b", 1, 81, 0)) == sorted(
        f"{a}*{b}=?" for a in range(1, 10) for b in range(1, 10)
    )
    with pytest.raises(ValueError, match="count=82 is more than the 81 problems"):
        arithmetic.problems("a*b", 1, 82, 0)


def test_mixed_problems_take_turns():
    forms = [arithmetic.problems("mixed", 2, 4, 0)[n] for n in range(4)]
    assert [("*" in p, "-" in p, p.count("+")) for p in forms] == [
        (False, False, 1),
        (False, True, 1),
        (True, False, 0),
        (True, False, 1),
    ]


@pytest.mark.parametrize("settings", [("a/b", 2, 1), ("a+b", 0, 1), ("a+b", 2, 0)])
def test_settings_that_make_no_problems_are_refused(settings):
    with pytest.raises(ValueError, match="unknown|1 or more"):
        arithmetic.problems(*settings, seed=0)
