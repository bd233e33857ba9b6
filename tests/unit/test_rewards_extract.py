r"""The answer of a solution text."""

import time

import pytest

from repo_verl.rewards.extract import MAX_ANSWER_CHARS, extract_answer, extract_boxed, truth_word, well_formed


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
        (r"\boxed yes", "yes"),
        (r"\boxed{1}, no: \boxed -2", "-2"),
        (r"\boxed{1}, no: \boxed\frac12", r"\frac12"),
        (r"\boxed{1}, no: \boxed x", "x"),
        (r"\boxed{1}, no: \boxed √2", "√2"),
        (r"\boxed{1}, no: \boxed .5", ".5"),
        (r"\boxed{1}, no: \boxed xy=3", "xy=3"),
    ],
)
def test_last_box_is_the_answer(solution, answer):
    assert extract_boxed(solution) == answer


@pytest.mark.parametrize(
    "mention",
    [r"\boxed as asked.", r"a \boxed a box", r"\boxed{} as asked", r"\boxed.", r"$\boxed$", r"\boxed", r"\fbox , "],
)
def test_a_mention_behind_the_box_is_no_box(mention):
    assert extract_boxed(rf"The answer is \boxed{{5}}. I put it in {mention}") == "5"


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


def test_reading_is_linear_in_the_text():
    """10 MB each; a search from every false box on would take hours."""
    begin = time.perf_counter()
    for unit in (r"\boxed{", r"\boxedx", "{", r"\fboxed \boxed", r"\boxed" + " " * 50):
        extract_boxed(unit * (10_000_000 // len(unit)))
    assert time.perf_counter() - begin < 60


THOUGHT = r"<think> \boxed{1} </think> so \boxed{2}"


@pytest.mark.parametrize(
    ("solution", "answer", "kept"),
    [
        (THOUGHT, "2", True),
        (r"<think> \boxed{1} </think> so nothing", None, True),
        (r"\boxed{1}", None, False),
        (r"<think> a <think> b </think> \boxed{3}", "3", False),
        (r"well <think> a </think> \boxed{3}", "3", False),
        (r"<think> a </think> b </think> \boxed{3}", "3", False),
    ],
)
def test_think_template(solution, answer, kept):
    assert extract_answer(solution, "think") == answer
    assert well_formed(solution, "think") is kept


def test_boxed_template_knows_no_tags():
    assert extract_answer(THOUGHT) == "2" and well_formed("anything")


@pytest.mark.parametrize(
    ("answer", "word"),
    [("Yes", "yes"), ("yes.", "yes"), (r"\text{No}", "no"), ("TRUE", "true"), (r"$\mathrm{False}$", "false")],
)
def test_truth_words(answer, word):
    assert truth_word(answer) == word


@pytest.mark.parametrize("answer", ["", "y", "Yes and no", "1", "not", "yes!"])
def test_other_answers_are_no_truth_words(answer):
    assert truth_word(answer) is None
