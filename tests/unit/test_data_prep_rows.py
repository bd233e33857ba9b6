"""Rows of the data sets, arithmetic's problems, and verl's schema."""

import pytest

from data_prep import arithmetic, deepmath
from data_prep.schema import RowError, make_row, validate_row

ROLL = {"prompt": "Is 2 even?", "ground_truth": " Yes ", "id": "1"}


def row(**changes):
    made = make_row("deepmath", "Is 2 even?", "Yes", "train", 3, "none")
    return {**made, **changes}


def test_deepmath_row_of_rolls_sample():
    assert deepmath.to_row(ROLL, 3, "train", "none") == {
        "data_source": "deepmath",
        "prompt": [{"role": "user", "content": "Is 2 even?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "Yes"},
        "extra_info": {"split": "train", "index": 3},
    }


def test_deepmath_row_of_the_hubs_shape_is_the_same():
    hub = {"question": "Is 2 even?", "final_answer": "Yes", "r1_solution_1": "hm", "difficulty": 1.0}
    assert deepmath.to_row(hub, 3, "train", "none") == deepmath.to_row(ROLL, 3, "train", "none")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "p"}, "final_answer or ground_truth missing"),
        ({"ground_truth": "1"}, "question or prompt missing"),
        ({"prompt": "p", "ground_truth": ""}, "ground_truth empty"),
        ({"prompt": "p", "ground_truth": None}, "ground_truth empty"),
        ({"prompt": " ", "ground_truth": "1"}, "prompt empty"),
        ({"prompt": "p", "ground_truth": 1.0}, "ground_truth no text"),
    ],
)
def test_records_that_cannot_be_rows_say_which_field(record, reason):
    with pytest.raises(RowError) as caught:
        deepmath.to_row(record, 0, "train", "none")
    assert caught.value.reason == reason


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


@pytest.mark.parametrize("problem", ["17+26", "=?", "1+=?", "(1+2)*3=?", "1/2=?"])
def test_other_texts_are_no_problems(problem):
    with pytest.raises(ValueError, match="is not of the form"):
        arithmetic.solve(problem)


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


def test_a_wrong_answer_is_no_row():
    with pytest.raises(RowError, match="'answer' is '4', want 3"):
        arithmetic.to_row({"problem": "1+2=?", "answer": "4"}, 0, "train", "none")
