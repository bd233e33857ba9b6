r"""The answer of a solution text and its cheap normal forms."""

from fractions import Fraction

import pytest

from repo_verl.rewards.extract import MAX_ANSWER_CHARS, exact_number, extract_boxed, normalize_text, truth_word


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\sqrt{\frac{a}{b}}} and more", r"\sqrt{\frac{a}{b}}"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{x\right.}", r"\left\{x\right."),
        (r"\boxed {3}", "3"),
        (r"\boxed 5", "5"),
        (r"$\boxed 12$ is it", "12"),
        (r"\fbox{Yes}", "Yes"),
        (r"\fbox{1} \boxed{2}", "2"),
        (r"\boxed{ 4 }", "4"),
        (r"\boxed{}", ""),
    ],
)
def test_last_box_is_the_answer(solution, answer):
    assert extract_boxed(solution) == answer


@pytest.mark.parametrize(
    "solution",
    [
        "",
        "42",
        r"\boxed{5",
        r"\boxed{1} and \boxed{\frac{1}{2}",
        r"\boxed{5\}",
        r"\boxed",
        r"\boxedness{5}",
        "{" * 10_000,
    ],
)
def test_no_closed_box_is_no_answer(solution):
    assert extract_boxed(solution) is None


def test_reading_stops_one_character_past_the_limit():
    assert extract_boxed("\\boxed{" + "9" * MAX_ANSWER_CHARS + "}") == "9" * MAX_ANSWER_CHARS
    assert len(extract_boxed("\\boxed{" + "9" * 1_000_000)) == MAX_ANSWER_CHARS + 1


@pytest.mark.parametrize(
    ("answer", "normal"),
    [("  $5$ ", "5"), (r"\( x + 1 \)", "x+1"), (r"\text{Yes}.", "Yes"), (r"1\,000", "1000"), ("a\tb\n", "ab")],
)
def test_normal_text(answer, normal):
    assert normalize_text(answer) == normal


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("27", Fraction(27)),
        ("27.0", Fraction(27)),
        ("025", Fraction(25)),
        ("-3", Fraction(-3)),
        ("+4", Fraction(4)),
        (".5", Fraction(1, 2)),
        ("1,450,000", Fraction(1450000)),
        ("1{,}234.5", Fraction(2469, 2)),
        ("6/8", Fraction(3, 4)),
        (r"-\frac{2}{4}", Fraction(-1, 2)),
        (r"\dfrac{-7}{3}", Fraction(-7, 3)),
        (r"\frac12", Fraction(1, 2)),
        (r"20\%", Fraction(20)),
    ],
)
def test_exact_numbers(answer, value):
    assert exact_number(answer).value == value


@pytest.mark.parametrize(
    "answer", ["", ".", "-", "x", "1e9", "5/0", r"\frac{1}{0}", "12,34", "1,2", "1/2/3", "5 cm", "--5"]
)
def test_everything_else_is_no_exact_number(answer):
    assert exact_number(answer) is None


def test_only_numbers_with_a_point_are_decimal():
    assert exact_number("27.0").decimal and not exact_number("27").decimal and not exact_number("1/3").decimal


@pytest.mark.parametrize(
    ("answer", "word"),
    [("Yes", "yes"), ("yes.", "yes"), (r"\text{No}", "no"), ("TRUE", "true"), (r"$\mathrm{False}$", "false")],
)
def test_truth_words(answer, word):
    assert truth_word(answer) == word


@pytest.mark.parametrize("answer", ["", "y", "Yes and no", "1", "not", "yes!"])
def test_other_answers_are_no_truth_words(answer):
    assert truth_word(answer) is None
