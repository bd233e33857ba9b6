"""Spellings, units, numbers and structures of answers."""

import contextlib
import time
from fractions import Fraction

import pytest

from repo_verl.rewards.normalize import choice, clean, compact, word
from repo_verl.rewards.quantities import (
    based_number,
    canonical_unit,
    equal_numbers,
    exact_number,
    is_thousands,
    same_decimal,
    split_unit,
)
from repo_verl.rewards.structure import Chain, Equation, Group, Scalar, TooDeep, Words, leaves, read, split_top, vector


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        ("  $5$ ", "5"),
        (r"\( x + 1 \)", "x + 1"),
        (r"\$32,\!348", r"32,348\text{ dollar}"),
        (r"\$5 + \$6", "5 + 6"),
        (r"1\,000", "1 000"),
        ("a\tb\n", "a b"),
        (r"\left( \dfrac{1}{2},\, 3 \right)", r"( \frac{1}{2}, 3 )"),
        (r"\left\{x\right.", r"\{x"),
        (r"\leftarrow", r"\leftarrow"),
        ("1{,}234", "1,234"),
        (r"62.5\%", "62.5%"),
        ("x ≥ −1", r"x \ge -1"),
        (r"336^{\circ}", r"336^\circ"),
        (r"1 \text{ and } 2", "1, 2"),
        (r"1, \text{ or } 2", "1, 2"),
        ("5.", "5"),
        (r"\begin{pmatrix} 1 \\ 2 \\[2pt] 3 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \\[2pt] 3 \end{pmatrix}"),
    ],
)
def test_clean(answer, cleaned):
    assert clean(answer) == cleaned


def test_compact_keeps_lists_apart_from_thousands():
    assert compact("1, 234") != compact("1,234")
    assert compact(clean(r"\frac12 x^{2}")) == compact(r"\frac{1}{2}x^2")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"\text{Evelyn}", "evelyn"),
        (r"\text{no solution}", "no solution"),
        ("quadratic", "quadratic"),
        ("Arithmetic Progression", "arithmetic progression"),
        ("No", "no"),
        ("abc", None),
        ("x", None),
        (r"\pi", None),
        (r"\text{5}", None),
        (r"5\text{ cm}", None),
    ],
)
def test_words(text, found):
    assert word(text) == found


@pytest.mark.parametrize(
    ("text", "letter", "with_content"),
    [
        ("C", "C", "C"),
        (r"\text{(C)}", "C", "C"),
        ("C.", "C", "C"),
        (r"\textbf{(C)} 12", None, "C"),
        ("(C) 12", None, "C"),
        ("(B)(C)", None, None),
        ("(A) or (B)", None, None),
        ("C+1", None, None),
        ("(C)+1", None, None),
        ("c", None, None),
        ("CD", None, None),
    ],
)
def test_choices(text, letter, with_content):
    assert choice(text) == letter and choice(text, with_content=True) == with_content


@pytest.mark.parametrize(
    ("text", "body", "unit"),
    [
        (r"5\text{ cm}", "5", "cm"),
        (r"15\mbox{ cm}^2", "15", "cm^2"),
        (r"864 \mbox{ inches}^2", "864", "in^2"),
        (r"3\sqrt{2}\text{ square meters}", r"3\sqrt{2}", "m^2"),
        ("5 km/h", "5", "km/h"),
        (r"5\,\text{m}/\text{s}", r"5", "m/s"),
        ("5 cm", "5", "cm"),
        ("12 hours", "12", "h"),
        ("3 apples", "3", "apple"),
        (r"7\text{ units}", "7", ""),
        (r"336^\circ", "336", "degree"),
        ("45 degrees", "45", "degree"),
        (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}", "degree"),
        ("5m", "5m", ""),
        ("5xy", "5xy", ""),
        (r"x\text{ is even}", r"x\text{ is even}", ""),
        (r"(45^\circ, 60^\circ)", r"(45^\circ , 60^\circ )", ""),
    ],
)
def test_units(text, body, unit):
    assert split_unit(clean(text)) == (body, unit)


def test_units_have_one_spelling():
    assert {canonical_unit(u) for u in ("square centimeters", "cm^{2}", "sq cm", "cm ^2", "centimetres squared")} == {
        "cm^2"
    }


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
        ("-1./3", Fraction(-1, 3)),
        (r"-\frac{2}{4}", Fraction(-1, 2)),
        (r"\dfrac{-7}{3}", Fraction(-7, 3)),
        (r"\frac12", Fraction(1, 2)),
        (r"20\%", Fraction(20)),
        ("4.5e33", Fraction(45 * 10**32)),
        ("1e-3", Fraction(1, 1000)),
        (r"1.2 \times 10^{3}", Fraction(1200)),
        (r"4.5\cdot10^{-4}", Fraction(9, 20000)),
    ],
)
def test_exact_numbers(answer, value):
    assert exact_number(clean(answer)).value == value


@pytest.mark.parametrize(
    "answer",
    [
        "",
        ".",
        "-",
        "x",
        "1e9999",
        "5/0",
        r"\frac{1}{0}",
        "12,34",
        "1,2",
        "1/2/3",
        "5 cm",
        "--5",
        "2e",
        r"2\times 10",
    ],
)
def test_everything_else_is_no_exact_number(answer):
    assert exact_number(clean(answer)) is None


def test_what_may_be_rounded_is_decimal():
    decimal = {text: exact_number(text).decimal for text in ("27.0", "27", "1/3", "3e2")}
    assert decimal == {"27.0": True, "27": False, "1/3": False, "3e2": True}


def test_thousands():
    assert is_thousands("1,234") and is_thousands("-1,234,567.5")
    assert not any(is_thousands(text) for text in ("1234", "12,34", "1,2345", "1, 234", "1,234,56", "(1,234)"))


def test_rounding_is_of_six_places_and_of_four_digits():
    third = Fraction(1, 3)
    assert same_decimal(Fraction("0.333333"), third) and not same_decimal(Fraction("0.33333"), third)
    assert not same_decimal(Fraction("1e-8"), Fraction("2.55e-10"))
    assert not same_decimal(Fraction("1234567.1"), Fraction("1234567.2"))


@pytest.mark.parametrize(
    ("gold", "answer", "tolerance", "equal"),
    [
        ("20%", "0.2", None, True),
        ("20%", "20", None, True),
        ("0.2", "20%", None, True),
        ("20", "20%", None, True),
        ("20%", "20%", None, True),
        ("20", "0.2", None, False),
        ("20%", "0.2%", None, False),
        ("2.5", "2.6", 0.1, True),
        ("2.5", "2.61", 0.1, False),
        ("2.5", "2.6", None, False),
        ("1", "1.0000001", None, True),
        ("1", "1.00001", None, False),
    ],
)
def test_equal_numbers(gold, answer, tolerance, equal):
    assert equal_numbers(exact_number(gold), exact_number(answer), tolerance) is equal


def test_structures():
    assert read("(1, 2)") == Group("()", (Scalar("1"), Scalar("2")), "(1, 2)")
    assert read("[1, 2)").brackets == "[)"
    assert read("2,1") == Group("", (Scalar("2"), Scalar("1")), "2,1")
    assert read(r"\{2,1\}").items == read("2,1").items
    assert read(r"\{5\}") == Scalar("5") and read("(x+1)") == Scalar("x+1")
    assert (
        read("{{5}}") == Scalar("5")
        and read("{a}+{b}") == Scalar("{a}+{b}")
        and read("{1,2}").items == read("1,2").items
    )
    assert read("1,234") == Scalar("1,234") and read("1,000, 2,000").items == (Scalar("1000"), Scalar("2000"))
    assert read("(1,234)").items == (Scalar("1"), Scalar("234"))
    assert read(r"12,000\pi") == Scalar(r"12000\pi")
    assert read(r"1 \pm \sqrt{2}").items == (Scalar(r"1 + \sqrt{2}"), Scalar(r"1 - \sqrt{2}"))
    assert len(read(r"\{1\pm\sqrt{5},-2\}").items) == 3
    assert read("f(x) = 2x") == Equation("f", Scalar("2x"), "f(x) = 2x")
    assert read(r"x \in [1,2]").brackets == "[]"
    assert read("2x + y = 3") == Chain((Scalar("2x + y"), Scalar("3")), "2x + y = 3")
    assert read("x = 1 = 2").value == Chain((Scalar("1"), Scalar("2")), "x = 1 = 2")
    assert read(r"\operatorname{rank}(A) = 2").value == read(r"\dim V = 2").value == Scalar("2")
    assert read("3:4").brackets == ":" and read(r"\{x : x > 0\}") == Scalar(r"\{x : x > 0\}")
    assert read(r"(0,9) \cup (9,36)") == Scalar(r"(0,9) \cup (9,36)")
    assert read(r"\{x \mid x > 0, x < 1\}") == Scalar(r"\{x \mid x > 0, x < 1\}")
    assert leaves(read("(1, (2, even))")) == [Scalar("1"), Scalar("2"), Words("even")]


def test_vectors():
    assert vector(r"\begin{pmatrix} 7 \\ -2 \end{pmatrix}") == (Scalar("7"), Scalar("-2"))
    assert vector(r"\begin{bmatrix} 7 & -2 \end{bmatrix}") == (Scalar("7"), Scalar("-2"))
    assert vector(r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}") is None and vector("(1,2)") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("52_8", ("52", 8)),
        ("(52)_{8}", ("52", 8)),
        ("-0A_{16}", ("-A", 16)),
        ("92_8", None),
        ("x_1", None),
        ("52", None),
    ],
)
def test_numbers_in_a_base(text, found):
    assert based_number(text) == found


@pytest.mark.parametrize(
    "unit",
    [
        r"\text{a}",
        r"\rm{a}",
        "a",
        ",",
        "(",
        "$",
        r"\!",
        r"\,",
        "1",
        "x_",
        "{",
        "^\\circ",
        "for all",
        "=",
        "~",
        "'",
        r"\prime",
        "%",
        ":",
        r"\frac",
        "√(",
        "½",
        "②",
        r"\text{a:} 1",
        "x<1 or",
        r"k \in\mathbb{Z}",
        "a;b=1",
        r"\equiv 1 \pmod",
    ],
)
@pytest.mark.parametrize("glue", [" ", "", "/", r"\cdot "])
def test_cleaning_is_quick_on_whatever_repeats(unit, glue):
    """It runs before any limit: an exponential expression here would stop a whole worker."""
    for start, end in (("1", "!"), ("", ""), ("(A) ", "B"), (r"\dim ", "=1")):
        text = (start + (unit + glue) * 2048)[:2047] + end
        begin = time.perf_counter()
        cleaned = clean(text)
        split_unit(cleaned), compact(cleaned), word(cleaned), choice(cleaned, with_content=True), exact_number(cleaned)
        with contextlib.suppress(TooDeep):
            read(cleaned)
        assert time.perf_counter() - begin < 1.0, text[:40]


def test_split_outside_brackets():
    assert split_top("(1,2), [3,4), {5,6}", ",") == ["(1,2)", "[3,4)", "{5,6}"]


def test_depth_is_limited():
    read("(" * 12 + "1,2" + ")" * 12)
    with pytest.raises(TooDeep, match="12 deep"):
        read("(" * 14 + "1,2" + ")" * 14)
