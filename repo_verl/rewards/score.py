r"""The reward of a math solution: is its answer equal to the gold answer?

Equal text, words, exact numbers and the structure of lists and brackets are judged here; what is left goes to
Math-Verify in a judge process with limits (:mod:`repo_verl.rewards.pool`). Nothing is silently 0: every result says in
``status`` how it came about.
"""

from __future__ import annotations

import functools
import logging
import math
import numbers
from typing import Any, TypedDict

from repo_verl.rewards.compare import engine_texts, verdict
from repo_verl.rewards.extract import MAX_ANSWER_CHARS, TEMPLATES, extract_answer, well_formed
from repo_verl.rewards.judge import Judgement, Limits
from repo_verl.rewards.pool import shared_pool
from repo_verl.rewards.structure import TooDeep

logger = logging.getLogger(__name__)

STATUSES = ("ok", "no_answer", "timeout", "error", "gold_unparseable")
MAX_GOLD_CHARS = 2048
CACHE_SIZE = 1 << 16
_FROM_VERL = frozenset({"reward_router_address", "reward_model_tokenizer"})


class Score(TypedDict):
    """One graded solution; verl reads ``score`` and averages every float."""

    score: float
    acc: float
    format: float
    extracted: str
    status: str


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | int | float | None,
    extra_info: dict[str, Any] | None = None,
    *,
    accuracy_weight: float = 1.0,
    format_weight: float = 0.0,
    template: str = "boxed",
    cpu_seconds: float = Limits.cpu_seconds,
    clock_seconds: float = Limits.clock_seconds,
    **kwargs: Any,
) -> Score:
    r"""Grades the answer of a solution against the gold answer; by default 1.0 or 0.0, the paper's accuracy reward.

    score = accuracy_weight * acc + format_weight * format

    The keyword settings come from ``reward.custom_reward_function.reward_kwargs``. Safe to call from any thread.

    Args:
        data_source: the name of the data set; all sets are graded alike.
        solution_str: the model's text, of any size.
        ground_truth: the gold answer; numbers are read as their text.
        extra_info: ``tolerance``, where there is one, is the largest absolute difference that is still right.
        accuracy_weight: weight of a right answer.
        format_weight: weight of the form that the template asks for.
        template: ``boxed``: the last ``\boxed{}`` counts; ``think``: the last one behind ``</think>``.
        cpu_seconds: CPU time that one judgement may take.
        clock_seconds: time that it may take by the clock.
        **kwargs: what verl's reward manager adds (router addresses); not used.

    Returns: ``acc`` 1.0 if right; ``format`` 1.0 if the form is kept (an answer in a closed box; with ``think`` the
        tags too); ``extracted`` the answer; ``status``: ``ok`` (judged), ``no_answer`` (no box, not closed, empty),
        ``timeout`` (a limit of time), ``error`` (too long or too deep to be an answer, a limit of memory, or the engine
        failed on it), ``gold_unparseable`` (no verdict is possible on this row).

    Raises: TypeError for an unknown setting, ValueError for a setting out of range, JudgeError if the judge processes
        cannot start. A solution raises nothing.

    Example:
        >>> compute_score("deepmath", r"so \boxed{\frac{2}{4}}", "0.5")["score"]
        1.0
    """
    weights = accuracy_weight, format_weight
    limits = _checked_limits(weights, template, cpu_seconds, clock_seconds, frozenset(kwargs))
    if isinstance(solution_str, bytes):
        solution_str = solution_str.decode("utf-8", "replace")
    gold, solution_str = _gold_text(ground_truth), str(solution_str or "")
    answer = extract_answer(solution_str, template)
    tolerance = _tolerance(extra_info)
    if not gold or len(gold) > MAX_GOLD_CHARS:
        judgement = Judgement(False, "gold_unparseable", "")
    elif not answer:
        judgement = Judgement(False, "no_answer", "")
    elif len(answer) > MAX_ANSWER_CHARS:
        judgement = Judgement(False, "error", f"longer than {MAX_ANSWER_CHARS} characters")
    else:
        judgement = grade(answer, gold, tolerance, limits)
    acc, kept = float(judgement.right), float(bool(answer) and well_formed(solution_str, template))
    return Score(
        score=accuracy_weight * acc + format_weight * kept,
        acc=acc,
        format=kept,
        extracted=(answer or "")[:MAX_ANSWER_CHARS],
        status=judgement.status,
    )


def grade(answer: str, gold: str, tolerance: float | None = None, limits: Limits | None = None) -> Judgement:
    """The judgement on an extracted answer, neither text empty: cheap rules first, then the engine; pairs are cached.

    Raises: JudgeError if the judge processes cannot start.
    """
    try:
        return _cached(answer, gold, tolerance, limits or Limits())
    except _NotCached as outcome:
        return Judgement(*outcome.args)


def gold_is_verifiable(gold: str | int | float | None) -> bool:
    """Whether answers can be judged against this gold answer: it is a number, a word, a choice, or it parses.

    Raises: JudgeError if the judge processes cannot start.
    """
    text = _gold_text(gold)
    if not text or len(text) > MAX_GOLD_CHARS:
        return False
    try:
        texts = engine_texts(text)
    except TooDeep:
        return False
    return texts == [] or (texts is not None and shared_pool().ask(text, None, None, Limits()).status == "ok")


def _gold_text(gold: object) -> str:
    """A gold answer as text; "" for what can be none, as a mapping."""
    if isinstance(gold, str):
        return gold.strip()
    if isinstance(gold, numbers.Real) and not (isinstance(gold, int) and gold.bit_length() > MAX_GOLD_CHARS):
        return str(gold)
    return ""


class _NotCached(Exception):
    """A judgement, as its arguments, that another try might change: a limit of time, a judge that died."""


@functools.lru_cache(maxsize=CACHE_SIZE)
def _cached(answer: str, gold: str, tolerance: float | None, limits: Limits) -> Judgement:
    try:
        right = verdict(answer, gold, tolerance)
    except TooDeep as error:
        return Judgement(False, "error", str(error))
    if right is not None:
        return Judgement(right, "ok", "")
    judgement = shared_pool().ask(gold, answer, tolerance, limits)
    if judgement.status != "ok":
        logger.debug("answer %r, gold answer %r: %s (%s)", answer, gold, judgement.status, judgement.detail)
    if judgement.status in ("timeout", "error"):
        raise _NotCached(*judgement)
    return judgement


def _tolerance(extra_info: dict[str, Any] | None) -> float | None:
    value = extra_info.get("tolerance") if isinstance(extra_info, dict) else None
    if value is None or value != value:  # NaN is a null that went through pandas
        return None
    if not isinstance(value, numbers.Real) or not 0 <= float(value) < math.inf:
        raise ValueError(f"extra_info.tolerance={value!r} must be a number of 0 or more: prepare the data again.")
    return float(value)


@functools.lru_cache(maxsize=64)
def _checked_limits(
    weights: tuple[float, float], template: str, cpu_seconds: float, clock_seconds: float, others: frozenset[str]
) -> Limits:
    """The limits, once all settings are checked; TypeError or ValueError for a wrong one."""
    if unknown := sorted(others - _FROM_VERL):
        known = "accuracy_weight, format_weight, template, cpu_seconds or clock_seconds"
        raise TypeError(f"reward_kwargs.{unknown[0]} is unknown: use {known}.")
    for name, value in zip(("accuracy_weight", "format_weight"), weights, strict=True):
        if not math.isfinite(value):
            raise ValueError(f"reward_kwargs.{name}={value} must be a finite number.")
    for name, value in (("cpu_seconds", cpu_seconds), ("clock_seconds", clock_seconds)):
        if not 0 < value < math.inf:
            raise ValueError(f"reward_kwargs.{name}={value} must be above 0.")
    if template not in TEMPLATES:
        raise ValueError(f"reward_kwargs.template={template} is unknown: use {' or '.join(TEMPLATES)}.")
    return Limits(cpu_seconds, clock_seconds)
