"""Grading completions: verdicts, and which answers are the same answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

from repo_verl.evaluate.problems import Problem
from repo_verl.evaluate.store import TOO_LONG, Completion
from repo_verl.rewards import compute_score
from repo_verl.rewards.normalize import clean, compact
from repo_verl.rewards.numbers import exact_number

THREADS = 8
CHUNK = 4096

RIGHT = "right"
"""Vote of every right answer: all are equal to the gold answer, so to one another."""


@dataclass(frozen=True)
class Graded:
    """One graded sample.

    Attributes:
        problem: the problem.
        sample: its number.
        completion: the response.
        correct: whether it is right.
        extracted: the answer.
        status: of the grading, see ``repo_verl.rewards``.
    """

    problem: Problem
    sample: int
    completion: Completion
    correct: bool
    extracted: str
    status: str

    @property
    def vote(self) -> str | None:
        """What the sample votes for in maj@k: right answers for one thing, others for their number or text."""
        if self.correct:
            return RIGHT
        if not self.extracted:
            return None
        text = clean(self.extracted)
        number = exact_number(text)
        return compact(text) if number is None else f"{number.value}{'%' if number.percent else ''}"

    @property
    def answered(self) -> bool:
        """Whether there is an answer in the response."""
        return bool(self.extracted)

    @property
    def truncated(self) -> bool:
        """Whether the response was cut at its longest, or its prompt left no room for one."""
        return self.completion.finish in ("length", TOO_LONG)


def grade_all(completions: Iterable[tuple[Problem, int, Completion]], template: str = "boxed") -> Iterator[Graded]:
    """Grade completions, in order, from several threads.

    Args:
        completions: problem, number of the sample, response.
        template: where the answer is looked for.

    Raises: JudgeError if the grader cannot start.
    """
    waiting = iter(completions)
    with ThreadPoolExecutor(THREADS) as threads:
        while chunk := list(islice(waiting, CHUNK)):
            yield from threads.map(partial(_grade, template), *zip(*chunk, strict=True))


def _grade(template: str, problem: Problem, sample: int, completion: Completion) -> Graded:
    extra = {"tolerance": problem.tolerance}
    score = compute_score(problem.benchmark, completion.text, problem.gold, extra, template=template)
    return Graded(problem, sample, completion, score["acc"] == 1.0, score["extracted"], score["status"])
