"""A strategy of the user's own: ``algorithm.repo.strategy=package.module:function``.

The function has the signature of :mod:`repo_verl.replay.strategies`, ``(scores, ages, k, rng) -> indices``, with at
least one row, k at most their number, and read-only arrays; one with a parameter ``fresh_scores`` gets, by that name,
the scores of the prompt's responses of this step too, (G_on,) float64, or None outside of training. It returns up to k
different integers in any order (an array, a list or a tuple), or nothing: the prompt then replays no row in this step.
docs/howto/own_strategy.md has the whole contract.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from repo_verl.config import PREFIX, RepoConfigError, names_function
from repo_verl.replay.strategies import select
from repo_verl.safe_text import printable

Picker = Callable[[str, np.ndarray, np.ndarray, int, np.random.Generator, np.ndarray | None], np.ndarray]
"""(prompt key, scores, ages, k, rng, fresh scores or None) -> sorted indices."""

SIGNATURE, FRESH = "(scores, ages, k, rng)", "fresh_scores"
MOST_REASON = 200


class StrategyError(RuntimeError):
    """A user's function failed or returned no indices; one sentence naming it and the prompt."""


def picker(strategy: str) -> Picker:
    """What picks the rows of a prompt by a valid strategy; a user's function is imported now."""
    if names_function(strategy):
        return partial(pick, load_function(strategy), strategy)
    return lambda key, scores, ages, k, rng, fresh_scores: select(strategy, scores, ages, k, rng)


def load_function(strategy: str) -> Callable[..., Any]:
    """Import ``package.module:function``.

    Raises:
        RepoConfigError: if the module can't be imported, or has no such function that takes four values.
    """
    name, function = strategy.split(":")
    try:
        module = importlib.import_module(name)
        found = getattr(module, function, None)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        reason = printable(f"{type(error).__name__}: {error}", MOST_REASON)
        raise RepoConfigError(
            f"{_setting(strategy)} can't be imported in {os.getcwd()} ({reason}): {_remedy(name, error)}."
        ) from error
    if found is None:
        near = difflib.get_close_matches(function, [key for key, value in vars(module).items() if callable(value)], n=1)
        hint = f"did you mean {near[0]}?" if near else f"define {function}{SIGNATURE} there."
        place = printable(str(getattr(module, "__file__", None) or name), MOST_REASON)
        raise RepoConfigError(f"{_setting(strategy)} names what {place} does not have: {hint}")
    if not callable(found):
        raise RepoConfigError(f"{_setting(strategy)} is of type {type(found).__name__}: name a function {SIGNATURE}.")
    signature = _signature(found)
    try:
        if signature is not None:
            signature.bind(None, None, None, None, **dict.fromkeys({FRESH} & set(signature.parameters)))
    except TypeError as error:
        raise RepoConfigError(
            f"{_setting(strategy)} takes {printable(str(signature), MOST_REASON)}: it is called with four positional "
            f"values, and with {FRESH} by name if it has that parameter, so give it the parameters {SIGNATURE}."
        ) from error
    return found


def _setting(strategy: str) -> str:
    return f"{PREFIX}strategy={printable(strategy, MOST_REASON)}"


def _remedy(module: str, error: BaseException) -> str:
    """What to do about a module that can't be imported."""
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return (
            "install it, or put its folder on PYTHONPATH; in a Ray cluster that was started before, with "
            "+ray_kwargs.ray_init.runtime_env.env_vars.PYTHONPATH=FOLDER, a folder that every node has"
        )
    return f"fix what `python -c 'import {printable(module, MOST_REASON)}'` shows"


def _signature(function: Any) -> inspect.Signature | None:
    """What a function takes; None for compiled functions that don't say."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def pick(
    function: Callable[..., Any],
    name: str,
    key: str,
    scores: np.ndarray,
    ages: np.ndarray,
    k: int,
    rng: np.random.Generator,
    fresh_scores: np.ndarray | None = None,
) -> np.ndarray:
    """Ask a user's function, which gets copies, for the rows of one prompt to replay: (up to k,) intp, sorted.

    ``name`` and the prompt's ``key`` are for messages.

    Raises:
        StrategyError: if the function raises, or returns something else than up to k different indices.
    """
    most = min(k, len(scores))
    fresh = None if fresh_scores is None else _frozen(fresh_scores, np.float64)
    signature = _signature(function)
    named = {FRESH: fresh} if signature is not None and FRESH in signature.parameters else {}
    try:
        result = function(_frozen(scores, np.float64), _frozen(ages, np.int64), most, rng, **named)
    except Exception as error:  # whatever the user's function raises
        reason = printable(f"{type(error).__name__}: {error}", MOST_REASON)
        raise StrategyError(
            f"{_setting(name)} failed for prompt {key}, of which {len(scores)} rows may be replayed ({reason}): fix "
            f"the function."
        ) from error
    indices, wrong = _checked(result, len(scores), most)
    if wrong:
        raise StrategyError(
            f"{_setting(name)} returned {wrong} for prompt {key}: have it return up to k={most} different integers "
            f"from 0 to {len(scores) - 1}, or nothing."
        )
    return indices


def _frozen(values: np.ndarray, dtype: type) -> np.ndarray:
    copy: np.ndarray = np.array(values, dtype=dtype)
    copy.flags.writeable = False
    return copy


def _checked(result: Any, rows: int, most: int) -> tuple[np.ndarray, str]:
    """Sorted indices, and what is wrong with them; empty for nothing."""
    nothing = np.empty(0, dtype=np.intp)
    if result is None:
        return nothing, ""
    if not isinstance(result, np.ndarray | list | tuple):
        return nothing, f"a value of type {type(result).__name__}"
    try:
        indices = np.asarray(result)
    except ValueError:
        return nothing, f"a {type(result).__name__} of uneven parts"
    if indices.shape == (0,):
        return nothing, ""
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        mask = " (np.flatnonzero turns a mask into indices)" if indices.dtype.kind == "b" else ""
        return nothing, f"{indices.dtype} of shape {indices.shape}{mask}"
    if len(indices) > most:
        return nothing, f"{len(indices)} indices"
    outside = indices[(indices < 0) | (indices >= rows)]
    if len(outside):
        return nothing, f"the index {outside[0]}"
    indices = np.sort(indices).astype(np.intp)
    twice = indices[1:][indices[1:] == indices[:-1]]
    return indices, f"the index {twice[0]} twice" if len(twice) else ""
