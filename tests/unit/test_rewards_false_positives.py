r"""Wrong answers that were once paid: differences that vanish in 15 digits, prose read as a product, dropped text."""

import pytest

from repo_verl.rewards import compute_score
from repo_verl.rewards.extract import extract_answer


def result(gold, answer):
    return compute_score("any", f"So \\boxed{{{answer}}}", gold)


TINY = [
    (r"\frac{52!}{39!13!}", r"\frac{52!}{40!12!}"), (r"\frac{1}{100!}", r"\frac{1}{99!}"),
    (r"\left(\frac{5}{6}\right)^{300}", r"\left(\frac{5}{6}\right)^{301}"), ("e^{-100}", "-e^{-100}"),
    (r"7^{-30}\sqrt{2}", r"7^{-30}\sqrt{3}"), (r"10^{-18}\text{ m}", r"10^{-17}\text{ m}"),
    (r"\pi", r"\pi+10^{-30}"), (r"\sqrt{2}+10^{-40}", r"\sqrt{2}+10^{-41}"), ("2^{1000}", "2^{1000}-1"),
    (r"\sinh(10^{-10})", "10^{-10}"), (r"(2+\sqrt3)^{20}", r"(2+\sqrt3)^{20}+(2-\sqrt3)^{20}"),
    (r"\frac{(1+\sqrt5)^{90}}{2^{90}\sqrt5}", r"\frac{(1+\sqrt5)^{90}-(1-\sqrt5)^{90}}{2^{90}\sqrt5}"),
    ("(e^{-50}, 1)", "(e^{-60}, 1)"), (r"\{e^{-50}, 1\}", r"\{e^{-60}, 1\}"), ("x>e^{-50}", "x>e^{-60}"),
    (r"\begin{pmatrix} e^{-50} & 1\\ 0 & 1\end{pmatrix}", r"\begin{pmatrix} e^{-60} & 1\\ 0 & 1\end{pmatrix}"),
    ("x^2+e^{-50}=0", "x^2+e^{-60}=0"), ("1-2^{-70}+i", "1-2^{-71}+i"), ("(1-2^{-70})e^{it}", "(1-2^{-71})e^{it}"),
]  # fmt: skip

NO_SOLUTION = [("x^2+1=0", "x^2+2=0"), ("x^2+y^2=-1", "x^2+y^2=-2"), ("e^x=0", "e^y=0"), ("x^4+1=0", "x^2+1=0")]

DROPPED = [
    ("5", "5 for all x, or 7"), ("5", r"5 \text{ for all } x, \text{ or } 7"), ("5", "5 for all x or 7"),
    ("5", r"5 \text{ for every } x, 7"), ("5", r"5 \forall x, 7 \forall y"), ("5", r"5 \text{ for all } x = 7"),
    ("5", r"5 \text{ for all } x<2, \text{ otherwise } 7"), ("5", r"5 \text{ for all } n, \text{ plus } 7"),
    ("5", r"5 \text{ for all even } n \text{ and } 7 \text{ for all odd } n"),
    ("f(x)=x", r"f(x)=x \text{ for all } x<0, f(x)=2x \text{ for all } x \ge 0"),
]  # fmt: skip

PROSE = [
    ("The number 5 is prime", "The number 5 is composite"), ("x is divisible by 3", "x is not divisible by 3"),
    (r"\text{The number } 5 \text{ is prime}", r"\text{The number } 5 \text{ is composite}"),
    (r"\text{Alice wins in } 5", r"\text{Bob wins in } 5"), ("First player if n is even", "Second player if n is even"),
    (r"x \text{ is a multiple of } 3", r"x \text{ is not a multiple of } 3"), ("The number 5 is prime", "5"),
    (r"\text{all integers divisible by } 3", r"\text{all integers not divisible by } 3"),
    (r"3 \text{ successes in } 5", r"5 \text{ successes in } 3"), ("at least 5", "at most 5"),
    ("5", r"\text{at least } 5"), ("5", r"5 \text{ is prime}"), ("3", r"\text{anything but } 3"),
    (r"20\% \text{ increase}", r"20\% \text{ decrease}"),
    ("Alice gets 3 and Bob gets 4", "Alice gets 4 and Bob gets 3"),
    (r"\text{local min at } x=\sqrt2", r"\text{local max at } x=\sqrt2"), ("lost 5 dollars", "won 5 dollars"),
    (r"\text{June } 5", r"\text{July } 5"), (r"\text{three}", r"\text{two}"), ("3 hours", "3 hours ago"),
    (r"3 \text{ if } n \text{ is even}", r"3 \text{ if } n \text{ is odd}"),
]  # fmt: skip

RIGHT = [
    (r"\frac{52!}{39!13!}", r"\binom{52}{13}"), (r"\frac{52!}{39!13!}", "635013559600"),
    ("3^{-80}", r"\frac{1}{9^{40}}"),
    ("e^{-50}", r"\frac{1}{e^{50}}"), (r"\frac{e^{-50}}{2}", "0.5e^{-50}"), (r"0.1\pi x", r"\frac{\pi x}{10}"),
    (r"\sqrt{2+\sqrt{3}}", r"\frac{\sqrt{6}+\sqrt{2}}{2}"), (r"\cos\frac{\pi}{7}", r"\sin\frac{5\pi}{14}"),
    (r"(2+\sqrt3)^{10}", r"\frac{1}{(2-\sqrt3)^{10}}"), ("x^2+1=0", "x^2=-1"),
    ("f(x)=2x, f(x)=0", r"f(x)=2x \text{ for all } x \text{ and } f(x)=0 \text{ for all } x"),
    ("f(n)=n+1", r"f(n)=n+1 \text{ for all integers } n \geq 1"),
    ("f(x)=2x", r"f(x)=2x \quad \forall x \in \mathbb{R}"),
    ("f(x,y)=x+y", r"f(x,y)=x+y \text{ for all } x, y \in \mathbb{R}"),
    ("f(x)=cx", r"f(x)=cx \text{ for any real constant } c"),
    ("f(x)=2x", r"f(x)=2x \text{ for all non-negative real numbers } x"),
    ("The number 5 is prime", "the number 5 is prime."), ("The number 5 is prime", r"\text{The number 5 is prime}"),
    ("abcd+1", "1+abcd"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), TINY + NO_SOLUTION + DROPPED + PROSE)
def test_a_wrong_answer_is_not_paid(gold, answer):
    assert result(gold, answer)["acc"] == 0.0
    assert result(answer, gold)["acc"] == 0.0
    assert result(gold, gold)["acc"] == 1.0


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_a_right_answer_beside_them_is_paid(gold, answer):
    assert result(gold, answer)["acc"] == 1.0


@pytest.mark.parametrize("gold", ["1", r"\pi", r"e^{-50}x"])
@pytest.mark.parametrize(
    "answer", ["10^{10^{10}}", "(10^6)!", r"\frac{1}{10^{10^{10}}}+\pi", r"\pi^{100000}", r"e^{e^{e^{9}}}x"]
)
def test_huge_expressions_are_not_evaluated_at_length(gold, answer):
    found = result(gold, answer)
    assert found["acc"] == 0.0 and found["status"] in ("ok", "error")


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"The answer is \boxed{5}. I put it in \boxed as asked.", "5"),
        (r"The answer is \boxed{5}. I put it in \boxed{} as asked.", "5"),
        (r"The answer is \boxed{5}, in `\boxed{...}` as asked.", "5"),
        (r"The answer is \boxed{5}. It is in \boxed.", "5"),
        (r"The answer is \boxed{5}. It is in `\boxed`, (\boxed) and \boxed, too.", "5"),
        (r"\boxed{5}, no: \boxed 6", "6"),
        (r"\boxed{5}, no: \boxed{\text{as}}", r"\text{as}"),
        (r"I put it in \boxed{} and \boxed as asked", "as"),
        (r"\boxed{5} \boxed{6", None),
    ],
)
def test_a_box_that_is_only_mentioned_is_no_box(solution, answer):
    assert extract_answer(solution) == answer
