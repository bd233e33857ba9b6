r"""Verdicts of compute_score: what is right, what is wrong, and what is refused."""

import inspect
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from repo_verl.rewards import compute_score
from repo_verl.rewards.math_score import STATUSES, quick_verdict

DEEPMATH = Path(__file__).parents[2].parent / "shared/data/train/alibaba__ROLL__math_deepmath_deal.jsonl"
OPPOSITE = {"Yes": "No", "No": "Yes", "True": "False", "False": "True"}


def box(answer):
    return f"Therefore \\boxed{{{answer}}}."


def grade(answer, gold):
    result = compute_score("any", box(answer), gold)
    return result["score"], result["status"]


@pytest.fixture(scope="module")
def deepmath_golds():
    with DEEPMATH.open(encoding="utf-8") as lines:
        return [json.loads(line)["ground_truth"] for line in lines]


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("5", "5"),
        ("27", "27.0"),
        ("27", 27.0),
        ("25", "025"),
        ("1450000", "1,450,000"),
        (r"\frac{2}{4}", "0.5"),
        ("0.333333", r"\frac{1}{3}"),
        ("20%", "0.2"),
        ("0.2", r"20\%"),
        ("20", r"20\%"),
        ("YES", "Yes"),
        (r"\text{No}", "no"),
        ("x^2+2x+1", "(x+1)^2"),
        ("2, 1", "1, 2"),
        ("2x+3", "y=2x+3"),
        ("336", r"336^\circ"),
        (r"\frac{\sqrt{8}}{2}", r"\sqrt{2}"),
        ("m^n - m", "-m + m^n"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
)
def test_equal_answers_are_right(answer, gold):
    assert grade(answer, gold) == (1.0, "ok")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("6", "5"),
        ("-5", "5"),
        ("0.34", r"\frac{1}{3}"),
        ("True", "Yes"),
        ("No", "Yes"),
        ("False", "0"),
        ("1", "True"),
        ("21%", "0.2"),
        ("(2,1)", "(1,2)"),
        ("x^2+1", "(x+1)^2"),
        ("f(z) = c", "f(z) = m"),
        ("2x^2 + 3y^2 = d", "3"),
        ("1,234", "1.234"),
    ],
)
def test_different_answers_are_wrong(answer, gold):
    assert grade(answer, gold) == (0.0, "ok")


@pytest.mark.parametrize(
    ("solution", "gold", "score", "answered", "status"),
    [
        (r"\boxed{1} or \boxed{2}", "2", 1.0, 1.0, "ok"),
        (r"\boxed{1} or \boxed{2}", "1", 0.0, 1.0, "ok"),
        ("the answer is 2", "2", 0.0, 0.0, "no_answer"),
        (r"\boxed{2", "2", 0.0, 0.0, "no_answer"),
        (r"\boxed{}", "2", 0.0, 0.0, "no_answer"),
        (r"\boxed{2}", "", 0.0, 1.0, "gold_unparseable"),
        (r"\boxed{2}", None, 0.0, 1.0, "gold_unparseable"),
        (r"\boxed{2}", r"\aleph_0", 0.0, 1.0, "gold_unparseable"),
        (r"\boxed{\aleph_0}", r"\aleph_0", 1.0, 1.0, "ok"),
    ],
)
def test_status_and_format(solution, gold, score, answered, status):
    result = compute_score("any", solution, gold)
    assert (result["score"], result["acc"], result["format"], result["status"]) == (score, score, answered, status)


@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9}}",
        "9^{9^{9^{9}}}",
        "10^{10^{10}}",
        r"2^{-2^{2001}}",
        "2^{10000000000}",
        "(1/3)^{10^9}",
        "999999999!",
        "((((9!)!)!)!)",
        r"\binom{10000000}{5000000}",
        r"\sqrt[3]{2^{10^9}}",
        r"\log(10^{10^{10}})",
        r"\lfloor 10^{10^{10}} \rfloor",
        r"\begin{pmatrix}9^{9^9}&1\\2&3\end{pmatrix}",
        "(x+y+z+w)^{300}",
        "(x^2+1)^{10^5}",
        r"(\sqrt{2}+\sqrt{3}+\sqrt5)^{99}",
        r"\sum_{n=1}^{100000000} \sin(n)",
        r"\prod_{n=1}^{100000000} n",
        r"\int_0^1 \sin(x^x) dx",
        r"\sin(" * 20 + "x" + ")" * 20,
        "{" * 200 + "}" * 200,
        "1e99999999",
        "9" * 300 + "x",
        "x" + "+x" * 1000,
    ],
)
@pytest.mark.parametrize("gold", ["7", "x^2+1"])
def test_hostile_answers_are_refused_before_the_engine_sees_them(answer, gold):
    assert grade(answer, gold) == (0.0, "error")


def test_an_honest_large_number_is_not_refused():
    assert grade("2^{2015}", "4 \\cdot 2^{2013}") == (1.0, "ok")
    assert grade("1999^{1999}", "1999^{1998}") == (0.0, "ok")


def test_huge_texts_are_answered():
    assert grade("9" * 10_000_000, "9") == (0.0, "error")
    assert compute_score("any", "{" * 5_000_000, "9")["status"] == "no_answer"
    assert compute_score("any", r"\boxed{3}" * 100_000, "3")["score"] == 1.0


def test_every_result_has_the_same_typed_keys():
    for solution in (box("1"), box("9^{9^{9}}"), "nothing", box("x" * 600)):
        result = compute_score("any", solution, "1")
        assert list(result) == ["score", "acc", "format", "extracted", "status"]
        assert [type(value) for value in result.values()] == [float, float, float, str, str]
        assert result["status"] in STATUSES and len(result["extracted"]) <= 512


def test_it_works_outside_a_main_thread():
    pairs = [(f"{n}x + x", f"{n + 1}x") for n in range(1, 17)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda pair: grade(*pair), pairs)) == [(1.0, "ok")] * 16


def test_verl_may_pass_more_than_its_signature():
    names = list(inspect.signature(compute_score).parameters)
    assert names[:4] == ["data_source", "solution_str", "ground_truth", "extra_info"]
    assert compute_score("a", box("1"), "1", {"index": 0}, reward_router_address="x")["score"] == 1.0


def test_quick_verdict_leaves_rounding_to_the_engine():
    assert quick_verdict("0.333333", "1/3") is None
    assert quick_verdict("1/4", "1/3") is False
    assert quick_verdict("x", "y") is None


def test_importing_it_imports_neither_sympy_nor_torch_nor_verl():
    code = (
        "import sys, repo_verl.rewards; print([m for m in ('sympy','math_verify','torch','verl') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_deepmath_gold_is_right_against_itself(deepmath_golds):
    assert len(deepmath_golds) == 4994
    assert [gold for gold in deepmath_golds if grade(gold, gold) != (1.0, "ok")] == []


def test_deepmath_truth_golds_are_wrong_against_their_opposite(deepmath_golds):
    words = [gold for gold in deepmath_golds if gold in OPPOSITE]
    assert len(words) == 865
    assert [word for word in words if grade(OPPOSITE[word], word) != (0.0, "ok")] == []
    assert [word for word in words if grade(word.lower(), word) != (1.0, "ok")] == []


def test_neighbouring_deepmath_golds_are_told_apart(deepmath_golds):
    """Each gold against the next row's: right only where the two are the same in value."""
    pairs = list(zip(deepmath_golds[:600], deepmath_golds[1:601], strict=True))
    right = {(a, b) for a, b in pairs if a != b and grade(a, b)[0] == 1.0}
    assert all(a.lower() == b.lower() for a, b in right), right
