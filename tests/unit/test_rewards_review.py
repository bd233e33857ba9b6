"""What a reviewer of the grader found: answers that were wrongly paid, right ones that were not, lost rows."""

import os
import signal
import threading
import time
from decimal import Decimal

import numpy as np
import psutil
import pytest

from repo_verl.rewards import compute_score, gold_is_verifiable
from repo_verl.rewards.compare import verdict
from repo_verl.rewards.judge import Limits
from repo_verl.rewards.pool import FairSemaphore, JudgePool

SLOW = r"\int_0^1 \sin(x^{x^x}) e^{-x^2} dx"


def right(answer, gold, **extra):
    return compute_score("any", f"So \\boxed{{{answer}}}", gold, extra or None)["acc"] == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        r"\ne \frac{8}{15}", r"< \frac{8}{15}", r"17 | \frac{8}{15}", r"- \frac{8}{15} |", r"\sqrt{\frac{8}{15}} \|",
        r"e^{\frac{8}{15}} \sim q", r"x^2\frac{8}{15}+y \propto", r"\frac{1}{2} | \frac{2}{3} | \frac{8}{15}",
        r"\begin{align}\frac{1}{2}\\\frac{8}{15}\end{align}",
        r"\begin{equation}\pi\end{equation} \begin{equation}\frac{8}{15}\end{equation}",
    ],
)  # fmt: skip
def test_a_fraction_within_something_else_is_not_the_answer(answer):
    assert not right(answer, r"\frac{8}{15}") and right(r"\dfrac{8}{15}", r"\frac{8}{15}")


@pytest.mark.parametrize(
    ("answer", "gold", "without_engine", "asked"),
    [
        ("1+2+3=6", r"\sum_{k=1}^{3} k", None, ["1+2+3=6"]),
        (r"\{x \mid 2 \ne x\}", r"(-\infty,2)\cup(2,\infty)", True, []),
        (r"x<1 \mbox{ or } x>3", r"(-\infty,1)\cup(3,\infty)", None, ["x<1, x>3"]),
        (r"5^{\text{th}}x", "5x", True, []),
        (r"([1\pm 2,3],4)", r"([1+2,3],4)", False, []),
    ],
)
def test_forms_that_a_simplification_once_read_otherwise(answer, gold, without_engine, asked):
    """A chain of sums is one relation for the engine; signs and words of sets; ± inside brackets inside a tuple."""
    questions = []
    assert verdict(answer, gold) is without_engine
    verdict(answer, gold, symbolic=lambda gold, answer, tolerance: bool(questions.append(answer)))
    assert questions == asked


PAIRS_NOT_EQUAL = [
    # several letters
    ("(C) or D, A, B, E", "C"), (r"(C) or D", r"\text{(C)}"), ("(C), B", r"\text{(C)}"), ("(C) D", r"\text{(C)}"),
    # bases
    ("52_9", "52_8"), ("52_{10}", "52_8"), ("4210_6", "4210_{5}"), ("100_{2}", "100"), ("100_{x}", "100"),
    ("11_3, 11_4", "11"),
    # derivatives
    ("(3R^2)'", "3R^2"), ("(x^2)'", "x^2"), ("5''", "5"), ("y'+2y", "y+2y'"),
    # thousands with a thin space
    ("100, 11, 111", r"11,\! 111,\! 111,\! 100"),
    # relations that say nothing, or another thing
    ("x=x", "N=n"), ("1=1", "N=n"), ("99991 = 7", "7"), ("0 = 2n", "2n"), ("x = 99991 = 7", "7"), ("x=5, y=5", "5"),
    ("8/7/3", "8:7:3"), ("p^{f-1}", "p^{F-1}"), (r"90\%", r"90^\circ"), (r"18\%", "18 hours"), (r"5\text{ 6 7}", "5"),
    ("1, 2 and 3", "1,2"), (r"\text{Yes and no}", "Yes"), (r"\text{Yes, or no}", "Yes"), ("not yes", "Yes"),
    # tiny differences
    ("e^{-60}", "e^{-50}"), (r"\frac{52!}{40!12!}", r"\frac{52!}{39!13!}"), ("2^{1000}-1", "2^{1000}"),
    ("3^{100}+1", "3^{100}"), (r"\frac{1}{101!}", r"\frac{1}{100!}"), (r"2x\cdot 10^{-40}", r"x\cdot 10^{-40}"),
    ("(e^{-60},1)", "(e^{-50},1)"), ("x=e^{-60}", "x=e^{-50}"), (r"\frac{2\pi}{10^{20}}", r"\frac{\pi}{10^{20}}"),
    ("1-2^{-71}", "1-2^{-70}"), ("0", "10^{-30}"), (r"e^{-60}\sqrt{x}", r"e^{-50}\sqrt{x}"),
    # what stands behind a quantifier
    (r"5 \text{ for all } x, \text{ or } 7", "5"), (r"5\ \forall x\in\mathbb R \text{ or } 3", "5"),
    ("5 for every n, otherwise 6", "5"), ("5 for every n unless n=2", "5"), ("5 for all x; 7", "5"),
    (r"x^2 \text{ for all } x > 0, -x^2 \text{ for all } x < 0", "x^2"),
    (r"5\text{ for all real } x\text{, and }6\text{ for others}", "5"),
    ("7 for all even n, 5 for all odd n", "5 for all even n, 7 for all odd n"),
    (r"1 \text{ for all } n<5, 0 \text{ for all } n>5", r"0 \text{ for all } n<5, 1 \text{ for all } n>5"),
    # sentences
    ("The number 5 is composite", "The number 5 is prime"), ("1 hour 20 minutes", "20 hour 1 minutes"),
    ("Xiao Li beats Xiao Zhang by 3 points", "Xiao Zhang beats Xiao Li by 3 points"),
    ("less than 5", "not less than 5"),
    ("Alice gets 3, Bob gets 5", "Alice gets 5, Bob gets 3"), ("3 less than x", "3 more than x"),
    (r"x \text{ is greater than } 4", r"x \text{ is less than } 4"), ("The maximum of x is 4", "The minimum of x is 4"),
    ("The cat eats 3 dogs", "The dogs eats 3 cat"), (r"\text{at most } 5", r"\text{at least } 5"),
]  # fmt: skip

PAIRS_EQUAL = [
    ("52_8", "52_{8}"), ("(52)_8", "52_8"), ("52", "52_8"), ("100_2", "4"),
    ("11111111100", r"11,\! 111,\! 111,\! 100"), ("11,111,111,100", r"11,\! 111,\! 111,\! 100"),
    ("y' + 2y", r"2y + y^{\prime}"), ("2+3=5", "5"), ("x = 2+3 = 5", "5"), ("8:7:3", "8 : 7 : 3"),
    (r"(7,-2,-5)", r"\begin{pmatrix}7\\-2\\-5\end{pmatrix}"),
    (r"\langle 7,-2,-5\rangle", r"\begin{pmatrix}7\\-2\\-5\end{pmatrix}"),
    ("x=2, y=4", "(2,4)"), (r"x=7 \text{ and } y=3", "(7,3)"), (r"f(x)=2x \text{ for all } x", "f(x)=2x"),
    (r"f(x)=2x \quad \text{for all } x\in\mathbb{R}", "f(x)=2x"), (r"\text{Yes, it converges}", "Yes"),
    (r"\text{No, not necessarily}", "No"), (r"\dim V = 2", "2"), (r"\operatorname{rank}(A)=2", "2"),
    ("y(x)=2x+3", "y=2x+3"), ("f(1) = 2", "2"), ("|G| = 2", "2"), (r"P(A|B) = \frac12", r"\frac{1}{2}"),
    (r"\Pr[X] = \frac12", "0.5"), (r"\text{36 dollars}", r"\$36"), ("infinite", r"\infty"),
    ("5\\ \\ ", "5"), (r"{5}", "5"), ("x > 3", r"(3,\infty)"), (r"x \le 0", r"(-\infty,0]"), (r"3 < x \le 4", "(3,4]"),
    (r"\frac{1-i}{4}e^{2it}", r"\frac{e^{2 i t}}{(2+2 i)}"), (r"\textbf{(C)} 12", "C"),
    (r"\frac{100!}{50!50!}", r"\binom{100}{50}"), ("0", r"\sqrt{2}^2-2"), (r"\sin^2 1+\cos^2 1", "1"),
    ("the number 5 is prime", "The number 5 is prime"), (r"f(x)=x \text{ for all } x, y \in \mathbb{R}", "f(x)=x"),
    (r"f(x)=x \text{ for all } x \text{ and } y", "f(x)=x"), (r"5 \text{ for all } x \ne 0", "5"),
    (r"f(x)=2x \text{ for all } x \text{ and } f(x)=0 \text{ for all } x", "f(x)=0, f(x)=2x"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), PAIRS_NOT_EQUAL)
def test_not_paid(answer, gold):
    assert not right(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), PAIRS_EQUAL)
def test_paid(answer, gold):
    assert right(answer, gold)


def test_long_lists_are_compared_quickly():
    """In CPU time of this process: what goes to a judge is under the judge's own limit."""
    begin = time.process_time()
    for gold in (", ".join(map(str, range(500))), ", ".join(["x"] * 700), ", ".join(f"x+{n}" for n in range(250))):
        assert not right(",".join("1" * 256), gold) and not right(", ".join(f"{n}" for n in range(120)), gold)
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("unit", [r"\text{}", r"\text{ }", r"\mbox{ }"])
def test_a_unit_without_words_is_none(unit):
    assert right(f"5{unit}", "5") and not right(f"5{unit}", "6") and right("5", f"5{unit}")


@pytest.mark.parametrize("tolerance", [0.1, np.float32(0.1), np.float64(0.1)])
def test_tolerances_of_any_number_type(tolerance):
    assert right("2.55", "2.5", tolerance=tolerance) and not right("2.7", "2.5", tolerance=tolerance)


@pytest.mark.parametrize(
    ("solution", "gold", "status"),
    [
        (None, "1", "no_answer"),
        (rb"\boxed{1}", "1", "ok"),
        (r"\boxed{1}", {"a": 1}, "gold_unparseable"),
        (r"\boxed{1}", ["1"], "gold_unparseable"),
        (r"\boxed{1}", b"1", "gold_unparseable"),
        pytest.param(r"\boxed{1}", 10**5000, "gold_unparseable", id="huge"),
        (r"\boxed{1}", np.int64(1), "ok"),
        (r"\boxed{1}", Decimal(1), "gold_unparseable"),
    ],
)
def test_odd_types_raise_nothing(solution, gold, status):
    assert compute_score("any", solution, gold, "no mapping")["status"] == status
    assert gold_is_verifiable(gold) is (status != "gold_unparseable")


def test_a_judge_that_died_while_idle_costs_no_row():
    judges = JudgePool(1)
    try:
        for number in (signal.SIGKILL, signal.SIGSEGV):
            assert judges.ask("x+1", "1+x", None, Limits()).right
            os.kill(judges.processes()[1], number)
            assert judges.ask("x+1", "1+x", None, Limits()) == (True, "ok", "")
    finally:
        judges.close()


def test_an_old_templates_judge_cannot_harm_the_new_one():
    """A stopped judge outlives its template; when its question times out, the next template knows no such child."""
    judges, outcome = JudgePool(2), []
    try:
        assert judges.ask("x+1", "1+x", None, Limits()).right
        template, judge = judges.processes()
        os.kill(judge, signal.SIGSTOP)
        asked = threading.Thread(target=lambda: outcome.append(judges.ask("x+1", "1+x", None, Limits(clock_seconds=3))))
        asked.start()
        time.sleep(0.3)
        os.kill(template, signal.SIGKILL)
        begin = time.perf_counter()
        assert judges.ask("y+1", "1+y", None, Limits()).right, "another template is started"
        asked.join()
        assert time.perf_counter() - begin < 30 and outcome[0].status == "timeout"
        assert judges.ask("z+1", "1+z", None, Limits()).right
        deadline = time.monotonic() + 20
        while psutil.pid_exists(judge) and psutil.Process(judge).status() != "zombie":
            assert time.monotonic() < deadline, "the stopped judge is still there"
            time.sleep(0.05)
    finally:
        judges.close()


def test_the_semaphore_goes_to_who_waits_longest():
    turns, order, started = FairSemaphore(1), [], threading.Barrier(2)

    def wait(name):
        started.wait()
        with turns:
            order.append(name)

    threads = []
    with turns:
        for name in range(5):
            threads.append(threading.Thread(target=wait, args=(name,)))
            threads[-1].start()
            started.wait()
            time.sleep(0.05)
    with turns:
        order.append("late")
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4, "late"]


# (gold, answer), of a second reviewer: negations, letters that are no parameters, what stands behind "for all", ...
SECOND_NOT_EQUAL = [
    ("5", "5 for all n is wrong"), ("5", "5 tenths"), ("5", "5 pairs"), ("5", r"5 \text{ less}"), ("5", "5 times"),
    ("5", r"x \not= 5"), ("5", r"n \not= 5"), ("5", r"x \notin = 5"), ("5", r"x \text{ is not} = 5"),
    ("5", r"\text{it is false that } x = 5"), ("(2,3)", r"x \not= (2,3)"), (r"\pi", r"\theta \not= \pi"),
    ("2", r"n \not\mid m = 2"), ("5", r"\not a + b = 5"), ("5", r"\text{not } a + b = 5"),
    ("5", r"\frac{AB}{CD} \not= 5"), (r"\frac{\pi}{n}", r"\frac{\pi}{m}"), (r"\pi m^2", r"\pi n^2"),
    (r"\frac{k\pi}{n}", r"\frac{k\pi}{m}"), (r"n\pi+m", r"n\pi+k"),
    (r"\frac{k\pi}{2}, k\in\mathbb{Z}", r"\frac{n\pi}{2}, k\in\mathbb{Z}"), ("f(x)=2x", "f(x)=2t"),
    ("f(x)=ax+b", "f(x)=at+b"), ("f(x)=t", "f(x)=x"), ("f(t)=2t", "2s"), ("f(x)=x^2", "y^2"), ("0.5", "2**0.5"),
    ("0.5", "4**0.5"), ("0.25", "7**0.25"), ("64", "2**3**2"), (r"\infty", "-infinity"), (r"\infty", "-Infinity"),
    ("5", "5 for all x plus 3"), ("5", r"5 \forall x \lor 7"), ("5", r"5 \forall x + 2"),
    ("5", r"5 \forall x \cup \{7\}"), ("5", "5 for all x / 7"), ("5", "5 for all x. 7"),
    ("5", r"5 \text{ for all } x \text{ as well as } 7"), ("5", r"5 \text{ for all } x \text{ not}"),
    ("0", r"0 \text{ for any } x>0 \text{ while } 1 \text{ elsewhere}"), ("x^2", r"x^2 \text{ for all } x>0, x, x<0"),
    ("CAB", "A,B,C"), ("A", "A: none"), ("C", "(C) is wrong; (d) is right"), ("C", r"\text{(C) is wrong}"),
    ("5", r"\text{Wrong: } 5"), ("5", r"\text{Neither: } 5"), ("5", r"\text{negative: } 5"), ("a^2+b^2=1", "1"),
    (r"\frac43", r"\frac{4th}{3}"), ("3", "3rd root"), (r"\frac12", "1/2th power"), ("12:30", "2:5"), ("10:30", "1:3"),
    ("0:0:1", "0:0:2"), (r"180^\circ C", r"\pi"), (r"\pi", r"180^\circ F"), (r"100^\circ C", r"100^\circ F"),
    ("56", "5€6"), ("(1,5)", r"\{n : 1<n<5\}"), ("5", "5 million"), ("5", "5 squared"), ("5", "5 factorial"),
    ("5", "5 halves"),
]  # fmt: skip

SECOND_EQUAL = [
    (r"-\infty", "-infinity"), (r"(-\infty,3)", "(-infinity,3)"), (r"\sqrt2", "2**0.5"), ("x^{10}", "x**10"),
    (r"x \ne 5", r"x \not= 5"), (r"x=k\pi", r"x=n\pi"), (r"\frac{\pi}{4}+k\pi", r"\frac{\pi}{4}+n\pi"),
    ("2x+3", "f(t)=2t+3"), ("f(x)=2x+3", "f(t)=2t+3"), ("No", "No, not necessarily"), (r"\text{No}", "No"),
    ("false", "False"), ("10000", "10 000"), ("1234567", "1 234 567"), ("AC", "A, C"), ("15", r"15\text{ cm squared}"),
    (r"100^\circ", r"100^\circ C"), ("100", r"100^\circ C"), ("12", "12th"), ("3", "3^{rd}"), ("3", r"3^{\text{rd}}"),
    ("15th day", "15"), ("n=3k", r"n=3k \text{ for positive integers } k"), (r"x=k\pi", r"x=k\pi, k\in\mathbb{Z}"),
    ("2:3", "4:6"), ("f(x)=x", r"f(x)=x \text{ for all } x, y \in \mathbb{R}"),
    ("f(x)=x", r"f(x)=x \text{ for all real numbers } x"), ("5", r"5 \text{ for all } x \ne 0"),
    ("f(x)=x", r"f(x)=x \text{ for all } x \text{ and } y"), ("5", r"5 \text{ for all positive integers } n \ge 2"),
    ("5", r"5\ \forall x\in\mathbb R"), ("x>2", "x > 2"), ("none", "None"),
    (r"\text{not enough information}", "Not enough information"), ("5 million", "5 million"), ("3 1/4", "3.25"),
    ("1{,}000", "1 000"), ("a+b=5", "5"), ("5", "a+b=5"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), SECOND_NOT_EQUAL)
def test_not_paid_either(gold, answer):
    assert not right(answer, gold)


@pytest.mark.parametrize(("gold", "answer"), SECOND_EQUAL)
def test_paid_too(gold, answer):
    assert right(answer, gold)
