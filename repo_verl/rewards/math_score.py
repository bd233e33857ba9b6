r"""The reward of a math solution: is the last boxed answer equal to the gold answer?

Judged in this order, the first that decides wins: equal text, truth words, exact numbers, then Math-Verify. Nothing is
silently 0: every result says in ``status`` how it came about, and verl aggregates the float fields.
"""

from __future__ import annotations

import functools
import logging
import threading
from dataclasses import replace
from fractions import Fraction
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict

from repo_verl.rewards.extract import MAX_ANSWER_CHARS, exact_number, extract_boxed, normalize_text, truth_word

if TYPE_CHECKING:
    import sympy

logger = logging.getLogger(__name__)

STATUSES = ("ok", "no_answer", "timeout", "error", "gold_unparseable")

# The ANTLR parser behind Math-Verify keeps shared state, and verl calls rewards from a pool of threads.
_ENGINE_LOCK = threading.Lock()


class Score(TypedDict):
    """One graded solution; verl reads ``score`` and averages every float."""

    score: float
    acc: float
    format: float
    extracted: str
    status: str


class Refused(Exception):
    """An answer that the symbolic engine must not be given, because judging it could take without bound."""


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | int | float,
    extra_info: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Score:
    r"""Grades the last ``\boxed{}`` of a solution against the gold answer: 1.0 or 0.0, the paper's accuracy reward.

    Each judgement is bounded by what it is given (at most 512 characters, 100,000-bit numbers, 400 nodes, no integrals
    or sums; see :mod:`repo_verl.rewards.bounds`), not by a clock: Math-Verify's own time-out needs a main thread, which
    verl's reward workers do not have. A limit by process and clock is future work; until then ``timeout`` is a status
    that callers must expect and that nothing returns.

    Args:
        data_source: the name of the data set; all sets are graded alike.
        solution_str: the model's text.
        ground_truth: the gold answer; numbers are read as their text.
        extra_info: not used; part of verl's signature.
        **kwargs: what verl's reward manager adds (router addresses); not used.

    Returns: ``score`` and ``acc`` 1.0 if right; ``format`` 1.0 if there was a closed, non-empty box; ``extracted`` the
        answer; ``status``: ``ok`` (judged), ``no_answer`` (no box, not closed, empty), ``error`` (an answer too large
        to judge, or one that the engine failed on), ``gold_unparseable`` (no verdict is possible on this row).

    Example:
        >>> compute_score("deepmath", r"so \boxed{\frac{2}{4}}", "0.5")["score"]
        1.0
    """
    gold = "" if ground_truth is None else str(ground_truth).strip()
    answer = extract_boxed(solution_str)
    if not answer:
        return _result(False, "", "no_answer" if gold else "gold_unparseable")
    if not gold:
        return _result(False, answer[:MAX_ANSWER_CHARS], "gold_unparseable")
    if len(answer) > MAX_ANSWER_CHARS:
        return _result(False, answer[:MAX_ANSWER_CHARS], "error")
    right = quick_verdict(answer, gold)
    if right is not None:
        return _result(right, answer, "ok")
    return _result(*_engine_verdict(answer, gold))


def quick_verdict(answer: str, gold: str) -> bool | None:
    """The verdict of equal text, truth words and exact numbers; None where only the symbolic engine can tell.

    p% equals p/100, and p too where only one of the two carries the sign. Two unequal numbers of which one has a
    decimal point are left open: 0.333333 may stand for 1/3.

    Args:
        answer: the extracted answer.
        gold: the gold answer.
    """
    if normalize_text(answer) == normalize_text(gold):
        return True
    answer_word, gold_word = truth_word(answer), truth_word(gold)
    if answer_word or gold_word:
        return answer_word == gold_word
    answer_number, gold_number = exact_number(answer), exact_number(gold)
    if answer_number is None or gold_number is None:
        return None
    if answer_number.value == gold_number.value:
        return True
    if answer_number.percent != gold_number.percent:
        return answer_number.value == gold_number.value * (100 if answer_number.percent else Fraction(1, 100))
    return None if answer_number.decimal or gold_number.decimal else False


def _engine_verdict(answer: str, gold: str) -> tuple[bool, str, str]:
    """(right, answer, status) by Math-Verify; whatever the engine raises becomes the status ``error``."""
    verify = _engine().verify
    try:
        with _ENGINE_LOCK:
            gold_parsed = _parse(gold)
    except Exception as error:
        logger.debug("gold answer %r cannot be used: %s", gold, error)
        return False, answer, "gold_unparseable"
    if not gold_parsed:
        return False, answer, "gold_unparseable"
    try:
        with _ENGINE_LOCK:
            right = verify(gold_parsed, _parse(answer), timeout_seconds=None, raise_on_error=True)
    except Exception as error:
        logger.debug("answer %r not judged: %s: %s", answer, type(error).__name__, error)
        return False, answer, "error"
    return bool(right), answer, "ok"


@functools.cache
def _engine() -> ModuleType:
    """Math-Verify, imported at first need, without its notice that no time-out is set: bounds are set here instead."""
    import math_verify

    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).addFilter(lambda record: not str(record.msg).startswith("Timeout is disabled"))
    return math_verify


def _parse(text: str) -> list[sympy.Basic]:
    """Math-Verify's reading of an answer as SymPy expressions, empty when it finds none.

    Its string readings are left out: they are cut at what looks like a unit, so that ``f(z)=c`` and ``f(z)=m`` would
    be equal. A text that parses only with its last letter kept (``m^n - m``) is read again without unit removal.

    Raises: Refused if the text or its tree is outside the bounds.
    """
    from repo_verl.rewards.bounds import text_refusal, tree_refusal

    reason = text_refusal(text)
    if reason:
        raise Refused(reason)
    boxed = f"\\boxed{{{text.strip().strip('$')}}}"
    config = _engine().LatexExtractionConfig()
    without_units = replace(config, normalization_config=replace(config.normalization_config, units=False))
    for extraction in (config, without_units):
        parsed = _engine().parse(boxed, extraction_config=[extraction], parsing_timeout=None, raise_on_error=True)
        expressions = [part for part in parsed if not isinstance(part, str)]
        for expression in expressions:
            reason = tree_refusal(expression)
            if reason:
                raise Refused(reason)
        if expressions:
            return expressions
    return []


def _result(right: bool, answer: str, status: str) -> Score:
    value = 1.0 if right else 0.0
    return Score(score=value, acc=value, format=1.0 if answer else 0.0, extracted=answer, status=status)
